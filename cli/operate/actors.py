"""`examwire actors ls` and `show`: the running actors and their inspections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from cli.shared.live_actors import (
    SESSION_KINDS,
    RateMeter,
    Row,
    add_queue_lag,
    connected,
    count_sessions,
    entry_at,
    inspection_of,
    inspections,
    is_session,
    kind_of,
    session_at,
    session_ids,
    session_pages,
    shown_state,
)
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    Format,
    OutputOption,
    WatchOption,
    cell,
    run_until_interrupted,
    show,
    state_cell,
    table,
    watch,
    without_empty,
)
from cli.shared.times import local_time

if TYPE_CHECKING:
    from rich.console import RenderableType

LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Show at most this many sessions.", show_default=False)
]
OffsetOption = Annotated[int, typer.Option("--offset", metavar="N", min=0, help="Skip this many sessions.")]


@takes_settings("nats_url", "data_dir", running=True)
def list_actors(
    settings: Settings,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Show only actors of this kind, such as socket-server.")
    ] = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="Show the sessions of socket servers, too.")] = False,
    limit: LimitOption = None,
    offset: OffsetOption = 0,
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the running actors: state, mailbox, rate, last error.

    Example: examwire actors ls --kind socket-server --watch

    Sessions are shown with --sessions, or with --kind examinee-session or proctor-session.
    """
    with_sessions = sessions or kind in SESSION_KINDS
    rates = RateMeter()

    async def work() -> None:
        async with connected(settings, "actors ls") as bus:

            async def fetch() -> list[Row]:
                entries = await bus.services()
                rows = await inspections(bus, (entry for entry in entries if kind is None or kind_of(entry) == kind))
                await add_queue_lag(bus, rows)
                if with_sessions:
                    session_kind = kind if kind in SESSION_KINDS else None
                    servers, _ = await count_sessions(
                        bus, entries, kind=session_kind
                    )  # silent servers have a row already
                    async for page in session_pages(bus, servers, kind=session_kind, offset=offset, limit=limit):
                        rows += page
                rates.compare(rows)
                return rows

            if watching:
                await watch(fetch, lambda rows: rows, lambda rows: _draw(sorted(rows, key=_is_well)), output)
            rows = await fetch()
            show(rows, lambda: _draw(rows), output)

    run_until_interrupted(work())


@takes_settings("nats_url", "data_dir", running=True)
def show_actor(
    settings: Settings,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="An address from `actors ls`, a serverId, or session.PLAN_ID.EXAMINEE_ID.",
            show_default=False,
        ),
    ],
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show all details of one actor or session.

    \b
    Examples:
      examwire actors show SOCK001
      examwire actors show session.P001.E0042

    Exit code 3: no actor has this address, or the examinee is not connected.
    """
    if is_session(address):
        session_ids(address)

    async def work() -> None:
        async with connected(settings, "actors show") as bus:

            async def fetch() -> Row:
                if is_session(address):
                    return (await session_at(bus, address)).inspection
                row = await inspection_of(bus, await entry_at(bus, address))
                await add_queue_lag(bus, [row])
                return row

            def draw(row: Row) -> RenderableType:
                return table(["field", Column("value", wrap=True)], _fields(row))

            if watching:
                await watch(fetch, lambda row: row, draw, output)
            row = await fetch()
            show(row, lambda: draw(row), output)

    run_until_interrupted(work())


def _draw(rows: Sequence[Row]) -> RenderableType:
    columns: Columns = [
        *("address", Column("kind", wide=True), Column("state", keep=True), "since", "per s", "lag", "failed"),
        *("restarts", Column("mailbox", wide=True), Column("peak", wide=True), Column("handled", wide=True)),
        Column("last error", crop=True, keep=True),
    ]
    return table(
        *without_empty(
            columns,
            [
                (
                    row["address"],
                    row["kind"],
                    state_cell(shown_state(row)),
                    local_time(row.get("since")),
                    row.get("ratePerSecond"),
                    row.get("queueLag", None if "consumers" not in row.get("details", {}) else "?"),
                    row.get("failed"),
                    row.get("restarts"),
                    f"{row['mailboxDepth']}/{row['mailboxCapacity']}" if "mailboxDepth" in row else None,
                    row.get("mailboxPeak"),
                    row.get("handled"),
                    row.get("lastError"),
                )
                for row in rows
            ],
        )
    )


def _is_well(row: Row) -> bool:
    """Return whether nothing about an actor needs attention: the others are on top of a live screen."""
    return shown_state(row) == "running" and not row.get("failed") and not row.get("restarts")


def _fields(row: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return one row for each field, and one for each field of `details`."""
    fields: list[tuple[object, ...]] = []
    for name, value in row.items():
        if name == "details" and isinstance(value, dict):
            fields += [(f"details.{detail}", cell(inner)) for detail, inner in value.items()]
        else:
            fields.append((name, cell(value)))
    return fields
