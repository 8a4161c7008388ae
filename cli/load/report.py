"""The report of a load run: verdict and figures, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cli.load.ledger import LedgerVerdict
from cli.load.percentiles import Percentiles


@dataclass(slots=True)
class Baseline:
    """Figures of the engines without examwire. `ratio`: how many times longer examwire takes.

    `losses_per_second` counts messages; `losses_per_second_overall`: the same, measured from the publish on.
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
    """The figures of one run; `None`: the scenario does not measure it. `notes` explain the figures.

    `losses_per_second`: count / (last frame - first frame). `losses_per_second_overall` (hall outage only): count /
    (last frame - end of the sockets), which includes the time until the first frame. `cpu_each`: CPU µs by role for
    each connect, loss, ..., until its proctor was told. `managers`: the state managers that were started; `proctors`:
    of each plan.
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
    cpu_each: dict[str, Mapping[str, float]] = field(default_factory=dict)
    managers: int | None = None
    plans: int = 1
    proctors: int = 1
    baseline: Baseline | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether every change was reported once and in order, Redis and the proctors' views are right, and every
        examinee could connect and stay connected.
        """
        verdict = self.verdict
        return not (
            verdict.missing
            or verdict.doubled
            or verdict.out_of_order
            or self.redis_disagrees
            or self.unexpected_losses
            or self.not_admitted
            or verdict.false_alarms
            or self.views_disagree
        )

    def cpu_of_system(self, event: str) -> float:
        """Return the CPU µs of engines and roles for an event, without the load's own processes."""
        costs = self.cpu_each.get(event, {})
        return round(sum(cost for role, cost in costs.items() if not role.startswith("load: ")), 1)

    def compare(self, baseline: Baseline) -> None:
        """Add the baseline and its ratio: of the rates in a hall outage, else of the median latencies."""
        if self.scenario == "hall-outage":
            if baseline.losses_per_second and self.losses_per_second:
                baseline.ratio = round(baseline.losses_per_second / self.losses_per_second, 2)
        elif baseline.latency and self.latency:
            baseline.ratio = round(self.latency.p50 / baseline.latency.p50, 2)
        self.baseline = baseline

    def as_json(self) -> dict[str, Any]:
        """Return the object that `-o json` prints; programs depend on its fields."""
        values = {
            "scenario": self.scenario,
            "planId": self.plan_id,
            "examinees": self.examinees,
            "servers": self.servers,
            "managers": self.managers,
            "plans": self.plans,
            "proctors": self.proctors,
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
            "cpuMicrosecondsEach": {event: dict(costs) for event, costs in self.cpu_each.items()},
            "machine": self.machine,
            "notes": self.notes,
        }
        if self.baseline is not None:
            values["baseline"] = self.baseline.as_json()
            values["ratio"] = self.baseline.ratio
        return values

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of the table for people: name, value."""
        verdict = self.verdict
        rows = [
            ("connects/s", _number(self.connects_per_second)),
            ("losses/s", _number(self.losses_per_second)),
            ("losses/s from the end of the sockets on", _number(self.losses_per_second_overall)),
            ("recoveries/s", _number(self.recoveries_per_second)),
            ("end of the socket to proctor's frame", _shown(self.latency)),
            ("end of the socket to Redis", _shown(self.redis_latency)),
            ("connect to proctor's frame", _shown(self.recovery_latency)),
            ("migration to the next welcome", _shown(self.migration)),
            ("missing / doubled / out of order", f"{verdict.missing} / {verdict.doubled} / {verdict.out_of_order}"),
            ("wrong in Redis", f"{self.redis_disagrees} examinees"),
            ("KiB of socket server for each connection", _number(self.kib_per_connection)),
            ("measured", f"{self.measured_seconds:.1f} s"),
            ("CPU seconds", ", ".join(f"{role} {seconds:.2f}" for role, seconds in self.cpu_seconds.items())),
        ]
        rows += [
            (f"CPU µs a {event}", f"{self.cpu_of_system(event):,.0f}: {_costs(costs)}")
            for event, costs in self.cpu_each.items()
        ]
        if self.migrated:
            rows.append(("migrated / false alarms", f"{self.migrated} / {verdict.false_alarms}"))
        for name, count in (
            ("examinees that a proctor sees wrongly", self.views_disagree),
            ("unexpected losses", self.unexpected_losses),
            ("not admitted", self.not_admitted),
            ("refused, then retried", self.refusals),
            ("resynchronised", self.resyncs),
            ("restated", verdict.restated),
        ):
            if count:
                rows.append((name, str(count)))
        if self.baseline is not None:
            rows += [
                ("baseline: latency", _shown(self.baseline.latency)),
                ("baseline: messages/s", _number(self.baseline.losses_per_second)),
                ("baseline: messages/s from the publish on", _number(self.baseline.losses_per_second_overall)),
                ("ratio to the baseline", _number(self.baseline.ratio)),
            ]
        return [(name, value) for name, value in rows if value]


def _json(percentiles: Percentiles | None) -> dict[str, float] | None:
    return asdict(percentiles) if percentiles is not None else None


def _costs(costs: Mapping[str, float]) -> str:
    own = [f"{role} {cost:,.0f}" for role, cost in costs.items() if not role.startswith("load: ")]
    return ", ".join([*own, *(f"({role} {cost:,.0f})" for role, cost in costs.items() if role.startswith("load: "))])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 100 else f"{value:.2f}"


def _shown(value: Percentiles | None) -> str:
    if value is None:
        return ""
    return f"p50 {value.p50:.1f} ms, p95 {value.p95:.1f} ms, p99 {value.p99:.1f} ms ({value.samples} samples)"
