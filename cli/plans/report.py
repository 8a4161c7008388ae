"""`examwire plans report`: outages and compensation of each examinee, from the log of record."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from actors.status_log.plan_log import PlanLog
from cli.plans.timeline import never_seen
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, NotFound, OutputOption, say, show, table
from cli.shared.times import TIME_HELP, duration_text, local_time, parse_time_option, zone_name
from protocol.errors import ConfigurationError
from protocol.ids import check_id
from protocol.log.outage_csv import format_reasons, outages_csv
from protocol.log.outages import OutageRow, OutageTotals, sum_rows
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType


@takes_settings("nats_url", "data_dir", running=True)
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
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180, UTF-8).")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Report each examinee's outages and the time to compensate.

    Example: examwire plans report P001 --from 09:00 --to 11:00 --csv

    The time to compensate is the sum of the outages in the window, rounded up to whole seconds. An outage lasts from
    the detected loss to the next connection, or to the end of the window. Give the exam's end with --to: examinees
    who leave afterwards count as lost. A migration is an outage only if it ends in a loss. Exit code 3: the plan is
    unknown.
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
        if outages.begin is None:
            raise NotFound(never_seen(plan_id, None, beginning))
        window = (outages.begin if since is None else since, until)
        if window[0] > window[1] and since is not None:
            raise ConfigurationError("--from: must not be later than --to, or than now")
        rows = outages.rows(*window, ignore_below=ignore_below)
        incomplete = sum(not row.complete for row in rows)
        if incomplete:
            say(f"the first facts about {incomplete} examinees have expired from the log", err=True)
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
            "examinees": [_json(row) for row in rows],
            "totals": _json(total_row),
        }
        show(value, lambda: _draw(plan_id, window, rows, total_row), output)

    asyncio.run(work())


def _json(outages: OutageRow | OutageTotals) -> dict[str, Any]:
    return outages.model_dump(mode="json", by_alias=True)


# -- the table --------------------------------------------------------------------------------------------


def _draw(plan_id: str, window: tuple[float, float], rows: list[OutageRow], total_row: OutageTotals) -> RenderableType:
    title = (
        f"plan {plan_id} from {local_time(window[0])} to {local_time(window[1])} {zone_name(window[1])}: "
        f"{total_row.examinees} examinees, {total_row.affected} with outages; {total_row.outages} outages, "
        f"{duration_text(total_row.outage_seconds)} in total"
    )
    columns = [
        *("examinee", "outages", "seconds", "longest", "compensate", "reasons", "attempts", "shut out"),
        *("removed", "readmitted", "migrations", "still gone", "mobile sync", "at"),
    ]
    cells = [
        (
            row.examinee_id,
            row.outages or None,
            f"{row.outage_seconds:.3f}" if row.outages else None,
            f"{row.longest_seconds:.3f}" if row.outages else None,
            row.compensate_seconds or None,
            format_reasons(row),
            row.attempts or None,
            row.shut_out or None,
            row.removals or None,
            row.readmissions or None,
            row.migrations or None,
            "yes" if row.still_disconnected else None,
            f"{row.mobile_sync} {row.mobile_sync_reason or ''}".strip() if row.mobile_sync != "NONE" else None,
            local_time(row.mobile_sync_time),
        )
        for row in rows
    ]
    totals_cells = (
        *(
            "total",
            total_row.outages,
            f"{total_row.outage_seconds:.3f}",
            f"{total_row.longest_seconds:.3f}",
            total_row.compensate_seconds,
        ),
        *(
            "",
            None,
            total_row.shut_out or None,
            total_row.removals or None,
            total_row.readmissions or None,
            total_row.migrations or None,
        ),
        *(total_row.still_disconnected or None, None, None),
    )
    return table(columns, [*cells, totals_cells], title=title)
