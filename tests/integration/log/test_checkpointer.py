"""A state manager writes checkpoints beside its work: RECORDS holds what Redis holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.retention.purger import Purger
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.checkpointer import Checkpointer
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.record_checkpoints import CheckpointedKey, Manifest, RecordCheckpoints
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.broker.streams import RECORDS
from protocol.errors import StreamFull
from protocol.log.partitions import PARTS, part_of
from protocol.messages.facts import Enrol, ExamineeFact
from protocol.messages.plan_facts import ExamWindow, PlanFact, PlanSchedule
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample

# The lease watch writes these between two facts; a checkpoint has them as they were at the last fact.
MOVING = ("lastActiveTime", "lastHeartbeat", "cpuUsage", "memoryUsage", "networkStatus", "sessions")


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    """A system whose own checkpoints are not due in this test: the tests write them, when nothing else happens."""
    async with System(settings) as system:
        await system.stop("reconnect-watch")
        yield system
        assert system.failures == []


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        yield redis


def checkpointer(bus: Bus, system: System) -> Checkpointer:
    """A writer of all parts, whose pass comes when the test says so."""
    return Checkpointer(bus, system.store, system.settings.checkpoints, lambda: PARTS)


async def applied(bus: Bus) -> None:
    """Wait until the whole log is worked off."""
    status = StatusLog(bus)

    async def everything() -> bool:
        extent = await status.extent()
        return extent.acknowledged >= extent.last

    await eventually(everything, "the log is worked off")


async def write(bus: Bus, system: System, writer: Checkpointer | None = None) -> None:
    await applied(bus)
    writer = writer or checkpointer(bus, system)
    for known in writer._parts.values():
        known.tried = 0.0
    await writer.write_due()


async def checkpoints(bus: Bus) -> dict[str, CheckpointedKey]:
    reader = RecordCheckpoints(bus)
    return {one.key: one for part in PARTS async for one in reader.read(part)}


def settled(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in MOVING}


async def agrees(bus: Bus, redis: Redis) -> dict[str, CheckpointedKey]:
    """Assert that RECORDS holds exactly the records and sockets of Redis, and what the indexes say; return it."""
    held = await checkpoints(bus)
    in_redis: dict[str, Any] = {}
    async for key in redis.scan_iter("*"):
        if keys.parse_key(key).kind not in ("plan_examinees", "server_sockets", "index", "other"):
            in_redis[key] = settled(await redis.hgetall(key))  # type: ignore[arg-type]
    assert {key: settled(one.fields) for key, one in held.items() if one.fields} == in_redis
    for key, one in held.items():
        record = keys.parse_key(key)
        if record.examinee_id:
            assert one.member == await redis.sismember(keys.plan_examinees(record.plan_id), record.examinee_id), key
        if record.kind == "socket" and one.fields["status"] == "CONNECTED":
            socket_id = key.rpartition(":")[2]
            entry = await redis.hget(keys.server_sockets(socket_id.rpartition("-")[0]), socket_id)
            assert (one.entry.value if one.entry is not None else None) == entry, key
    return held


async def copied(bus: Bus, system: System, redis: Redis, writer: Checkpointer) -> dict[str, CheckpointedKey]:
    """Write a checkpoint and assert that it agrees; again when something has happened meanwhile (a slow machine)."""
    while True:
        before = (await StatusLog(bus).extent()).last
        await write(bus, system, writer)
        try:
            return await agrees(bus, redis)
        except AssertionError:
            if (await StatusLog(bus).extent()).last == before:
                raise


async def test_what_facts_change_is_copied_with_its_place_in_the_indexes(
    bus: Bus, system: System, redis: Redis
) -> None:
    proctor = await system.proctor()
    examinees = [await system.examinee(f"E00{number}", f"SOCK00{1 + number % 2}") for number in range(4)]
    await system.examinee("E100", plan_id="P002")
    first = await copied(bus, system, redis, writer := checkpointer(bus, system))
    reader = RecordCheckpoints(bus)
    manifests = [await reader.manifest(part) for part in PARTS]
    acknowledged = (await StatusLog(bus).extent()).acknowledged
    assert all(manifest is not None and 0 < manifest.sequence <= acknowledged for manifest in manifests)
    assert manifests[0] is not None
    assert manifests[0].live == {"P001": 4, "P002": 1}
    assert await reader.plans(part_of("P001")) == ["P001"]

    examinees[1].abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await proctor.say("notify", examineeId="E002", text="Hello", requestId="n1")
    await proctor.expect("notice", examineeId="E002")
    enrolled = Enrol(plan_id="P003", examinee_id="E300", timestamp=format_time(bus.clock.now()), name="Kim")
    await bus.publish(Outgoing.of(subjects.status_plan("P003", subjects.OPERATOR), enrolled))
    second = await copied(bus, system, redis, writer)
    changed = {key for key, one in second.items() if key not in first or one.sequence != first[key].sequence}
    assert keys.progress("P001", "E001") in changed
    assert keys.notices("P001", "E002") in changed
    assert {keys.plan("P003"), keys.progress("P003", "E300")} <= changed, "a plan without a record is listed too"
    assert await reader.plans(part_of("P003")) == ["P003"]
    assert keys.progress("P001", "E003") not in changed
    assert (await reader.manifest(SERVERS_PART)) is not None


async def test_a_state_manager_writes_them_by_itself_and_measures_how_old_they_are(
    bus: Bus, settings: Settings
) -> None:
    async with System(changed(settings, {"checkpoints.seconds": 0.2})) as system:
        await system.examinee("E001")
        reader = RecordCheckpoints(bus)

        async def copied() -> bool:
            return keys.progress("P001", "E001") in {one.key async for one in reader.read(part_of("P001"), "P001")}

        await eventually(copied, "the record is copied")
        assert {part: sample("examwire_checkpoint_age_seconds", part=part) < 10 for part in PARTS} == dict.fromkeys(
            PARTS, True
        )
        assert sample("examwire_checkpoint_behind_messages", part=SERVERS_PART) >= 0


async def test_a_stream_of_checkpoints_that_was_lost_is_made_anew(bus: Bus, system: System, redis: Redis) -> None:
    proctor = await system.proctor()
    lost = await system.examinee("E001")
    await system.examinee("E002", "SOCK002")
    lost.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    before = await copied(bus, system, redis, writer := checkpointer(bus, system))
    await bus.purge_stream(RECORDS.name)
    await write(bus, system, writer)
    after = await copied(bus, system, redis, writer)  # at first it only learns that somebody else has written
    assert set(after) == set(before)
    assert after[keys.plan("P001")].fields == {}
    ended = [key for key, one in after.items() if one.fields.get("status") == "DISCONNECTED" and "socket" in key]
    assert len(ended) == 1
    stored = await bus.last_message(RECORDS.name, subjects.record(ended[0]))
    assert stored is not None
    assert 86000 < int(stored.headers["Nats-TTL"].removesuffix("s")) <= 86400, "it expires when Redis forgets it"


async def test_a_writer_that_was_paused_writes_nothing_old(
    bus: Bus, system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.examinee("E001")
    await write(bus, system, paused := checkpointer(bus, system))
    client = await system.examinee("E002", "SOCK002")
    async with held_up(bus, system, paused, monkeypatch):
        client.abort()
        await system.status("E002", "DISCONNECTED")
        held = await copied(bus, system, redis, checkpointer(bus, system))
    assert await checkpoints(bus) == held
    await copied(bus, system, redis, paused)


@pytest.mark.parametrize("examinee_id", [None, "E001"])
async def test_a_purge_deletes_checkpoints_at_once_and_none_that_was_read_before_it_is_written_after_it(
    bus: Bus, system: System, monkeypatch: pytest.MonkeyPatch, examinee_id: str | None
) -> None:
    await system.examinee("E001")
    await system.examinee("E002", "SOCK002")
    await write(bus, system, paused := checkpointer(bus, system))
    (await system.examinee("E001", connection_no=2)).abort()
    await system.status("E001", "DISCONNECTED")
    async with held_up(bus, system, paused, monkeypatch):
        await Purger(bus, system.store, "kim").purge("P001", examinee_id)
        assert mentioned(await checkpoints(bus)) == (set() if examinee_id is None else {"E002"})
    assert mentioned(await checkpoints(bus)) == (set() if examinee_id is None else {"E002"})
    await write(bus, system, paused)
    assert mentioned(await checkpoints(bus)) == (set() if examinee_id is None else {"E002"})


def mentioned(held: Mapping[str, CheckpointedKey]) -> set[str]:
    """The examinees in checkpoints of records and sockets of a plan, but for the note in the plan's own records."""
    of_examinees = [
        one for one in held.values() if keys.parse_key(one.key).kind not in ("server", "plan", "plan_notices")
    ]
    return {name for one in of_examinees for name in ("E001", "E002") if name in repr(one)}


