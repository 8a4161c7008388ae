"""The opening handshake of a WebSocket (RFC 6455, 4.2): a request is read, and answered.

A plain request is read here, which is nearly every one. The library reads what is not plain, and answers what it
refuses. A test compares both.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, cast

from websockets.datastructures import Headers as LibraryHeaders
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from actors.sessions.frames.request import HandshakeRequest, Headers
from protocol.messages.frames import SUBPROTOCOL

_PLAIN = re.compile(
    rb"GET (/[!-~]{0,4096}) HTTP/1\.1\r\n"
    rb"((?:(?!(?i:transfer-encoding|content-length):)[A-Za-z0-9-]+:[ -~]{0,4096}\r\n){0,100})\r\n"
)
"""No body, only ASCII, and no more lines or longer ones than the library takes. It is matched in linear time."""

_UPGRADES = ("upgrade", "keep-alive, upgrade")
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_OFFERS = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class Answer(NamedTuple):
    """The whole answer to a request. `accepted`: the connection is a WebSocket from now on."""

    content: bytes
    accepted: bool


def read_request(head: bytes) -> HandshakeRequest | bytes:
    """Return the request, or the answer to bytes that are no request: empty, if there is none."""
    plain = _PLAIN.fullmatch(head)
    if plain is None:
        return _read_by_library(head)
    lines = [line.split(":", 1) for line in plain[2].decode("ascii").split("\r\n")[:-1]]
    return HandshakeRequest(plain[1].decode("ascii"), Headers((name, value.strip(" ")) for name, value in lines))


def _read_by_library(head: bytes) -> HandshakeRequest | bytes:
    protocol = ServerProtocol()
    protocol.receive_data(head)
    events = protocol.events_received()
    content = b"".join(protocol.data_to_send())
    protocol.parser.close()
    vars(protocol).clear()  # its parser and its errors refer back to it
    if not events:
        return content
    request = cast(Request, events[0])
    return HandshakeRequest(request.path, Headers(request.headers.raw_items()), request.method, request.protocol)


def answer_request(request: HandshakeRequest) -> Answer:
    """Accept a request, or refuse it if it does not begin a WebSocket that we speak."""
    headers = request.headers
    key = headers.get("sec-websocket-key")
    plain = (
        request.method == "GET"
        and request.protocol == "HTTP/1.1"
        and key is not None
        and _KEY.fullmatch(key)
        and (headers.get("upgrade") or "").lower() == "websocket"
        and (headers.get("connection") or "").lower() in _UPGRADES
        and headers.get("sec-websocket-version") == "13"
        and not headers.repeated()
    )
    offer = headers.get("sec-websocket-protocol")
    if not plain or key is None or (offer is not None and not _OFFERS.fullmatch(offer)):
        return _answer_by_library(request)
    offered = offer is not None and SUBPROTOCOL in offer.replace(" ", "").split(",")
    selected = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n" if offered else ""
    content = (
        f"HTTP/1.1 101 Switching Protocols\r\nDate: {_date(int(time.time()))}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n{selected}\r\n"
    )
    return Answer(content.encode(), accepted=True)


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


class _ServerProtocol(ServerProtocol):
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None


def _answer_by_library(request: HandshakeRequest) -> Answer:
    protocol, headers = _ServerProtocol(), LibraryHeaders()
    for name, value in request.headers.lines():
        headers.set_insecure(name, value)
    asked = Request(request.path, headers, request.method, request.protocol)
    response = protocol.accept(asked)
    protocol.parser.close()
    for part in (protocol, asked):  # they and their errors refer to one another
        vars(part).clear()
    return Answer(response.serialize(), accepted=response.status_code == HTTPStatus.SWITCHING_PROTOCOLS)
