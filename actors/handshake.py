"""The beginning of a connection, before there is a WebSocket: the request's head is read, and refused or handed on.

It is as cheap as it can be made, for anybody can begin connections: no task, no timer, and the WebSocket's own objects
only for whoever is let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from protocol.frames import REQUEST_BYTES

if TYPE_CHECKING:
    from actors.address_limits import Place
    from actors.doorkeeper import Doorkeeper

LINGER_SECONDS = 2.0
"""So long a client that was answered with a close frame may take to read it."""

_END = b"\r\n\r\n"


class Handshake(asyncio.Protocol):
    """Speaks with a client until its request is whole. `hand_over` gets the connection of one that is let in."""

    __slots__ = ("_door", "_hand_over", "_head", "_transport", "place", "protocol")

    def __init__(
        self,
        door: Doorkeeper,
        protocol: ServerProtocol,
        hand_over: Callable[[ServerProtocol, Place, Request], None],
    ) -> None:
        self.protocol = protocol
        self.place: Place | None = None
        self._door = door
        self._hand_over = hand_over
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are none
        peer = transport.get_extra_info("peername")
        self.place = self._door.arrive(str(peer[0]) if peer else "", transport)
        if self.place is None:
            transport.abort()
        else:
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.place is not None:
            self.place.leave()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        searched = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        end = self._head.find(_END, searched) + len(_END)
        if end >= len(_END):
            self._answer(self._transport, end)
        elif len(self._head) > REQUEST_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has {REQUEST_BYTES} bytes at most\n")

    def _answer(self, transport: asyncio.Transport, end: int) -> None:
        assert self.place is not None
        if end > REQUEST_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has {REQUEST_BYTES} bytes at most\n")
            return
        self.protocol.receive_data(bytes(self._head[:end]))
        events: list[Any] = self.protocol.events_received()
        if not events:
            written = b"".join(self.protocol.data_to_send())  # 414 or 431; nothing for what is no request
            self._refuse(HTTPStatus.BAD_REQUEST, "not understood\n", written)
            return
        if len(self._head) > end:
            self._refuse(HTTPStatus.BAD_REQUEST, "wait for the answer before you go on\n")
            return
        request: Request = events[0]
        refusal = self._door.refuse(self, request)
        if refusal is None:
            self._head = bytearray()  # websockets keeps a reference to what it has made for as long as the connection
            self._hand_over(self.protocol, self.place, request)
        elif refusal.half_close and transport.can_write_eof():
            transport.write(refusal.content)
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)
        else:
            transport.write(refusal.content)
            transport.close()

    def _refuse(self, status: HTTPStatus, text: str, written: bytes = b"") -> None:
        assert self._transport is not None
        assert self.place is not None
        self._transport.write(written or self._door.bad_request(self.place, status, text))
        self._transport.close()
