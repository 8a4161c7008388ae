"""The door of a socket server: what is decided before a WebSocket exists."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request

from actors.runtime.config.local_addresses import is_wildcard
from actors.runtime.config.settings import Settings, is_loopback
from actors.runtime.config.tokens import TokenVerifier, bearer
from actors.runtime.http.client_addresses import Network, client_address, is_trusted
from actors.runtime.http.rate_limit import RateLimit
from actors.runtime.http.single_headers import repeated
from actors.sessions.limits.address_limits import AddressLimits, AddressSlot, Limits, Transport
from actors.socket_server.handshake.request_head import HandshakeProtocol
from actors.socket_server.metrics import REFUSALS
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.errors import InvalidToken
from protocol.messages.frames import CONNECT_PATH, TOKEN_SUBPROTOCOL

log = logging.getLogger("examwire.doorkeeper")

TURN_SECONDS = 0.003
"""So long handshakes are answered before it is the turn of those who are connected."""

IDENTITY_TIMES, IDENTITY_SECONDS = 10, 10.0
"""So often within so many seconds one token's owner goes before strangers."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is answered that is not let in, whole. `half_close`: it gets time to read a close frame."""

    content: bytes
    half_close: bool = False


class HandshakeChecks:
    """Looks at the path, the origin, whether there is room, and how fast they come.

    Own pages may always connect, beside those of `origins`: the pages of the server's own host, whatever port or scheme
    they have, and those of `page_hosts`. `own_names` are different spellings of the own host. `closed`: why nobody is
    let in now. `count` is told each refusal.
    """

    def __init__(
        self,
        origins: list[str],
        limits: Limits,
        own_names: frozenset[str] = frozenset(),
        *,
        page_hosts: frozenset[str] = frozenset(),
        tokens: TokenVerifier | None = None,
        trusted_proxies: Sequence[Network] = (),
        closed: Callable[[], str | None] = lambda: None,
        count: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._origins = origins
        self._own_names = own_names
        self._page_hosts = page_hosts
        self._tokens = tokens
        self._trusted = trusted_proxies
        self._closed = closed
        self._count = count
        self._identities = RateLimit(IDENTITY_TIMES, IDENTITY_SECONDS)
        self._limits = AddressLimits(limits)
        self._queue: deque[HandshakeProtocol] = deque()
        self.refused = 0

    # -- connections come and go ---------------------------------------------------------------------

    def arrive(self, address: str, transport: Transport) -> AddressSlot | None:
        """See `AddressLimits.arrive`."""
        if ":" in address:
            address = client_address(address, (), ())  # a listener for both kinds shows IPv4 addresses in IPv6 ones
        return self._limits.arrive(address, transport, proxy=is_trusted(address, self._trusted))

    def enqueue(self, handshake: HandshakeProtocol) -> None:
        """Have a request answered. A few at a time: nobody who is here waits for all that come at once."""
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
        """The server stops: nobody's request is waited for."""
        self._limits.close()

    # -- what they ask -------------------------------------------------------------------------------

    def refuse(self, handshake: HandshakeProtocol, request: Request) -> Refusal | None:
        """The answer when the client is not let in."""
        place = handshake.place
        assert place is not None
        headers = request.headers
        if (name := repeated(name for name, _ in headers.raw_items())) is not None:
            return Refusal(self.bad_request(place, HTTPStatus.BAD_REQUEST, f"more than one {name}\n"))
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return Refusal(_answer(HTTPStatus.OK, "ok\n"))
        if path != CONNECT_PATH:
            return self._refusal(HTTPStatus.NOT_FOUND, f"connect to {CONNECT_PATH}\n")
        origin = headers.get("Origin")
        if origin is not None and not self._allowed(origin, headers.get("Host", "")):
            return self._refusal(HTTPStatus.FORBIDDEN, "this Origin may not connect; see socket.origins\n")
        if (forwarded := headers.get_all("X-Forwarded-For")) and is_trusted(place.ip, self._trusted):
            self._limits.belongs_to(place, client_address(place.ip, forwarded, self._trusted))
        if (why := self._closed()) is not None:
            return self._later(handshake, request, why, 2, "closed")
        reason = self._limits.refuse(place, known=False)
        if reason is not None and self._is_known(place, request):
            reason = self._limits.refuse(place, known=True)
        if reason is None:
            return None
        return self._later(handshake, request, *_LATER[reason], reason)

    def bad_request(self, place: AddressSlot, status: HTTPStatus, text: str) -> bytes:
        """The answer to a request that is none."""
        place.hit("bad_request")
        return self._refusal(status, text).content

    def _is_known(self, place: AddressSlot, request: Request) -> bool:
        """Whether it shows a valid token, of somebody who does not come all the time."""
        token = shown_token(request)
        if token is None or self._tokens is None or not self._limits.may_check(place):
            return False
        try:
            claims = self._tokens.verify(token)
        except InvalidToken:
            return False
        identity = f"{claims.plan}/{claims.sub}"
        if self._identities.wait(identity):
            return False
        self._identities.count(identity)
        place.shown = (token, claims)
        return True

    def _later(self, handshake: HandshakeProtocol, request: Request, why: str, seconds: int, reason: str) -> Refusal:
        self.refused += 1
        REFUSALS.labels(reason).inc()
        assert handshake.place is not None
        # A browser is not shown the status of a handshake that is refused: it would take it for a failed attempt.
        if "Origin" in request.headers and self._limits.may_check(handshake.place):
            accepted = handshake.protocol.accept(request)
            if accepted.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                self._count(str(int(CloseCode.TRY_AGAIN_LATER)))
                return Refusal(accepted.serialize() + _TRY_AGAIN_LATER, half_close=True)
        self._count(str(int(HTTPStatus.SERVICE_UNAVAILABLE)))
        return Refusal(_answer(HTTPStatus.SERVICE_UNAVAILABLE, why + "\n", seconds))

    def _refusal(self, status: HTTPStatus, text: str) -> Refusal:
        self._count(str(int(status)))
        return Refusal(_answer(status, text))

    def _allowed(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            own, page = urlsplit(f"//{host}").hostname, urlsplit(origin).hostname
        except ValueError:  # brackets that hold no address
            return False
        if page is None:
            return False
        return page in self._page_hosts or page == own or {own, page} <= self._own_names


def page_hosts(settings: Settings) -> frozenset[str]:
    """The hosts of the web server's pages, and of the address that clients are given, as the settings have them.

    A proxy in front may have put another `Host` into the request.
    """
    known = {urlsplit(url).hostname for url in (settings.web.public_url, settings.socket.public_url) if url is not None}
    if not is_wildcard(settings.web.host) and not is_loopback(settings.web.host):
        known.add(settings.web.host.lower())
    return frozenset(host for host in known if host)


_LATER = {
    "full": ("this server is full", 5),
    "address_full": ("too many connections from this address", 5),
    "too_fast": ("too many connect at once", 1),
    "address_too_fast": ("too many connect at once from this address", 1),
}
_TRY_AGAIN_LATER = Frame(
    Opcode.CLOSE, Close(CloseCode.TRY_AGAIN_LATER, CLOSE_RULES[CloseCode.TRY_AGAIN_LATER].name).serialize()
).serialize(mask=False)


def shown_token(request: Request) -> str | None:
    """The token that a handshake shows: `Authorization: Bearer`, or a browser's second subprotocol."""
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
