"""The beginning of a connection, before there is a WebSocket: the request's head is read, and refused or handed on.

It is as cheap as it can be made, for anybody can begin connections: no task, no timer, and the WebSocket's own objects
only for whoever is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from actors.sessions.limits.address_limits import REQUEST_SECONDS
from protocol.messages.frames import REQUEST_BYTES

if TYPE_CHECKING:
    from actors.sessions.limits.address_limits import AddressSlot
    from actors.socket_server.handshake.handshake import HandshakeChecks

LINGER_SECONDS = 2.0
"""So long a client that was answered with a close frame may take to read it."""


_END = b"\r\n\r\n"


class _Starting:
    """Stands for the transport of a connection whose TLS is being started."""

    __slots__ = ("_accepted",)

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)


class HandshakeProtocol(asyncio.Protocol):
    """Speaks with a client until its request is whole. `hand_over` gets the connection of one that is let in."""

    __slots__ = ("_door", "_end", "_hand_over", "_head", "_tls", "_transport", "place", "protocol", "secured")

    def __init__(
        self,
        door: HandshakeChecks,
        protocol: ServerProtocol,
        hand_over: Callable[[ServerProtocol, asyncio.Transport, AddressSlot, Request], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.protocol = protocol
        self.place: AddressSlot | None = None
        self._door = door
        self._hand_over = hand_over
        self._head = bytearray()
        self._end = 0
        self._transport: asyncio.Transport | None = None
        self._tls = tls
        self.secured: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are none
        if self.place is None:
            peer = transport.get_extra_info("peername")
            self.place = self._door.arrive(str(peer[0]) if peer else "", transport)
        if self.place is None:
            transport.abort()
        elif self._tls is None:
            self._transport = self.place.transport = transport
        else:
            # Not by the listener: to shake hands costs more than anything else here, so addresses are looked at before.
            # Nor by `start_tls`: uvloop reads on after `connection_made`, and what comes early would be lost. So the
            # connection goes on under another number, and this transport lets go of it before it has read anything.
            secured = HandshakeProtocol(self._door, self.protocol, self._hand_over)
            secured.place, self.place = self.place, None
            accepted = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            accepted.setblocking(False)
            transport.abort()
            self.secured = asyncio.create_task(secured.start_tls(accepted, self._tls))

    async def start_tls(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Go on with a connection that its listener has let go of."""
        assert self.place is not None
        self.place.transport = _Starting(accepted)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                accepted,
                ssl=context,
                ssl_handshake_timeout=REQUEST_SECONDS,
                ssl_shutdown_timeout=LINGER_SECONDS,
            )
        except OSError:  # it speaks no TLS, is too late, or is gone
            self.place.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.place is not None:
            self.place.leave()
        if self.secured is None:
            # It refers to itself, by its parser: thousands of them would be one long collection of garbage.
            vars(self.protocol).clear()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._end:
            self._head += data[:1]  # it goes on before it was answered
            return
        searched = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        end = self._head.find(_END, searched) + len(_END)
        if end >= len(_END):
            self._end = end
            self._door.enqueue(self)
        elif len(self._head) > REQUEST_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has {REQUEST_BYTES} bytes at most\n")

    def drop(self) -> None:
        """End it without an answer."""
        if self._transport is not None:
            self._transport.abort()

    def answer(self) -> None:
        """Say what follows from the request, which is whole."""
        transport, end = self._transport, self._end
        if transport is None or transport.is_closing():
            return
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
            self._hand_over(self.protocol, transport, self.place, request)
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
