"""The port of a socket server: accepts connections, and closes them all when the server stops."""

from __future__ import annotations

import asyncio
from typing import Protocol

from actors.runtime.config.local_addresses import in_url, reachable_host
from actors.runtime.config.sections import SocketSettings
from actors.runtime.config.tls import ServerTls
from actors.sessions.frames.request import HandshakeRequest
from actors.sessions.limits.address_limits import AddressSlot
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.request_checks import HandshakeChecks
from actors.socket_server.handshake.request_head import HandshakeProtocol
from protocol.close_codes import CloseCode
from protocol.messages.facts import LossReason
from protocol.messages.frames import CONNECT_PATH

BACKLOG = 4096


class Clients(Protocol):
    """Serves the WebSockets of a listener: see `ClientHandler`."""

    def accept(self, connection: WebSocketConnection) -> None:
        """Begin to serve a client."""

    def ended(self, connection: WebSocketConnection) -> None:
        """A connection has ended."""

    async def wait_gone(self) -> None:
        """Wait until nothing is left of any client."""


class Listener:
    """Listens for clients, and gives each WebSocket to `clients`.

    listener = Listener(settings.socket, checks, tls, clients)
    await listener.open()  # `listener.url` is the address for clients
    await listener.close(8.0)
    """

    def __init__(
        self, settings: SocketSettings, checks: HandshakeChecks, tls: ServerTls | None, clients: Clients
    ) -> None:
        self._settings = settings
        self._checks = checks
        self._tls = tls
        self._clients = clients
        self.turns = ReadingTurns()
        self._server: asyncio.Server | None = None
        self._connections: set[WebSocketConnection] = set()
        self.port = 0
        self.url = ""

    @property
    def is_open(self) -> bool:
        """Whether the port was opened."""
        return self._server is not None

    async def open(self) -> None:
        """Open the port. Raises `OSError`."""
        settings = self._settings
        self._server = await asyncio.get_running_loop().create_server(
            self._begin, settings.host, settings.port, backlog=BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "wss" if self._tls is not None else "ws"
        host = in_url(reachable_host(settings.host))
        self.url = settings.public_url or f"{scheme}://{host}:{self.port}{CONNECT_PATH}"

    def connections(self) -> list[WebSocketConnection]:
        """Return all WebSockets, with or without a session."""
        return list(self._connections)

    async def close(self, seconds: float) -> None:
        """Stop accepting, close all WebSockets with 1012, and wait until they have ended, for `seconds` at most."""
        if self._server is None:
            return
        self._server.close()
        self._checks.close()
        for connection in self.connections():
            connection.close(CloseCode.SERVICE_RESTART, LossReason.SERVER_STOPPED.value)
        try:
            async with asyncio.timeout(seconds):
                await self._clients.wait_gone()
        except TimeoutError:
            for connection in self.connections():
                connection.transport.abort()

    def ended(self, connection: WebSocketConnection) -> None:
        """See `actors.sessions.websocket.Owner`."""
        self._connections.discard(connection)
        self._clients.ended(connection)

    def _begin(self) -> HandshakeProtocol:
        return HandshakeProtocol(self._checks, self._accept, self._tls.context if self._tls is not None else None)

    def _accept(self, transport: asyncio.Transport, slot: AddressSlot, request: HandshakeRequest) -> None:
        """Make the WebSocket of a client that is let in."""
        connection = WebSocketConnection(transport, slot, request, self)
        transport.set_protocol(connection)
        self._connections.add(connection)
        self._clients.accept(connection)
