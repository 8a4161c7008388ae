"""`examwire plans report`: each examinee's outages and the time to be compensated, by the log of record."""

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
        typer.Option("--from", metavar="TIME", help=f"The window's begin, such as the exam's: {TIME_HELP}"),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Its end, such as the exam's; at most now. [default: now]"),
    ] = None,
    ignore_below: Annotated[
        float, typer.Option("--ignore-below", min=0, metavar="SECONDS", help="Leave out outages shorter than this.")
    ] = 0.0,
    affected: Annotated[bool, typer.Option("--affected", help="Only examinees with an outage in the window.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV (RFC 4180, UTF-8).")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Report each examinee's outages within a window, and the time to be compensated.

    That is the sum of their outages within the window, in whole seconds, rounded up: from the loss, as a server
    noticed it, to the connection that ended it. An outage that goes on counts to the window's end: give the exam's
    end with --to, or everybody who has gone home since is counted as lost. Migrations are no outages unless they end
    in a loss. Exit code 3: the plan has never been seen.
    """
    check_id("planId", plan_id)
    if as_csv and output is Format.JSON:
        raise ConfigurationError("--csv and -o json exclude each other")
    now = time.time()
    last = min(parse_time_option(end, "--to"), now) if end is not None else now
    first = parse_time_option(begin, "--from") if begin is not None else None

    async def work() -> None:
        async with connected(settings, "plans report") as bus:
            beginning, outages = await PlanLog(bus, plan_id).outages()
        if outages.begin is None:
            raise NotFound(never_seen(plan_id, None, beginning))
        window = (outages.begin if first is None else first, last)
        if window[0] > window[1] and first is not None:
            raise ConfigurationError("--from: must not be later than --to, or than now")
        rows = outages.rows(*window, ignore_below=ignore_below)
        missing = sum(not row.complete for row in rows)
        if missing:
            say(f"the first facts about {missing} examinees have expired from the log", err=True)
        sums = sum_rows(rows)
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
            "totals": _json(sums),
        }
        show(value, lambda: _draw(plan_id, window, rows, sums), output)

    asyncio.run(work())


def _json(row: OutageRow | OutageTotals) -> dict[str, Any]:
    return row.model_dump(mode="json", by_alias=True)


# -- the table --------------------------------------------------------------------------------------------


def _draw(plan_id: str, window: tuple[float, float], rows: list[OutageRow], sums: OutageTotals) -> RenderableType:
    title = (
        f"plan {plan_id} from {local_time(window[0])} to {local_time(window[1])} {zone_name(window[1])}: "
        f"{sums.examinees} examinees, {sums.affected} with outages; {sums.outages} outages, "
        f"{duration_text(sums.outage_seconds)} in total"
    )
    columns = [
        *("examinee", "outages", "seconds", "longest", "compensate", "reasons", "attempts", "shut out"),
        *("removed", "readmitted", "migrations", "still gone", "mobile sync", "at"),
    ]
    drawn = [
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
    total = (
        *("total", sums.outages, f"{sums.outage_seconds:.3f}", f"{sums.longest_seconds:.3f}", sums.compensate_seconds),
        *("", None, sums.shut_out or None, sums.removals or None, sums.readmissions or None, sums.migrations or None),
        *(sums.still_disconnected or None, None, None),
    )
    return table(columns, [*drawn, total], title=title)
