"""What a load run comes to: its verdict and figures, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cli.load.ledger import LedgerVerdict
from cli.load.percentiles import Percentiles


@dataclass(slots=True)
class Baseline:
    """The bare engine path. `losses_per_second` counts its messages; `ratio`: how many times as long ours takes.

    `losses_per_second_overall`: as in `LoadReport`, from before the publish.
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
class LoadReport:
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
    verdict: LedgerVerdict = field(default_factory=LedgerVerdict)
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
        """The object that `-o json` prints; programs know these names."""
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
