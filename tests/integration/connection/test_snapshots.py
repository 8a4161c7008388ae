"""Snapshots of large plans: read once for all who wait, sent as they are taken, and no event missed or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.sessions import plan_feed, plan_snapshot
from actors.sessions.outbox import Outbox
from actors.sessions.plan_feed import PlanEvents, PlanFeed, Resynchronise
from protocol.broker.passed_on import PlanEvent
from protocol.client.plan_view import PlanView
from protocol.messages.facts import ExamineeFact, Restate
from protocol.messages.frames import SERVER_FRAMES, ExamineeRow
from protocol.records import keys
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually

MANY = [f"X{number:04d}" for number in range(1100)]


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(changed(settings, {"socket.accept_per_second": 1000}), servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = Redis.from_url(settings.redis_url, decode_responses=True)
    yield client
    await client.aclose()


async def write_plan(redis: Redis, examinees: Sequence[str]) -> None:
    """Records of examinees of P001 who are on the roster."""
    pipe = redis.pipeline(transaction=False)
    for number, examinee_id in enumerate(examinees):
        pipe.sadd(keys.plan_examinees("P001"), examinee_id)
        fields = ("examineeId", examinee_id, "name", "김하늘", "version", str(number + 1))
        pipe.hset(keys.progress("P001", examinee_id), items=list(fields))
    await pipe.execute()


class HeldReading:
    """Lets the rows of a snapshot be read up to an examinee, and the rest only when the test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
        self.readings: list[str] = []
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        real = plan_snapshot.read_rows

        async def held(store: StateStore, plan_id: str, examinees: Sequence[str]) -> list[ExamineeRow]:
            if examinees[0] > last:
                self.reached.set()
                await self.go_on.wait()
            self.readings.append(examinees[0])
            return await real(store, plan_id, examinees)

        monkeypatch.setattr(plan_snapshot, "read_rows", held)


async def come(system: System, count: int) -> list[RawClient]:
    """Proctors who have said hello, and may wait for their snapshot."""
    clients = [await system.raw() for _ in range(count)]
    for number, client in enumerate(clients):
        await client.hello(system.token("proctor", f"proctor-{number}"), f"proctor-{number}")
    return clients


async def whole(client: RawClient) -> list[str]:
    """Wait for a whole snapshot; its examinees."""
    first = await client.expect("plan_snapshot")
    await client.expect("plan_snapshot", part=first["data"]["parts"])
    frames = [frame["data"] for frame in client.frames if frame["type"] == "plan_snapshot"]
    assert [frame["part"] for frame in frames] == list(range(1, first["data"]["parts"] + 1))
    return [row["examineeId"] for frame in frames for row in frame["examinees"]]


def feed_of(system: System) -> PlanFeed:
    return system.server("SOCK001").sessions.feeds["P001"]


async def test_proctors_who_join_together_share_one_snapshot_and_its_memory_is_freed(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_feed, "OVERLAP_SECONDS", 0.2)
    await write_plan(redis, MANY)
    reading = HeldReading(monkeypatch, "X0499")
    proctors = await come(system, 25)
    await reading.reached.wait()
    await asyncio.gather(*(proctor.expect("plan_snapshot", part=1) for proctor in proctors))
    reading.go_on.set()
    for proctor in proctors:
        assert await whole(proctor) == MANY
    assert reading.readings == ["X0000", "X0250", "X0500", "X0750", "X1000"], "one reading for all of them"
    feed = feed_of(system)

    async def given_back() -> bool:
        return not feed._snapshots

    await eventually(given_back, "the shared snapshot is forgotten")
    assert all(proctor.live for proctor in feed.proctors)


