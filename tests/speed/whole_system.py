"""The whole system: the examinees on the first socket server, the proctors on the second one.

Socket.IO's servers are measured by the same driver, with clients that speak its protocol.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from actors.runtime.store.state_store import StateStore
from cli.load.clients import LoadClients
from cli.load.percentiles import Percentiles
from cli.load.report import LoadReport
from cli.load.scenarios import LoadRun, hall_outage, one_by_one
from tests.speed.socketio.servers import socketio_servers
from tests.speed.system import ROLES, Figures, Setup, fleet_of

ROUNDS = 500
EXAMINEES_ONE_BY_ONE = 50
WORKERS = 2


async def measure_hall_outage(setup: Setup) -> Figures:
    """Return the figures of a hall outage: CPU of each event, rates, memory, and what went wrong."""
    async with _load_run(setup, setup.examinees) as run:
        await hall_outage(run)
        return await _figures(run)


async def measure_one_by_one(setup: Setup) -> Figures:
    """Return the figures of losses and recoveries that come one at a time."""
    async with _load_run(setup, min(setup.examinees, EXAMINEES_ONE_BY_ONE)) as run:
        # Without Redis, which is polled in rounds of their own: they would count as CPU of the others.
        await one_by_one(dataclasses.replace(run, store=None), ROUNDS)
        return await _figures(run)


@dataclass(frozen=True, slots=True)
class _System:
    urls: list[str]
    processes: dict[str, list[int]]
    redis_url: str | None
    module: str


@asynccontextmanager
async def _started(setup: Setup, secret: str) -> AsyncIterator[_System]:
    if setup.tree is None:
        async with socketio_servers(2, secret) as node:
            yield _System(node.urls, node.processes, None, "tests.speed.socketio.clients")
        return
    async with fleet_of(setup.tree, servers=2, managers=setup.managers, environment={"EXAMWIRE_SECRET": secret}) as (
        fleet,
        _,
    ):
        yield _System(fleet.socket_urls, fleet.processes(), fleet.redis_url, "cli.load.workers")


@asynccontextmanager
async def _load_run(setup: Setup, examinees: int) -> AsyncIterator[LoadRun]:
    secret = secrets.token_urlsafe(48)
    async with _started(setup, secret) as system:
        store = StateStore(system.redis_url) if system.redis_url is not None else None
        clients = LoadClients(
            setup.plan_ids,
            examinees,
            system.urls[:1],
            WORKERS,
            {**os.environ, "EXAMWIRE_SECRET": secret},
            proctors=setup.proctors,
            proctor_urls=system.urls[1:],
            module=system.module,
        )
        report = LoadReport("speed", setup.plan_ids[0], examinees, len(system.urls), {})
        try:
            yield LoadRun(clients, store, report, lambda: system.processes, None, lambda _: None)
        finally:
            await clients.close()
            if store is not None:
                await store.close()


async def _figures(run: LoadRun) -> Figures:
    report, clients = run.report, run.clients
    await clients.mark_end()
    verdict = clients.ledger.verdict()
    figures: Figures = {
        event: {role: cost for role, cost in costs.items() if role in ROLES} for event, costs in report.cpu_each.items()
    }
    figures["idle"] = {"KiB a connection": report.kib_per_connection or 0.0}
    figures["rates"] = {
        "connects/s": report.connects_per_second or 0.0,
        "losses/s": report.losses_per_second or 0.0,
        "losses/s from the end of the sockets on": report.losses_per_second_overall or 0.0,
    }
    figures["latency"] = {**_latency("loss", report.latency), **_latency("recovery", report.recovery_latency)}
    figures["wrong"] = {
        "missing": verdict.missing,
        "doubled": verdict.doubled,
        "out of order": verdict.out_of_order,
        "wrongly seen": await clients.wrongly_seen(),
        "wrong in Redis": await clients.disagreements(run.store) if run.store is not None else 0,
    }
    return figures


def _latency(event: str, percentiles: Percentiles | None) -> dict[str, float]:
    if percentiles is None:
        return {}
    return {f"{event} p50 ms": percentiles.p50, f"{event} p99 ms": percentiles.p99}