@pytest.mark.parametrize("examinee_id", [None, "E001"])
async def test_a_purge_also_deletes_checkpoints_from_a_stream_that_is_full(
    bus: Bus, system: System, examinee_id: str | None
) -> None:
    await system.examinee("E001")
    await system.examinee("E002", "SOCK002")
    await write(bus, system)
    size = (await bus.stream_state(RECORDS.name)).size
    await bus.apply_stream(replace(RECORDS, max_bytes=size))
    with pytest.raises(StreamFull):
        await bus.publish(Outgoing("record.3.P002.plan", b"{}"))
    await Purger(bus, system.store, "kim").purge("P001", examinee_id)
    assert mentioned(await checkpoints(bus)) == (set() if examinee_id is None else {"E002"})


@asynccontextmanager
async def held_up(bus: Bus, system: System, paused: Checkpointer, patches: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let a writer stand still between what it reads from Redis and what it writes."""
    reached, go_on, real = asyncio.Event(), asyncio.Event(), CheckpointWrites._copies

    async def read_long_ago(self: CheckpointWrites, *args: Any) -> Any:
        copies = await real(self, *args)
        if self is paused._writes and copies.messages:
            reached.set()
            await go_on.wait()
        return copies

    with patches.context() as patched:
        patched.setattr(CheckpointWrites, "_copies", read_long_ago)
        writing = asyncio.create_task(write(bus, system, paused))
        await asyncio.wait_for(reached.wait(), 10)
        yield
        go_on.set()
        await writing


async def test_records_that_were_written_anew_from_the_log_are_copied_too(
    bus: Bus, system: System, redis: Redis, invoke: Invoke
) -> None:
    key = keys.progress("P001", "E001")
    await system.examinee("E001")
    await system.examinee("E002")
    await applied(bus)
    await redis.hset(key, "history", str(await redis.hget(key, "history")).replace("CONNECTED", "DISCONNECTED"))
    await redis.hdel(keys.server_sockets("SOCK001"), str(await redis.hget(key, "socketId")))
    enrolled = Enrol(plan_id="P001", examinee_id="E001", timestamp=format_time(bus.clock.now()), name="Kim")
    await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), enrolled))
    await write(bus, system)
    assert (await agrees(bus, redis))[key].fields["connStatusCode"] == "DISCONNECTED"
    assert (await invoke("state", "rebuild", "--yes")).exit_code == 0
    held = await checkpoints(bus)
    assert held[key].fields["connStatusCode"] == "CONNECTED"
    assert held[keys.socket("P001", held[key].fields["socketId"])].entry is not None


async def test_what_cannot_be_read_leaves_its_checkpoint_and_holds_up_no_other_one(
    bus: Bus, system: System, redis: Redis
) -> None:
    await system.examinee("E001")
    await system.examinee("E002")
    held = await copied(bus, system, redis, writer := checkpointer(bus, system))
    damaged, key = keys.progress("P001", "E001"), keys.progress("P001", "E002")
    await redis.hset(keys.server_sockets("SOCK001"), "SOCK001-x", "whatever")
    await redis.hset(damaged, "history", "{")
    now = format_time(bus.clock.now())
    enrolled = [Enrol(plan_id="P001", examinee_id=each, timestamp=now, name="Kim") for each in ("E001", "E002")]
    for fact in enrolled:
        await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), fact))
    await write(bus, system, writer)
    found = await checkpoints(bus)
    assert found[damaged].fields["history"] == held[damaged].fields["history"]
    assert found[key].fields["name"] == "Kim"
    manifest = await RecordCheckpoints(bus).manifest(SERVERS_PART)
    assert manifest is not None
    assert manifest.live == {"P001": 2}


async def test_nothing_is_copied_from_a_redis_that_is_not_whole(bus: Bus, system: System, redis: Redis) -> None:
    await system.examinee("E001")
    before = await copied(bus, system, redis, checkpointer(bus, system))
    part = part_of("P001")
    stored = await RecordCheckpoints(bus).checkpoint(part)
    await system.stop("state-manager")
    await redis.flushall()
    await system.store.mark.begin("test")
    with pytest.raises(Exception, match="a state manager must bring it up"):
        await CheckpointWrites(bus, system.store).write(
            stored, {keys.progress("P001", "E001"): None}, Manifest(sequence=2**53)
        )
    assert await checkpoints(bus) == before
    assert await RecordCheckpoints(bus).checkpoint(part) == stored


@pytest.mark.parametrize("set_back", [False, True])
async def test_a_lost_redis_comes_back_with_all_whose_facts_the_log_has_dropped(
    bus: Bus, settings: Settings, invoke: Invoke, set_back: bool
) -> None:
    redis = Redis.from_url(settings.redis_url, decode_responses=True)
    async with System(settings) as system:
        await system.stop("reconnect-watch")
        proctor = await system.proctor()
        ended = await system.examinee("E001")
        await system.examinee("E002", "SOCK002")
        ended.abort()
        await proctor.expect("examinee_disconnected", examineeId="E001")
        now = format_time(bus.clock.now())
        facts: list[ExamineeFact | PlanFact] = [
            Enrol(plan_id="P001", examinee_id="E003", name="Kim", timestamp=now),
            PlanSchedule(
                plan_id="P001", by="operator", timestamp=now, name="Spring", ends_at="2099-01-01T00:00:00.000Z"
            ),
            ExamWindow(plan_id="P001", examinee_id="E003", by="operator", timestamp=now, extra_seconds=600),
            Enrol(plan_id="P900", examinee_id="E900", name="Lee", timestamp=now),
        ]
        for fact in facts:
            await bus.publish(Outgoing.of(subjects.status_plan(fact.plan_id, subjects.OPERATOR), fact))
        held = await copied(bus, system, redis, checkpointer(bus, system))
        in_redis = {key: await redis.smembers(key) for key in [keys.PLANS, keys.plan_examinees("P001"), keys.SERVERS]}
        assert await bus.purge_stream("STATUS", up_to=(await StatusLog(bus).extent()).last) > 0, (
            "the log has dropped all"
        )
        await redis.flushall()
        if set_back:  # to a time before all that the log still has
            await redis.hset(keys.STATE, mapping={"run": "0" * 40, "applied": "1"})
        client = await system.examinee("E004")  # waits until Redis is whole
        await eventually(system.store.mark.is_whole, "Redis is whole")

        for key, one in held.items():
            if one.fields and "E002" not in repr(one) and keys.parse_key(key).kind != "server":
                found = await redis.hgetall(key)
                assert settled(found) == settled(one.fields), key  # type: ignore[arg-type]
        in_redis[keys.plan_examinees("P001")].add("E004")
        assert {key: await redis.smembers(key) for key in in_redis} == in_redis
        own_times = (await system.store.entries(keys.plan("P001")))["ownTimes"]
        assert json.loads(own_times) == {"E003": {"startsAt": None, "endsAt": None, "extraSeconds": 600}}
        verified = await invoke("state", "verify", "-o", "json")
        assert (verified.exit_code, json.loads(verified.stdout)["older"] > 3) == (0, True), verified.stdout
        await system.stop("SOCK002")
        await proctor.expect("examinee_disconnected", examineeId="E002")
        client.abort()
        await proctor.expect("examinee_disconnected", examineeId="E004")
        assert system.failures == []
    await redis.aclose()


async def test_an_entry_of_a_socket_that_cannot_be_read_keeps_nothing_from_being_copied(
    system: System, bus: Bus, redis: Redis
) -> None:
    await system.examinee("E001")
    await redis.hset(keys.server_sockets("SOCK001"), "SOCK001-odd", "odd")
    await write(bus, system)
    assert keys.progress("P001", "E001") in await checkpoints(bus)
