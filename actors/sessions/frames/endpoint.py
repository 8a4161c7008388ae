"""One end of a WebSocket on its transport: frames in and out, and closing. Nothing here knows what they say."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from websockets.frames import CloseCode as WireCode
from websockets.protocol import OPEN

from actors.sessions.frames.library import LibraryConnection
from actors.sessions.frames.plain import PING, TEXT, pong_frame, read_plain, text_frame

CLOSE_SECONDS = 3.0
"""A client has so long to answer a close, and to end its connection."""


class ConnectionOver(Exception):
    """The connection has ended."""


class Endpoint(asyncio.Protocol):
    """The server's end of a WebSocket after its handshake. Subclasses take what comes: `_heard`, `_deliver`.

    class Echo(Endpoint):
        def _deliver(self, message: bytes | None) -> None:
            self.send_now(message or b"")

    Plain frames are read here, so that an idle connection is this object and no more. With the first frame that is not
    plain, and to close, it has a `LibraryConnection`.
    """

    __slots__ = (
        "_buffered",
        "_closed",
        "_closing",
        "_drained",
        "_largest",
        "_library",
        "_rest",
        "has_ended",
        "is_over",
        "may_wait",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_over = False
        """Whether the client sends nothing more."""
        self.has_ended = False
        self._library: LibraryConnection | None = None
        self._rest: bytearray | None = None  # the begin of a plain frame
        self._closing: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None  # while too much waits for the client
        self.may_wait = False
        """Whether something may wait for the client: it did when it was written, and no check has found otherwise."""
        self._buffered = 0  # all bytes that ever waited here for the client
        self._largest = 0  # of the frames that may still wait

    # -- frames from the client ----------------------------------------------------------------------

    def _heard(self, frames: int) -> None:
        """So many frames have come."""
        raise NotImplementedError

    def _deliver(self, message: bytes | None) -> None:
        """A message has come: a text, or `None` for a binary one."""
        raise NotImplementedError

    def _read(self, data: bytes | bytearray) -> None:
        if self._library is None:
            if self._rest is not None:
                self._rest += data
                data = self._rest
            frames, end, only_plain = read_plain(data)
            rest = data[end:] if end else data
            if not only_plain or not rest:
                self._rest = None
            elif rest is not self._rest:
                self._rest = bytearray(rest)
            self._heard(len(frames))
            for kind, payload in frames:
                if kind == TEXT:
                    self._deliver(payload)
                elif kind == PING and not self.transport.is_closing():
                    self._write(pong_frame(payload))
            if only_plain:
                return
            data = rest
        number, messages = self._with_library().receive(data)
        self._send_of_library()
        self._heard(number)
        for message in messages:
            self._deliver(message)

    def _with_library(self) -> LibraryConnection:
        if self._library is None:
            self._library = LibraryConnection()
            if self._rest is not None:
                self._library.receive(self._rest)  # not a whole frame
                self._rest = None
        return self._library

    def check_utf8(self, text: bytes) -> bool:
        """Return whether a text is UTF-8. If not, the connection is closed (RFC 6455, 8.1)."""
        try:
            text.decode()
        except UnicodeDecodeError as error:
            self._fail(WireCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            return False
        return True

    def eof_received(self) -> None:
        if self._library is not None:
            self._library.receive_eof()
        self.is_over = True
        if self.unsent:
            self._drop_within(CLOSE_SECONDS)  # the client may never read it

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = self.has_ended = True
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._library is not None:
            self._library.receive_eof()
            self._library.break_cycles()
        for waiter in (self._drained, self._closed):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # -- closing -------------------------------------------------------------------------------------

    def first_close_code(self) -> int:
        """Return the close code of the side that closed first; 1006 when the connection broke."""
        if self._library is None:
            return int(WireCode.ABNORMAL_CLOSURE)
        sent, received = self._library.close_sent, self._library.close_rcvd
        first = received if self.client_closed_first or sent is None else sent
        return int(first.code) if first is not None else int(WireCode.ABNORMAL_CLOSURE)

    def frame_code(self) -> int | None:
        """Return the code of the first close frame; `None`: the connection broke."""
        code = self.first_close_code()
        return None if code == WireCode.ABNORMAL_CLOSURE else code

    @property
    def is_open(self) -> bool:
        return not self.is_over and (self._library is None or self._library.state is OPEN)

    @property
    def sent_code(self) -> int | None:
        """The code of the close frame that was sent."""
        return self._library.close_sent.code if self._library is not None and self._library.close_sent else None

    @property
    def client_closed_first(self) -> bool:
        """Whether the client's close frame came first. A page that is left or reloaded sends one, too (1001)."""
        library = self._library
        return library is not None and library.close_rcvd is not None and library.close_rcvd_then_sent is not False

    def send_close(self, code: int, reason: str) -> None:
        """Begin to close. A client that does not answer within `CLOSE_SECONDS` is dropped."""
        if self.is_open:
            self._with_library().send_close(code, reason)
            self._send_of_library()

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        if self.has_ended:
            return
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._closed)

    def _fail(self, code: int, reason: str) -> None:
        """Close because of what the client has sent. Nothing more is read."""
        if self.is_open:
            self._with_library().fail(code, reason)
            self._send_of_library()

    def _send_of_library(self) -> None:
        """Send what the library has to send. Once it has begun to close, the client has `CLOSE_SECONDS`."""
        assert self._library is not None
        for data in self._library.data_to_send():
            if data:
                self._write(data)
            elif self.transport.can_write_eof():
                with suppress(OSError, RuntimeError):  # the connection has just broken
                    self.transport.write_eof()
            else:
                self.transport.close()
        if self._closing is None and not self.is_open:
            self._drop_within(CLOSE_SECONDS)

    def _drop_within(self, seconds: float) -> None:
        if self._closing is not None:
            self._closing.cancel()
        if not self.has_ended:
            self._closing = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

    # -- sending -------------------------------------------------------------------------------------

    def send_now(self, text: bytes) -> None:
        """Write a frame without waiting for the client. The server ends clients that do not read."""
        self.send_frame(text_frame(text))

    def send_frame(self, frame: bytes) -> None:
        """Write a `text_frame` as `send_now` does: for many clients it is made once."""
        if self.is_open:
            self._write(frame)

    async def send(self, text: bytes) -> None:
        """Write a frame, and wait until most of what waits for the client is written. Raises `ConnectionOver`."""
        self.send_now(text)
        if self._drained is not None:
            await asyncio.shield(self._drained)
        if not self.is_open:
            raise ConnectionOver

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _write(self, data: bytes) -> None:
        before = self.unsent
        self.transport.write(data)
        if (waits := self.unsent - before) > 0:
            self.may_wait = True
            self._buffered += waits
            self._largest = max(self._largest, waits) if before else waits

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process for the client."""
        return self.transport.get_write_buffer_size()

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait behind the frame that is being sent. That frame may have any size."""
        return max(0, self.unsent - self._largest)
