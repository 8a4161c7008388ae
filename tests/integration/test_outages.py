"""Redis away and NATS restarted, under load: nothing lost, nothing doubled, and everybody agrees afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.runtime.settings import Settings, load_settings
from actors.state_manager import StateManager
from cli.engines import NatsServer, RedisServer
from protocol.streams import STATE_MANAGER
from tests.integration.system import RawClient, System, eventually

EXAMINEES = [f"E{number:03}" for number in range(24)]


@pytest.fixture
def settings(own_engines: tuple[NatsServer, RedisServer], tmp_path: Path) -> Settings:
    nats, redis = own_engines
    return load_settings(
        **{"nats_url": nats.url, "redis_url": redis.url, "data_dir": tmp_path / "data", "server.lease_seconds": 2}
    )


@pytest.fixture
async def system(settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        assert system.failures == []


class Exam:
    """Examinees who keep dropping and coming back, and what is true about them."""

    def __init__(self, system: System, seed: int) -> None:
        self.system = system
        self.random = random.Random(seed)
        self.clients: dict[str, RawClient] = {}
        self.numbers = dict.fromkeys(EXAMINEES, 0)
        self.losses = dict.fromkeys(EXAMINEES, 0)
        self.connects = dict.fromkeys(EXAMINEES, 0)

    def server_for(self, examinee_id: str) -> str:
        return self.random.choice(["SOCK001", "SOCK002"])

    async def join(self, examinee_id: str) -> None:
        server_id = self.server_for(examinee_id)
        self.numbers[examinee_id] += 1
        while True:
            try:
                client = await self.system.raw(server_id)
                token = self.system.token("examinee", examinee_id)
                await client.hello(token, f"browser-{examinee_id}", self.numbers[examinee_id])
            except Exception:  # refused while NATS is away: 503, come back
                await asyncio.sleep(0.1)
                continue
            break
        self.clients[examinee_id] = client
        self.connects[examinee_id] += 1

    def drop(self, examinee_id: str) -> None:
        self.clients.pop(examinee_id).abort()
        self.losses[examinee_id] += 1

    async def step(self) -> None:
        examinee_id = self.random.choice(EXAMINEES)
        if examinee_id in self.clients:
            self.drop(examinee_id)
        else:
            await self.join(examinee_id)

    async def everybody_agrees(self, proctors: list[RawClient]) -> None:
        """Redis, the log and every proctor's screen, once things are quiet."""
        for examinee_id in EXAMINEES:
            wanted = "CONNECTED" if examinee_id in self.clients else "DISCONNECTED"
            await self.system.status(examinee_id, wanted)

            async def seen(examinee_id: str = examinee_id) -> bool:
                return all(
                    self._count(proctor, examinee_id) == (self.connects[examinee_id], self.losses[examinee_id])
                    for proctor in proctors
                )

            try:
                await eventually(seen, f"{examinee_id}: each recovery and each loss is seen once")
            except AssertionError as error:
                told = [proctor.about(examinee_id) for proctor in proctors]
                raise AssertionError(
                    f"{error}: {self.connects[examinee_id]} {self.losses[examinee_id]} {told}"
                ) from None
        for proctor in proctors:
            for examinee_id in EXAMINEES:
                versions = [frame["data"]["version"] for frame in proctor.about(examinee_id)]
                assert versions == sorted(set(versions)), f"{examinee_id}: doubled or out of order"

    def _count(self, proctor: RawClient, examinee_id: str) -> tuple[int, int]:
        told = proctor.about(examinee_id)
        kinds = [frame["type"] for frame in told]
        # A loss whose server could not tell of it in time is seen as the replacement by the next connection.
        replaced = sum("replaced" in frame["data"] for frame in told)
        return kinds.count("examinee_connected"), kinds.count("examinee_disconnected") + replaced


async def test_redis_stopped_under_load_loses_and_doubles_nothing(
    system: System, own_engines: tuple[NatsServer, RedisServer]
) -> None:
    redis = own_engines[1]
    proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002")]
    exam = Exam(system, seed=1)
    for examinee_id in EXAMINEES:
        await exam.join(examinee_id)
    await exam.everybody_agrees(proctors)
    redis.stop()
    for _ in range(60):
        await exam.step()
        await asyncio.sleep(0.02)
    manager = system.actors["state-manager"]

    async def it_waits() -> bool:
        return bool(manager.details()["waitingFor"] == "redis")

    await eventually(it_waits, "the state manager waits for Redis")
    began = time.monotonic()

    async def longer_than_the_ack_wait() -> bool:
        return time.monotonic() - began > STATE_MANAGER.ack_wait * 1.5

    await eventually(longer_than_the_ack_wait, "Redis stays away", 20)
    redis.start()
    for _ in range(20):
        await exam.step()
    await exam.everybody_agrees(proctors)
    info = await system._buses["state-manager"]._js.consumer_info(STATE_MANAGER.stream, STATE_MANAGER.name)
    assert info.num_redelivered == 0, "waiting for Redis used up deliveries"


async def test_nats_killed_and_restarted_under_load_loses_and_doubles_nothing(
    system: System, own_engines: tuple[NatsServer, RedisServer]
) -> None:
    nats = own_engines[0]
    proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002")]
    exam = Exam(system, seed=2)
    for examinee_id in EXAMINEES:
        await exam.join(examinee_id)
    for _ in range(20):
        await exam.step()
    nats.kill()
    for examinee_id in list(exam.clients)[::3]:
        exam.drop(examinee_id)  # while nobody can be told
    nats.start()
    for _ in range(30):
        await exam.step()
    await exam.everybody_agrees(proctors)
    assert not any(
        frame["data"].get("reason") in ("SERVER_LOST", "SERVER_RESTARTED") for frame in proctors[0].frames
    ), "a broker that restarts must not make anybody lost"


async def test_a_state_manager_that_dies_between_the_steps_leaves_the_rest_to_another(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to Redis, but dead before anybody was told: the redelivery tells, and exactly once."""
    proctor = await system.proctor()
    manager = system.actors["state-manager"]
    assert isinstance(manager, StateManager)
    reached = asyncio.Event()

    async def dies_here(_decided: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(manager._telling, "tell", dies_here)
    client = await system.raw("SOCK001")
    await client.hello(system.token("examinee", "E001"))
    await asyncio.wait_for(reached.wait(), 5)
    await system.status("E001", "CONNECTED")
    await system.stop("state-manager")
    assert proctor.about("E001") == []
    # The broker gives the message to another one when its ack wait is over: within seconds.
    await system.start("sm2", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
    await proctor.expect("examinee_connected", examineeId="E001")
    await client.expect("session_state")
    other = await system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")
    other.abort()
    await proctor.expect("examinee_disconnected", examineeId="E002")
    assert [frame["type"] for frame in proctor.about("E001")] == ["examinee_connected"]
