"""`examwire actors`: who is running, how they are doing, and what one may ask of them."""

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
from cli.shared.output import Format, OutputOption, WatchOption, cell, run_until_interrupted, show, table, watch

if TYPE_CHECKING:
    from rich.console import RenderableType

LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many sessions.", show_default=False)
]
OffsetOption = Annotated[int, typer.Option("--offset", min=0, help="Leave out the first so many sessions.")]


@takes_settings("nats_url", "data_dir", running=True)
def list_actors(
    settings: Settings,
    kind: Annotated[str | None, typer.Option("--kind", help="Only actors of this kind.", show_default=False)] = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="The sessions of socket servers, too.")] = False,
    limit: LimitOption = None,
    offset: OffsetOption = 0,
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the actors. Sessions are listed by their server: with --sessions, or with a --kind that is a session's."""
    with_sessions = sessions or kind in SESSION_KINDS
    looks = RateMeter()

    async def work() -> None:
        async with connected(settings, "actors ls") as bus:

            async def fetch() -> list[Row]:
                entries = await bus.services()
                found = await inspections(bus, (entry for entry in entries if kind is None or kind_of(entry) == kind))
                await add_queue_lag(bus, found)
                if with_sessions:
                    wanted = kind if kind in SESSION_KINDS else None
                    servers, _ = await count_sessions(bus, entries, kind=wanted)  # a silent one has a row that says so
                    async for page in session_pages(bus, servers, kind=wanted, offset=offset, limit=limit):
                        found += page
                looks.compare(found)
                return found

            if watching:
                await watch(fetch, lambda found: found, _draw, output)
            found = await fetch()
            show(found, lambda: _draw(found), output)

    run_until_interrupted(work())


@takes_settings("nats_url", "data_dir", running=True)
def show_actor(
    settings: Settings,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="An address that `actors ls` shows, a serverId, or session.PLAN.EXAMINEE.",
            show_default=False,
        ),
    ],
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show one actor's inspection. Exit code 3 when there is none at this address, or the examinee is not connected."""
    if is_session(address):
        session_ids(address)

    async def work() -> None:
        async with connected(settings, "actors show") as bus:

            async def fetch() -> Row:
                if is_session(address):
                    return (await session_at(bus, address)).inspection
                found = await inspection_of(bus, await entry_at(bus, address))
                await add_queue_lag(bus, [found])
                return found

            def draw(found: Row) -> RenderableType:
                return table(["field", "value"], _fields(found))

            if watching:
                await watch(fetch, lambda found: found, draw, output)
            found = await fetch()
            show(found, lambda: draw(found), output)

    run_until_interrupted(work())


def _draw(found: Sequence[Row]) -> RenderableType:
    columns = ["address", "kind", "state", "since", "mailbox", "peak", "handled", "per s", "lag", "failed", "restarts"]
    return table(
        [*columns, "last error"],
        [
            (
                one["address"],
                one["kind"],
                shown_state(one),
                one.get("since"),
                f"{one['mailboxDepth']}/{one['mailboxCapacity']}" if "mailboxDepth" in one else None,
                one.get("mailboxPeak"),
                one.get("handled"),
                one.get("ratePerSecond"),
                one.get("queueLag", "" if "consumers" not in one.get("details", {}) else "?"),
                one.get("failed"),
                one.get("restarts"),
                one.get("lastError"),
            )
            for one in found
        ],
    )


def _fields(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """One row a field; those of `details` by their own names."""
    fields: list[tuple[object, ...]] = []
    for name, value in found.items():
        if name == "details" and isinstance(value, dict):
            fields += [(f"details.{one}", cell(inner)) for one, inner in value.items()]
        else:
            fields.append((name, cell(value)))
    return fields
