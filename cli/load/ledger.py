"""The account of a load run: every loss and recovery that was caused against every one that was told.

Pure: no sockets and no clock. Times are seconds since the epoch, of one machine's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class ConnectionChange(StrEnum):
    """What happens to an examinee's connection, named by the event that tells it."""

    LOST = "examinee_disconnected"
    BACK = "examinee_connected"


MIGRATING = "examinee_migrating"
"""Tells the end of a connection as well, of an examinee whose server was drained: no loss."""


class RunPhase(StrEnum):
    """Which part of a run caused something.

    Getting there, what is measured, what Redis was polled for (that costs time, so it is not measured with the
    rest), the mark at the end.
    """

    SET_UP = "set-up"
    MEASURED = "measured"
    POLLED = "polled"
    END = "end"


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """One event as the proctor received it, `at` that time. `type`: on the wire."""

    type: str
    examinee_id: str
    version: int
    at: float
    restated: bool = False


@dataclass(frozen=True, slots=True)
class _Cause:
    at: float
    phase: RunPhase
    migrated: bool


@dataclass(slots=True)
class _ChangeRecord:
    """One examinee's losses or recoveries, migrations among them: caused, and told (each version once)."""

    caused: list[_Cause] = field(default_factory=list)
    told: list[ObservedEvent] = field(default_factory=list)

    @property
    def matched(self) -> int:
        return min(len(self.caused), len(self.told))


@dataclass(frozen=True, slots=True)
class LedgerVerdict:
    """`restated`: told anew by the state manager because a late message changed what was told; no fault.

    `false_alarms`: losses told of examinees who had only migrated.
    """

    missing: int = 0
    doubled: int = 0
    out_of_order: int = 0
    restated: int = 0
    false_alarms: int = 0


class Ledger:
    """Every loss and recovery that was caused, beside every connection event that the proctors received.

    What one proctor does not see, since it is on its way to another server, another one sees: a thing counts as told
    when one of them was told, as doubled or out of order when one of them (`by`) was told so.
    """

    def __init__(self) -> None:
        self._courses: dict[tuple[str, ConnectionChange], _ChangeRecord] = {}
        self._heard: set[tuple[str, str, str, int]] = set()
        self._told: set[tuple[str, str, int]] = set()
        self._newest: dict[tuple[str, str], int] = {}
        self._newest_of_all: dict[str, int] = {}
        self._last: dict[str, str] = {}
        self._outstanding = 0
        self.repeated = 0
        self.out_of_order = 0

    def _course(self, examinee_id: str, turn: ConnectionChange) -> _ChangeRecord:
        return self._courses.setdefault((examinee_id, turn), _ChangeRecord())

    def cause(
        self, examinee_id: str, turn: ConnectionChange, at: float, phase: RunPhase, *, migrated: bool = False
    ) -> None:
        """Note that a loss or recovery (or a migration's end and beginning) was brought about.

        The proctors may have been told already.
        """
        course = self._course(examinee_id, turn)
        before = course.matched
        course.caused.append(_Cause(at, phase, migrated))
        self._outstanding += 1 - (course.matched - before)

    def see(self, event: ObservedEvent, by: str = "") -> None:
        """Note a connection event; of any type, since all share an examinee's version."""
        identity = (event.type, event.examinee_id, event.version)
        if (by, *identity) in self._heard:
            self.repeated += 1
            return
        self._heard.add((by, *identity))
        newest = self._newest.get((by, event.examinee_id), 0)
        if event.version < newest:
            self.out_of_order += 1
        self._newest[by, event.examinee_id] = max(newest, event.version)
        self._newest_of_all[event.examinee_id] = max(self._newest_of_all.get(event.examinee_id, 0), event.version)
        if identity not in self._told and event.type in (ConnectionChange.LOST, ConnectionChange.BACK, MIGRATING):
            self._told.add(identity)
            course = self._course(
                event.examinee_id,
                ConnectionChange.BACK if event.type == ConnectionChange.BACK else ConnectionChange.LOST,
            )
            before = course.matched
            course.told.append(event)
            self._outstanding -= course.matched - before
            self._last[event.examinee_id] = event.type

    def cover(self, event: ObservedEvent, by: str = "") -> None:
        """Take in a row of a later snapshot: it stands for an event only when it says something new."""
        newest = self._newest_of_all.get(event.examinee_id, 0)
        if event.version > newest and event.type != self._last.get(event.examinee_id):
            self.see(event, by)

    @property
    def outstanding(self) -> int:
        """How many were caused and not told yet."""
        return self._outstanding

    def told(self, examinee_id: str, turn: ConnectionChange) -> int:
        """How many of these the proctor was told."""
        return len(self._course(examinee_id, turn).told)

    def verdict(self) -> LedgerVerdict:
        """What is wrong. More losses (or recoveries) told than caused are doubled, whatever their versions."""
        missing = excess = restated = false_alarms = 0
        for course in self._courses.values():
            alarms = sum(event.type == ConnectionChange.LOST and not event.restated for event in course.told)
            migrated = sum(cause.migrated for cause in course.caused)
            false_alarms += max(0, min(migrated, alarms - (len(course.caused) - migrated)))
            again = sum(event.restated for event in course.told)
            missing += max(0, len(course.caused) - len(course.told))
            excess += max(0, len(course.told) - again - len(course.caused))
            restated += again
        return LedgerVerdict(missing, self.repeated + excess, self.out_of_order, restated, false_alarms)

    @property
    def migrated(self) -> int:
        """How often somebody has moved to another server."""
        return sum(
            cause.migrated
            for (_, turn), one in self._courses.items()
            if turn is ConnectionChange.BACK
            for cause in one.caused
        )

    def latencies(self, turn: ConnectionChange, phase: RunPhase = RunPhase.MEASURED) -> list[float]:
        """Seconds from each cause of the phase to the first proctor's frame, migrations left out."""
        return [event.at - cause.at for cause, event in self._pairs(turn, phase)]

    def times(self, turn: ConnectionChange, phase: RunPhase = RunPhase.MEASURED) -> list[float]:
        """When the proctor was told those of the phase."""
        return [event.at for _, event in self._pairs(turn, phase)]

    def _pairs(self, turn: ConnectionChange, phase: RunPhase) -> Iterable[tuple[_Cause, ObservedEvent]]:
        for (_, kind), course in self._courses.items():
            if kind is turn:
                told = sorted(course.told, key=lambda event: event.version)
                for cause, event in zip(course.caused, told, strict=False):
                    if cause.phase is phase and not cause.migrated:
                        yield cause, event
