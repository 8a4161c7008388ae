"""The embedded engines start on free ports, keep their data and survive kill -9."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery, PullConsumer
from actors.runtime.config.settings import Settings
from actors.runtime.store.log_mark import KnownLog
from actors.runtime.store.state_store import StateStore
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import STATUS, ConsumerSpec
from protocol.errors import StateDamaged, StateLost
from protocol.records import keys
from protocol.records.writes import Index, RecordWrite, SocketWrite, StoredRecord, Touch


async def _until(batches: AsyncIterator[list[Delivery]], payload: bytes) -> AsyncIterator[Delivery]:
    async for batch in batches:
        for delivery in batch:
            yield delivery
            if delivery.payload == payload:
                return


async def test_an_acknowledged_publish_survives_kill_9_of_the_broker(
    own_engines: tuple[NatsServer, RedisServer],
) -> None:
    nats, _ = own_engines
    bus = await Bus.connect(nats.url, "test")
    await bus.apply_stream(STATUS, first_seq=1_000_000)
    await bus.apply_consumer(ConsumerSpec("STATUS", "reader", ("status.plan.>",)))
    first = await bus.publish(Outgoing("status.plan.P001", b"one", message_id="m1"))
    repeated_ack = await bus.publish(Outgoing("status.plan.P001", b"one", message_id="m1"))
    assert (first.sequence, repeated_ack.sequence, repeated_ack.duplicate) == (1_000_000, 1_000_000, True)

    batches = aiter(PullConsumer(bus, "STATUS", "reader"))
    (delivery,) = await anext(batches)
    assert (delivery.payload, delivery.sequence, delivery.attempt) == (b"one", 1_000_000, 1)
    await delivery.ack()

    nats.kill()
    nats.start()
    (second,) = await bus.publish_until_stored([Outgoing("status.plan.P001", b"two", message_id="m2")])
    assert second.sequence == 1_000_001
    # The open pull has survived the restart. The ack before it may not have: then the first one comes again.
    payloads = [delivery.payload async for delivery in _until(batches, b"two")]
    assert payloads[-1] == b"two"
    assert set(payloads[:-1]) <= {b"one"}
    await bus.close()


async def test_the_store_compares_before_it_writes(store: StateStore) -> None:
    written = (await store.save([RecordWrite("r", 0, {"rev": "1", "history": "h"})])).records
    conflict = (await store.save([RecordWrite("r", 0, {"rev": "1", "history": "other"})])).records
    assert (written, conflict) == ([True], [False])
    assert await store.load(["r", "none"]) == [StoredRecord(1, "h"), StoredRecord(0, None)]
    newer = (await store.save([], [SocketWrite("s", 10, {"status": "DISCONNECTED"}, keep_seconds=60)])).sockets
    older = (await store.save([], [SocketWrite("s", 9, {"status": "CONNECTED"})])).sockets
    assert (newer, older) == ([True], [False])
    assert (await store.entries("s"))["status"] == "DISCONNECTED"


async def test_the_store_compares_what_was_not_read_after_it_has_written(store: StateStore) -> None:
    await store.save([RecordWrite("a", 0, {"rev": "1", "history": "h"}), RecordWrite("b", 0, {"rev": "1"})])
    saved = await store.save([RecordWrite("a", 1, {"rev": "2"})], unread={"a": 1, "b": 1, "none": 0, "gone": 1})
    assert (saved.records, saved.changed) == ([True], {"a", "gone"})
    assert await store.changed({"a": 2, "b": 2}) == {"b"}
    await store.raw_delete([keys.STATE])
    with pytest.raises(StateLost):
        await store.save([RecordWrite("a", 2, {"rev": "3"})], unread={})


async def test_a_write_first_notes_how_far_the_log_is(store: StateStore, settings: Settings) -> None:
    store.log_mark.owe(KnownLog(7, 1.5))
    await store.save([])
    assert (await store.log_mark.read()).reached == 0, "there was nothing to write"
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        async with redis.monitor() as monitor:
            saved = await store.save([RecordWrite("r", 0, {"rev": "1"})], unread={})
            commands: list[str] = []
            while not any(command.startswith("HSET r ") for command in commands):
                commands.append((await monitor.next_command())["command"])
        assert saved.records == [True]
        assert any(command.startswith(f"HSET {keys.LOG} reached 7") for command in commands)
        assert await store.log_mark.read() == store.log_mark.noted == KnownLog(7, 1.5)

        await redis.delete(keys.LOG)
        await store.save([RecordWrite("r", 1, {"rev": "2"})])
        assert (await store.log_mark.read()).reached == 0, "once is enough"

        await redis.sadd(keys.LOG, "of the wrong type")
        store.log_mark.owe(KnownLog(8, 2.5))
        with pytest.raises(StateDamaged):
            await store.save([RecordWrite("r", 2, {"rev": "3"})])
        assert store.log_mark.noted == KnownLog(7, 1.5)
        await redis.delete(keys.LOG)
        await store.log_mark.settle()
        assert (await store.log_mark.read()).reached == 8, "it is owed until it is noted"


async def test_a_touch_changes_live_records_that_are_not_newer_and_skips_damaged_ones(store: StateStore) -> None:
    await store.save([], [], Index(members={"wrong": {"x"}}))
    await store.save([RecordWrite(name, 0, {"rev": "1", "live": "s1"}) for name in ("early", "late", "other", "full")])
    await store.touch([Touch("late", "live", "s1", "at", "3")])
    touched = await store.touch(
        [
            Touch("early", "live", "s1", "at", "2"),
            Touch("wrong", "live", "s1", "at", "2"),
            Touch("late", "live", "s1", "at", "2"),
            Touch("other", "live", "s2", "at", "2"),
            Touch("none", "live", "s1", "at", "2"),
            Touch("full", "live", "s1", "at", "2", {"load": "7", "net": "GOOD"}),
        ]
    )
    assert touched == 2
    assert await store.fields(["early", "late", "other", "none", "full"], ["at", "load", "net"]) == [
        ["2", None, None],
        ["3", None, None],
        [None, None, None],
        [None, None, None],
        ["2", "7", "GOOD"],
    ]


async def test_one_damaged_key_does_not_keep_the_others_from_being_written(store: StateStore) -> None:
    await store.save([], [], Index(members={"set": {"x"}}))
    await store.save([RecordWrite("old", 0, {"rev": "7"}), RecordWrite("socket:bad", 0, {"rev": "1", "version": "?"})])
    names = [f"r{number}" for number in range(20)]

    records = [RecordWrite(name, 0, {"rev": "1", "name": name} if name != "r9" else {"rev": "1"}) for name in names]
    places: list[RecordWrite] = [*records[:5], RecordWrite("set", 0, {"rev": "1"}), RecordWrite("old", 6, {"rev": "8"})]
    sockets = [SocketWrite("socket:bad", 2, {"status": "CONNECTED"}), SocketWrite("s", 2, {"status": "CONNECTED"})]
    saved = await store.save([*places, *records[5:]], sockets)

    assert list(saved.records[:5]) == [True] * 5
    assert isinstance(saved.records[5], StateDamaged)
    assert list(saved.records[6:]) == [False, *[True] * 15]
    assert [row.get("name") for row in await store.raw_hashes(names) if isinstance(row, dict)] == [
        None if name == "r9" else name for name in names
    ]
    assert isinstance(saved.sockets[0], StateDamaged)
    assert saved.sockets[1] is True


async def test_the_store_reads_any_number_of_records_and_says_which_is_damaged(store: StateStore) -> None:
    names = [keys.progress("P001", f"E{number}") for number in range(600)]
    await store.save([RecordWrite(key, 0, {"rev": str(number), "history": key}) for number, key in enumerate(names)])
    await store.save([], [], Index(members={keys.plan_examinees("P001"): {"E1"}}))
    *records, damaged = await store.load([*names, keys.plan_examinees("P001")])
    assert records == [StoredRecord(number, key) for number, key in enumerate(names)]
    assert isinstance(damaged, StateDamaged)
    assert "WRONGTYPE" in str(damaged)
