"""Hall outages with more and more servers, managers, plans and proctors: what does the cost of an event grow with?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from cli.load.report import LoadReport
from cli.load.run import LoadOptions, Scenario, progress, run_load
from cli.shared.output import table

T = TypeVar("T", int, int | None)


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of socket servers, state managers, plans, and proctors of each plan (`None`: the default)."""

    servers: Sequence[int]
    managers: Sequence[int]
    plans: Sequence[int]
    proctors: Sequence[int | None]

    @property
    def single(self) -> bool:
        """Whether there is one number of each."""
        return all(len(numbers) == 1 for numbers in (self.servers, self.managers, self.plans, self.proctors))

    def runs(self) -> Iterator[tuple[int, int, int, int | None]]:
        """Yield the numbers of each run: the first ones, then each further one beside the first ones of the others.

        Example::

            list(Counts((1, 2), (1,), (1, 50), (1,)).runs())  # [(1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 50, 1)]
        """
        first = (self.servers[0], self.managers[0], self.plans[0], self.proctors[0])
        yield first
        yield from ((number, *first[1:]) for number in self.servers[1:])
        yield from ((first[0], number, *first[2:]) for number in self.managers[1:])
        yield from ((*first[:2], number, first[3]) for number in self.plans[1:])
        yield from ((*first[:3], number) for number in self.proctors[1:])


MATRIX_COUNTS = Counts((1, 2, 4), (1, 2, 4), (1, 50), (1, 10))
"""The numbers of a matrix by default: eight runs."""


def counts_of(option: str, text: str | None, most: int, default: Sequence[T]) -> Sequence[int | T]:
    """Read `1,2,4`; `default` without a text. Raises `typer.BadParameter`."""
    if text is None:
        return default
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    if not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(f"{option} takes numbers from 1 to {most}, as in 2 or 1,2,4")
    return numbers


async def run_matrix(options: LoadOptions, counts: Counts) -> list[LoadReport]:
    """Run a hall outage for each combination of `counts`, each with engines and roles of its own."""
    reports = []
    for servers, managers, plans, proctors in counts.runs():
        progress(f"{servers} servers, {managers} managers, {plans} plans, {proctors or 'default'} proctors")
        one = dataclasses.replace(
            options, scenario=Scenario.HALL_OUTAGE, servers=servers, managers=managers, plans=plans, proctors=proctors
        )
        reports.append(await run_load(one))
    return reports


def matrix_json(reports: Sequence[LoadReport]) -> dict[str, Any]:
    """Return the object that `-o json` prints: the reports of all runs."""
    return {"correct": all(report.correct for report in reports), "runs": [report.as_json() for report in reports]}


def matrix_table(reports: Sequence[LoadReport]) -> Any:
    """Draw a row for each run. The CPU is that of engines and roles; what the load itself uses does not count."""
    first = reports[0]
    title = f"hall outages of {first.examinees} examinees, {first.machine['cores']} cores; µs: CPU of engines and roles"
    columns = ["servers", "managers", "plans", "proctors", "connects/s", "losses/s", "µs a connect", "µs a loss"]
    columns += ["state manager", "socket server", "redis", "nats", "loss p99 ms", "KiB", "correct"]
    return table(columns, [_row(report) for report in reports], title=title)


def _row(report: LoadReport) -> tuple[str, ...]:
    loss = report.cpu_each.get("loss", {})
    roles = ("state-manager", "socket-server", "redis-server", "nats-server")
    return (
        f"{report.servers}",
        f"{report.managers}",
        f"{report.plans}",
        f"{report.proctors}",
        f"{report.connects_per_second or 0:,.0f}",
        f"{report.losses_per_second_overall or 0:,.0f}",
        f"{report.cpu_of_system('connect'):,.0f}",
        f"{report.cpu_of_system('loss'):,.0f}",
        *(f"{loss.get(role, 0):,.0f}" for role in roles),
        f"{report.latency.p99:,.0f}" if report.latency is not None else "",
        f"{report.kib_per_connection or 0:.1f}",
        "yes" if report.correct else "NO",
    )
