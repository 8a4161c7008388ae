"""`examwire plans report`: outages and compensation of each examinee, from the log of record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.status_log.plan_log import PlanLog
from actors.status_log.roster import read_enrolled
from cli.plans.plan_text import plan_json, plan_text
from cli.plans.timeline import never_seen
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Column, Format, OutputOption, say, show, table, with_heading
from cli.shared.times import (
    TIME_HELP,
    duration_text,
    local_time,
    parse_time_option,
    with_local_times,
    zone_name,
)
from protocol.errors import ConfigurationError, StateDamaged, StateUnavailable
from protocol.ids import check_id
from protocol.log.gap import gap_texts
from protocol.log.outage_csv import format_reasons, outages_csv
from protocol.log.outages import EndStatus, Enrolled, OutageRow, OutageTotals, sum_rows
from protocol.rules.plan_state import PlanState
from protocol.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import RenderableType


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def report(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help=f"Start of the window. {TIME_HELP} [default: the first fact]"),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="End of the window, at most now. [default: now]"),
    ] = None,
    ignore_below: Annotated[
        float, typer.Option("--ignore-below", min=0, metavar="SECONDS", help="Ignore outages shorter than this.")
    ] = 0.0,
    affected: Annotated[bool, typer.Option("--affected", help="Show only examinees with an outage.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV for spreadsheets (RFC 4180, UTF-8 with a BOM).")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Report each examinee's outages and the time to compensate.

    Example: examwire plans report P001 --from 09:00 --to 11:00 --csv

    The time to compensate is the sum of the outages in the window, rounded up to whole seconds. An outage lasts from
    the detected loss to the next connection, or to the end of the window. It counts while the exam runs for the
    examinee: from the start of the plan to their finish or own end, with the time they were given. For a plan without
    times, give the exam's end with --to. An outage that the examinee's browser began by closing the connection is
    compensated only if the plan's policy says so. A migration is an outage only if it ends in a loss.

    -o wide has more columns, and --csv all of them. Exit code 3: the plan is unknown.
    """
    check_id("planId", plan_id)
    if as_csv and output is Format.JSON:
        raise ConfigurationError("--csv and -o json cannot be combined")
    now = time.time()
    until = min(parse_time_option(end, "--to"), now) if end is not None else now
    since = parse_time_option(begin, "--from") if begin is not None else None

    async def work() -> None:
        async with connected(settings, "plans report") as bus:
            beginning, outages = await PlanLog(bus, plan_id).outages()
            roster = await _enrolled(settings, plan_id)
            if outages.begin is None and not roster:
                raise await never_seen(bus, plan_id, None, beginning)
        if since is not None and since > until:
            raise ConfigurationError("--from: must not be later than --to, or than now")
        window = (min(outages.begin or until, until) if since is None else since, until)
        rows = outages.rows(*window, ignore_below=ignore_below, roster=roster)
        incomplete = sum(not row.complete for row in rows)
        if incomplete:
            say(f"the first facts about {incomplete} examinees have expired from the log", err=True)
        if outages.newer:
            text = "facts were written by a newer release and are left out: run the report of that release"
            say(f"{outages.newer} {text}", err=True)
        gaps = [gap for gap in beginning.gaps_of(window[0]) if parse_time(gap.missing_from) <= window[1]]
        for text in gap_texts(gaps):
            say(with_local_times(text), err=True)
        total_row = sum_rows(rows)
        if affected:
            rows = [row for row in rows if row.outages]
        if as_csv:
            typer.echo(outages_csv(plan_id, rows), nl=False)  # its cells are escaped
            return
        value = {
            "planId": plan_id,
            "from": format_time(window[0]),
            "to": format_time(window[1]),
            "ignoreBelowSeconds": ignore_below,
            "logSince": beginning.since,
            "logGaps": [gap.model_dump(mode="json", by_alias=True) for gap in gaps],
            "plan": plan_json(outages.plan),
            "examinees": [_json(row) for row in rows],
            "totals": _json(total_row),
        }
        show(value, lambda: _draw(plan_id, outages.plan, window, rows, total_row), output)

    asyncio.run(work())


async def _enrolled(settings: Settings, plan_id: str) -> dict[str, Enrolled]:
    """Return who is on the roster; without Redis the report is still made, from the log alone."""
    store = StateStore(settings.redis_url, settings.redis)
    try:
        return await read_enrolled(store, plan_id)
    except (StateUnavailable, StateDamaged, ValueError) as error:
        say(f"names and labels are those of the log only: {error}", err=True)
        return {}
    finally:
        await store.close()


def _json(outages: OutageRow | OutageTotals) -> dict[str, Any]:
    return outages.model_dump(mode="json", by_alias=True)


