"""Redis away and NATS restarted, under load: nothing lost, nothing doubled, and everybody agrees afterwards."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.state_manager.manager import StateManager
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import STATE_MANAGERS, STATUS
from tests.integration.support.system import System, eventually
from tests.integration.support.unsteady_exam import EXAMINEES, Exam
from tests.support.metrics import sample


async def test_redis_stopped_under_load_loses_and_doubles_nothing(
    own_system: System, own_engines: tuple[NatsServer, RedisServer]
) -> None:
    redis = own_engines[1]
    proctors = [await own_system.proctor("SOCK001"), await own_system.proctor("SOCK002")]
    exam = Exam(own_system, seed=1)
    for examinee_id in EXAMINEES:
        await exam.join(examinee_id)
    await exam.everybody_agrees(proctors)
    redis.stop()
    for _ in range(60):
        await exam.step()
        await asyncio.sleep(0.02)
    manager = own_system.actors["state-manager"]

    async def it_waits() -> bool:
        return bool(manager.details()["waitingFor"] == "redis")

    await eventually(it_waits, "the state manager waits for Redis")
    assert sample("examwire_state_waiting", reason="redis") == 1
    began = time.monotonic()

    async def longer_than_the_ack_wait() -> bool:
        return time.monotonic() - began > STATE_MANAGERS[0].ack_wait * 1.5

    await eventually(longer_than_the_ack_wait, "Redis stays away", 20)
    redis.start()
    for _ in range(20):
        await exam.step()
    await exam.everybody_agrees(proctors)
    assert sample("examwire_state_waiting", reason="redis") == 0
    states = await own_system._buses["state-manager"].consumer_states(STATUS.name)
    assert not any(state.redelivered for state in states), "waiting for Redis used up deliveries"


async def test_nats_killed_and_restarted_under_load_loses_and_doubles_nothing(
    own_system: System, own_engines: tuple[NatsServer, RedisServer]
) -> None:
    nats = own_engines[0]
    proctors = [await own_system.proctor("SOCK001"), await own_system.proctor("SOCK002")]
    exam = Exam(own_system, seed=2)
    for examinee_id in EXAMINEES:
        await exam.join(examinee_id)
    for _ in range(20):
        await exam.step()
    failures = sample("examwire_publish_failures_total")
    nats.kill()
    for examinee_id in list(exam.clients)[::3]:
        exam.drop(examinee_id)  # while nobody can be told

    async def they_wait() -> bool:
        return sample("examwire_socket_outbox_messages") > 0 and sample("examwire_publish_failures_total") > failures

    await eventually(they_wait, "their ends wait in the servers")
    nats.start()
    for _ in range(30):
        await exam.step()
    await exam.everybody_agrees(proctors)
    assert not any(
        frame["data"].get("reason") in ("SERVER_LOST", "SERVER_RESTARTED") for frame in proctors[0].frames
    ), "a broker that restarts must not make anybody lost"


async def test_another_state_manager_finishes_the_work_of_one_that_died(
    own_system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to Redis, but dead before anybody was told: the redelivery tells, and exactly once."""
    proctor = await own_system.proctor()
    manager = own_system.actors["state-manager"]
    assert isinstance(manager, StateManager)
    reached = asyncio.Event()

    async def dies_here(_decided: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(manager._publisher, "publish", dies_here)
    client = await own_system.raw("SOCK001")
    await client.hello(own_system.token("examinee", "E001"))
    await asyncio.wait_for(reached.wait(), 20)
    await own_system.status("E001", "CONNECTED")
    await own_system.stop("state-manager")
    assert proctor.about("E001") == []
    # The broker gives the message to another one when its ack wait is over: within seconds.
    await own_system.start("sm2", lambda bus: StateManager(own_system.settings, bus, own_system.store, "sm2"))
    await proctor.expect("examinee_connected", examineeId="E001")
    await client.expect("session_state")
    other = await own_system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")
    other.abort()
    await proctor.expect("examinee_disconnected", examineeId="E002")
    assert [frame["type"] for frame in proctor.about("E001")] == ["examinee_connected"]
