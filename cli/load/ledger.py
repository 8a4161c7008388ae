"""Match the losses and recoveries that a load run caused with the events that proctors received.

Pure: no sockets and no clock. Times are seconds since the epoch on one machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class ConnectionChange(StrEnum):
    """A loss or a recovery of an examinee's connection; the value is the type of its event."""

    LOST = "examinee_disconnected"
    RECOVERED = "examinee_connected"


MIGRATING = "examinee_migrating"
"""The event for the end of a connection because of a drain. It is not a loss."""


class RunPhase(StrEnum):
    """The part of a run that caused a change.

    `POLLED`: rounds in which Redis is polled; they are slower, so they are not part of the measurement. `END`: the
    examinee that marks the end.
    """

    SET_UP = "set-up"
    MEASURED = "measured"
    POLLED = "polled"
    END = "end"


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """An event that a proctor received at the time `at`. `type`: the type on the wire."""

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
    """One examinee's losses or recoveries, with migrations: those caused, and those reported (each version once)."""

    caused: list[_Cause] = field(default_factory=list)
    reported: list[ObservedEvent] = field(default_factory=list)

    @property
    def matched(self) -> int:
        return min(len(self.caused), len(self.reported))


@dataclass(frozen=True, slots=True)
class LedgerVerdict:
    """Counts of missing, doubled and misordered events.

    `restated`: corrections by the state manager after a late message; these are not errors. `false_alarms`: losses
    reported for examinees who only migrated.
    """

    missing: int = 0
    doubled: int = 0
    out_of_order: int = 0
    restated: int = 0
    false_alarms: int = 0


class Ledger:
    """Losses and recoveries that were caused, and the connection events that proctors received.

    A change counts as reported when one proctor received it, because a proctor may be moving to another server. It
    counts as doubled or out of order when this happened to one proctor (`by`).

    Example::

        ledger = Ledger()
        ledger.cause("E001", ConnectionChange.LOST, at, RunPhase.MEASURED)
        ledger.observe(ObservedEvent("examinee_disconnected", "E001", 7, at + 0.1))
        assert ledger.verdict().missing == 0
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, ConnectionChange], _ChangeRecord] = {}
        self._heard: set[tuple[str, str, str, int]] = set()
        self._reported: set[tuple[str, str, int]] = set()
        self._newest: dict[tuple[str, str], int] = {}
        self._newest_of_all: dict[str, int] = {}
        self._last: dict[str, str] = {}
        self._outstanding = 0
        self.repeated = 0
        self.out_of_order = 0

    def _record_of(self, examinee_id: str, change: ConnectionChange) -> _ChangeRecord:
        return self._records.setdefault((examinee_id, change), _ChangeRecord())

    def cause(
        self, examinee_id: str, change: ConnectionChange, at: float, phase: RunPhase, *, migrated: bool = False
    ) -> None:
        """Record a change that was caused. `migrated`: it is one half of a migration.

        Proctors may have received its event already.
        """
        record = self._record_of(examinee_id, change)
        before = record.matched
        record.caused.append(_Cause(at, phase, migrated))
        self._outstanding += 1 - (record.matched - before)

    def observe(self, event: ObservedEvent, by: str = "") -> None:
        """Record a connection event of any type, as all types share the examinee's version."""
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
        if identity not in self._reported and event.type in (
            ConnectionChange.LOST,
            ConnectionChange.RECOVERED,
            MIGRATING,
        ):
            self._reported.add(identity)
            record = self._record_of(
                event.examinee_id,
                ConnectionChange.RECOVERED if event.type == ConnectionChange.RECOVERED else ConnectionChange.LOST,
            )
            before = record.matched
            record.reported.append(event)
            self._outstanding -= record.matched - before
            self._last[event.examinee_id] = event.type

    def observe_snapshot(self, event: ObservedEvent, by: str = "") -> None:
        """Record a row of a later snapshot: it counts as an event only if its status is new."""
        newest = self._newest_of_all.get(event.examinee_id, 0)
        if event.version > newest and event.type != self._last.get(event.examinee_id):
            self.observe(event, by)

    @property
    def outstanding(self) -> int:
        """The number of changes that no proctor has received yet."""
        return self._outstanding

    def reported(self, examinee_id: str, change: ConnectionChange) -> int:
        """Return how many changes of this kind were reported for an examinee."""
        return len(self._record_of(examinee_id, change).reported)

    def verdict(self) -> LedgerVerdict:
        """Return the errors. More reported than caused changes count as doubled, regardless of their versions."""
        missing = excess = restated = false_alarms = 0
        for record in self._records.values():
            alarms = sum(event.type == ConnectionChange.LOST and not event.restated for event in record.reported)
            migrated = sum(cause.migrated for cause in record.caused)
            false_alarms += max(0, min(migrated, alarms - (len(record.caused) - migrated)))
            restatements = sum(event.restated for event in record.reported)
            missing += max(0, len(record.caused) - len(record.reported))
            excess += max(0, len(record.reported) - restatements - len(record.caused))
            restated += restatements
        return LedgerVerdict(missing, self.repeated + excess, self.out_of_order, restated, false_alarms)

    @property
    def migrated(self) -> int:
        """The number of migrations to another server."""
        return sum(
            cause.migrated
            for (_, change), record in self._records.items()
            if change is ConnectionChange.RECOVERED
            for cause in record.caused
        )

    def latencies(self, change: ConnectionChange, phase: RunPhase = RunPhase.MEASURED) -> list[float]:
        """Return the seconds from each cause in a phase to the first proctor's frame, without migrations."""
        return [event.at - cause.at for cause, event in self._pairs(change, phase)]

    def times(self, change: ConnectionChange, phase: RunPhase = RunPhase.MEASURED) -> list[float]:
        """Return the times at which proctors received the changes of a phase."""
        return [event.at for _, event in self._pairs(change, phase)]

    def _pairs(self, change: ConnectionChange, phase: RunPhase) -> Iterable[tuple[_Cause, ObservedEvent]]:
        for (_, kind), record in self._records.items():
            if kind is change:
                reported = sorted(record.reported, key=lambda event: event.version)
                for cause, event in zip(record.caused, reported, strict=False):
                    if cause.phase is phase and not cause.migrated:
                        yield cause, event
