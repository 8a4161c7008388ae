"""A WebSocket of a client, on the server's side: signs of life, the reason of its end, sending without waiting."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_INFO, TCP_NOTSENT_LOWAT
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode as WireCode
from websockets.protocol import CLOSED, OPEN, Event

from actors.sessions.limits.address_limits import AddressSlot
from actors.sessions.limits.inbound_budget import READ_COST, TURN_BYTES, InboundBudget
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.metrics import BREAKS, count_close
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.frames import HELLO_BYTES, Migrate

LINGER_SECONDS = 1.0
"""A client that has sent too much has so long to read the close frame. Nothing more is read from it."""

_PROTOCOL_ERRORS = frozenset(
    {WireCode.PROTOCOL_ERROR, WireCode.UNSUPPORTED_DATA, WireCode.INVALID_DATA, WireCode.MESSAGE_TOO_BIG}
)

NOT_SENT_BYTES = 64 * 1024
"""For a proctor, the kernel holds about so many bytes that the network has not taken yet."""

_TCP_INFO = struct.Struct("=120xQ16xI")  # of linux/tcp.h: tcpi_bytes_acked and tcpi_notsent_bytes


class EndListener(Protocol):
    """Callbacks for the end of a connection."""

    def ended(self, reason: str) -> None:
        """The connection has ended; `reason` is a `LossReason`."""


class WebSocketConnection(ServerConnection):
    """A `ServerConnection` that knows when it last heard from its client, and reports its end at once.

    connection.attach(session)  # `session.ended(reason)` is called when the connection has ended
    connection.send_message(welcome)  # returns at once; what the client does not read is counted in `unread_bytes`
    await connection.end(CloseCode.KICKED, LossReason.KICKED.value)
    """

    def __init__(self, *args: Any, turns: ReadingTurns, slot: AddressSlot, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = turns
        self.slot = slot
        self.last_heard = self.loop.time()
        self.pinged_at: float | None = None
        """When it was pinged, if nothing was heard since; by the clock of the `Keepalive`."""
        self._activity_reported_at = self.last_heard
        self._end_reason: str | None = None
        self._end_listener: EndListener | None = None
        self._buffered = 0  # all bytes that ever waited here for the client
        self._largest = 0  # of the frames that may still wait
        self._taken: int | None = None  # of `_buffered`, what the client had acknowledged at the last check
        self.last_progress = self.last_heard
        self.checks_without_progress = 0
        self._budget = InboundBudget(self.last_heard)

    def attach(self, listener: EndListener) -> None:
        """Have the end of this connection reported to `listener`."""
        self._end_listener = listener

    def hello_accepted(self, bytes_per_second: float, frames_per_second: float) -> None:
        """Give the client the budget of one whose hello was valid."""
        self._budget.open(bytes_per_second, frames_per_second, self.loop.time())
        self.slot.hello_accepted()

    def forget_request(self) -> None:
        """Free the headers of its request, with the token in them: they are needed no more."""
        if self.request is not None:
            self.request.headers.clear()

    def activity_to_report(self, now: float, interval: float) -> float | None:
        """Return when the client was last heard, if that was not reported for `interval` seconds, and note the report.

        `None`: there is nothing new to report. Times are those of the event loop.
        """
        if self._activity_reported_at > now - interval or self.last_heard <= self._activity_reported_at:
            return None
        self._activity_reported_at = now
        return self.last_heard

    # -- reading within the budget -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Only `data_received` pauses reading: when the budget is used up, or when frames wait to be received.
        self.recv_messages.pause = _do_nothing
        self.recv_messages.resume = self._frames_received

    def data_received(self, data: bytes) -> None:
        if self._budget.held is not None:
            self._budget.held += data
        else:
            self._take(data)

    def _take(self, data: bytes, *, in_turn: bool = False) -> None:
        """Read what the client may send now: the quick share at once, the rest in parts when it is its turn."""
        budget = self._budget
        at, size, most = 0, len(data), budget.at_once
        while at < size:
            if budget.fill(self.loop.time()) <= 0 or self.recv_messages.paused:
                self._hold(data[at:])
                return
            if at >= TURN_BYTES if in_turn else not budget.quick:
                self._wait_for_turn(data[at:])
                return
            part = data[at : at + most]
            budget.frames = 0
            super().data_received(part)
            at += len(part)
            budget.left -= len(part) + READ_COST + budget.frame_cost * budget.frames
        if self.recv_messages.paused:
            self._hold(b"")

    def _wait_for_turn(self, rest: bytes) -> None:
        """Keep data beyond the quick share until it is the turn of this client."""
        budget = self._budget
        # Before hello, what is beyond the budget is never read.
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

    async def wait_turn(self, size: int) -> None:
        """Wait until a message of `size` bytes may be handled. A client that has sent little lately does not wait."""
        if not self._budget.quick:
            await self._turns.handle(size)

    def _hold(self, rest: bytes) -> None:
        """Stop reading: the budget is used up, or frames wait to be received. Before hello, end the connection."""
        self._budget.held = rest
        if self.transport.is_closing():
            return
        self.transport.pause_reading()
        if self.recv_messages.paused:
            return
        if self._budget.refills and self.protocol.state is OPEN:
            self.slot.hit("paused")
            self._budget.timer = self.loop.call_later(self._budget.wait(), self._read_on)
            return
        if self.protocol.state is OPEN:
            self.slot.hit("before_hello")
            self.set_end_reason(LossReason.PROTOCOL_ERROR.value)
            self.protocol.fail(CloseCode.POLICY_VIOLATION, CLOSE_RULES[CloseCode.POLICY_VIOLATION].name)
            self.send_data()
        self._budget.held = b""
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _frames_received(self) -> None:
        """Read on: most of the frames that waited were received."""
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

    def process_event(self, event: Event) -> None:
        self._budget.frames += 1
        self.last_heard = self._budget.now  # any inbound frame counts as life, and only inbound
        self.pinged_at = None
        super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.slot.leave()
        if self.opened:
            count_close(self.first_close_code())
        if self._end_listener is not None:
            self._end_listener.ended(self.reason())
        self._break_cycles()

    def _break_cycles(self) -> None:
        """Remove what refers back to this connection, so that its memory is free without a garbage collection.

        A server rarely makes a full one, and connections live long enough to be found by no other.
        """
        self._end_listener = None
        self.recv_messages.resume = _do_nothing
        self.protocol.parser.close()
        if self.protocol.parser_exc is not None:
            self.protocol.parser_exc.__traceback__ = None

    # -- its end -------------------------------------------------------------------------------------

    def set_end_reason(self, reason: str) -> None:
        """Set the reason that the end of this connection is reported with. The first one counts."""
        self._end_reason = self._end_reason or reason

    def reason(self) -> str:
        """Return why this connection ended, as a `LossReason`."""
        if self._end_reason is not None:
            return self._end_reason
        if self.protocol.close_sent is not None and self.protocol.close_sent.code in _PROTOCOL_ERRORS:
            return LossReason.PROTOCOL_ERROR.value
        if not self._client_closed_first:
            return LossReason.SOCKET_CLOSED.value
        # A client closes with our own code when it has heard nothing: the network has failed, nobody has left.
        silent = self.first_close_code() == CloseCode.PING_TIMEOUT
        return (LossReason.PING_TIMEOUT if silent else LossReason.CLIENT_CLOSED).value

    @property
    def _client_closed_first(self) -> bool:
        """Whether the client's close frame came first. A page that is left or reloaded sends one, too (1001)."""
        return self.protocol.close_rcvd is not None and self.protocol.close_rcvd_then_sent is not False

    @property
    def opened(self) -> bool:
        """Whether the handshake succeeded, so that it was a WebSocket."""
        return self.response is not None and self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS

    def first_close_code(self) -> int:
        """Return the close code of the side that closed first; 1006 when the connection broke."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        first = received if self._client_closed_first or sent is None else sent
        return int(first.code) if first is not None else int(WireCode.ABNORMAL_CLOSURE)

    def frame_code(self) -> int | None:
        """Return the code of the first close frame; `None`: the connection broke."""
        code = self.first_close_code()
        return None if code == WireCode.ABNORMAL_CLOSURE else code

    @property
    def is_open(self) -> bool:
        return self.protocol.state is OPEN

    @property
    def is_over(self) -> bool:
        return self.protocol.state is CLOSED

    def abort(self, reason: str) -> None:
        """Drop the connection without a close frame: the client would not answer one."""
        BREAKS.labels(reason).inc()
        self._end_reason = reason
        self.transport.abort()

    async def end(self, code: CloseCode, reason: str | None = None) -> None:
        """Close with a code. `reason` is reported as the reason of the loss; by default the name of the code."""
        rule = CLOSE_RULES[code]
        self.set_end_reason(reason or rule.name)
        await self.close(code, rule.name)

    async def migrate(self, frame: Migrate) -> None:
        """Name other servers to the client, and close."""
        self.send_message(frame)
        await self.end(CloseCode.MIGRATE, LossReason.SERVER_DRAINING.value)

    # -- sending -------------------------------------------------------------------------------------

    def send_now(self, text: bytes) -> None:
        """Write a frame without waiting for the client. The server ends clients that do not read."""
        if self.protocol.state is OPEN:
            self.protocol.send_text(text)
            self.send_data()

    def send_message(self, message: Message) -> None:
        """Encode a message and write it without waiting for the client."""
        self.send_now(encode(message))

    def send_data(self) -> None:
        before = self.unsent
        super().send_data()
        if (waits := self.unsent - before) > 0:
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

    def limit_kernel_buffer(self) -> None:
        """Keep what waits in this process, where it is counted. In the kernel, pings would wait behind it."""
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)

    # -- keepalive -----------------------------------------------------------------------------------

    def ping_now(self, now: float) -> None:
        """Send a ping, and note `now` as its time."""
        self.pinged_at = now
        if self.protocol.state is OPEN:
            self.protocol.send_ping(b"")
            self.send_data()

    def extend_ping(self, now: float) -> None:
        """Give the client a new ping timeout, from `now` on: its answer may wait in the socket, unread."""
        self.pinged_at = now

    @property
    def reading_paused(self) -> bool:
        """Whether nothing is read from it for now; what it has sent waits in the socket."""
        return self._budget.held is not None and not self.transport.is_closing()

    def check_progress(self, now: float) -> None:
        """Note whether the client has taken something since the last check. Only what waited then and waits now counts.

        A client that takes what waits for it is alive: a ping that stands behind that cannot have been answered yet.
        """
        unsent = self.unsent
        acknowledged, in_kernel = self._kernel_counts() if unsent or self.pinged_at is not None else (0, 0)
        if not unsent and not in_kernel:
            self._taken, self.checks_without_progress = None, 0
            return
        before, self._taken = self._taken, self._buffered - unsent + acknowledged
        if before is None or self._taken > before:
            self.checks_without_progress = 0
            if before is not None:
                self.last_progress = now
                self.pinged_at = None
        else:
            self.checks_without_progress += 1

    def _kernel_counts(self) -> tuple[int, int]:
        """Return the bytes that the client has acknowledged, and those that wait in the kernel for the network."""
        try:
            info = self.transport.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_INFO, _TCP_INFO.size)
            return _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # the connection has just broken, or this kernel tells less
            return 0, 0


def _do_nothing() -> None:
    pass
