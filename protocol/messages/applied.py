"""Up to where the log is applied: what state managers say each second, and what follows for who looks at a plan.

`applied.{stateManager}` goes over core NATS, not JetStream: a message that does not arrive says that something stands
still. A view of a plan is current while a state manager works off the plan's partition of the log, and neither stands
still nor is late. Work that goes on may be late for longer: when a hall loses its network on a busy machine, the losses
appear one after another, and a wall that turns grey over it helps nobody.

    words = AppliedWords(now)
    words.heard(applied, now)
    words.behind(str(partition_of("P001")), now)  # None, or what it waits for and since how many seconds
    words.behind(SERVERS, now)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from protocol.ids import Id
from protocol.messages.base import Message, Wire

SAY_SECONDS = 1.0
"""How often a state manager says how far it is while all is well."""
SAY_SOON_SECONDS = 0.25
"""How often it looks again while something waits: the end of it is told soon."""
SILENT_SECONDS = 3.0
"""A state manager that was not heard for so long does not work."""
STILL_SECONDS, MOVES_SECONDS = 2.5, 1.5
"""Something waits, and nothing goes on: for longer than the first, not current; for less than the second, again."""
LATE_SECONDS, IN_TIME_SECONDS = 6.0, 3.0
"""The same of how old the oldest is that is not applied yet, while work goes on."""

SERVERS = "servers"
"""The part of the log that tells of socket servers: who is lost with them depends on it."""

WaitingFor = Literal["nats", "redis", "state", "log", "consumer", "queue", "state-manager"]
"""What a view that is not current waits for.

nats, redis: the engine answers. state: Redis is brought up to the log. log: what happened is worked off. consumer: the
queue server makes a missing consumer of the log. queue: the socket server's queue is there and worked off.
state-manager: one is heard.
"""


class PartitionApplied(Wire):
    """How far one partition is: applied up to the stream sequence `upTo`; `pending` messages wait, the oldest of them
    for `oldestSeconds`, and for `stillSeconds` none was applied. By the broker's clock. `reads`: this state manager
    works it off now; else it stands by. `waitingFor`: what this partition cannot go on without.
    """

    up_to: Annotated[int, Field(ge=0)]
    pending: Annotated[int, Field(ge=0)] = 0
    oldest_seconds: Annotated[float, Field(ge=0)] | None = None
    still_seconds: Annotated[float, Field(ge=0)] | None = None
    reads: bool = False
    waiting_for: WaitingFor | None = None


class Applied(Message):
    """A state manager about the partitions of the log (0 to 7, and `servers`) that it works off or stands by for.

    `waitingFor`: what it cannot go on without, for `waitingSeconds` already.
    """

    type: ClassVar[str] = "applied"
    state_manager: Id
    partitions: dict[str, PartitionApplied]
    waiting_for: WaitingFor | None = None
    waiting_seconds: Annotated[float, Field(ge=0)] | None = None


class Behind(NamedTuple):
    """What a view waits for, and for how many seconds it has. `moves`: work goes on, it is only late."""

    waiting_for: WaitingFor
    seconds: float
    moves: bool = False

    @property
    def share(self) -> float:
        """Of what is put up with; from 1 on it is too much."""
        return self.seconds / (LATE_SECONDS if self.moves else STILL_SECONDS)


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """A durable consumer as the broker tells it: `at` by the broker's clock; `pending` are not delivered yet,
    `unacknowledged` are. Up to the stream sequence `ack_floor` all is acknowledged.
    """

    at: float
    pending: int
    unacknowledged: int
    ack_floor: int


@dataclass(frozen=True, slots=True)
class InHand:
    """What a reader of a consumer has: `count` deliveries, the `oldest` stored at that time by the broker's clock."""

    count: int = 0
    oldest: float | None = None


