"""Two processes under one serverId, each with somebody who starts it again: one reigns, the other stays down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.runtime.actor.supervisor import Intensity
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.telemetry.metrics import REGISTRY
from actors.socket_server.server import SocketServer
from cli.local.process_supervisor import ProcessSupervisor, SupersededBackoff
from cli.local.processes import RoleProcess
from protocol.broker import subjects
from protocol.broker.streams import LEASE, STATUS
from protocol.errors import RoleSuperseded
from tests.integration.start_up.support import quick, record_of
from tests.integration.support.server_process import join, story
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually


@pytest.fixture
async def bare(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    """Everything but SOCK001."""
    # A lease that is long enough for a machine that is busy with the start of a rival.
    async with System(quick(settings, **{"server.lease_seconds": 4}), servers=("SOCK002",)) as system:
        yield system
        assert system.failures == []


class Rival:
    """A supervisor with one socket server, as `examwire up` has two of them."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        environment = {
            "EXAMWIRE_NATS_URL": settings.nats_url,
            "EXAMWIRE_REDIS_URL": settings.redis_url,
            "EXAMWIRE_DATA_DIR": str(settings.data_dir),
            "EXAMWIRE_SERVER__LEASE_SECONDS": str(settings.server.lease_seconds),
        }
        self.starts = 0
        self.process = RoleProcess("SOCK001", ["socket-server", "--server-id", "SOCK001"], environment)
        start = self.process.start

        async def counted() -> None:
            self.starts += 1
            await start()

        self.process.start = counted  # type: ignore[method-assign]
        self.keeper = ProcessSupervisor(Intensity(restarts=2, period=60.0), lambda _: None, SupersededBackoff(0.1, 0.1))

    @property
    def url(self) -> str:
        return str(self.process.ready["url"])

    async def stop(self) -> None:
        await self.keeper.stop([self.process])


@asynccontextmanager
async def rivals(settings: Settings, directory: Path) -> AsyncIterator[tuple[Rival, Rival]]:
    first, second = Rival(settings, directory), Rival(settings, directory)
    try:
        yield first, second
    finally:
        await first.stop()
        await second.stop()


async def test_a_superseded_server_stays_down_while_its_successor_runs(bare: System, bus: Bus, tmp_path: Path) -> None:
    superseded_before = REGISTRY.get_sample_value("examwire_servers_superseded_total") or 0.0
    proctor = await bare.proctor("SOCK002")
    async with rivals(bare.settings, tmp_path) as (one, other):
        await one.keeper.start(one.process)
        first = await join(bare, one.url, "E001")
        await other.keeper.start(other.process)
        assert await first.closed() == 4003
        second = await join(bare, other.url, "E001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        reigning = (await record_of(bare))["incarnation"]

        async def tried_again() -> bool:
            return one.starts >= 3  # the first start, and two that gave way; each waits until it has seen the other

        await eventually(tried_again, "its supervisor has tried", 120.0)
        assert (await record_of(bare))["incarnation"] == reigning
        assert second.websocket.close_code is None
        assert story(proctor, "E001") == [
            ("connected", None),
            ("disconnected", "SERVER_RESTARTED"),
            ("connected", None),
        ], "one loss, when it was superseded, and none since"
        assert REGISTRY.get_sample_value("examwire_servers_superseded_total") == superseded_before + 1

        await other.stop()

        async def reigns() -> bool:
            record = await record_of(bare)
            return record["incarnation"] != reigning and record["statusCode"] == "READY"

        await eventually(reigns, "the one that waited takes over", 120.0)
        await join(bare, one.url, "E001", connection_no=3)


async def start_anew(system: System, name: str, *, takeover: bool) -> SocketServer:
    settings = changed(system.settings, {"server.takeover": takeover, "server.lease_seconds": 2})
    bus = system._buses[name] = await Bus.connect(settings.nats_url, name)
    server = system.actors[name] = SocketServer(settings, bus, system.store, "SOCK001")
    await server.start(lambda _, error: system.failures.append(error))
    return server


async def test_without_takeover_a_living_server_is_left_alone(bare: System, bus: Bus) -> None:
    first = await bare.start_server("SOCK001")
    examinee = await bare.examinee("E001", "SOCK001")
    with pytest.raises(RoleSuperseded, match="takeover is off"):
        await start_anew(bare, "second", takeover=False)
    await bare.stop("second")
    assert await bare.server_is("SOCK001", "READY")
    assert (await record_of(bare))["incarnation"] == first.incarnation
    assert examinee.websocket.close_code is None
    last_status = await bus.last_message(STATUS.name, subjects.status_server("SOCK001"))
    assert last_status is not None
    assert b'"READY"' in last_status.payload, "nothing was said by the one that left it alone"


async def test_without_takeover_a_start_waits_for_the_lease_to_expire(bare: System, bus: Bus) -> None:
    first = await bare.start_server("SOCK001")
    # It dies: no heartbeat any more, and its last one is still there.
    await bare._buses["SOCK001"]._nc.close()
    lease = await bus.last_message(LEASE.name, subjects.lease("SOCK001"))
    assert lease is not None
    second = await start_anew(bare, "second", takeover=False)
    assert second.incarnation != first.incarnation
    await eventually(lambda: bare.server_is("SOCK001", "READY"), "it runs")
    bare.failures.clear()  # of the one that died


async def test_of_two_simultaneous_starts_without_takeover_one_gives_up(bare: System) -> None:
    results = await asyncio.gather(
        *(start_anew(bare, name, takeover=False) for name in ("one", "other")), return_exceptions=True
    )
    given_way = [result for result in results if isinstance(result, RoleSuperseded)]
    running_servers = [result for result in results if isinstance(result, SocketServer)]
    assert (len(given_way), len(running_servers)) == (1, 1), results
    await eventually(lambda: bare.server_is("SOCK001", "READY"), "one of them runs")
    assert (await record_of(bare))["incarnation"] == running_servers[0].incarnation
