"""The ports that the roles of an `examwire up` had, for the next one on the same data directory.

Pages that are open, links that were handed out and phones know these addresses; without them a restart in the middle of
an exam would leave everybody outside, however well the rest of it goes on.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("examwire.up")


class SavedPorts:
    """`path`: a JSON file, name of the role to port; what cannot be read counts as nothing kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports = _read(path)

    def of(self, name: str, host: str) -> int:
        """The port that a role had, if it can be had again on `host`; else 0, and a warning says what that means."""
        port = self._ports.get(name, 0)
        if port and not _is_free(host, port):
            log.warning("port %d, which %s had, is taken: pages open there do not find it again", port, name)
            return 0
        return port

    def keep(self, ports: Mapping[str, int]) -> None:
        """Write down the ports of roles that listen now."""
        aside = self._path.with_name(f".{self._path.name}")
        aside.write_text(json.dumps(dict(ports)))
        aside.replace(self._path)


def _read(path: Path) -> dict[str, int]:
    try:
        read = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(read, dict):
        return {}
    return {name: port for name, port in read.items() if isinstance(port, int) and 0 < port <= 65535}


def _is_free(host: str, port: int) -> bool:
    """Whether a server can listen there: connections that are still being closed do not hinder it, as with asyncio."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError:
                return False
    return True
