"""One WebSocket on the server's side: life, loss and its reason, sending without waiting, and the door."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode as WireCode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Event

from actors.socket_metrics import BREAKS, REFUSALS, count_close
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.facts import LossReason
from protocol.frames import CONNECT_PATH, Migrate, encode_text
from protocol.wire import Message

_PROTOCOL_ERRORS = frozenset(
    {WireCode.PROTOCOL_ERROR, WireCode.UNSUPPORTED_DATA, WireCode.INVALID_DATA, WireCode.MESSAGE_TOO_BIG}
)


class Connection(ServerConnection):
    """A `ServerConnection` that knows when it was last heard from and tells its session at once when it ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last_heard = self.loop.time()
        self.reported_at = self.last_heard
        self.pinged = False
        self.end_reason: str | None = None
        self.session: Any = None

    def process_event(self, event: Event) -> None:
        self.last_heard = self.loop.time()  # any inbound frame counts as life, and only inbound
        self.pinged = False
        super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.opened:
            count_close(self.first_close_code())
        if self.session is not None:
            self.session.ended(self.reason())

    def reason(self) -> str:
        """Why this connection ended, as a `LossReason`."""
        if self.end_reason is not None:
            return self.end_reason
        if self.protocol.close_sent is not None and self.protocol.close_sent.code in _PROTOCOL_ERRORS:
            return LossReason.PROTOCOL_ERROR.value
        return LossReason.SOCKET_CLOSED.value

    @property
    def opened(self) -> bool:
        """Whether it ever was a WebSocket."""
        return self.response is not None and self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS

    def first_close_code(self) -> int:
        """The close code of whoever closed first; 1006 when it broke."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        first = received if self.protocol.close_rcvd_then_sent or sent is None else sent
        return int(first.code) if first is not None else int(WireCode.ABNORMAL_CLOSURE)

    @property
    def is_open(self) -> bool:
        return self.protocol.state is OPEN

    def send_now(self, text: str) -> None:
        """Write a frame without waiting for the client; a client that does not read is ended by its server."""
        if self.protocol.state is OPEN:
            self.protocol.send_text(text.encode())
            self.send_data()

    def tell(self, message: Message) -> None:
        """`send_now` of a message."""
        self.send_now(encode_text(message))

    def ping_now(self) -> None:
        """Ask for a sign of life."""
        if self.protocol.state is OPEN:
            self.pinged = True
            self.protocol.send_ping(b"")
            self.send_data()

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def break_off(self, reason: str) -> None:
        """End it now: there is nobody to shake hands with."""
        BREAKS.labels(reason).inc()
        self.end_reason = reason
        self.transport.abort()

    async def end(self, code: CloseCode, reason: str | None = None) -> None:
        """Close with a code; `reason` is what the loss is reported as."""
        rule = CLOSE_RULES[code]
        self.end_reason = self.end_reason or reason or rule.name
        await self.close(code, rule.name)

    async def send_away(self, frame: Migrate) -> None:
        """Tell the client where to go, and close."""
        self.tell(frame)
        await self.end(CloseCode.MIGRATE, LossReason.SERVER_DRAINING.value)


class Doorkeeper:
    """What is decided before a WebSocket exists: path, origin, whether there is room, and how fast they come.

    Without `origins`, pages of the server's own host may connect, whatever port or scheme they have; `own_names` are
    different spellings of that host.
    """

    def __init__(
        self,
        origins: list[str],
        accept_per_second: float,
        max_connections: int,
        own_names: frozenset[str] = frozenset(),
    ) -> None:
        self._origins = origins
        self._own_names = own_names
        self._rate = accept_per_second
        self._room = max(1.0, accept_per_second)  # less than one a second still lets one in
        self._max = max_connections
        self._tokens = self._room
        self._filled = asyncio.get_running_loop().time()
        self.refused = 0

    def refuse(
        self, connection: ServerConnection, request: Request, *, open_now: int, closed: str | None
    ) -> Response | None:
        """A response when the client is not let in. `closed`: why nobody is let in now."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if path != CONNECT_PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"connect to {CONNECT_PATH}\n")
        origin = request.headers.get("Origin")
        if origin is not None and not self._allowed(origin, request.headers.get("Host", "")):
            return connection.respond(HTTPStatus.FORBIDDEN, "this Origin may not connect; see socket.origins\n")
        if closed is not None:
            return self._later(connection, closed, 2, "closed")
        if open_now >= self._max:
            return self._later(connection, "this server is full", 5, "full")
        if not self._take():
            return self._later(connection, "too many connect at once", 1, "too_fast")
        return None

    def _later(self, connection: ServerConnection, why: str, seconds: int, reason: str) -> Response:
        self.refused += 1
        REFUSALS.labels(reason).inc()
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, why + "\n")
        response.headers["Retry-After"] = str(seconds)
        return response

    def _take(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._room, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _allowed(self, origin: str, host: str) -> bool:
        if self._origins:
            return "*" in self._origins or origin in self._origins
        try:
            own, page = urlsplit(f"//{host}").hostname, urlsplit(origin).hostname
        except ValueError:  # brackets that hold no address
            return False
        return own is not None and (page == own or {own, page} <= self._own_names)