async def test_proctors_with_a_shared_snapshot_get_each_newer_event_once(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_plan(redis, MANY)
    reading = HeldReading(monkeypatch, "X0499")
    (early,) = await come(system, 1)
    await reading.reached.wait()
    # X0001's row has been read already, X1099's has not: only of the first one something is newer than the snapshot.
    await system.examinee("X0001")
    await system.examinee("X1099")
    (late,) = await come(system, 1)
    after = await system.examinee("X0002")
    reading.go_on.set()
    for proctor in (early, late):
        assert await whole(proctor) == MANY
        for examinee_id in ("X0001", "X0002"):
            await proctor.expect("examinee_connected", examineeId=examinee_id)
    after.abort()
    for proctor in (early, late):
        await proctor.expect("examinee_disconnected", examineeId="X0002")
        last_frame = max(n for n, frame in enumerate(proctor.frames) if frame["type"] == "plan_snapshot")
        assert not [frame for frame in proctor.frames[:last_frame] if frame["type"].startswith("examinee_")]
        types = [frame["type"] for frame in proctor.about("X0001") + proctor.about("X1099")]
        assert types == ["examinee_connected"], "what the snapshot tells is not told again"
        rows = {row["examineeId"]: row for row in proctor.frames[last_frame]["data"]["examinees"]}
        assert rows["X1099"]["status"] == "CONNECTED"
    assert feed_of(system).details()["snapshotsRead"] == 1


def views(proctors: Sequence[RawClient]) -> list[PlanView]:
    applied = []
    for proctor in proctors:
        view = PlanView()
        for frame in proctor.frames:
            view.apply(SERVER_FRAMES.from_element(frame))
        applied.append(view)
    return applied


async def test_proctors_who_join_during_changes_end_with_the_real_state(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_snapshot, "ROWS_A_FRAME", 40)
    await write_plan(redis, MANY[:400])
    moving = MANY[:400:40]
    proctors = await come(system, 1)

    async def move(examinee_id: str) -> None:
        for number in range(1, 6):
            client = await system.examinee(examinee_id, connection_no=number)
            client.abort()
            await system.status(examinee_id, "DISCONNECTED")
        await system.examinee(examinee_id, connection_no=9)

    moves = asyncio.gather(*(move(examinee_id) for examinee_id in moving))
    while not moves.done():
        proctors += await come(system, 1)
        await asyncio.gather(whole(proctors[-1]), asyncio.sleep(0.02))
    await moves

    async def agree() -> bool:
        return all(view.connected() == set(moving) for view in views(proctors))

    await eventually(agree, "all proctors see who is connected")
    for view in views(proctors):
        assert (view.doubled, view.late, len(view.examinees)) == (0, 0, 400)
    assert 1 <= feed_of(system).details()["snapshotsRead"] <= len(proctors)


async def test_a_damaged_record_is_rewritten_once_for_all_waiting_proctors(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    restated: list[Restate] = []
    add = Outbox.add

    def noted(outbox: Outbox, fact: ExamineeFact) -> None:
        if isinstance(fact, Restate):
            restated.append(fact)
        add(outbox, fact)

    monkeypatch.setattr(Outbox, "add", noted)
    await system.examinee("X0700")
    damaged = keys.progress("P001", "X0700")
    reading = HeldReading(monkeypatch, "X0499")
    await write_plan(redis, [examinee_id for examinee_id in MANY if examinee_id != "X0700"])
    await redis.hset(damaged, "version", "no number")
    proctors = await come(system, 10)
    await reading.reached.wait()
    await asyncio.gather(*(proctor.expect("plan_snapshot", part=1) for proctor in proctors))
    reading.go_on.set()
    for proctor in proctors:
        assert await whole(proctor) == MANY
    assert [(fact.plan_id, fact.examinee_id, fact.aspect) for fact in restated] == [("P001", "X0700", "connection")]


async def test_events_dropped_during_a_snapshot_cause_a_new_snapshot(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_plan(redis, MANY)
    watching = await system.proctor()
    await whole(watching)
    reading = HeldReading(monkeypatch, "X0499")
    monkeypatch.setattr(plan_snapshot.SharedSnapshot, "joinable", property(lambda _: False))
    (half,) = await come(system, 1)
    await reading.reached.wait()
    await half.expect("plan_snapshot", part=1)
    feed_of(system).tell(Resynchronise())
    reading.go_on.set()
    for proctor in (watching, half):
        await proctor.expect("plan_snapshot", part=3, resync=True)
        parts = [frame["data"] for frame in proctor.frames if frame["type"] == "plan_snapshot"]
        resync_rows = [row["examineeId"] for part in parts if part.get("resync") for row in part["examinees"]]
        assert resync_rows == MANY
    assert [part["part"] for part in parts if not part.get("resync")] == [1], "the first one is not sent to its end"
    await system.examinee("E001")
    for proctor in (watching, half):
        await proctor.expect("examinee_connected", examineeId="E001")


async def test_too_many_events_during_a_snapshot_cause_it_to_be_read_again(
    system: System, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_plan(redis, MANY)
    reading = HeldReading(monkeypatch, "X0499")
    proctors = await come(system, 2)
    await reading.reached.wait()
    feed = feed_of(system)
    feed._max_unread_bytes = 64 * 1024
    for number in range(1, 30):
        data: dict[str, Any] = {"planId": "P001", "examineeId": "X0001", "version": 2**40 + number, "pad": "x" * 4000}
        feed.tell(PlanEvents([PlanEvent.of({"type": "examinee_connected", "data": data})]))
    reading.go_on.set()
    for proctor in proctors:
        await proctor.expect("plan_snapshot", part=3)
        await proctor.expect("examinee_connected", version=2**40 + 29)
    assert len(feed.proctors) == 2, "it is not they who are slow"
    assert reading.readings.count("X0000") == 2
