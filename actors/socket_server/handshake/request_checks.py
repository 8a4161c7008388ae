"""The checks of a handshake's HTTP request: path, origin, room, and how often its address connects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

from websockets.frames import Close, Frame, Opcode

from actors.runtime.config.tokens import TokenVerifier, bearer
from actors.runtime.http.client_addresses import client_address, is_trusted, networks_of
from actors.runtime.http.rate_limit import RateLimit
from actors.runtime.http.single_headers import SINGLE
from actors.runtime.telemetry.logs import LogSummary
from actors.sessions.context import ServerContext
from actors.sessions.frames.request import HandshakeRequest
from actors.sessions.limits.address_limits import AddressLimits, AddressSlot, Limits, Transport
from actors.socket_server.drain import ServerDrain
from actors.socket_server.handshake.opening import answer_request
from actors.socket_server.handshake.origins import AllowedOrigins
from actors.socket_server.handshake.request_head import HandshakeProtocol
from actors.socket_server.metrics import REFUSALS
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.errors import InvalidToken
from protocol.messages.frames import CONNECT_PATH, TOKEN_SUBPROTOCOL

log = logging.getLogger("examwire.handshake")

TURN_SECONDS = 0.003
"""Handshakes are answered for so long before connected clients get their turn."""

IDENTITY_TIMES, IDENTITY_SECONDS = 10, 10.0
"""So many times within so many seconds the owner of a token goes before strangers."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The whole answer to a client that is not let in. `half_close`: the client gets time to read a close frame."""

    content: bytes
    half_close: bool = False


