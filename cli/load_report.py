"""What a load run comes to: every loss and recovery that was caused against every one that was told, and figures.

Pure: no sockets and no clock. Times are seconds since the epoch, of one machine's clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Turn(StrEnum):
    """What happens to an examinee's connection, named by the event that tells it."""

    LOST = "examinee_disconnected"
    BACK = "examinee_connected"


MIGRATING = "examinee_migrating"
"""Tells the end of a connection as well, of an examinee whose server was drained: no loss."""


class Phase(StrEnum):
    """Which part of a run caused something.

    Getting there, what is measured, what Redis was polled for (that costs time, so it is not measured with the
    rest), the mark at the end.
    """

    SET_UP = "set-up"
    MEASURED = "measured"
    POLLED = "polled"
    END = "end"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest rank (the smallest value that `p` percent of the samples do not exceed), in ms."""

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles | None:
        """`None` when there is no sample."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        p50, p95, p99 = (round(nearest_rank(ordered, percent) * 1000, 3) for percent in (50, 95, 99))
        return cls(p50, p95, p99, len(ordered))


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order, at least one."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def per_second(times: Sequence[float]) -> float | None:
    """How many a second: count / (last - first); `None` when they do not span a time."""
    span = max(times) - min(times) if len(times) > 1 else 0.0
    return round(len(times) / span, 1) if span > 0 else None


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as the proctor received it, `at` that time. `type`: on the wire."""

    type: str
    examinee_id: str
    version: int
    at: float
    restated: bool = False


@dataclass(frozen=True, slots=True)
class _Cause:
    at: float
    phase: Phase
    migrated: bool


@dataclass(slots=True)
class _Course:
    """One examinee's losses or recoveries, migrations among them: caused, and told (each version once)."""

    caused: list[_Cause] = field(default_factory=list)
    told: list[Seen] = field(default_factory=list)

    @property
    def matched(self) -> int:
        return min(len(self.caused), len(self.told))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`restated`: told anew by the state manager because a late message changed what was told; no fault.

    `false_alarms`: losses told of examinees who had only migrated.
    """

    missing: int
    doubled: int
    out_of_order: int
    restated: int
    false_alarms: int = 0


class Ledger:
    """Every loss and recovery that was caused, beside every connection event that the proctors received.

    What one proctor does not see, since it is on its way to another server, another one sees: a thing counts as told
    when one of them was told, as doubled or out of order when one of them (`by`) was told so.
    """

    def __init__(self) -> None:
        self._courses: dict[tuple[str, Turn], _Course] = {}
        self._heard: set[tuple[str, str, str, int]] = set()
        self._told: set[tuple[str, str, int]] = set()
        self._newest: dict[tuple[str, str], int] = {}
        self._newest_of_all: dict[str, int] = {}
        self._last: dict[str, str] = {}
        self._outstanding = 0
        self.repeated = 0
        self.out_of_order = 0

    def _course(self, examinee_id: str, turn: Turn) -> _Course:
        return self._courses.setdefault((examinee_id, turn), _Course())

    def cause(self, examinee_id: str, turn: Turn, at: float, phase: Phase, *, migrated: bool = False) -> None:
        """Note that a loss or recovery (or a migration's end and beginning) was brought about.

        The proctors may have been told already.
        """
        course = self._course(examinee_id, turn)
        before = course.matched
        course.caused.append(_Cause(at, phase, migrated))
        self._outstanding += 1 - (course.matched - before)

    def see(self, event: Seen, by: str = "") -> None:
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
        if identity not in self._told and event.type in (Turn.LOST, Turn.BACK, MIGRATING):
            self._told.add(identity)
            course = self._course(event.examinee_id, Turn.BACK if event.type == Turn.BACK else Turn.LOST)
            before = course.matched
            course.told.append(event)
            self._outstanding -= course.matched - before
            self._last[event.examinee_id] = event.type

    def cover(self, event: Seen, by: str = "") -> None:
        """Take in a row of a later snapshot: it stands for an event only when it says something new."""
        newest = self._newest_of_all.get(event.examinee_id, 0)
        if event.version > newest and event.type != self._last.get(event.examinee_id):
            self.see(event, by)

    @property
    def outstanding(self) -> int:
        """How many were caused and not told yet."""
        return self._outstanding

    def told(self, examinee_id: str, turn: Turn) -> int:
        """How many of these the proctor was told."""
        return len(self._course(examinee_id, turn).told)

    def verdict(self) -> Verdict:
        """What is wrong. More losses (or recoveries) told than caused are doubled, whatever their versions."""
        missing = excess = restated = false_alarms = 0
        for course in self._courses.values():
            alarms = sum(event.type == Turn.LOST and not event.restated for event in course.told)
            migrated = sum(cause.migrated for cause in course.caused)
            false_alarms += max(0, min(migrated, alarms - (len(course.caused) - migrated)))
            again = sum(event.restated for event in course.told)
            missing += max(0, len(course.caused) - len(course.told))
            excess += max(0, len(course.told) - again - len(course.caused))
            restated += again
        return Verdict(missing, self.repeated + excess, self.out_of_order, restated, false_alarms)

    @property
    def migrated(self) -> int:
        """How often somebody has moved to another server."""
        return sum(
            cause.migrated for (_, turn), one in self._courses.items() if turn is Turn.BACK for cause in one.caused
        )

    def latencies(self, turn: Turn, phase: Phase = Phase.MEASURED) -> list[float]:
        """Seconds from each cause of the phase to the first proctor's frame, migrations left out."""
        return [event.at - cause.at for cause, event in self._pairs(turn, phase)]

    def times(self, turn: Turn, phase: Phase = Phase.MEASURED) -> list[float]:
        """When the proctor was told those of the phase."""
        return [event.at for _, event in self._pairs(turn, phase)]

    def _pairs(self, turn: Turn, phase: Phase) -> Iterable[tuple[_Cause, Seen]]:
        for (_, kind), course in self._courses.items():
            if kind is turn:
                told = sorted(course.told, key=lambda event: event.version)
                for cause, event in zip(course.caused, told, strict=False):
                    if cause.phase is phase and not cause.migrated:
                        yield cause, event


@dataclass(slots=True)
class Baseline:
    """The bare engine path. `losses_per_second` counts its messages; `ratio`: how many times as long ours takes.

    `losses_per_second_overall`: as in `Report`, from before the publish.
    """

    latency: Percentiles | None = None
    losses_per_second: float | None = None
    losses_per_second_overall: float | None = None
    ratio: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "latencyMs": _json(self.latency),
            "lossesPerSecond": self.losses_per_second,
            "lossesPerSecondOverall": self.losses_per_second_overall,
            "ratio": self.ratio,
        }


