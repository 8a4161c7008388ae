"""`examwire sessions`: list the connected examinees and proctors, and end a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.status_log.status_log import StatusLog
from cli.shared.live_actors import (
    Row,
    address_of,
    ask,
    connected,
    count_sessions,
    entry_at,
    server_of_socket,
    session_at,
    session_pages,
)
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    ExitCode,
    Format,
    NotFound,
    OutputOption,
    print_json,
    run_until_interrupted,
    say,
    show,
    state_cell,
    table,
)
from cli.shared.suggestions import not_found, similar_names
from cli.shared.times import local_time
from protocol.broker import subjects
from protocol.errors import ConfigurationError
from protocol.ids import check_id
from protocol.messages.operator_requests import Kick

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def sessions() -> None:
    """Live sessions of examinees and proctors: list, end them."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_sessions(
    settings: Settings,
    plan_id: Annotated[
        str | None, typer.Argument(metavar="PLAN_ID", help="The same as --plan.", show_default=False)
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="Show only this plan.", metavar="PLAN_ID")] = None,
    server: Annotated[str | None, typer.Option("--server", help="Show only this server.", metavar="SERVER_ID")] = None,
    proctors: Annotated[bool, typer.Option("--proctors", help="Show only proctors.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most this many.")] = 100,
    offset: Annotated[int, typer.Option("--offset", metavar="N", min=0, help="Skip this many.")] = 0,
    everyone: Annotated[bool, typer.Option("--all", help="Show all, without a limit.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the sessions of each server, oldest first.

    Example: examwire sessions ls P001 --server SOCK001

    Exit code 3: no such server or plan, 5: a server does not answer, so its sessions are missing.
    """
    if plan is not None and plan_id is not None:
        raise typer.BadParameter("give the plan once: PLAN_ID and --plan mean the same")
    plan = plan_id if plan is None else plan
    if plan is not None:
        check_id("planId", plan)

    async def work() -> None:
        async with connected(settings, "sessions ls") as bus:
            entries = [await entry_at(bus, server)] if server is not None else await bus.services()
            kind = "proctor-session" if proctors else None
            servers, silent = await count_sessions(bus, entries, plan=plan, kind=kind)
            total = sum(count for _, count in servers)
            if plan is not None and not total and plan not in (plans := await StatusLog(bus).plan_ids()):
                raise not_found("plan", plan, plans, "`examwire plans ls` lists the plans")
            rows: list[Row] = []
            async for page in session_pages(
                bus, servers, plan=plan, kind=kind, offset=offset, limit=None if everyone else limit
            ):
                rows += page
            if output is Format.JSON:
                print_json({"total": total, "offset": offset, "sessions": rows, "silent": silent})
            else:
                show(rows, lambda: _draw(rows), output)
            if offset + len(rows) < total and not everyone:
                more = f"--offset {offset + len(rows)} for the next ones, --all for all"
                say(f"examwire: {len(rows)} of {total} sessions; {more}", err=True)
            if silent:
                say(f"examwire: no answer from {', '.join(silent)}: its sessions are missing", err=True)
                raise typer.Exit(ExitCode.DEGRADED)

    run_until_interrupted(work())


@app.command("kick")
@takes_settings("nats_url", "data_dir", running=True)
def kick(
    settings: Settings,
    who: Annotated[
        str,
        typer.Argument(
            metavar="PLAN_ID|SOCKET_ID", help="The plan of the examinee, or a socketId.", show_default=False
        ),
    ],
    examinee_id: Annotated[
        str | None, typer.Argument(metavar="EXAMINEE_ID", help="The examinee, after a PLAN_ID.", show_default=False)
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """End the connection of an examinee, or of any client by its socketId.

    \b
    Examples:
      examwire sessions kick P001 E0042
      examwire sessions kick SOCK001-5f2c9a

    The client reconnects by itself after its backoff. Exit code 3: no such connection.
    """
    if examinee_id is not None:
        check_id("planId", who)
        check_id("examineeId", examinee_id)
        address = subjects.session(who, examinee_id)

    async def work() -> None:
        async with connected(settings, "sessions kick") as bus:
            if examinee_id is not None:
                session = await session_at(bus, address)
                server, socket_id = session.server, session.socket_id
            else:
                socket_id = who
                server = await _server_of(bus, who)
            answer = await ask(bus, server, Kick(socket_id=socket_id))
            if output is Format.JSON:
                print_json({"server": server, "socketId": socket_id, "text": answer.text, **answer.details})
            else:
                say(answer.text)

    run_until_interrupted(work())


async def _server_of(bus: Bus, socket_id: str) -> str:
    """Return the address of the server of a socket.

    Raises `NotFound`, or `ConfigurationError` when it is a plan, whose examinee is missing.
    """
    try:
        return address_of(await entry_at(bus, server_of_socket(socket_id)))
    except (NotFound, ConfigurationError) as error:
        meant = similar_names(socket_id, await StatusLog(bus).plan_ids())
        if not meant:
            raise
        raise ConfigurationError(
            f"{meant[0]} is a plan: name the examinee, too: `examwire sessions kick {meant[0]} EXAMINEE_ID`"
        ) from error


def _draw(rows: Sequence[Row]) -> RenderableType:
    columns: Columns = [
        *("plan", "who", "role", Column("state", keep=True), "since", "socket", Column("server", wide=True)),
        *(Column("mailbox", wide=True), Column("handled", wide=True)),
    ]
    return table(columns, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[object, ...]:
    details = row["details"]
    socket_id = details["socketId"]
    return (
        details["planId"],
        details.get("examineeId", details.get("proctor")),
        row["kind"].removesuffix("-session"),
        state_cell(row["state"]),
        local_time(row["since"]),
        socket_id,
        server_of_socket(socket_id).partition(".")[2],
        row["mailboxDepth"],
        row["handled"],
    )
