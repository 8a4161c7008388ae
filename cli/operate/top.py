"""`examwire actors top`: a live list of the busiest actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import RateMeter, Row, add_queue_lag, connected, inspections, kind_of, shown_state
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    Format,
    OutputOption,
    run_until_interrupted,
    show,
    state_cell,
    table,
    watch,
    without_empty,
)
from cli.shared.times import local_time
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType


class SortOrder(StrEnum):
    """Values of `--sort`."""

    BUSY = "busy"
    RATE = "rate"
    MAILBOX = "mailbox"
    LAG = "lag"
    FAILED = "failed"
    ADDRESS = "address"


@takes_settings("nats_url", "data_dir", running=True)
def top(
    settings: Settings,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Show only actors of this kind.", show_default=False)
    ] = None,
    order: Annotated[
        SortOrder,
        typer.Option("--sort", help="busy: trouble first (silent, failing, lag, full mailboxes), then rates."),
    ] = SortOrder.BUSY,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Show at most this many actors.", show_default=False),
    ] = None,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.5, max=60, help="Time between two refreshes.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Measure for one second, print once, and end.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the busiest actors first, refreshed until Ctrl-C.

    Example: examwire actors top --kind socket-server --sort lag

    Rates are measured between two refreshes. With -o json: one object for each refresh.
    """
    rates = RateMeter()

    async def work() -> None:
        async with connected(settings, "actors top") as bus:

            async def fetch() -> Row:
                view = await _look(bus, rates, kind)
                view["actors"] = sorted(view["actors"], key=_KEYS[order])[:limit]
                return view

            await fetch()
            await asyncio.sleep(min(1.0, every))
            if once:
                view = await fetch()
                show(view, lambda: _draw(view), output)
            else:
                await watch(fetch, lambda view: view, _draw, output, every)

    run_until_interrupted(work())


async def _look(bus: Bus, rates: RateMeter, kind: str | None) -> Row:
    entries = await bus.services()
    round_trip = await bus.round_trip()
    rows = await inspections(bus, (entry for entry in entries if kind is None or kind_of(entry) == kind))
    rates.compare(rows)
    await add_queue_lag(bus, rows)
    details = [row.get("details", {}) for row in rows]
    return {
        "time": format_time(time.time()),
        "natsRoundTripMs": round(round_trip * 1000, 2),
        "actors": rows,
        "totals": {
            "actors": len(rows),
            "silent": sum(row["state"] == "silent" for row in rows),
            "servers": sum("sockets" in actor_details for actor_details in details),
            "examinees": sum(
                actor_details.get("examinees", 0) for actor_details in details if "sockets" in actor_details
            ),
            "proctors": sum(
                actor_details.get("proctors", 0) for actor_details in details if "sockets" in actor_details
            ),
        },
    }


def _busy(row: Row) -> tuple[Any, ...]:
    """Sort key: silent actors first, then by failures, lag, mailbox and rate."""
    return (
        row["state"] != "silent",
        -row.get("newFailures", 0),
        -(row.get("queueLag") or 0),
        -_fill(row),
        -row.get("ratePerSecond", 0.0),
        row["address"],
    )


def _fill(row: Row) -> float:
    return float(row.get("mailboxDepth", 0) / row.get("mailboxCapacity", 1))


_KEYS: dict[SortOrder, Callable[[Row], tuple[Any, ...]]] = {
    SortOrder.BUSY: _busy,
    SortOrder.RATE: lambda row: (-row.get("ratePerSecond", 0.0), row["address"]),
    SortOrder.MAILBOX: lambda row: (-_fill(row), row["address"]),
    SortOrder.LAG: lambda row: (-(row.get("queueLag") or 0), row["address"]),
    SortOrder.FAILED: lambda row: (-row.get("failed", 0), row["address"]),
    SortOrder.ADDRESS: lambda row: (row["address"],),
}


def _draw(view: Row) -> RenderableType:
    totals = view["totals"]
    silent = f" ({totals['silent']} silent)" if totals["silent"] else ""
    title = (
        f"{local_time(view['time'])}  {totals['actors']} actors{silent}, {totals['examinees']} examinees and "
        f"{totals['proctors']} proctors on {totals['servers']} servers, NATS {view['natsRoundTripMs']:g} ms"
    )
    columns: Columns = [
        *("address", Column("state", keep=True), "per s", "lag", "sessions", "failed", "restarts"),
        *(Column("unacked", wide=True), Column("mailbox", wide=True), Column("last error", crop=True, keep=True)),
    ]
    return table(*without_empty(columns, [_cells(row) for row in view["actors"]]), title=title)


def _cells(row: Row) -> tuple[object, ...]:
    details = row.get("details", {})
    reads = "consumers" in details
    new = row.get("newFailures", 0)
    return (
        row["address"],
        state_cell(shown_state(row)),
        row.get("ratePerSecond"),
        row["queueLag"] if row.get("queueLag") is not None else "?" if reads else None,
        details["examinees"] + details["proctors"] if "sockets" in details else None,
        f"{row['failed']} (+{new})" if new else row.get("failed"),
        row.get("restarts"),
        row.get("queueUnacknowledged"),
        f"{row['mailboxDepth']}/{row['mailboxCapacity']}" if "mailboxDepth" in row else None,
        row.get("lastError"),
    )
