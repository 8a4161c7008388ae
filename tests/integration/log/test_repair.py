"""A lost Redis with a long log: what is repaired first, by whom, from where, and what can be read meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import pytest
from redis.asyncio import Redis

from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.runtime.store import state_mark
from actors.runtime.store.repair_marks import Whole
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery import checkpointer, repair
from actors.state_manager.recovery.audit import Audit, AuditReport
from actors.state_manager.recovery.checkpointer import Checkpointer
from actors.state_manager.recovery.repair import StateRepair
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.errors import StateLost
from protocol.log.partitions import PARTS, part_of
from protocol.log.version import version_of
from protocol.records import keys
from protocol.records.kinds import CONNECTION
from protocol.rules.history import insert
from tests.support.log_of_size import SERVERS, LogSize, WrittenLog, write_log
from tests.support.metrics import sample
from tests.unit.support.facts import connected, disconnected

TWO_DAYS = LogSize(messages=2400, examinees=120, plans=12)


@pytest.fixture
async def log(settings: Settings, bus: Bus) -> WrittenLog:
    """Two days of exams, all worked off; on the second day everybody is connected."""
    await apply_topology(bus, settings)
    return await write_log(bus, TWO_DAYS)


@pytest.fixture
async def redis(settings: Settings, store: StateStore) -> AsyncIterator[Redis]:
    """A Redis that has lost everything."""
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        await redis.flushall()
        yield redis


@pytest.fixture
async def checkpoints(
    settings: Settings, bus: Bus, store: StateStore, log: WrittenLog, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of the whole log, made from a Redis that is lost then."""
    monkeypatch.setattr(checkpointer, "REST", 0.0)
    await StateRepair(bus, store).restore_state()
    await Checkpointer(bus, store, settings.checkpoints, lambda: PARTS).write_due()
    await redis.flushall()


async def audit(bus: Bus, store: StateStore) -> AuditReport:
    return await Audit(StatusLog(bus), store).run()


class Watched(StateRepair):
    """A repair that notes the order in which plans become whole. `holds`: the parts that it would repair."""

    def __init__(self, bus: Bus, store: StateStore, holds: Collection[str] = PARTS, stop_after: int = 10_000) -> None:
        super().__init__(bus, store, checkpoints=RecordCheckpoints(bus), turns=self)
        self.plans: list[str] = []
        self.running = 0.0
        self.changed = self.note
        self._parts = holds
        self._stop_after = stop_after

    def holds(self, part: str) -> bool:
        return part in self._parts

    def managers(self) -> int:
        return 2

    def note(self, whole: Whole) -> None:
        for mark in sorted(whole.marks - {f"plan:{plan_id}" for plan_id in self.plans}):
            if mark.startswith("plan:"):
                self.plans.append(mark.removeprefix("plan:"))
        self.running = max(self.running, sample("examwire_state_repair_running", found="lost"))
        if len(self.plans) == self._stop_after:
            raise asyncio.CancelledError  # the process has died


@pytest.mark.usefixtures("checkpoints")
async def test_live_plans_come_first_and_little_is_read_from_the_log(
    bus: Bus, store: StateStore, log: WrittenLog
) -> None:
    yesterday = next(plan_id for plan_id in log.plans if plan_id not in log.live_plans)
    fact = connected("SOCK001-new").model_copy(update={"plan_id": yesterday, "examinee_id": "E-NEW"})
    await bus.publish(Outgoing.of(subjects.status_plan(yesterday, subjects.WEB), fact))

    watched = Watched(bus, store)
    result = await watched.restore_state()

    assert result.found == "lost"
    assert watched.running == 1, "the alert fires while it runs"
    assert sample("examwire_state_repair_running", found="lost") == 0
    assert sample("examwire_state_repair_plans", plans="whole") == len(log.plans)
    assert result.messages == 1, "everything else is in the checkpoints"
    first = {*log.live_plans, yesterday}
    of_part = {part: [plan_id for plan_id in watched.plans if part_of(plan_id) == part] for part in PARTS}
    assert set(watched.plans[: len(first)]) == first, of_part
    assert sorted(watched.plans) == sorted(log.plans)
    report = await audit(bus, store)
    assert (report.whole, report.differences) == (True, [])
    assert report.records == 2 * 120 * 2 + len(log.plans) + 2 + 1
    assert (await store.entries(keys.progress(yesterday, "E-NEW")))["connStatusCode"] == "CONNECTED"


