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

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from protocol.messages.frames import SUBPROTOCOL

_PLAIN = re.compile(
    rb"GET (/[!-~]{0,4096}) HTTP/1\.1\r\n"
    rb"((?:(?!(?i:transfer-encoding|content-length):)[A-Za-z0-9-]+:[ -~]{0,4096}\r\n){0,100})\r\n"
)
"""No body, only ASCII, and no more lines or longer ones than the library takes. It is matched in linear time."""

_UPGRADES = (["upgrade"], ["keep-alive, upgrade"])
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_OFFERS = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class Answer(NamedTuple):
    """The whole answer to a request. `accepted`: the connection is a WebSocket from now on."""

    content: bytes
    accepted: bool


def read_request(head: bytes) -> Request | bytes:
    """Return the request, or the answer to bytes that are no request: empty, if there is none."""
    plain = _PLAIN.fullmatch(head)
    if plain is None:
        return _read_by_library(head)
    path, lines = plain.groups()
    headers = Headers()
    for line in lines.decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers.set_insecure(name, value.strip(" "))
    return Request(path.decode("ascii"), headers)


def _read_by_library(head: bytes) -> Request | bytes:
    protocol = ServerProtocol()
    protocol.receive_data(head)
    events = protocol.events_received()
    content = b"".join(protocol.data_to_send())
    protocol.parser.close()
    vars(protocol).clear()  # its parser and its errors refer back to it
    return cast(Request, events[0]) if events else content


def answer_request(request: Request) -> Answer:
    """Accept a request, or refuse it if it does not begin a WebSocket that we speak."""
    headers = request.headers
    keys = headers.get_all("Sec-WebSocket-Key")
    offers = headers.get_all("Sec-WebSocket-Protocol")
    plain = (
        request.method == "GET"
        and request.protocol == "HTTP/1.1"
        and [value.lower() for value in headers.get_all("Upgrade")] == ["websocket"]
        and [value.lower() for value in headers.get_all("Connection")] in _UPGRADES
        and len(keys) == 1
        and _KEY.fullmatch(keys[0])
        and headers.get_all("Sec-WebSocket-Version") == ["13"]
        and all(_OFFERS.fullmatch(line) for line in offers)
    )
    if not plain:
        return _answer_by_library(request)
    offered = any(name.strip(" ") == SUBPROTOCOL for line in offers for name in line.split(","))
    selected = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n" if offered else ""
    content = (
        f"HTTP/1.1 101 Switching Protocols\r\nDate: {_date(int(time.time()))}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(keys[0])}\r\n{selected}\r\n"
    )
    return Answer(content.encode(), accepted=True)


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


class _ServerProtocol(ServerProtocol):
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None


def _answer_by_library(request: Request) -> Answer:
    protocol = _ServerProtocol()
    copy = Request(request.path, request.headers, request.method, request.protocol)
    response = protocol.accept(copy)
    protocol.parser.close()
    for part in (protocol, copy):  # they and their errors refer to one another
        vars(part).clear()
    return Answer(response.serialize(), accepted=response.status_code == HTTPStatus.SWITCHING_PROTOCOLS)
