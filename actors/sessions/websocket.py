"""A WebSocket of a client, on the server's side: signs of life, the reason of its end, sending without waiting."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from socket import IPPROTO_TCP, TCP_INFO, TCP_NOTSENT_LOWAT
from typing import Protocol

from websockets.frames import CloseCode as WireCode

from actors.sessions.frames.endpoint import Endpoint
from actors.sessions.frames.plain import PING_FRAME, text_frame
from actors.sessions.frames.request import HandshakeRequest
from actors.sessions.limits.address_limits import AddressSlot
from actors.sessions.limits.inbound_budget import TURN_BYTES, InboundBudget
from actors.sessions.limits.reading_turns import ReadingTurns
from actors.sessions.metrics import BREAKS, count_close
from protocol.close_codes import CLOSE_RULES, CloseCode
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import LossReason
from protocol.messages.frames import HELLO_BYTES, Migrate

LINGER_SECONDS = 1.0
"""A client that has sent too much has so long to read the close frame. Nothing more is read from it."""

MOST_WAITING, FEW_WAITING = 4, 1
"""With more messages that wait here, nothing is read from the client, until so few are left."""

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


class Reader(Protocol):
    """Reads the messages of a client: see `actors.sessions.frames.reader`. A message is a text, or `None`: binary."""

    def read_now(self, text: bytes | None) -> bool:
        """Handle a message, if nothing has to be waited for."""

    def wake(self) -> None:
        """Take the messages that wait in the connection."""


class Owner(Protocol):
    """What all connections of a listener share."""

    turns: ReadingTurns

    def ended(self, connection: WebSocketConnection) -> None:
        """A connection has ended, and its `EndListener` was told."""


class WebSocketConnection(Endpoint):
    """The WebSocket of one client, from the answer to its handshake on. While it is idle it is this object and no more.

    connection = WebSocketConnection(transport, slot, request, owner)
    connection.attach(session)  # `session.ended(reason)` is called when the connection has ended
    connection.read_with(reader)  # which is given the messages
    connection.send_message(welcome)  # returns at once; what the client does not read is counted in `unread_bytes`
    await connection.end(CloseCode.KICKED, LossReason.KICKED.value)
    """

    __slots__ = (
        "_activity_reported_at",
        "_budget",
        "_end_listener",
        "_end_reason",
        "_full",
        "_messages",
        "_owner",
        "_taken",
        "checks_without_progress",
        "last_heard",
        "last_progress",
        "pinged_at",
        "reader",
        "request",
        "slot",
    )

    def __init__(
        self, transport: asyncio.Transport, slot: AddressSlot, request: HandshakeRequest | None, owner: Owner
    ) -> None:
        super().__init__(transport)
        now = asyncio.get_running_loop().time()
        self.slot = slot
        self.request = request
        """Its handshake, until the session is made: there is a token in it."""
        self.last_heard = now
        self.pinged_at: float | None = None
        """When it was pinged, if nothing was heard since; by the clock of the `Keepalive`."""
        self.last_progress = now
        self.checks_without_progress = 0
        self.reader: Reader | None = None
        self._owner = owner
        self._budget = InboundBudget(now)
        self._activity_reported_at = now
        self._end_reason: str | None = None
        self._end_listener: EndListener | None = None
        self._messages: deque[bytes | None] | None = None  # those that wait for the reader
        self._full = False  # too many of them wait
        self._taken: int | None = None  # of `_buffered`, what the client had acknowledged at the last check

    def attach(self, listener: EndListener) -> None:
        """Have the end of this connection reported to `listener`."""
        self._end_listener = listener

    def read_with(self, reader: Reader) -> None:
        """Have the messages read by `reader`: those that wait here, and all that come."""
        if not self.has_ended:
            self.reader = reader
        if self.waiting:
            reader.wake()

    def hello_accepted(self, bytes_per_second: float, frames_per_second: float) -> None:
        """Give the client the budget of one whose hello was valid."""
        self._budget.open(bytes_per_second, frames_per_second, asyncio.get_running_loop().time())
        self.slot.hello_accepted()

    def forget_request(self) -> None:
        """Free its request, with the token in it: it is needed no more."""
        self.request = None

    def activity_to_report(self, now: float, interval: float) -> float | None:
        """Return when the client was last heard, if that was not reported for `interval` seconds, and note the report.

        `None`: there is nothing new to report. Times are those of the event loop.
        """
        if self._activity_reported_at > now - interval or self.last_heard <= self._activity_reported_at:
            return None
        self._activity_reported_at = now
        return self.last_heard

    # -- reading within the budget -------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._budget.held is not None:
            self._budget.held += data
        else:
            self._take(data)

    def _take(self, data: bytes, *, in_turn: bool = False) -> None:
        """Read what the client may send now: the quick share at once, the rest in parts when it is its turn."""
        budget = self._budget
        at, size, most = 0, len(data), budget.rates.at_once
        while at < size:
            if budget.fill(asyncio.get_running_loop().time()) <= 0 or self._full:
                self._hold(data[at:])
                return
            if at >= TURN_BYTES if in_turn else not budget.quick:
                self._wait_for_turn(data[at:])
                return
            part = data[at : at + most]
            budget.frames = 0
            self._read(part)
            at += len(part)
            budget.take(len(part))
        if self._full:
            self._hold(b"")

    def _wait_for_turn(self, rest: bytes) -> None:
        """Keep data beyond the quick share until it is the turn of this client."""
        budget = self._budget
        # Before hello, what is beyond the budget is never read.
        budget.held = rest if budget.refills else rest[: HELLO_BYTES + 1]
        if not self.transport.is_closing():
            self.transport.pause_reading()
            budget.queued = True
            self._owner.turns.read(self._take_turn)

    def _take_turn(self) -> None:
        budget = self._budget
        budget.queued = False
        rest, budget.held = budget.held, None
        if rest is None or self.transport.is_closing():
            return
        self._take(rest, in_turn=True)
        if budget.held is None:
            self.transport.resume_reading()

    @property
    def quick(self) -> bool:
        """Whether the client has sent little lately: its messages wait for no turn."""
        return self._budget.quick

    async def wait_turn(self, size: int) -> None:
        """Wait until a message of `size` bytes may be handled. A client that has sent little lately does not wait."""
        if not self._budget.quick:
            await self._owner.turns.handle(size)

    def _hold(self, rest: bytes) -> None:
        """Stop reading: the budget is used up, or messages wait for the reader. Before hello, end the connection."""
        self._budget.held = rest
        if self.transport.is_closing():
            return
        self.transport.pause_reading()
        if self._full:
            return
        if self._budget.refills and self.is_open:
            self.slot.hit("paused")
            self._budget.timer = asyncio.get_running_loop().call_later(self._budget.wait(), self._read_on)
            return
        if self.is_open:
            self.slot.hit("before_hello")
            self.set_end_reason(LossReason.PROTOCOL_ERROR.value)
            self._fail(CloseCode.POLICY_VIOLATION, CLOSE_RULES[CloseCode.POLICY_VIOLATION].name)
        self._budget.held = b""
        self._drop_within(LINGER_SECONDS)

    def _read_on(self) -> None:
        budget = self._budget
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
        if budget.held is None or budget.queued or self._full or self.transport.is_closing():
            return
        rest, budget.held = budget.held, None
        self.data_received(rest)
        if budget.held is None:
            self.transport.resume_reading()

    # -- frames --------------------------------------------------------------------------------------

    def _heard(self, frames: int) -> None:
        if frames:
            self._budget.frames += frames
            self.last_heard = self._budget.now  # any inbound frame counts as life, and only inbound
            self.pinged_at = None

    def _deliver(self, message: bytes | None) -> None:
        if self._messages is None:
            if self.reader is not None and self.reader.read_now(message):
                return
            self._messages = deque()
        self._messages.append(message)
        self._full = self._full or len(self._messages) > MOST_WAITING
        if self.reader is not None:
            self.reader.wake()

    @property
    def waiting(self) -> bool:
        """Whether messages wait here."""
        return self._messages is not None

    def take(self) -> bytes | None:
        """Take the message that waits longest. `None`: a binary one."""
        assert self._messages is not None
        message = self._messages.popleft()
        if self._full and len(self._messages) <= FEW_WAITING:
            self._full = False
            asyncio.get_running_loop().call_soon(self._read_on)
        if not self._messages:
            self._messages = None
        return message

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._budget.timer is not None:
            self._budget.timer.cancel()
            self._budget.timer = None
        self.slot.leave()
        count_close(self.first_close_code())
        if self._end_listener is not None:
            self._end_listener.ended(self.reason())
        self._owner.ended(self)
        # A server rarely makes a full garbage collection, and connections live long enough to be found by no other.
        self._end_listener = self.reader = None

    # -- its end -------------------------------------------------------------------------------------

    def set_end_reason(self, reason: str) -> None:
        """Set the reason that the end of this connection is reported with. The first one counts."""
        self._end_reason = self._end_reason or reason

    def reason(self) -> str:
        """Return why this connection ended, as a `LossReason`."""
        if self._end_reason is not None:
            return self._end_reason
        if self.sent_code in _PROTOCOL_ERRORS:
            return LossReason.PROTOCOL_ERROR.value
        if not self.client_closed_first:
            return LossReason.SOCKET_CLOSED.value
        # A client closes with our own code when it has heard nothing: the network has failed, nobody has left.
        silent = self.first_close_code() == CloseCode.PING_TIMEOUT
        return (LossReason.PING_TIMEOUT if silent else LossReason.CLIENT_CLOSED).value

    def abort(self, reason: str) -> None:
        """Drop the connection without a close frame: the client would not answer one."""
        BREAKS.labels(reason).inc()
        self._end_reason = reason
        self.transport.abort()

    def close(self, code: CloseCode, reason: str | None = None) -> None:
        """Begin to close with a code. `reason` is reported as the reason of the loss; by default the name of the code.

        A client that does not answer within `CLOSE_SECONDS` is dropped.
        """
        rule = CLOSE_RULES[code]
        self.set_end_reason(reason or rule.name)
        self.send_close(code, rule.name)

    async def end(self, code: CloseCode, reason: str | None = None) -> None:
        """Close, as `close` does, and wait for the end."""
        self.close(code, reason)
        await self.wait_closed()

    def send_message(self, message: Message) -> None:
        """Encode a message and write it without waiting for the client."""
        self.send_now(encode(message))

    def send_together(self, texts: Iterable[bytes]) -> None:
        """Write a frame for each text, all at once: a write costs more than a frame."""
        self.send_frame(b"".join([text_frame(text) for text in texts]))

    async def migrate(self, frame: Migrate) -> None:
        """Name other servers to the client, and close."""
        self.send_message(frame)
        await self.end(CloseCode.MIGRATE, LossReason.SERVER_DRAINING.value)

    def limit_kernel_buffer(self) -> None:
        """Keep what waits in this process, where it is counted. In the kernel, pings would wait behind it."""
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)

    # -- keepalive -----------------------------------------------------------------------------------

    def ping_now(self, now: float) -> None:
        """Send a ping, and note `now` as its time."""
        self.pinged_at = now
        if self.is_open:
            self._write(PING_FRAME)

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
            self._taken, self.checks_without_progress, self.may_wait = None, 0, False
            return
        self.may_wait = True
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
