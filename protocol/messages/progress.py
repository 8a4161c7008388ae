"""How far the log is applied: what state managers report each second, and whether a view of a plan is current.

State managers publish `applied.{stateManager}` over core NATS, not JetStream: a report that does not arrive shows that
something stands still. A view of a plan is current while a state manager reads the plan's partition of the log, and
neither stalls nor is late. Work that progresses may be late for longer: when a hall loses its network on a busy
machine, the losses appear one after another, and a screen that turns grey because of it helps nobody.

Example::

    reports = AppliedRegistry(now)
    reports.record(applied, now)
    reports.delay_of(str(partition_of("P001")), now)  # None, or what it waits for and for how many seconds
    reports.delay_of(SERVERS_PART, now)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from protocol.ids import Id
from protocol.messages.base import Message, Wire, unknown_as

REPORT_SECONDS = 1.0
"""How often a state manager reports while nothing waits."""
REPORT_SOON_SECONDS = 0.25
"""How often it reports while something waits, so that the end of the wait is known soon."""
SILENT_SECONDS = 3.0
"""A state manager that has not reported for so long does not work."""
STALLED_SECONDS, RESUMED_SECONDS = 2.5, 1.5
"""Messages wait and none is applied: after the first a view is not current any more, below the second it is again."""
LATE_SECONDS, IN_TIME_SECONDS = 6.0, 3.0
"""The same for the age of the oldest message that is not applied yet, while others are being applied."""

SERVERS_PART = "servers"
"""The part of the log about socket servers: the losses of their examinees depend on it."""

WaitingFor = Annotated[
    Literal["nats", "redis", "state", "log", "consumer", "queue", "state-manager"],
    unknown_as("log", "nats", "redis", "state", "log", "consumer", "queue", "state-manager"),
]
"""What a view that is not current waits for. What only a newer release waits for is read as `log`.

