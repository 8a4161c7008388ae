"""`view_status`: whoever looks at a plan is told when the picture is not so any more, and when it is again.

Real faults: processes that stand still or are killed, consumers that are missing. The limits (shown within 5 s, over
within 2 s) are those of a machine that is not five times too busy; here only what is said counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.manager import StateManager
from actors.state_manager.recovery.part_repair import PartRepair
from actors.state_manager.recovery.repair import StateRepair
from actors.state_manager.recovery.restoration import Repair
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import STATE_MANAGERS
from protocol.log.partitions import partition_of
from protocol.messages.frames import ViewStatus
from protocol.messages.progress import REPORT_SECONDS, SILENT_SECONDS
from tests.integration.support.clients.typed_clients import next_of
from tests.integration.support.system import Frame, RawClient, System, eventually

Engines = tuple[NatsServer, RedisServer]


@pytest.fixture
def own_settings(own_engines: Engines, tmp_path: Path) -> Settings:
    nats, redis = own_engines
    return load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "data")


@asynccontextmanager
async def manager_process(settings: Settings, name: str) -> AsyncIterator[Process]:
    """A state manager as a process of its own, to be stopped and killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", "state-manager", "--name", name, "--json"),
        *("--nats-url", settings.nats_url, "--redis-url", settings.redis_url),
        env={**os.environ, "EXAMWIRE_DATA_DIR": str(settings.data_dir)},
        stdout=PIPE,
        stderr=DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert json.loads(await process.stdout.readline())["event"] == "ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Watched:
    """An examinee on one server and a proctor on another."""

    def __init__(self, examinee: RawClient, proctor: RawClient) -> None:
        self.examinee, self.proctor = examinee, proctor
        self._read = {examinee: len(examinee.frames), proctor: len(proctor.frames)}

    @classmethod
    async def by(cls, system: System) -> Watched:
        proctor = await system.proctor("SOCK002")
        return cls(await system.examinee("E001", "SOCK001"), proctor)

    async def told(self, *, current: bool, **fields: Any) -> Frame:
        """Wait until both are told so; what the proctor was told."""
        for client, after in list(self._read.items()):
            frame = await client.expect("view_status", after=after, current=current, **fields)
            self._read[client] = client.frames.index(frame, after) + 1
        return frame

    def statuses(self) -> list[Frame]:
        """What both have been told and nobody has waited for."""
        return [
            frame
            for client, after in self._read.items()
            for frame in client.frames[after:]
            if frame["type"] == "view_status"
        ]


def value(metric: str) -> float:
    return REGISTRY.get_sample_value(metric) or 0.0


Fault = Callable[[System, Engines], Awaitable[Callable[[], Awaitable[object]]]]


async def redis_stands_still(_: System, engines: Engines) -> Callable[[], Awaitable[object]]:
    return _frozen(engines[1].pid)


async def nats_stands_still(_: System, engines: Engines) -> Callable[[], Awaitable[object]]:
    return _frozen(engines[0].pid)


def _frozen(pid: int | None) -> Callable[[], Awaitable[object]]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    async def thaw() -> None:
        os.kill(pid, signal.SIGCONT)

    return thaw


async def redis_is_away(_: System, engines: Engines) -> Callable[[], Awaitable[object]]:
    engines[1].kill()
    return lambda: asyncio.to_thread(engines[1].start)


async def nats_is_away(_: System, engines: Engines) -> Callable[[], Awaitable[object]]:
    engines[0].kill()
    return lambda: asyncio.to_thread(engines[0].start)


async def no_state_manager(system: System, _: Engines) -> Callable[[], Awaitable[object]]:
    await system.stop("state-manager")
    return lambda: system.start("state-manager", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))


async def the_log_takes_nothing(system: System, _: Engines) -> Callable[[], Awaitable[object]]:
    """JetStream refuses what happens to examinees of either server; state managers have nothing to do."""
    js = system._buses["SOCK001"]._js
    config = (await js.stream_info("STATUS")).config
    await js.update_stream(config.evolve(max_msg_size=16))
    for server_id in ("SOCK001", "SOCK002"):
        client = await system.raw(server_id)
        await client.hello(system.token("examinee", f"on-{server_id}"), server_id)
    return lambda: js.update_stream(config)