# -- the table --------------------------------------------------------------------------------------------


def end_text(row: OutageRow) -> str:
    """Return how the exam ended for an examinee, in words."""
    match row.end_status:
        case EndStatus.DECIDED:
            return f"finished by {row.finished_by}"
        case EndStatus.LOST if row.still_disconnected:
            return "disconnected"
        case status:
            return _END_TEXTS[status]


_END_TEXTS = {
    EndStatus.HANDED_IN: "handed in",
    EndStatus.PLAN_ENDED: "ended with the plan",
    EndStatus.CONNECTED: "connected",
    EndStatus.MIGRATING: "migrating",
    EndStatus.LOST: "lost at the end",
    EndStatus.REMOVED: "removed",
    EndStatus.NEVER_CAME: "never came",
}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the report: what it shows of a row, and of the totals."""

    column: Column
    cell: Callable[[OutageRow], object]
    total: Callable[[OutageTotals], object] = lambda _: None


def _seconds(seconds: float) -> str | None:
    return f"{seconds:.3f}" if seconds else None


def _label_column(label: str) -> _Column:
    return _Column(Column(label, crop=True), lambda row: row.labels.get(label))


def _mobile_sync_text(row: OutageRow) -> str | None:
    return f"{row.mobile_sync} {row.mobile_sync_reason or ''}".strip() if row.mobile_sync != "NONE" else None


_COLUMNS = (
    _Column(Column("examinee"), lambda row: row.examinee_id, lambda _: "total"),
    _Column(Column("name", crop=True, keep=True), lambda row: row.name),
    _Column(Column("result", keep=True), end_text, lambda totals: f"{totals.finished} finished"),
    _Column(Column("outages", keep=True), lambda row: row.outages or None, lambda totals: totals.outages),
    _Column(
        Column("compensate", keep=True),
        lambda row: row.compensate_seconds or None,
        lambda totals: totals.compensate_seconds,
    ),
    _Column(Column("reasons", crop=True), lambda row: format_reasons(row) or None),
    _Column(Column("seconds"), lambda row: _seconds(row.outage_seconds), lambda totals: f"{totals.outage_seconds:.3f}"),
    _Column(Column("unstable"), lambda row: row.unstable or None, lambda totals: totals.unstable or None),
    _Column(Column("shut out"), lambda row: row.shut_out or None, lambda totals: totals.shut_out or None),
    _Column(Column("removed"), lambda row: row.removals or None, lambda totals: totals.removals or None),
    _Column(
        Column("longest", wide=True),
        lambda row: _seconds(row.longest_seconds),
        lambda totals: f"{totals.longest_seconds:.3f}",
    ),
    _Column(
        Column("by client", wide=True),
        lambda row: _seconds(row.client_closed_seconds),
        lambda totals: _seconds(totals.client_closed_seconds),
    ),
    _Column(Column("attempts", wide=True), lambda row: row.attempts or None),
    _Column(
        Column("readmitted", wide=True),
        lambda row: row.readmissions or None,
        lambda totals: totals.readmissions or None,
    ),
    _Column(
        Column("migrations", wide=True), lambda row: row.migrations or None, lambda totals: totals.migrations or None
    ),
    _Column(Column("begin", wide=True), lambda row: local_time(row.window_start) or None),
    _Column(Column("end", wide=True), lambda row: local_time(row.window_end) or None),
    _Column(Column("mobile sync", wide=True), _mobile_sync_text),
    _Column(Column("at", wide=True), lambda row: local_time(row.mobile_sync_time) or None),
)


def _draw(
    plan_id: str, plan: PlanState, window: tuple[float, float], rows: list[OutageRow], totals: OutageTotals
) -> RenderableType:
    title = (
        f"plan {plan_id} from {local_time(window[0])} to {local_time(window[1])} {zone_name(window[1])}: "
        f"{totals.examinees} examinees, {totals.finished} finished, {totals.lost} lost, "
        f"{totals.never_came} never came; {totals.affected} with outages; {totals.outages} outages, "
        f"{duration_text(totals.outage_seconds)} in total"
    )
    labels = dict.fromkeys(label for row in rows for label in row.labels)
    examinee, name, *others = _COLUMNS
    # An empty column takes the place of the others.
    columns = [
        column
        for column in (examinee, name, *map(_label_column, labels), *others)
        if column is examinee or any(column.cell(row) is not None for row in rows)
    ]
    cells = [[column.cell(row) for column in columns] for row in rows]
    sums = [column.total(totals) for column in columns]
    report_table = table([column.column for column in columns], [*cells, sums], title=title)
    return with_heading(plan_text(plan_json(plan)) if plan.version else None, report_table)