class Lag:
    """How late the reading of a consumer is, by what the broker says of it time and again."""

    def __init__(self) -> None:
        self._last: ConsumerProgress | None = None
        self._still_since: float | None = None

    def look(self, now: ConsumerProgress, in_hand: InHand) -> PartitionApplied:
        """How far it is. Of messages in hand it is known when they were stored.

        Those that nobody fetches, or that a reader has who died, wait at least since the first look that found them.
        """
        last, self._last = self._last, now
        if now.pending + now.unacknowledged == 0:
            self._still_since = None
        elif last is None or now.ack_floor != last.ack_floor or self._still_since is None:
            self._still_since = now.at
        return PartitionApplied(
            up_to=now.ack_floor,
            pending=now.pending + now.unacknowledged,
            oldest_seconds=_seconds(in_hand.oldest, now.at),
            still_seconds=_seconds(self._still_since, now.at),
        )


def _seconds(since: float | None, now: float) -> float | None:
    return round(max(0.0, now - since), 3) if since is not None else None


def lateness(progress: PartitionApplied, still: WaitingFor, late: WaitingFor) -> Iterator[Behind]:
    """What of a consumer's progress counts: that it stands `still`, and that it is `late`."""
    if progress.still_seconds is not None:
        yield Behind(still, progress.still_seconds)
    if progress.oldest_seconds is not None:
        yield Behind(late, progress.oldest_seconds, moves=True)


class AppliedWords:
    """What state managers have said, as a socket server hears it. Times are seconds of one clock of the listener."""

    def __init__(self, now: float) -> None:
        self._listens_since = now
        self._words: dict[str, tuple[float, Applied]] = {}
        self._spoken_of: dict[str, float] = {}

    def heard(self, word: Applied, now: float) -> None:
        """A state manager has spoken; what it said before no longer counts."""
        self._words[word.state_manager] = (now, word)
        self._spoken_of.update(dict.fromkeys(word.partitions, now))

    def stood_still(self, seconds: float) -> None:
        """The listener itself was late by so much: what was said meanwhile is still to be read."""
        self._listens_since += seconds
        self._words = {name: (at + seconds, word) for name, (at, word) in self._words.items()}
        self._spoken_of = {name: at + seconds for name, at in self._spoken_of.items()}

    def behind(self, part: str, now: float) -> Behind | None:
        """What a part of the log waits for, however short the time; `None`: it is applied.

        What a state manager cannot go on without counts for what it works off; where nobody does, because there is
        nothing to do, it counts of everybody.
        """
        spoken_of = self._spoken_of.get(part, self._listens_since)
        if now - spoken_of > SILENT_SECONDS:
            return Behind("state-manager", now - spoken_of)
        said = [
            (word, progress)
            for at, word in self._words.values()
            if now - at <= SILENT_SECONDS and (progress := word.partitions.get(part)) is not None
        ]
        readers = [word for word, progress in said if progress.reads] or [word for word, _ in said]
        waiting = [
            Behind(word.waiting_for, word.waiting_seconds or 0.0) for word in readers if word.waiting_for is not None
        ]
        reason = max(waiting, key=lambda one: one.seconds).waiting_for if waiting else "log"
        for _, progress in said:
            waiting += lateness(progress, progress.waiting_for or reason, "log")
        return max(waiting, key=lambda one: one.share, default=None)

    def forget(self, now: float, after: float = 60.0) -> None:
        """Managers that were not heard for so long do not come back under their name."""
        self._words = {name: (at, word) for name, (at, word) in self._words.items() if now - at <= after}


def is_current(behind: Behind | None, *, was_current: bool) -> bool:
    """Whether a view is current. Its end and its next beginning are a distance apart, so that it does not flicker."""
    if behind is None:
        return True
    if behind.waiting_for == "state-manager":
        return False  # its patience is `SILENT_SECONDS`
    end, beginning = (LATE_SECONDS, IN_TIME_SECONDS) if behind.moves else (STILL_SECONDS, MOVES_SECONDS)
    return behind.seconds <= (end if was_current else beginning)
