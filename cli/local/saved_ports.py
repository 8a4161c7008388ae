"""Keep the ports of an `examwire up` for the next one on the same data directory.

Open pages, shared links and phones use these ports: with other ports after a restart, they could not reconnect.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("examwire.up")


class SavedPorts:
    """Ports by role name, in the JSON file `path`. A missing or invalid file holds no ports.

    Example::

        ports = SavedPorts(data_dir / "ports.json")
        port = ports.get("SOCK001", "127.0.0.1")
        ports.save({"SOCK001": 8001})
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports = _read(path)

    def get(self, name: str, host: str) -> int:
        """Return the saved port of a role if it is free on `host`; else 0 and, if it is taken, log a warning."""
        port = self._ports.get(name, 0)
        if port and not _is_free(host, port):
            log.warning("port %d of %s is taken now: open pages that use it cannot reconnect", port, name)
            return 0
        return port

    def save(self, ports: Mapping[str, int]) -> None:
        """Write the ports of the running roles to the file."""
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps(dict(ports)), "utf-8")
        temporary.replace(self._path)


def _read(path: Path) -> dict[str, int]:
    try:
        ports = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(ports, dict):
        return {}
    return {name: port for name, port in ports.items() if isinstance(port, int) and 0 < port <= 65535}


def _is_free(host: str, port: int) -> bool:
    """Return whether a server can listen on the port. Like asyncio, it may reuse a port with closing connections."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError:
                return False
    return True