@pytest.mark.usefixtures("redis")
async def test_a_plan_can_be_read_as_soon_as_it_is_whole(bus: Bus, store: StateStore, log: WrittenLog) -> None:
    dying = Watched(bus, store, stop_after=3)
    with pytest.raises(asyncio.CancelledError):
        await dying.restore_state()

    for plan_id, examinees in log.plans.items():
        read_keys = [keys.progress(plan_id, examinee_id) for examinee_id in examinees]
        if plan_id in dying.plans:
            assert all("history" in record for record in await store.hashes(read_keys))
            assert await store.members(keys.plan_examinees(plan_id)) == sorted(examinees)
        else:
            with pytest.raises(StateLost):
                await store.hashes(read_keys)
    assert [record["statusCode"] for record in await store.servers()] == ["READY", "READY"]
    for of_all_plans in (keys.server_sockets("SOCK001"), keys.PLANS):
        with pytest.raises(StateLost):
            await store.hashes([of_all_plans])


@pytest.mark.usefixtures("checkpoints")
async def test_the_sockets_of_a_server_can_be_read_when_all_live_plans_are_whole(
    bus: Bus, store: StateStore, log: WrittenLog
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await Watched(bus, store, stop_after=len(log.live_plans) + 1).restore_state()
    held = [await store.entries(keys.server_sockets(server_id)) for server_id in SERVERS]
    assert sum(map(len, held)) == sum(len(log.plans[plan_id]) for plan_id in log.live_plans)
    with pytest.raises(StateLost):
        await store.members(keys.PLANS)


@pytest.mark.usefixtures("redis", "log")
async def test_who_dies_leaves_the_rest_to_another_one(
    bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await Watched(bus, store, stop_after=5).restore_state()
    monkeypatch.setattr(state_mark, "CLAIM_SECONDS", 0)
    other = Watched(bus, store)
    result = await other.restore_state()
    report = await audit(bus, store)
    assert (report.whole, report.differences) == (True, [])
    # An examinee has two records, in plans of 10, and each plan has one.
    assert result.records == report.records - 5 * 21 - len(SERVERS), "what was whole is not written again"


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("parts", [(PARTS[:5], PARTS[5:]), ((), ())], ids=["read by them", "read by nobody"])
async def test_two_state_managers_share_the_parts(
    parts: tuple[Sequence[str], Sequence[str]],
    bus: Bus,
    store: StateStore,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "PATIENCE_SECONDS", 0.0)
    results = await asyncio.gather(*(Watched(bus, store, held).restore_state() for held in parts))
    assert all(result.records > 0 for result in results)
    await redis.flushall()
    alone = await Watched(bus, store).restore_state()
    assert sum(result.records for result in results) == alone.records, "nobody has done it twice"


@pytest.mark.usefixtures("checkpoints")
async def test_a_repair_that_finds_everything_in_its_place_changes_nothing(
    bus: Bus, store: StateStore, log: WrittenLog, redis: Redis
) -> None:
    await Watched(bus, store).restore_state()
    plan_id = log.live_plans[0]
    key = keys.progress(plan_id, log.plans[plan_id][0])
    before = await store.entries(key)
    await redis.delete(keys.STATE)
    result = await Watched(bus, store).restore_state()
    assert await store.entries(key) == before
    assert result.restated == 0
    assert (await audit(bus, store)).differences == []


@pytest.mark.usefixtures("checkpoints")
async def test_what_is_found_beside_a_checkpoint_is_merged_with_it(
    bus: Bus, store: StateStore, log: WrittenLog, redis: Redis
) -> None:
    await Watched(bus, store).restore_state()
    plan_id = log.live_plans[0]
    first, second = log.plans[plan_id][:2]
    began_anew, damaged = keys.progress(plan_id, first), keys.mobile_sync(plan_id, second)
    socket = await store.entries(began_anew)
    # A manager that stood still has written the end of a socket into an empty Redis.
    lost = disconnected(socket["socketId"]).model_copy(
        update={"plan_id": plan_id, "examinee_id": first, "server_id": socket["serverId"]}
    )
    sequence = (await bus.publish(Outgoing.of(subjects.status_plan(plan_id, subjects.WEB), lost))).sequence
    insertion = insert(CONNECTION.empty(), CONNECTION.rule, version_of(sequence), lost, CONNECTION.visible_part)
    await redis.delete(keys.STATE, began_anew, damaged)
    for name, value in CONNECTION.write(insertion.history, insertion.state, 7).items():
        await redis.hset(began_anew, name, value)
    await redis.set(damaged, "no hash")

    result = await Watched(bus, store).restore_state()

    record = await store.entries(began_anew)
    assert (record["connStatusCode"], record["name"]) == ("DISCONNECTED", f"Name of {first}")
    assert result.restated == 2
    report = await audit(bus, store)
    assert (report.whole, report.differences) == (True, [])
