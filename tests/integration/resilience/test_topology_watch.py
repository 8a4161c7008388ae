"""A consumer or a stream that vanishes while the system runs is made again, and everybody goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.server import QueueServer
from actors.queue_server.topology import topology_consumers, topology_streams
from actors.queue_server.topology_watch import Topology, TopologyWatch
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from protocol.broker import subjects
from protocol.broker.streams import CHECKPOINT, LEASE, STATUS, ConsumerSpec
from protocol.errors import StateUnavailable
from protocol.messages.codec import encode
from protocol.messages.facts import Enrol
from tests.integration.support.system import RawClient, System, eventually
from tests.support.metrics import sample

DECLARED = load_settings()
CONSUMERS = topology_consumers()
STREAM_NAMES = [stream.name for stream in topology_streams(DECLARED)]
AS_NUMBERED = ("DEADLETTER", "PHONE", "CHECKPOINT", "RECORDS")
"""Streams whose numbers begin with 1, also when they are made again."""
OF_STATUS = [consumer for consumer in CONSUMERS if consumer.stream == STATUS.name]


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


async def there(bus: Bus, consumer: ConsumerSpec) -> bool:
    return await bus.consumer_config(consumer.stream, consumer.name) is not None


MADE_AGAIN = "examwire_topology_made_again_total"


async def counted(wanted: float, **labels: str) -> bool:
    return sample(MADE_AGAIN, **labels) == wanted


async def furthest(checkpoints: Checkpoints) -> tuple[int, ConsumerSpec]:
    """The consumer of STATUS that has acknowledged most: that of the plan of these tests."""
    floors = [(await checkpoints.acknowledged(consumer) or 0, consumer) for consumer in OF_STATUS]
    return max(floors, key=lambda floor: floor[0])


async def enrol(bus: Bus, *examinees: str) -> list[int]:
    facts = [
        Enrol(plan_id="P001", examinee_id=examinee, name=examinee, timestamp="2026-01-01T09:00:00Z", roster="r1")
        for examinee in examinees
    ]
    acks = await bus.publish_until_stored([Outgoing(subjects.status_plan("P001"), encode(fact)) for fact in facts])
    return [ack.sequence for ack in acks]


@pytest.mark.parametrize("name", [f"{consumer.stream}/{consumer.name}" for consumer in CONSUMERS])
async def test_a_deleted_consumer_is_created_again_without_a_loss(system: System, bus: Bus, name: str) -> None:
    (consumer,) = [consumer for consumer in CONSUMERS if f"{consumer.stream}/{consumer.name}" == name]
    proctor = await system.proctor()
    examinee = await system.examinee("E001")
    made_again = sample(MADE_AGAIN, kind="consumer", name=name)
    await bus.delete_consumer(consumer.stream, consumer.name)
    examinee.abort()  # in the gap, if it is one of the log's
    await proctor.expect("examinee_disconnected", examineeId="E001", reason="SOCKET_CLOSED")
    await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=1)
    await eventually(lambda: there(bus, consumer), f"{name} is there")
    await eventually(lambda: counted(made_again + 1, kind="consumer", name=name), "it is counted")
    await system.examinee("E001", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", after=len(proctor.frames) - 1)
    await eventually(lambda: system.server_is("SOCK001", "READY"), "nobody is called lost")
    types = [frame["type"] for frame in proctor.about("E001")]
    assert types.count("examinee_disconnected") == 1


async def test_acknowledged_messages_are_not_redelivered_and_the_others_are(system: System, bus: Bus) -> None:
    before = await enrol(bus, *(f"E{number:03}" for number in range(50)))
    queue_server = system.actors["queue-server"]
    assert isinstance(queue_server, QueueServer)
    checkpoints = queue_server._watch._checkpoints

    async def seen() -> ConsumerSpec | None:
        acknowledged, consumer = await furthest(checkpoints)
        return consumer if acknowledged >= before[-1] else None

    consumer = await eventually(seen, "the queue server has seen how far the state manager is")
    await system.stop("state-manager")
    waiting = await enrol(bus, "E900", "E901")
    await bus.delete_consumer(STATUS.name, consumer.name)
    await eventually(lambda: there(bus, consumer), "it is made again")
    config = await bus.consumer_config(STATUS.name, consumer.name)
    assert config is not None
    assert before[-1] < config["opt_start_seq"] <= waiting[0]


async def test_a_queue_server_recreates_a_consumer_from_its_checkpoint(
    system: System, bus: Bus, store: StateStore
) -> None:
    await system.examinee("E001")
    sequences = await enrol(bus, *(f"E{number:03}" for number in range(20)))

    async def saved() -> ConsumerSpec | None:
        acknowledged, consumer = await furthest(Checkpoints(bus))
        return consumer if acknowledged >= sequences[-1] else None

    of_the_plan = await eventually(saved, "the checkpoint is stored")
    for name in ("queue-server", "state-manager", "advisory-watch", "reconnect-watch", "lease-watch"):
        await system.stop(name)
    floors = {
        f"{consumer.stream}/{consumer.name}": await bus.ack_floor(consumer.stream, consumer.name)
        for consumer in CONSUMERS
    }
    for consumer in CONSUMERS:
        await bus.delete_consumer(consumer.stream, consumer.name)
    await store.mark.begin("emptied")
    await system.start("queue-server", lambda its: QueueServer(system.settings, its))
    for consumer in CONSUMERS:
        if consumer.stream == LEASE.name:
            continue  # a newer heartbeat replaces the one before it, so the floor moves on by itself
        if (await bus.stream_state(consumer.stream)).messages:
            assert await bus.ack_floor(consumer.stream, consumer.name) <= floors[f"{consumer.stream}/{consumer.name}"]
    assert await bus.ack_floor(STATUS.name, of_the_plan.name) >= sequences[-1]


async def test_an_outdated_checkpoint_is_replaced_by_the_mark_in_redis(
    bus: Bus, store: StateStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(bus, store)
    topology = Topology(bus, topology_streams(settings), CONSUMERS, 1, checkpoints)
    await topology.apply()
    sequences = await enrol(bus, *(f"E{number:03}" for number in range(9)))
    (consumer, *_) = OF_STATUS
    old = {f"{consumer.stream}/{consumer.name}": sequences[1] for consumer in OF_STATUS}
    await bus.publish(Outgoing(subjects.CHECKPOINT, json.dumps({"acknowledged": old}).encode()))
    await store.mark.advance(sequences[5])
    assert await checkpoints.acknowledged(consumer) == sequences[1], "it is fresh"
    monkeypatch.setattr("actors.queue_server.checkpoints.FRESH_SECONDS", 0.0)
    assert await checkpoints.acknowledged(consumer) == sequences[5]
    await bus._js.purge_stream(CHECKPOINT.name)
    assert await checkpoints.acknowledged(consumer) == sequences[5], "there is none"
    await bus.delete_consumer(STATUS.name, consumer.name)
    await topology.apply()
    await topology.apply()  # whose beginning is no difference
    assert await bus.ack_floor(STATUS.name, consumer.name) == sequences[5]


async def test_without_redis_a_consumer_is_not_created_from_an_unknown_sequence(bus: Bus, settings: Settings) -> None:
    nobody = StateStore("redis://127.0.0.1:1/0", settings.redis)
    topology = Topology(bus, topology_streams(settings), CONSUMERS, 1, Checkpoints(bus, nobody))
    await topology.apply()  # everything is new: there is nothing to know
    await enrol(bus, "E001")
    for consumer in CONSUMERS:
        await bus.delete_consumer(consumer.stream, consumer.name)
    with pytest.raises(StateUnavailable):
        await topology.apply()
    for consumer in CONSUMERS:
        assert await there(bus, consumer) is (consumer not in OF_STATUS), "the others need not wait"
    following = asyncio.create_task(TopologyWatch(bus, topology, Checkpoints(bus, nobody)).follow())

    async def seen() -> bool:
        up = {one.name: sample("examwire_consumer_up", stream=one.stream, consumer=one.name) for one in CONSUMERS}
        return up == {one.name: float(one not in OF_STATUS) for one in CONSUMERS}

    await eventually(seen, "they are told to be missing")
    following.cancel()
    await nobody.close()


async def shown(proctor: RawClient, examinee_id: str, status: str) -> bool:
    """Whether a proctor was told so, by an event or by a new snapshot, and of nothing else since."""
    statuses: dict[str, str] = {"examinee_connected": "CONNECTED", "examinee_disconnected": "DISCONNECTED"}
    newest = ""
    for frame in proctor.frames:
        rows = {row["examineeId"]: row["status"] for row in frame["data"].get("examinees", [])}
        if frame["type"] in statuses and frame["data"]["examineeId"] == examinee_id:
            newest = statuses[frame["type"]]
        newest = rows.get(examinee_id, newest)
    return newest == status


@pytest.mark.parametrize("names", [("STATUS",), ("SOCKET",), tuple(STREAM_NAMES[2:])])
async def test_deleted_streams_are_created_again_and_the_exam_continues(
    system: System, bus: Bus, names: tuple[str, ...]
) -> None:
    proctor = await system.proctor()
    await system.examinee("E001")
    before = {name: await bus.stream_state(name) for name in names}
    made_again = {name: sample(MADE_AGAIN, kind="stream", name=name) for name in names}
    for name in names:
        await bus._js.delete_stream(name)

    async def made() -> bool:
        return None not in [await bus.stream_config(name) for name in names]

    await eventually(made, f"{names} are there")
    for name in names:
        assert (await bus.stream_state(name)).first > before[name].last or name in AS_NUMBERED
        assert sample(MADE_AGAIN, kind="stream", name=name) == made_again[name] + 1
    for consumer in CONSUMERS:
        await eventually(lambda expected=consumer: there(bus, expected), f"{consumer.name} is there")  # type: ignore[misc]
    await system.examinee("E002")

    await eventually(lambda: shown(proctor, "E002", "CONNECTED"), "the proctor is told of E002")
    system.clients[-1].abort()
    await eventually(lambda: shown(proctor, "E002", "DISCONNECTED"), "the proctor is told of the loss")
    await proctor.expect("examinee_reconnecting", examineeId="E002", attempt=1)
    assert system.clients[1].websocket.close_code is None, "E001 has noticed nothing"
