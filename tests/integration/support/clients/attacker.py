"""Somebody without a token who sends what the machine can, as a process of its own.

`python -m tests.integration.support.clients.attacker HOST PORT KIND CONNECTIONS SECONDS [SOURCE]` prints how often it
connected and how
many bytes it got rid of, as JSON. `KIND` is one of `ATTACKS`.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

HANDSHAKE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MASK = b"\x00\x00\x00\x00"

ATTACKS = {
    # What is sent once, and what is sent again and again.
    "pings": (HANDSHAKE, b"\x89\x80" + _MASK),
    "pongs": (HANDSHAKE, b"\x8a\x80" + _MASK),
    "fragments": (HANDSHAKE + b"\x01\x80" + _MASK, b"\x00\x80" + _MASK),
    "texts": (HANDSHAKE, b"\x81\x80" + _MASK),
    "large": (HANDSHAKE, b"\x81\xfe\xff\xff" + _MASK + b"x" * 65535),
    "headers": (b"GET /v1/connect HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X-Padding: " + b"x" * 60 + b"\r\n"),
    "no_request": (b"", b"x" * 64),
    "handshakes": (HANDSHAKE, b""),
    "connects": (b"", b""),
}
"""By name. Those that send nothing again and again connect anew as soon as they were answered, or at once."""


class Attack:
    """`connections` at a time, kept up for `seconds`."""

    def __init__(self, host: str, port: int, kind: str, connections: int, source: str = "") -> None:
        self._address = (host, port)
        self._source = source
        self._first, unit = ATTACKS[kind]
        self._again = unit * max(1, 256 * 1024 // len(unit)) if unit else b""
        self._waits = kind == "handshakes"
        self._connections = connections
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, memoryview] = {}
        self.connected = 0
        self.sent = 0

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while len(self._open) < self._connections:
                if not self._connect():
                    time.sleep(0.001)
                    break
            for key, events in self._selector.select(0.05):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    self._serve(connection, events)
                except BlockingIOError:
                    continue
                except OSError:
                    self._drop(connection)
        for client in list(self._open):
            self._drop(client)

    def _connect(self) -> bool:
        connection = socket.socket()
        connection.setblocking(False)
        with suppress(BlockingIOError):
            try:
                if self._source:
                    connection.bind((self._source, 0))
                connection.connect(self._address)
            except BlockingIOError:
                raise
            except OSError:
                connection.close()
                return False
        self._open[connection] = memoryview(self._first)
        self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        self.connected += 1
        return True

    def _serve(self, connection: socket.socket, events: int) -> None:
        if events & selectors.EVENT_READ and (not connection.recv(65536) or not self._again):
            self._drop(connection)
            return
        if events & selectors.EVENT_WRITE:
            unsent = self._open[connection]
            if not unsent and self._again:
                unsent = memoryview(self._again)
            if unsent:
                count = connection.send(unsent)
                self.sent += count
                self._open[connection] = unsent[count:]
            elif self._waits:
                self._selector.modify(connection, selectors.EVENT_READ)
            else:
                self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if self._open.pop(connection, None) is not None:
            self._selector.unregister(connection)
        connection.close()


async def start_attack(url: str, kind: str, *, connections: int = 1, seconds: float = 5.0, source: str = "") -> Process:
    """Attack the socket server at `url`. Its stdout tells what it did once it has ended."""
    host, _, port = url.split("/")[2].rpartition(":")
    arguments = (host, port, kind, str(connections), str(seconds), source)
    return await create_subprocess_exec(
        sys.executable, "-m", "tests.integration.support.clients.attacker", *arguments, stdout=PIPE
    )


if __name__ == "__main__":
    host, port, kind, connections, seconds, source = sys.argv[1:7]
    attack = Attack(host, int(port), kind, int(connections), source)
    attack.run(float(seconds))
    print(json.dumps({"connected": attack.connected, "sent": attack.sent}))
