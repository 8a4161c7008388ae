"""One WebSocket on the server's side: life, loss and its reason, sending without waiting."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_INFO, TCP_NOTSENT_LOWAT
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode as WireCode
from websockets.protocol import CLOSED, OPEN, Event

from actors.sessions.limits.inbound_budget import READ_COST, TURN_BYTES, InboundBudget
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.metrics import BREAKS, count_close
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.frames import HELLO_BYTES, Migrate

if TYPE_CHECKING:
    from actors.sessions.limits.address_limits import AddressSlot

LINGER_SECONDS = 1.0
"""So long whoever has sent too much may take to read the close frame. Nothing of theirs is read any more."""

_PROTOCOL_ERRORS = frozenset(
    {WireCode.PROTOCOL_ERROR, WireCode.UNSUPPORTED_DATA, WireCode.INVALID_DATA, WireCode.MESSAGE_TOO_BIG}
)

NOT_SENT_BYTES = 64 * 1024
_TCP_INFO = struct.Struct("=120xQ16xI")  # of linux/tcp.h: tcpi_bytes_acked and tcpi_notsent_bytes


class WebSocketConnection(ServerConnection):
    """A `ServerConnection` that knows when it was last heard from and tells its session at once when it ends."""

    def __init__(self, *args: Any, turns: ReadingTurns, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = turns
        self.last_heard = self.loop.time()
        self.reported_at = self.last_heard
        self.pinged_at: float | None = None
        """When it was pinged, if nothing was heard since; by the clock of whoever pings."""
        self.end_reason: str | None = None
        self.session: Any = None
        self._buffered = 0  # bytes that ever had to wait for the client
        self._largest = 0  # of the frames that may still wait
        self._taken: int | None = None
        self.last_taken = self.last_heard
        self.looks_without_taking = 0
        self.place: AddressSlot | None = None
        self._budget = InboundBudget(self.last_heard)

    def greeted(self, bytes_per_second: float, frames_per_second: float) -> None:
        """The client has said a valid hello: it is no stranger any more."""
        self._budget.open(bytes_per_second, frames_per_second, self.loop.time())
        if self.place is not None:
            self.place.greet()

    def forget_request(self) -> None:
        """The headers of its request, token and all, are needed no more."""
        if self.request is not None:
            self.request.headers.clear()

    # -- what it sends, within its budget ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # When frames wait unreceived, `data_received` sees it: it alone pauses reading, for either reason.
        self.recv_messages.pause = _nothing
        self.recv_messages.resume = self._received

    def data_received(self, data: bytes) -> None:
        if self._budget.held is not None:
            self._budget.held += data
        else:
            self._take(data)

    def _take(self, data: bytes, *, in_turn: bool = False) -> None:
        """Read what the client may send now: a quick share at once, a part of the rest whenever it is its turn."""
        budget = self._budget
        at, size, most = 0, len(data), budget.at_once
        while at < size:
            if budget.fill(self.loop.time()) <= 0 or self.recv_messages.paused:
                self._hold(data[at:])
                return
            if at >= TURN_BYTES if in_turn else not budget.quick:
                self._queue_up(data[at:])
                return
            part = data[at : at + most]
            budget.frames = 0
            super().data_received(part)
            at += len(part)
            budget.left -= len(part) + READ_COST + budget.frame_cost * budget.frames
        if self.recv_messages.paused:
            self._hold(b"")

    def _queue_up(self, rest: bytes) -> None:
        """It has sent more than its quick share: others come before the rest."""
        budget = self._budget
        # Of a stranger, what is beyond its budget is never read.
        budget.held = rest if budget.refills else rest[: HELLO_BYTES + 1]
        if not self.transport.is_closing():
            self.transport.pause_reading()
            budget.queued = True
            self._turns.read(self._take_turn)

    def _take_turn(self) -> None:
        budget = self._budget
        budget.queued = False
        rest, budget.held = budget.held, None
        if rest is None or self.transport.is_closing():
            return
        self._take(rest, in_turn=True)
        if budget.held is None:
            self.transport.resume_reading()

    async def turn(self, size: int) -> None:
        """Wait until a message of this size may be handled: at once, if the client has sent little lately."""
        if not self._budget.quick:
            await self._turns.handle(size)

    def _hold(self, rest: bytes) -> None:
        """It has sent more than it may, or than is being worked off: read no more for now, or end it."""
        self._budget.held = rest
        if self.transport.is_closing():
            return
        self.transport.pause_reading()
        if self.recv_messages.paused:
            return
        if self._budget.refills and self.protocol.state is OPEN:
            self._hit("paused")
            self._budget.timer = self.loop.call_later(self._budget.wait(), self._read_on)
            return
        if self.protocol.state is OPEN:
            self._hit("before_hello")
            self.end_reason = self.end_reason or LossReason.PROTOCOL_ERROR.value
            self.protocol.fail(CloseCode.POLICY_VIOLATION, CLOSE_RULES[CloseCode.POLICY_VIOLATION].name)
            self.send_data()
        self._budget.held = b""
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _received(self) -> None:
        """Whoever receives has taken most of what waited."""
        self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        budget = self._budget
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
        if budget.held is None or budget.queued or self.recv_messages.paused or self.transport.is_closing():
            return
        rest, budget.held = budget.held, None
        self.data_received(rest)
        if budget.held is None:
            self.transport.resume_reading()

    def _hit(self, limit: str) -> None:
        if self.place is not None:
            self.place.hit(limit)

    def process_event(self, event: Event) -> None:
        self._budget.frames += 1
        self.last_heard = self._budget.now  # any inbound frame counts as life, and only inbound
        self.pinged_at = None
        super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.place is not None:
            self.place.leave()
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

    def send_now(self, text: bytes) -> None:
        """Write a frame without waiting for the client; a client that does not read is ended by its server."""
        if self.protocol.state is OPEN:
            self.protocol.send_text(text)
            self.send_data()

    def tell(self, message: Message) -> None:
        """`send_now` of a message."""
        self.send_now(encode(message))

    def ping_now(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pinged_at = now
        if self.protocol.state is OPEN:
            self.protocol.send_ping(b"")
            self.send_data()

    @property
    def is_over(self) -> bool:
        return self.protocol.state is CLOSED

    @property
    def held(self) -> bool:
        """Whether nothing is read from it for now; what it has sent waits in the socket."""
        return self._budget.held is not None and not self.transport.is_closing()

    def send_data(self) -> None:
        before = self.unsent
        super().send_data()
        if (waits := self.unsent - before) > 0:
            self._buffered += waits
            self._largest = max(self._largest, waits) if before else waits

    @property
    def unsent(self) -> int:
        """Bytes that wait here for the client."""
        return self.transport.get_write_buffer_size()

    @property
    def piled_up(self) -> int:
        """Bytes that wait behind the frame that is being taken: that one may be of any size."""
        return max(0, self.unsent - self._largest)

    def look(self, now: float) -> None:
        """Note whether the client has taken something since the last look, if something waited then and does now."""
        unsent = self.unsent
        acknowledged, held_up = self._in_kernel() if unsent or self.pinged_at is not None else (0, 0)
        if not unsent and not held_up:
            self._taken, self.looks_without_taking = None, 0
            return
        before, self._taken = self._taken, self._buffered - unsent + acknowledged
        if before is None or self._taken > before:
            self.looks_without_taking = 0
            if before is not None:
                self.last_taken = now
        else:
            self.looks_without_taking += 1

    def _in_kernel(self) -> tuple[int, int]:
        """Bytes that the other side has acknowledged, and bytes that wait in the kernel until it has room for them."""
        try:
            info = self.transport.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_INFO, _TCP_INFO.size)
            return _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # it has just broken; or a kernel that tells less
            return 0, 0

    def keep_near(self) -> None:
        """Keep what waits out of the kernel: there it cannot be counted, and pings stand behind it."""
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)

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


def _nothing() -> None:
    pass