@pytest.mark.parametrize(
    ("fault", "waiting_for"),
    [
        (redis_is_away, "redis"),
        (nats_stands_still, "nats"),
        (nats_is_away, "nats"),
        (no_state_manager, "state-manager"),
        (the_log_takes_nothing, "nats"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_an_outdated_view_is_shown_even_without_events(
    fault: Fault, waiting_for: str, own_settings: Settings, own_engines: Engines
) -> None:
    async with System(own_settings) as system:
        watched = await Watched.by(system)
        mend = await fault(system, own_engines)
        try:
            status = await watched.told(current=False)
        finally:
            await mend()
        assert status["data"]["waitingFor"] == waiting_for
        over = await watched.told(current=True)
        assert over["data"]["since"] > status["data"]["since"]
        assert "waitingFor" not in over["data"]
        # State managers that cannot be heard are not blamed for it, at its end neither.
        named = {frame["data"].get("waitingFor") for frame in watched.proctor.frames if frame["type"] == "view_status"}
        assert waiting_for == "state-manager" or "state-manager" not in named
        # And it is true: what happens now is seen.
        before = len(watched.proctor.frames)
        watched.examinee.abort()
        await watched.proctor.expect("examinee_disconnected", after=before, examineeId="E001")


async def test_a_blocked_state_manager_or_a_missing_consumer_is_shown(own_settings: Settings) -> None:
    async with System(own_settings) as system:
        await system.stop("state-manager")
        async with manager_process(own_settings, "sm2") as manager:
            watched = await Watched.by(system)
            manager.send_signal(signal.SIGSTOP)
            status = await watched.told(current=False)
            assert status["data"]["waitingFor"] == "state-manager"
            manager.send_signal(signal.SIGCONT)
            await watched.told(current=True)

            bus = system._buses["SOCK001"]
            await system.stop("queue-server")  # which would make it again
            consumer = STATE_MANAGERS[1 + partition_of("P001")]
            await bus.delete_consumer(consumer.stream, consumer.name)
            await watched.told(current=False, waitingFor="consumer")
            await bus.apply_consumer(consumer)
            await watched.told(current=True)


async def test_a_repair_of_redis_is_shown(
    own_settings: Settings, own_engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a log of days this takes a while; here it takes as long as the test wants."""
    go_on, restore_state = asyncio.Event(), StateRepair.restore_state

    async def slowly(repair: StateRepair) -> Repair:
        await go_on.wait()
        return await restore_state(repair)

    async with System(own_settings) as system:
        watched = await Watched.by(system)
        monkeypatch.setattr(StateRepair, "restore_state", slowly)
        redis = Redis.from_url(own_settings.redis_url)
        await redis.flushall()
        await redis.aclose()
        status = await watched.told(current=False)
        assert status["data"]["waitingFor"] == "state"
        go_on.set()
        await watched.told(current=True)


async def test_a_plan_that_is_whole_is_current_while_another_one_is_repaired(
    own_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The parts of the log are repaired in their order.
    later = next(f"P{n:03}" for n in range(2, 99) if partition_of(f"P{n:03}") > partition_of("P001"))
    reached, go_on, repair_plan = asyncio.Event(), asyncio.Event(), PartRepair.repair_plan

    async def until_told(part: PartRepair, plan_id: str) -> None:
        if plan_id == later:
            reached.set()
            await go_on.wait()
        await repair_plan(part, plan_id)

    async with System(own_settings) as system:
        watched = await Watched.by(system)
        waiting = await system.proctor(plan_id=later)
        await system.examinee("E009", plan_id=later)
        await waiting.expect("examinee_connected", examineeId="E009")
        monkeypatch.setattr(PartRepair, "repair_plan", until_told)
        redis = Redis.from_url(own_settings.redis_url)
        await redis.flushall()
        await redis.aclose()
        await asyncio.wait_for(reached.wait(), 20)

        assert (await waiting.expect("view_status", current=False))["data"]["waitingFor"] == "state"
        watched.examinee.abort()
        await watched.proctor.expect("examinee_disconnected", examineeId="E001")
        statuses = [frame["data"]["current"] for frame in watched.proctor.frames if frame["type"] == "view_status"]
        assert statuses[-1:] in ([], [True])
        go_on.set()
        await waiting.expect("view_status", current=True)
        assert not system.failures


async def test_a_missing_queue_of_the_server_is_shown(own_settings: Settings) -> None:
    async with System(own_settings) as system:
        watched = await Watched.by(system)
        await system.stop("queue-server")
        broadcasts = "SOCK002_Q_BROADCAST"
        await system._buses["SOCK001"].delete_consumer("SOCKET", broadcasts)
        status = await watched.proctor.expect("view_status", current=False)
        assert status["data"]["waitingFor"] == "queue"
        # The other server tells its examinee what is true there: it is recorded.
        assert not [frame for frame in watched.examinee.frames if frame["type"] == "view_status"]


async def test_a_takeover_by_another_state_manager_is_not_shown(own_settings: Settings) -> None:
    async with System(own_settings) as system:
        await system.start("sm2", lambda bus: StateManager(own_settings, bus, system.store, "sm2"))
        watched = await Watched.by(system)
        await system.stop("state-manager")
        await asyncio.sleep(1.5 * SILENT_SECONDS)  # that nothing comes takes its time to be seen
        assert not watched.statuses()


async def test_clients_who_join_meanwhile_are_informed_and_a_metric_shows_it(
    own_settings: Settings, own_engines: Engines
) -> None:
    async with System(own_settings) as system:
        watched = await Watched.by(system)
        first = watched.proctor.frames[:3]
        assert [frame["type"] for frame in first] == ["welcome", "plan_state", "view_status"]
        assert first[2]["data"]["current"] is True
        assert "view_status" not in [frame["type"] for frame in watched.examinee.frames]
        assert value("examwire_socket_plans_not_current") == 0
        thaw = await redis_stands_still(system, own_engines)
        try:
            await watched.told(current=False, waitingFor="redis")
            assert value("examwire_socket_plans_not_current") == 2  # one plan, on two servers of this process
            assert value("examwire_state_behind_seconds") > REPORT_SECONDS
            for role, subject in (("examinee", "E002"), ("proctor", "proctor-2")):
                client = await system.raw("SOCK001")
                await client.hello(system.token(role, subject), subject)  # type: ignore[arg-type]
                await client.expect("view_status", current=False)
        finally:
            await thaw()
        await watched.told(current=True)

        async def quiet() -> bool:
            return value("examwire_state_behind_seconds") < 1 and value("examwire_socket_plans_not_current") == 0

        await eventually(quiet, "nothing is behind, by the metrics")
        watched.examinee.abort()
        await watched.proctor.expect("examinee_disconnected", examineeId="E001")


async def test_the_client_library_returns_the_view_status(own_settings: Settings, own_engines: Engines) -> None:
    async with System(own_settings) as system:
        url = system.server("SOCK001").url
        examinee = ExamineeClient(url, system.token("examinee", "E001"))
        proctor = ProctorClient(url, system.token("proctor", "kim"))
        async with examinee, proctor:
            assert (await next_of(proctor, ViewStatus)).current
            assert examinee.current
            assert proctor.current
            thaw = await redis_stands_still(system, own_engines)
            try:
                for client in (examinee, proctor):
                    assert not (await next_of(client, ViewStatus)).current
                    assert not client.current
                assert (proctor.view.current, proctor.view.waiting_for) == (False, "redis")
                assert proctor.view.current_until is not None
            finally:
                await thaw()
            for client in (examinee, proctor):
                assert (await next_of(client, ViewStatus)).current
                assert client.current
            assert proctor.view.current
