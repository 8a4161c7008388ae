"""The port of a socket server: accepts connections, and closes them all when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from actors.runtime.config.local_addresses import in_url, reachable_host
from actors.runtime.config.sections import SocketSettings
from actors.runtime.config.tls import ServerTls
from actors.sessions.limits.address_limits import AddressSlot
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.handshake.request_checks import HandshakeChecks
from actors.socket_server.handshake.request_head import HandshakeProtocol
from protocol.close_codes import CloseCode
from protocol.messages.facts import LossReason
from protocol.messages.frames import CONNECT_PATH, MAX_FRAME_BYTES, SUBPROTOCOL


class Listener:
    """Listens for clients. `handle` is awaited for each WebSocket; when it returns, the WebSocket is closed.

    listener = Listener(settings.socket, checks, tls, clients.handle)
    await listener.open()  # `listener.url` is the address for clients
    await listener.close(8.0)
    """

    def __init__(
        self,
        settings: SocketSettings,
        checks: HandshakeChecks,
        tls: ServerTls | None,
        handle: Callable[[ServerConnection], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._checks = checks
        self._tls = tls
        self._handle = handle
        self._turns = ReadingTurns()
        self._server: Server | None = None
        self.port = 0
        self.url = ""

    @property
    def is_open(self) -> bool:
        """Whether the port was opened."""
        return self._server is not None

    async def open(self) -> None:
        """Open the port. Raises `OSError`."""
        settings = self._settings
        self._server = await serve(
            self._handle,
            settings.host,
            settings.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            open_timeout=10,
            close_timeout=3,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            server_header=None,
            create_connection=cast(Any, self._begin),
            backlog=4096,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "wss" if self._tls is not None else "ws"
        host = in_url(reachable_host(settings.host))
        self.url = settings.public_url or f"{scheme}://{host}:{self.port}{CONNECT_PATH}"

    def connections(self) -> list[WebSocketConnection]:
        """Return all WebSockets, with or without a session."""
        connections = self._server.all_connections if self._server is not None else ()
        return [connection for connection in connections if isinstance(connection, WebSocketConnection)]

    async def close(self, seconds: float) -> None:
        """Stop accepting, close all WebSockets with 1012, and wait until they have ended, for `seconds` at most."""
        if self._server is None:
            return
        for connection in self.connections():
            connection.set_end_reason(LossReason.SERVER_STOPPED.value)
        self._checks.close()
        self._server.close(code=CloseCode.SERVICE_RESTART, reason="SERVICE_RESTART")
        try:
            async with asyncio.timeout(seconds):
                await self._server.wait_closed()
        except TimeoutError:
            for connection in self.connections():
                connection.transport.abort()

    def _begin(self, protocol: ServerProtocol, server: Server, **options: Any) -> HandshakeProtocol:
        """Begin a connection with its handshake; see `create_connection` of `websockets.asyncio.server.serve`."""
        # Given to `serve`, it would be a closure for each connection that refers back to it.
        vars(protocol)["select_subprotocol"] = _select_subprotocol
        accept = partial(self._accept, server, options)
        return HandshakeProtocol(self._checks, protocol, accept, self._tls.context if self._tls is not None else None)

    def _accept(
        self,
        server: Server,
        options: dict[str, Any],
        protocol: ServerProtocol,
        transport: asyncio.Transport,
        slot: AddressSlot,
        request: Request,
    ) -> None:
        """Make the WebSocket of a client that is let in."""
        connection = WebSocketConnection(protocol, server, turns=self._turns, slot=slot, **options)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.process_event(request)


def _select_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
