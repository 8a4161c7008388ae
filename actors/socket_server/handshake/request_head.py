"""The begin of a connection, before it is a WebSocket: its HTTP request is read, and refused or accepted.

Anybody can begin connections, so this is cheap: no task, no timer, and a `WebSocketConnection` only for a client that
is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from actors.sessions.frames.request import HandshakeRequest
from actors.sessions.limits.address_limits import REQUEST_SECONDS, AddressSlot
from actors.socket_server.handshake.opening import answer_request, read_request
from protocol.messages.frames import REQUEST_BYTES

if TYPE_CHECKING:
    from actors.socket_server.handshake.request_checks import HandshakeChecks

LINGER_SECONDS = 2.0
"""A client that was answered with a close frame has so long to read it."""


_END = b"\r\n\r\n"


class _TlsStarting:
    """The transport of a connection whose TLS handshake is not finished."""

    __slots__ = ("_accepted",)

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)


Accept = Callable[[asyncio.Transport, AddressSlot, HandshakeRequest], None]
"""Called with the connection of a client that is let in, and its request, which was answered."""


class HandshakeProtocol(asyncio.Protocol):
    """Reads the request of one connection and answers it: refuses the client, or calls `accept`.

    await loop.create_server(lambda: HandshakeProtocol(checks, accept), host, port)
    """

    __slots__ = ("_accept", "_checks", "_end", "_head", "_tls", "_transport", "secured", "slot")

    def __init__(self, checks: HandshakeChecks, accept: Accept, tls: ssl.SSLContext | None = None) -> None:
        self.slot: AddressSlot | None = None
        self._checks = checks
        self._accept = accept
        self._head = bytearray()
        self._end = 0
        self._transport: asyncio.Transport | None = None
        self._tls = tls
        self.secured: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # those of uvloop are no asyncio.Transport
        if self.slot is None:
            peer = transport.get_extra_info("peername")
            self.slot = self._checks.arrive(str(peer[0]) if peer else "", transport)
        if self.slot is None:
            transport.abort()
        elif self._tls is None:
            self._transport = self.slot.transport = transport
        else:
            # The listener starts no TLS: its handshake costs more than anything else here, so limits come first. Nor
            # does `start_tls`: uvloop reads on after `connection_made`, and early data would be lost. So the connection
            # goes on with a duplicate of its socket, and this transport closes before it has read anything.
            secured = HandshakeProtocol(self._checks, self._accept)
            secured.slot, self.slot = self.slot, None
            accepted = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            accepted.setblocking(False)
            transport.abort()
            self.secured = asyncio.create_task(secured.start_tls(accepted, self._tls))

    async def start_tls(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Take over a connection from its listener, and start TLS."""
        assert self.slot is not None
        self.slot.transport = _TlsStarting(accepted)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                accepted,
                ssl=context,
                ssl_handshake_timeout=REQUEST_SECONDS,
                ssl_shutdown_timeout=LINGER_SECONDS,
            )
        except OSError:  # the client speaks no TLS, is too late, or has gone
            self.slot.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.slot is not None:
            self.slot.leave()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._end:
            self._head += data[:1]  # sent before the answer: `answer` refuses that
            return
        searched = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        end = self._head.find(_END, searched) + len(_END)
        if end >= len(_END):
            self._end = end
            self._checks.enqueue(self)
        elif len(self._head) > REQUEST_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has {REQUEST_BYTES} bytes at most\n")

    def drop(self) -> None:
        """Drop the connection without an answer."""
        if self._transport is not None:
            self._transport.abort()

    def answer(self) -> None:
        """Answer the request, which is complete."""
        transport, end = self._transport, self._end
        if transport is None or transport.is_closing():
            return
        assert self.slot is not None
        if end > REQUEST_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has {REQUEST_BYTES} bytes at most\n")
            return
        request = read_request(bytes(self._head[:end]))
        if isinstance(request, bytes):
            self._refuse(HTTPStatus.BAD_REQUEST, "not understood\n", request)
            return
        if len(self._head) > end:
            self._refuse(HTTPStatus.BAD_REQUEST, "wait for the answer before you go on\n")
            return
        refusal = self._checks.refuse(self.slot, request)
        if refusal is None:
            answer = answer_request(request)
            transport.write(answer.content)
            if answer.accepted:
                self._accept(transport, self.slot, request)
            else:
                transport.close()
        elif refusal.half_close and transport.can_write_eof():
            transport.write(refusal.content)
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)
        else:
            transport.write(refusal.content)
            transport.close()

    def _refuse(self, status: HTTPStatus, text: str, written: bytes = b"") -> None:
        assert self._transport is not None
        assert self.slot is not None
        self._transport.write(written or self._checks.bad_request(self.slot, status, text))
        self._transport.close()
