"""`examwire load`: cause losses and recoveries, measure them, and check that each was reported once."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import psutil
import typer
import uvloop

from cli.load.matrix import MATRIX_COUNTS, Counts, counts_of, matrix_json, matrix_table, run_matrix
from cli.load.report import LoadReport
from cli.load.run import LoadOptions, Scenario, run_load
from cli.load.workers import raise_file_limit
from cli.shared.output import Column, ExitCode, Format, OutputOption, show, table
from protocol.ids import check_id

SEATS_A_PROCESS = 500
MAX_EXAMINEES = 15_000
DEFAULT_EXAMINEES = {
    Scenario.ONE_BY_ONE: 50,
    Scenario.HALL_OUTAGE: 4000,
    Scenario.STEADY: 4000,
    Scenario.ROLLING_RESTART: 1000,
    Scenario.MATRIX: 2000,
}
MOVING = (Scenario.ROLLING_RESTART,)
"""Scenarios in which examinees move from one socket server to another."""

T = TypeVar("T")


def load(
    scenario: Annotated[
        Scenario,
        typer.Argument(
            metavar="SCENARIO",
            help="one-by-one: one loss and recovery at a time. hall-outage: all sockets close at once, then all "
            "examinees reconnect. steady: a fixed rate of losses and recoveries. rolling-restart: the same, while "
            "each socket server in turn is drained and replaced. matrix: hall outages with more and more servers, "
            "managers, plans and proctors, as a table.",
            show_default=False,
        ),
    ],
    examinees: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_EXAMINEES,
            help="Number of examinees. [default: 50 for one-by-one, 1000 for rolling-restart, else 4000]",
            metavar="N",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="one-by-one: number of losses.")] = 200,
    rate: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="steady and rolling-restart: losses (and recoveries) a second.")
    ] = 20.0,
    duration: Annotated[float, typer.Option(metavar="SECONDS", min=1.0, help="steady: duration of the run.")] = 20.0,
    over: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, max=3600.0, help="rolling-restart: duration of each drain.")
    ] = 5.0,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also measure the engines without examwire, and print the ratio.")
    ] = False,
    plan: Annotated[
        str | None, typer.Option(help="The planId. [default: a new one]", metavar="PLAN_ID", show_default=False)
    ] = None,
    servers: Annotated[
        str | None,
        typer.Option(metavar="N", help="Number of socket servers to start, 1 to 8. [default: 1, rolling-restart 2]"),
    ] = None,
    managers: Annotated[
        str | None, typer.Option(metavar="N", help="Number of state managers to start, 1 to 8. [default: 1]")
    ] = None,
    plans: Annotated[
        str | None, typer.Option(metavar="N", help="Number of plans that share the examinees, 1 to 1000. [default: 1]")
    ] = None,
    proctors: Annotated[
        str | None,
        typer.Option(metavar="N", help="Proctors of each plan, 1 to 200. [default: one on each of two servers]"),
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Proctors on the last socket server, examinees on the others.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=16,
            help="Number of processes with the examinees' sockets. [default: by --examinees]",
        ),
    ] = None,
    nats_url: Annotated[
        str | None, typer.Option("--nats-url", help="Use this NATS instead of starting one.", metavar="URL")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option("--redis-url", help="Use this Redis instead of starting one.", metavar="URL")
    ] = None,
    socket_url: Annotated[
        list[str] | None,
        typer.Option(
            "--socket-url",
            help="Use this socket server instead of starting one; repeatable. Needs --redis-url and the token secret: "
            "EXAMWIRE_SECRET, or --data-dir of the system.",
            metavar="URL",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Data directory of the running system, for its token secret.", metavar="PATH"),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Run a load test that accounts for every loss and recovery.

    \b
    Examples:
      examwire load hall-outage --examinees 1000
      examwire load one-by-one --baseline -o json
      examwire load matrix --servers 1,2 --plans 1,50 --proctors 1,10

    Starts engines and roles in a temporary directory, or uses a running system. Exit code 1: a loss or recovery was
    missing, doubled or out of order at the proctors, or Redis was wrong at the end.
    """
    if bool(nats_url) != bool(redis_url) and not (socket_url and redis_url and not baseline):
        raise typer.BadParameter("--nats-url and --redis-url must be given together")
    if socket_url and not redis_url:
        raise typer.BadParameter("--socket-url needs --redis-url, as the state in Redis is checked")
    matrix = scenario is Scenario.MATRIX
    counts = Counts(
        counts_of("--servers", servers, 8, MATRIX_COUNTS.servers if matrix else (2,) if scenario in MOVING else (1,)),
        counts_of("--managers", managers, 8, MATRIX_COUNTS.managers if matrix else (1,)),
        counts_of("--plans", plans, 1000, MATRIX_COUNTS.plans if matrix else (1,)),
        counts_of("--proctors", proctors, 200, MATRIX_COUNTS.proctors if matrix else (None,)),
    )
    if not matrix and not counts.single:
        raise typer.BadParameter("several numbers, as in 1,2,4, are for the scenario matrix only")
    if scenario in MOVING and (socket_url or baseline or apart or counts.servers == (1,)):
        raise typer.BadParameter(
            "rolling-restart needs two or more socket servers that it starts itself, and has no --baseline or --apart"
        )
    if matrix and (socket_url or nats_url or baseline):
        raise typer.BadParameter("matrix starts everything itself, and has no --baseline")
    if apart and (min(counts.servers) < 2 if not socket_url else len(socket_url) < 2):
        raise typer.BadParameter("--apart needs two or more socket servers")
    count = examinees or DEFAULT_EXAMINEES[scenario]
    options = LoadOptions(
        scenario,
        count,
        repeat,
        rate,
        duration,
        over,
        check_id("planId", plan or f"load-{secrets.token_hex(4)}"),
        len(socket_url) if socket_url else counts.servers[0],
        counts.managers[0],
        counts.plans[0],
        counts.proctors[0],
        apart,
        workers or min(psutil.cpu_count() or 1, -(-count // SEATS_A_PROCESS)),
        baseline,
        nats_url,
        redis_url,
        socket_url or [],
        data_dir,
    )
    raise_file_limit()  # inherited by the roles
    if matrix:
        reports = uvloop.run(_until_signalled(run_matrix(options, counts)))
        show(matrix_json(reports), lambda: matrix_table(reports), output)
        if not all(report.correct for report in reports):
            raise typer.Exit(ExitCode.FAILED)
        return
    report = uvloop.run(_until_signalled(run_load(options)))
    show(report.as_json(), lambda: _drawn(report), output)
    if not report.correct:
        raise typer.Exit(ExitCode.FAILED)


def _drawn(report: LoadReport) -> Any:
    machine = report.machine
    title = (
        f"{report.scenario}, {report.examinees} examinees, {report.servers} socket server(s), "
        f"{machine['cores']} cores, Python {machine['python']}"
    )
    return table(["figure", Column("value", wrap=True)], report.rows(), title=title)


async def _until_signalled(work: Awaitable[T]) -> T:
    """Run the load. SIGTERM ends it like Ctrl-C, and all processes are stopped."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if running.cancelling():
            raise KeyboardInterrupt from None
        raise
