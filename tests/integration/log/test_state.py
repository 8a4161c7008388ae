"""Redis beside the log of record: lost, set back or damaged in the middle of an exam, compared and written anew."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.record_cache import RecordCache
from actors.runtime.store.state_store import StateStore
from actors.sessions.plan_snapshot import read_rows
from actors.state_manager import recovery
from actors.state_manager.decisions import Decider, Decision, Updates
from actors.state_manager.manager import StateManager
from actors.state_manager.recovery.audit import Audit, AuditReport
from actors.state_manager.recovery.repair import StateRepair
from actors.status_log.status_log import StatusLog, facts_of
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.errors import StateLost
from protocol.messages.codec import encode_batches
from protocol.messages.facts import ConnectionStatus
from protocol.records import keys
from protocol.records.placement import VersionedMessage
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import RawClient, System, eventually
from tests.support.engine_copy import copy_while_stopped
from tests.support.metrics import sample
from tests.unit.support.facts import connected, disconnected

EXAMINEES = [f"E{number:03}" for number in range(1, 301)]


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    """A whole system on an empty broker and an empty Redis."""
    async with System(settings) as system:
        yield system
        assert system.failures == []


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A connection of the test's own, to look and to do damage."""
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an audit look at a difference again soon: where nothing is under way, it stays."""
    monkeypatch.setattr(recovery.audit, "PAUSE_SECONDS", 0.1)


async def whole(system: System) -> None:
    """Wait until a state manager has found Redis whole."""
    await eventually(system.store.mark.is_whole, "Redis is whole")


async def field(redis: Redis, key: str, name: str) -> str:
    """A field of a hash; "" when there is none."""
    return str(await redis.hget(key, name) or "")


async def audit(system: System, plan_id: str | None = None) -> AuditReport:
    return await Audit(StatusLog(system._buses["state-manager"]), system.store, plan_id).run()


async def arrive(system: System, examinees: Sequence[str]) -> dict[str, RawClient]:
    """Examinees on both servers, some at a time."""
    clients: dict[str, RawClient] = {}
    for start in range(0, len(examinees), 50):
        group = examinees[start : start + 50]
        servers = ["SOCK001" if number % 2 else "SOCK002" for number in range(len(group))]
        opened = await asyncio.gather(*map(system.examinee, group, servers))
        clients.update(zip(group, opened, strict=True))
    return clients


def statuses(snapshots: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {row["examineeId"]: row["status"] for frame in snapshots for row in frame["data"]["examinees"]}


async def test_redis_emptied_during_an_exam_is_restored_and_proctors_see_the_real_state(
    system: System, redis: Redis
) -> None:
    proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")]
    clients = await arrive(system, EXAMINEES)
    absent = EXAMINEES[:60]
    for examinee_id in absent[:30]:
        clients[examinee_id].abort()
    await redis.flushall()
    for examinee_id in absent[30:]:
        clients[examinee_id].abort()
    late = await system.proctor("SOCK001", name="proctor-3")  # its snapshot waits until there is one
    for proctor in proctors:
        for examinee_id in absent:
            await proctor.expect("examinee_disconnected", examineeId=examinee_id)
    await whole(system)

    report = await audit(system)
    assert report.differences == []
    assert report.records >= len(EXAMINEES)
    fresh = await system.proctor("SOCK002", name="proctor-4")
    rows = statuses([frame for frame in fresh.frames if frame["type"] == "plan_snapshot"])
    assert rows == {examinee: "DISCONNECTED" if examinee in absent else "CONNECTED" for examinee in EXAMINEES}
    assert statuses([frame for frame in late.frames if frame["type"] == "plan_snapshot"]).keys() == set(EXAMINEES)
    for proctor in proctors:
        for examinee_id in EXAMINEES:
            types = [f["type"] for f in proctor.about(examinee_id) if f["type"] != "examinee_reconnecting"]
            assert types == ["examinee_connected"] + ["examinee_disconnected"] * (examinee_id in absent), types
    # Whoever was lost is waited for, and comes back as if nothing had been.
    returning = await system.examinee(absent[0], connection_no=2)
    state = await returning.expect("session_state")
    assert state["data"]["reconnect"]["count"] == 1


async def test_a_state_manager_reports_what_it_waits_for_and_decides_nothing(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    proctor = await system.proctor()
    client = await system.examinee()
    manager = system.actors["state-manager"]
    assert isinstance(manager, StateManager)
    endpoints = ReadyServers(system.store)
    await endpoints.read()
    go_on, real = asyncio.Event(), manager._repair.restore_state

    async def held_up() -> Any:
        await go_on.wait()
        return await real()

    monkeypatch.setattr(manager._repair, "restore_state", held_up)
    await redis.flushall()
    client.abort()

    async def waits() -> bool:
        return bool(manager.details()["waitingFor"] == "state")

    await eventually(waits, "it waits for the state")
    assert sample("examwire_state_waiting", reason="state") == 1
    with pytest.raises(StateLost):
        await system.progress()
    with pytest.raises(StateLost):
        await read_rows(system.store, "P001", ["E001"])
    ready = list(endpoints.ready)
    await endpoints.read()
    assert endpoints.ready == ready != [], "what Redis has lost is not what there is"
    assert [frame["type"] for frame in proctor.about("E001")] == ["examinee_connected"]
    repairs = sample("examwire_state_repairs_total", found="lost")
    go_on.set()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    assert sample("examwire_state_repairs_total", found="lost") == repairs + 1


@pytest.mark.usefixtures("short_pauses")
async def test_verify_and_rebuild_of_damaged_records_while_events_are_decided(
    system: System, bus: Bus, redis: Redis, invoke: Invoke
) -> None:
    proctor = await system.proctor()
    clients = await arrive(system, EXAMINEES[:12])
    assert (await invoke("state", "verify")).exit_code == 0
    e1, e2, e3, e4 = (keys.progress("P001", examinee_id) for examinee_id in EXAMINEES[:4])
    # E001's record is gone, so its loss is all that is known; E002's is no hash; E003's fields lie, E004's history too.
    await redis.delete(e1, e2)
    clients["E001"].abort()

    async def decided() -> bool:
        return bool(await field(redis, e1, "history"))

    await eventually(decided, "the loss is decided on an empty record")
    await redis.set(e2, "no hash")
    clients["E002"].abort()
    await eventually(lambda: bus.last_message("DEADLETTER", "deadletter.STATUS"), "nobody can process its loss")
    await redis.hset(e3, mapping={"connStatusCode": "DISCONNECTED", "lastActiveTime": "2020-01-01T00:00:00.000Z"})
    await redis.hset(e4, "history", (await field(redis, e4, "history")).replace("CONNECTED", "DISCONNECTED"))
    await redis.delete(keys.plan_examinees("P001"), keys.SERVERS, keys.server_sockets("SOCK001"))
    await redis.sadd(keys.plan_examinees("P001"), *EXAMINEES[:12], "GHOST")
    socket_key = keys.socket("P001", await field(redis, keys.progress("P001", "E005"), "socketId"))
    await redis.hset(socket_key, "status", "DISCONNECTED")

    verified = await invoke("state", "verify", "-o", "json")
    assert verified.exit_code == 1
    differences = {
        (difference["key"], difference["field"]) for difference in json.loads(verified.stdout)["differences"]
    }
    assert {
        (e1, "history.connected_version"),
        (e2, ""),
        (e3, "connStatusCode"),
        (e3, "lastActiveTime"),
        (e4, "history.status"),
        (keys.plan_examinees("P001"), "GHOST"),
        (keys.SERVERS, "SOCK001"),
        (socket_key, "status"),
    } <= differences
    assert any(key == keys.server_sockets("SOCK001") for key, _ in differences)
    of_the_plan = json.loads((await invoke("state", "verify", "--plan", "P001", "-o", "json")).stdout)
    assert {difference["key"] for difference in of_the_plan["differences"]} >= {e1, e2, e3, e4}
    assert not any(difference["key"].startswith(keys.SERVERS) for difference in of_the_plan["differences"])

    unconfirmed = await invoke("state", "rebuild")  # nobody answers the question
    assert unconfirmed.exit_code == 1
    result = await invoke("state", "rebuild", "--yes", "-o", "json")
    assert result.exit_code == 0, result.stdout
    await proctor.expect("examinee_disconnected", examineeId="E001", reason="SOCKET_CLOSED")
    await proctor.expect("examinee_disconnected", examineeId="E002", restated=True)
    assert (await invoke("state", "verify")).exit_code == 0
    assert await field(redis, e3, "connStatusCode") == "CONNECTED"
    second_rebuild = await invoke("state", "rebuild", "--yes", "-o", "json")
    assert (second_rebuild.exit_code, json.loads(second_rebuild.stdout)["repairs"]) == (0, [])


@pytest.mark.usefixtures("short_pauses")
async def test_entries_of_ended_sockets_are_found_and_removed(
    system: System, bus: Bus, redis: Redis, invoke: Invoke
) -> None:
    proctor = await system.proctor()
    clients = await arrive(system, EXAMINEES[:4])
    holder = keys.server_sockets("SOCK001")
    before = await redis.hgetall(holder)
    for client in clients.values():
        client.abort()
    for examinee_id in clients:
        await proctor.expect("examinee_disconnected", examineeId=examinee_id)
    await eventually(lambda: _agrees(system), "Redis and the log agree")
    assert before
    assert await redis.hgetall(holder) == {}

    # As a state manager of an earlier release has left them after an outage of Redis or of the broker.
    await redis.hset(holder, "garbage", "garbage")
    for name, value in before.items():
        await redis.hset(holder, str(name), str(value))
    verified = await invoke("state", "verify", "-o", "json")
    assert verified.exit_code == 1
    assert {(difference["key"], difference["field"]) for difference in json.loads(verified.stdout)["differences"]} == {
        (holder, name) for name in (*before, "garbage")
    }
    assert (await invoke("state", "rebuild", "--yes")).exit_code == 0
    assert await redis.hgetall(holder) == {}


async def test_a_redelivered_message_after_an_outage_restores_no_ended_socket(
    system: System, bus: Bus, redis: Redis
) -> None:
    proctor = await system.proctor()
    client = await system.examinee("E001")
    first = await bus.last_message("STATUS", "status.plan.P001.>")
    assert first is not None
    client.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await eventually(lambda: _agrees(system), "Redis and the log agree")
    status = StatusLog(system._buses["state-manager"])
    items = [
        fact
        async for stored in status.read(first.sequence, first.sequence)
        for fact in facts_of(stored)
        if isinstance(fact, VersionedMessage)
    ]
    decider, updates = Decider(system.store, status, RecordCache()), Updates.of(items)
    # The acknowledgement was lost, and the message is processed again.
    stored = await decider.read(updates)
    await decider.write(updates, stored, await decider.decide(updates, stored, Decision()), Decision())
    assert items
    assert await redis.hgetall(keys.server_sockets("SOCK001")) == {}


async def test_one_unreadable_record_does_not_block_the_snapshot_of_its_plan(
    system: System, bus: Bus, redis: Redis
) -> None:
    proctor = await system.proctor()
    clients = await arrive(system, EXAMINEES[:5])
    await clients["E004"].say("mobile_sync_wait")
    await proctor.expect("mobile_sync_status", examineeId="E004", status="WAITING")
    await redis.delete(keys.progress("P001", "E002"))
    await redis.set(keys.progress("P001", "E002"), "no hash")
    await redis.hset(keys.progress("P001", "E003"), mapping={"connStatusCode": "SOMEWHERE", "recoveries": "many"})
    await redis.hset(keys.mobile_sync("P001", "E004"), "captures", "{")
    await redis.hset(keys.notices("P001", "E005"), mapping={"version": "5", "unconfirmed": "{"})
    clients["E002"].abort()
    await eventually(lambda: bus.last_message("DEADLETTER", "deadletter.STATUS"), "nobody can process its loss")

    late = await system.proctor("SOCK002", name="proctor-2")
    rows = statuses([frame for frame in late.frames if frame["type"] == "plan_snapshot"])
    assert rows == {examinee: "DISCONNECTED" if examinee == "E002" else "CONNECTED" for examinee in EXAMINEES[:5]}
    await proctor.expect("examinee_disconnected", examineeId="E002", restated=True)
    await eventually(lambda: _agrees(system), "Redis and the log agree")


async def test_an_index_of_the_wrong_type_is_rewritten(system: System, bus: Bus, redis: Redis) -> None:
    proctor = await system.proctor()
    clients = await arrive(system, EXAMINEES[:4])
    for examinee_id in clients:
        await proctor.expect("examinee_connected", examineeId=examinee_id)
    for key in (keys.PLANS, keys.plan_examinees("P001"), keys.server_sockets("SOCK001")):
        await redis.set(key, "no set and no hash")
    await system.examinee("E009")
    await proctor.expect("examinee_connected", examineeId="E009")
    await eventually(lambda: _agrees(system), "Redis and the log agree")
    assert await redis.smembers(keys.plan_examinees("P001")) == {*EXAMINEES[:4], "E009"}
    late = await system.proctor("SOCK002", name="proctor-2")
    assert len(statuses([frame for frame in late.frames if frame["type"] == "plan_snapshot"])) == 5
    assert await bus.last_message("DEADLETTER", "deadletter.>") is None


async def _agrees(system: System) -> bool:
    return (await audit(system)).differences == []


@pytest.mark.usefixtures("short_pauses")
async def test_records_without_facts_in_the_log_are_found(system: System, redis: Redis, invoke: Invoke) -> None:
    await arrive(system, EXAMINEES[:2])
    copied = await redis.hgetall(keys.progress("P001", "E001"))
    strays: dict[str, Any] = {
        keys.progress("P001", "GHOST"): {"connStatusCode": "CONNECTED", "version": "77"},  # and in the index
        keys.progress("P009", "E001"): copied,  # of a plan that nobody has heard of
        keys.mobile_sync("P001", "NOBODY"): {"status": "COMPLETED"},
    }
    for key, fields in strays.items():
        await redis.hset(key, mapping=fields)
    await redis.sadd(keys.plan_examinees("P001"), "GHOST")

    report = json.loads((await invoke("state", "verify", "-o", "json")).stdout)
    assert {(difference["key"], difference["field"], difference["log"]) for difference in report["differences"]} == {
        (key, "", None) for key in strays
    }
    of_the_plan = json.loads((await invoke("state", "verify", "--plan", "P009", "-o", "json")).stdout)
    assert [difference["key"] for difference in of_the_plan["differences"]] == [keys.progress("P009", "E001")]
    assert (await invoke("state", "rebuild", "--yes")).exit_code == 0
    assert (await invoke("state", "verify")).exit_code == 0
    assert await field(redis, keys.progress("P001", "GHOST"), "connStatusCode") == ""
    assert await redis.smembers(keys.plan_examinees("P001")) == set(EXAMINEES[:2])


@pytest.mark.usefixtures("short_pauses")
async def test_rebuild_of_an_emptied_redis_without_any_state_manager(
    system: System, redis: Redis, invoke: Invoke
) -> None:
    await arrive(system, EXAMINEES[:5])
    await system.stop("state-manager")
    before = await redis.hgetall(keys.progress("P001", "E003"))
    await redis.flushall()
    verified = await invoke("state", "verify", "-o", "json")
    assert verified.exit_code == 1
    assert json.loads(verified.stdout)["whole"] is False
    plan = await invoke("plans", "show", "P001")
    assert plan.exit_code == 4, "nobody may be shown what Redis has lost"
    rebuilt = await invoke("state", "rebuild", "--yes")
    assert rebuilt.exit_code == 0, rebuilt.stdout
    after = await redis.hgetall(keys.progress("P001", "E003"))
    assert {name: value for name, value in after.items() if name not in ("rev", "history", "lastActiveTime")} == {
        name: value for name, value in before.items() if name not in ("rev", "history", "lastActiveTime")
    }
    assert (await invoke("plans", "show", "P001")).exit_code == 0


async def test_several_repairs_at_once_beside_the_state_manager(system: System, redis: Redis) -> None:
    clients = await arrive(system, EXAMINEES[:40])
    await system.start("sm2", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
    for round_no in range(3):
        await redis.flushall()
        clients[EXAMINEES[round_no]].abort()
        bus = system._buses["SOCK001"]
        await asyncio.gather(*(StateRepair(bus, system.store).restore_state() for _ in range(3)))
        await system.status(EXAMINEES[round_no], "DISCONNECTED")
    assert (await audit(system)).differences == []


@pytest.fixture
def old_redis(own_engines: tuple[NatsServer, RedisServer], tmp_path: Path) -> Settings:
    """Settings on engines of this test alone."""
    nats, redis = own_engines
    return load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "data")


async def test_redis_restored_from_a_backup_is_brought_up_to_the_log(
    old_redis: Settings, own_engines: tuple[NatsServer, RedisServer], tmp_path: Path
) -> None:
    redis = own_engines[1]
    async with System(old_redis) as system:
        proctor = await system.proctor()
        clients = await arrive(system, EXAMINEES[:10])
        assert redis.pid is not None
        copy_while_stopped(redis.pid, redis.directory, tmp_path / "backup")
        clients.update(await arrive(system, EXAMINEES[10:20]))
        clients["E001"].abort()
        await proctor.expect("examinee_disconnected", examineeId="E001")
        redis.kill()
        shutil.rmtree(redis.directory)
        shutil.copytree(tmp_path / "backup", redis.directory)
        redis.start()
        clients["E015"].abort()  # of whom the backup knows nothing
        clients["E002"].abort()
        for examinee_id in ("E015", "E002"):
            await proctor.expect("examinee_disconnected", examineeId=examinee_id)
        await whole(system)
        assert (await audit(system)).differences == []
        fresh = await system.proctor("SOCK002", name="proctor-2")
        rows = statuses([frame for frame in fresh.frames if frame["type"] == "plan_snapshot"])
        absent = {"E001", "E002", "E015"}
        assert rows == {examinee: "DISCONNECTED" if examinee in absent else "CONNECTED" for examinee in EXAMINEES[:20]}
        for examinee_id in EXAMINEES[:20]:
            types = [f["type"] for f in proctor.about(examinee_id) if f["type"] != "examinee_reconnecting"]
            assert types == ["examinee_connected"] + ["examinee_disconnected"] * (examinee_id in absent)


async def test_records_older_than_the_log_are_counted_and_kept(system: System, redis: Redis, store: StateStore) -> None:
    bus = system._buses["SOCK001"]

    async def publish(*facts: ConnectionStatus) -> None:
        await bus.publish_until_stored(
            [Outgoing(subjects.status_plan("P001"), batch) for batch in encode_batches(facts)]
        )

    old = [
        connected("SOCK001-old", client=f"c{number}").model_copy(update={"examinee_id": f"E{number}"})
        for number in range(3)
    ]
    await publish(*old)
    await system.status("E2", "CONNECTED")
    await bus._js.purge_stream("STATUS")
    await publish(disconnected("SOCK001-old", 60).model_copy(update={"examinee_id": "E1"}))
    await system.status("E1", "DISCONNECTED")
    report = await audit(system)
    assert (report.differences, report.older) == ([], len(old) + 2)  # two servers
    await redis.delete(keys.STATE)  # nobody knows what Redis holds: by the log as far as it goes
    await whole(system)
    assert (await system.progress("E0"))["connStatusCode"] == "CONNECTED"
    assert (await system.progress("E1"))["connStatusCode"] == "DISCONNECTED"


async def test_a_log_that_was_created_again_neither_deletes_records_nor_blocks(
    settings: Settings, bus: Bus, redis: Redis
) -> None:
    async with System(settings) as system:
        clients = await arrive(system, EXAMINEES[:3])
        for examinee_id, client in clients.items():
            await client.close()
            await system.status(examinee_id, "DISCONNECTED")  # nothing is under way any more when the log is lost
    async with Redis.from_url(settings.redis_url) as raw:
        applied = await raw.hget(keys.STATE, "applied")
        before = await raw.hget(keys.progress("P001", "E001"), "history")
    await bus._js.delete_stream("STATUS")
    await bus._js.purge_stream("RECONNECT")  # or an attempt is the new log's first word about them
    async with System(settings) as system:
        assert (await system.progress("E001"))["history"].encode() == before
        returning = await system.examinee("E001", connection_no=2)
        assert (await returning.expect("session_state"))["data"]["connection"]["status"] == "CONNECTED"

        async def further() -> bool:
            return int(await field(redis, keys.STATE, "applied")) > int(applied or 0)

        await eventually(further, "what Redis is known to hold grows with the new log")
        report = await audit(system)
        assert report.differences == []
        assert report.older > 0


async def test_verify_while_examinees_come_and_go_finds_no_difference(system: System) -> None:
    clients = await arrive(system, EXAMINEES[:20])
    numbers = dict.fromkeys(clients, 1)
    stop = asyncio.Event()

    async def come_and_go() -> None:
        while not stop.is_set():
            for examinee_id in list(clients):
                clients[examinee_id].abort()
                numbers[examinee_id] += 1
                clients[examinee_id] = await system.examinee(examinee_id, connection_no=numbers[examinee_id])

    moving = asyncio.create_task(come_and_go())
    try:
        reports = [await audit(system) for _ in range(3)]
    finally:
        stop.set()
        await moving
    assert [report.differences for report in reports] == [[], [], []]
    assert reports[-1].facts > reports[0].facts