@dataclass(slots=True)
class Report:
    """The figures of one run; `None`: the scenario does not measure it. `notes` say how figures were taken.

    `losses_per_second`: count / (last frame - first frame). `losses_per_second_overall`, of a hall outage: count /
    (last frame - the sockets' end), which includes the time until the first frame.
    """

    scenario: str
    plan_id: str
    examinees: int
    servers: int
    machine: dict[str, Any]
    connects_per_second: float | None = None
    losses_per_second: float | None = None
    losses_per_second_overall: float | None = None
    recoveries_per_second: float | None = None
    latency: Percentiles | None = None
    redis_latency: Percentiles | None = None
    recovery_latency: Percentiles | None = None
    verdict: Verdict = Verdict(0, 0, 0, 0)
    redis_disagrees: int = 0
    unexpected_losses: int = 0
    not_admitted: int = 0
    refusals: int = 0
    resyncs: int = 0
    migrated: int = 0
    migration: Percentiles | None = None
    views_disagree: int = 0
    kib_per_connection: float | None = None
    measured_seconds: float = 0.0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    baseline: Baseline | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether everything was told once, in order, and rightly, Redis and the proctors' views agree with the truth,
        and everybody was let in and kept.
        """
        told = self.verdict
        return not (
            told.missing
            or told.doubled
            or told.out_of_order
            or self.redis_disagrees
            or self.unexpected_losses
            or self.not_admitted
            or told.false_alarms
            or self.views_disagree
        )

    def compare(self, baseline: Baseline) -> None:
        """Take in the bare path's figures: the ratio is of throughputs in a hall outage, else of the medians."""
        if self.scenario == "hall-outage":
            if baseline.losses_per_second and self.losses_per_second:
                baseline.ratio = round(baseline.losses_per_second / self.losses_per_second, 2)
        elif baseline.latency and self.latency:
            baseline.ratio = round(self.latency.p50 / baseline.latency.p50, 2)
        self.baseline = baseline

    def as_json(self) -> dict[str, Any]:
        """The object that `-o json` prints; the names are those of the design, section 7."""
        told = {
            "scenario": self.scenario,
            "planId": self.plan_id,
            "examinees": self.examinees,
            "servers": self.servers,
            "correct": self.correct,
            "connectsPerSecond": self.connects_per_second,
            "lossesPerSecond": self.losses_per_second,
            "lossesPerSecondOverall": self.losses_per_second_overall,
            "recoveriesPerSecond": self.recoveries_per_second,
            "latencyMs": _json(self.latency),
            "redisLatencyMs": _json(self.redis_latency),
            "recoveryLatencyMs": _json(self.recovery_latency),
            "missing": self.verdict.missing,
            "doubled": self.verdict.doubled,
            "outOfOrder": self.verdict.out_of_order,
            "restated": self.verdict.restated,
            "falseAlarms": self.verdict.false_alarms,
            "migrated": self.migrated,
            "migrationMs": _json(self.migration),
            "viewsDisagree": self.views_disagree,
            "redisDisagrees": self.redis_disagrees,
            "unexpectedLosses": self.unexpected_losses,
            "notAdmitted": self.not_admitted,
            "refusals": self.refusals,
            "resyncs": self.resyncs,
            "kibPerConnection": self.kib_per_connection,
            "measuredSeconds": round(self.measured_seconds, 3),
            "cpuSeconds": dict(self.cpu_seconds),
            "machine": self.machine,
            "notes": self.notes,
        }
        if self.baseline is not None:
            told["baseline"] = self.baseline.as_json()
            told["ratio"] = self.baseline.ratio
        return told

    def rows(self) -> list[tuple[str, str]]:
        """The figures for people: name, value."""
        told = self.verdict
        rows = [
            ("connects/s", _number(self.connects_per_second)),
            ("losses/s", _number(self.losses_per_second)),
            ("losses/s from the sockets' end on", _number(self.losses_per_second_overall)),
            ("recoveries/s", _number(self.recoveries_per_second)),
            ("socket's end to proctor's frame", _shown(self.latency)),
            ("socket's end to Redis", _shown(self.redis_latency)),
            ("connecting to proctor's frame", _shown(self.recovery_latency)),
            ("sent away to the welcome elsewhere", _shown(self.migration)),
            ("missing / doubled / out of order", f"{told.missing} / {told.doubled} / {told.out_of_order}"),
            ("Redis disagrees about", f"{self.redis_disagrees} examinees"),
            ("KiB of socket server a connection", _number(self.kib_per_connection)),
            ("measured", f"{self.measured_seconds:.1f} s"),
            ("CPU seconds", ", ".join(f"{role} {seconds:.2f}" for role, seconds in self.cpu_seconds.items())),
        ]
        if self.migrated:
            rows.append(("migrated / false alarms", f"{self.migrated} / {told.false_alarms}"))
        for name, count in (
            ("proctors' views that are wrong about somebody", self.views_disagree),
            ("lost without our doing", self.unexpected_losses),
            ("not let in", self.not_admitted),
            ("refused, tried again", self.refusals),
            ("resynchronised", self.resyncs),
            ("restated", told.restated),
        ):
            if count:
                rows.append((name, str(count)))
        if self.baseline is not None:
            rows += [
                ("bare path: latency", _shown(self.baseline.latency)),
                ("bare path: messages/s", _number(self.baseline.losses_per_second)),
                ("bare path: messages/s from the publish on", _number(self.baseline.losses_per_second_overall)),
                ("times as long as the bare path", _number(self.baseline.ratio)),
            ]
        return [(name, value) for name, value in rows if value]


def _json(percentiles: Percentiles | None) -> dict[str, float] | None:
    return asdict(percentiles) if percentiles is not None else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 100 else f"{value:.2f}"


def _shown(value: Percentiles | None) -> str:
    if value is None:
        return ""
    return f"p50 {value.p50:.1f} ms, p95 {value.p95:.1f} ms, p99 {value.p99:.1f} ms ({value.samples} samples)"