nats, redis: the engine answers. state: Redis is brought up to the log. log: what happened is processed. consumer: the
queue server makes a missing consumer of the log. queue: the socket server's queue is there and processed.
state-manager: one is heard.
"""


class PartitionApplied(Wire):
    """How far one partition is: applied up to the stream sequence `upTo`; `pending` messages wait, the oldest of them
    for `oldestSeconds`, and for `stillSeconds` none was applied. By the broker's clock. `reads`: this state manager
    works it off now; else it stands by. `waitingFor`: what this partition cannot go on without. `newer`: so many more
    messages wait for a newer release; the others do not wait for them.
    """

    up_to: Annotated[int, Field(ge=0)]
    pending: Annotated[int, Field(ge=0)] = 0
    oldest_seconds: Annotated[float, Field(ge=0)] | None = None
    still_seconds: Annotated[float, Field(ge=0)] | None = None
    reads: bool = False
    waiting_for: WaitingFor | None = None
    newer: Annotated[int, Field(ge=0)] = 0


class Applied(Message):
    """A state manager about the partitions of the log (0 to 7, and `servers`) that it works off or stands by for.

    `waitingFor`: what it cannot go on without, for `waitingSeconds` already. `format`: the newest one that it
    understands. State managers leave the log to those that understand the newest (`actors.state_manager.partitions`).
    """

    type: ClassVar[str] = "applied"
    state_manager: Id
    partitions: dict[str, PartitionApplied]
    waiting_for: WaitingFor | None = None
    waiting_seconds: Annotated[float, Field(ge=0)] | None = None
    understood_format: Annotated[int, Field(ge=1, alias="format")] = 1


class Delay(NamedTuple):
    """What a view waits for, and for how many seconds. `progressing`: work goes on, it is only late."""

    waiting_for: WaitingFor
    seconds: float
    progressing: bool = False

    @property
    def severity(self) -> float:
        """The share of the tolerated time that has passed; above 1 the delay is too long."""
        return self.seconds / (LATE_SECONDS if self.progressing else STALLED_SECONDS)


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """A durable consumer as the broker reports it at the time `at` of its clock (seconds since the epoch).

    `pending` messages are not delivered yet, `unacknowledged` ones are. Every message up to the stream sequence
    `ack_floor` is acknowledged. `deliveries`: how many there were.
    """

    at: float
    pending: int
    unacknowledged: int
    ack_floor: int
    deliveries: int = 0

    @property
    def settled(self) -> int:
        """A number that grows with each acknowledgement, also while an older message waits."""
        return self.deliveries - self.unacknowledged


@dataclass(frozen=True, slots=True)
class HeldDeliveries:
    """The deliveries that a reader holds unacknowledged: their `count`, and when the `oldest` was stored.

    `oldest`: seconds since the epoch by the broker's clock; `None` when the reader holds none. `left`: so many messages
    it has left to a newer state manager.
    """

    count: int = 0
    oldest: float | None = None
    left: int = 0


class ProgressTracker:
    """Derives from repeated reports of the broker how long the reading of one consumer has stalled.

    Example::

        tracker = ProgressTracker()
        tracker.update(consumer, HeldDeliveries(3, oldest=106.5)).still_seconds
    """

    def __init__(self) -> None:
        self._last: ConsumerProgress | None = None
        self._stalled_since: float | None = None

    def update(self, consumer: ConsumerProgress, held: HeldDeliveries) -> PartitionApplied:
        """Return the progress of the consumer, given what the broker reports now and what its reader holds.

        For held deliveries it is known when they were stored. Messages that nobody fetches, or that a reader held who
        died, wait at least since the first report that showed them.
        """
        last, self._last = self._last, consumer
        newer = min(held.left, consumer.unacknowledged)
        pending = consumer.pending + consumer.unacknowledged - newer
        if pending == 0:
            self._stalled_since = None
        elif (
            last is None
            or self._stalled_since is None
            or consumer.ack_floor != last.ack_floor
            or (newer and consumer.settled != last.settled)
        ):
            self._stalled_since = consumer.at
        return PartitionApplied(
            up_to=consumer.ack_floor,
            pending=pending,
            newer=newer,
            oldest_seconds=_age(held.oldest, consumer.at),
            still_seconds=_age(self._stalled_since, consumer.at),
        )


def _age(since: float | None, now: float) -> float | None:
    return round(max(0.0, now - since), 3) if since is not None else None


def delays_of(progress: PartitionApplied, stalled: WaitingFor, late: WaitingFor) -> Iterator[Delay]:
    """Yield the delays of a consumer: what it waits for if it has `stalled`, and if it is `late`."""
    if progress.still_seconds is not None:
        yield Delay(stalled, progress.still_seconds)
    if progress.oldest_seconds is not None:
        yield Delay(late, progress.oldest_seconds, progressing=True)


class AppliedRegistry:
    """The newest report of each state manager, as a socket server received it.

    All times are seconds of one monotonic clock of the socket server.
    """

    def __init__(self, now: float) -> None:
        self._listening_since = now
        self._reports: dict[str, tuple[float, Applied]] = {}
        self._reported_at: dict[str, float] = {}

    def record(self, report: Applied, now: float) -> None:
        """Store a report; it replaces the older one of the same state manager."""
        self._reports[report.state_manager] = (now, report)
        self._reported_at.update(dict.fromkeys(report.partitions, now))

    def shift(self, seconds: float) -> None:
        """Move all times by the `seconds` for which the listener itself stood still: later reports are unread yet."""
        self._listening_since += seconds
        self._reports = {name: (at + seconds, report) for name, (at, report) in self._reports.items()}
        self._reported_at = {part: at + seconds for part, at in self._reported_at.items()}

    def is_waiting_for(self, reason: WaitingFor, now: float) -> bool:
        """Return whether a state manager has lately reported that it waits for something."""
        return any(report.waiting_for == reason for at, report in self._reports.values() if now - at <= SILENT_SECONDS)

    def delay_of(self, part: str, now: float, ignored: Collection[WaitingFor] = ()) -> Delay | None:
        """Return the most severe delay of a part of the log, however short; `None`: all of it is applied.

        Waiting for something in `ignored` does not count. What a state manager waits for counts for the parts that it
        reads. When nobody reads a part, because there is nothing to do, it counts for those that stand by.
        """
        reported_at = self._reported_at.get(part, self._listening_since)
        if now - reported_at > SILENT_SECONDS:
            return Delay("state-manager", now - reported_at)
        current = [
            (report, progress)
            for at, report in self._reports.values()
            if now - at <= SILENT_SECONDS and (progress := report.partitions.get(part)) is not None
        ]
        readers = [report for report, progress in current if progress.reads] or [report for report, _ in current]
        delays = [
            Delay(report.waiting_for, report.waiting_seconds or 0.0)
            for report in readers
            if report.waiting_for is not None
        ]
        reason = max(delays, key=lambda delay: delay.seconds).waiting_for if delays else "log"
        # Who reads a part knows which of its messages wait for a newer release; others take these for a stall.
        for progress in [progress for _, progress in current if progress.reads] or [each for _, each in current]:
            delays += delays_of(progress, progress.waiting_for or reason, "log")
        delays = [delay for delay in delays if delay.waiting_for not in ignored]
        return max(delays, key=lambda delay: delay.severity, default=None)

    def forget(self, now: float, after: float = 60.0) -> None:
        """Drop reports older than `after` seconds: a state manager does not come back under its old name."""
        self._reports = {name: (at, report) for name, (at, report) in self._reports.items() if now - at <= after}


def is_current(delay: Delay | None, *, was_current: bool) -> bool:
    """Return whether a view with this delay is current.

    A view that `was_current` stays so for longer than one that was not becomes so: it does not flicker.
    """
    if delay is None:
        return True
    if delay.waiting_for == "state-manager":
        return False  # it was silent for `SILENT_SECONDS` already
    end, begin = (LATE_SECONDS, IN_TIME_SECONDS) if delay.progressing else (STALLED_SECONDS, RESUMED_SECONDS)
    return delay.seconds <= (end if was_current else begin)