class HandshakeChecks:
    """Decides which handshakes are let in, and answers the others.

    checks = HandshakeChecks(context, tokens, drain, summary)
    slot = checks.arrive("192.0.2.1", transport)  # a connection; `None`: drop it
    refusal = checks.refuse(slot, request)  # its request; `None`: it is let in

    `summary` counts the refusals in the log.
    """

    def __init__(self, context: ServerContext, tokens: TokenVerifier, drain: ServerDrain, summary: LogSummary) -> None:
        socket = context.settings.socket
        self._bus = context.bus
        self._origins = AllowedOrigins.of(context.settings)
        self._trusted_proxies = networks_of(socket.trusted_proxies)
        self._tokens = tokens
        self._drain = drain
        self._summary = summary
        self._identities = RateLimit(IDENTITY_TIMES, IDENTITY_SECONDS)
        self._limits = AddressLimits(Limits.of(socket))
        self._queue: deque[HandshakeProtocol] = deque()
        self.refused = 0
        """Handshakes that were answered with 503."""

    # -- connections ---------------------------------------------------------------------------------

    def arrive(self, address: str, transport: Transport) -> AddressSlot | None:
        """See `AddressLimits.arrive`."""
        if ":" in address:
            address = client_address(address, (), ())  # a listener for both shows IPv4 addresses as IPv6 ones
        return self._limits.arrive(address, transport, proxy=is_trusted(address, self._trusted_proxies))

    def enqueue(self, handshake: HandshakeProtocol) -> None:
        """Queue a request for its answer. A few are answered at a time, so that connected clients get their turn."""
        self._queue.append(handshake)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        until = time.perf_counter() + TURN_SECONDS
        while self._queue:
            try:
                self._queue[0].answer()
            except Exception:
                log.exception("a request could not be answered")
                self._queue[0].drop()
            self._queue.popleft()
            if self._queue and time.perf_counter() > until:
                asyncio.get_running_loop().call_soon(self._work)
                return

    def close(self) -> None:
        """Drop the connections whose request is not complete: the server stops."""
        self._limits.close()

    # -- requests ------------------------------------------------------------------------------------

    def refuse(self, slot: AddressSlot, request: HandshakeRequest) -> Refusal | None:
        """Return the answer to a client that is not let in; `None`: it is let in."""
        headers = request.headers
        for name in SINGLE.intersection(headers.repeated()):
            return Refusal(self.bad_request(slot, HTTPStatus.BAD_REQUEST, f"more than one {name}\n"))
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return Refusal(_answer(HTTPStatus.OK, "ok\n"))
        if path != CONNECT_PATH:
            return self._refusal(HTTPStatus.NOT_FOUND, f"connect to {CONNECT_PATH}\n")
        origin = headers.get("Origin")
        if origin is not None and not self._origins.allow(origin, headers.get("Host") or ""):
            return self._refusal(HTTPStatus.FORBIDDEN, "this Origin may not connect; see socket.origins\n")
        if (forwarded := headers.get_all("X-Forwarded-For")) and is_trusted(slot.ip, self._trusted_proxies):
            self._limits.belongs_to(slot, client_address(slot.ip, forwarded, self._trusted_proxies))
        if (detail := self._closed()) is not None:
            return self._try_later(slot, request, detail, 2, "closed")
        reason = self._limits.refuse(slot, known=False)
        if reason is not None and self._is_known(slot, request):
            reason = self._limits.refuse(slot, known=True)
        if reason is None:
            return None
        return self._try_later(slot, request, *_TRY_LATER[reason], reason)

    def bad_request(self, slot: AddressSlot, status: HTTPStatus, text: str) -> bytes:
        """Count a request that is not valid, and return the answer to it."""
        slot.hit("bad_request")
        return self._refusal(status, text).content

    def _closed(self) -> str | None:
        """Return why nobody is let in now; `None`: clients are let in."""
        if not self._bus.connected:
            return "this server is cut off from NATS"
        if self._drain.active:
            return "this server is drained; connect to another one"
        return None

    def _is_known(self, slot: AddressSlot, request: HandshakeRequest) -> bool:
        """Return whether the request shows a valid token, whose owner does not connect all the time."""
        token = shown_token(request)
        if token is None or not self._limits.may_check(slot):
            return False
        try:
            claims = self._tokens.verify(token)
        except InvalidToken:
            return False
        identity = f"{claims.plan}/{claims.sub}"
        if self._identities.wait(identity):
            return False
        self._identities.count(identity)
        slot.shown = (token, claims)
        return True

    def _try_later(
        self, slot: AddressSlot, request: HandshakeRequest, detail: str, seconds: int, reason: str
    ) -> Refusal:
        self.refused += 1
        REFUSALS.labels(reason).inc()
        # A browser does not show its page the status of a refused handshake, so it is accepted and closed with a code.
        if request.headers.get("Origin") is not None and self._limits.may_check(slot):
            answer = answer_request(request)
            if answer.accepted:
                self._summary.count("refused", str(int(CloseCode.TRY_AGAIN_LATER)))
                return Refusal(answer.content + _TRY_AGAIN_LATER, half_close=True)
        self._summary.count("refused", str(int(HTTPStatus.SERVICE_UNAVAILABLE)))
        return Refusal(_answer(HTTPStatus.SERVICE_UNAVAILABLE, detail + "\n", seconds))

    def _refusal(self, status: HTTPStatus, text: str) -> Refusal:
        self._summary.count("refused", str(int(status)))
        return Refusal(_answer(status, text))


_TRY_LATER = {
    "full": ("this server is full", 5),
    "address_full": ("too many connections from this address", 5),
    "too_fast": ("too many connect at once", 1),
    "address_too_fast": ("too many connect at once from this address", 1),
}
_TRY_AGAIN_LATER = Frame(
    Opcode.CLOSE, Close(CloseCode.TRY_AGAIN_LATER, CLOSE_RULES[CloseCode.TRY_AGAIN_LATER].name).serialize()
).serialize(mask=False)


def shown_token(request: HandshakeRequest) -> str | None:
    """Return the token that a request shows: `Authorization: Bearer`, or the second subprotocol of a browser."""
    if (token := bearer(request.headers.get("Authorization"))) is not None:
        return token
    for line in request.headers.get_all("Sec-WebSocket-Protocol"):
        for offered in line.split(","):
            name, prefix, token = offered.strip().partition(TOKEN_SUBPROTOCOL)
            if prefix and not name and token:
                return token
    return None


@cache
def _answer(status: HTTPStatus, text: str, retry_after: int | None = None) -> bytes:
    later = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Length: {len(text.encode())}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n{later}\r\n{text}"
    ).encode()
