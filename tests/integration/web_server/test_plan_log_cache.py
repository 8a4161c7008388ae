"""What the index of a plan's log finds is what a scan of the whole log finds, and it reads little."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest

from actors.retention.redaction import Redaction
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers import stream_reader
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.plan_log import PlanLog
from actors.web_server.api import plan_log_cache
from actors.web_server.api.plan_log_cache import PlanLogCache
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.log.entries import LogEntry
from protocol.log.version import sequence_of, version_of
from protocol.messages.base import Message
from protocol.messages.codec import encode_batches
from protocol.messages.facts import ExamineeFact
from protocol.messages.plan_facts import PlanFact
from tests.unit.support import facts

EXAMINEES = [f"E{number:03}" for number in range(1, 6)]


def some_facts(chance: random.Random) -> list[Message]:
    """One to six facts of a payload: about examinees, about the plan, with and without escapes, of another plan."""
    makers = (
        lambda: facts.connected(f"S{chance.randrange(9)}"),
        lambda: facts.disconnected(f"S{chance.randrange(9)}"),
        lambda: facts.notice(f"A{chance.randrange(99)}", text=chance.choice(["Look up.", 'Say "yes"\nor \\no.'])),
    )
    payload: list[Message] = []
    for _ in range(chance.randrange(1, 7)):
        examinee_id = chance.choice(EXAMINEES)
        if chance.random() < 0.1:
            names = chance.sample(EXAMINEES, 2) if chance.random() < 0.5 else None
            payload.append(facts.plan_notice(f"B{chance.randrange(99)}").model_copy(update={"examinees": names}))
        elif chance.random() < 0.1:
            payload.append(facts.window(examinee_id, extra=60))
        else:
            plan_id = "P001" if chance.random() < 0.95 else "P002"  # a fact of another plan is malformed here
            update = {"examinee_id": examinee_id, "plan_id": plan_id}
            payload.append(chance.choice(makers)().model_copy(update=update))
    return payload


@pytest.fixture(autouse=True)
async def _stream(bus: Bus) -> None:
    await bus.apply_stream(STATUS, first_seq=1_000_000)


async def publish(bus: Bus, chance: random.Random, count: int) -> int:
    sequence = 0
    for _ in range(count):
        (payload,) = encode_batches(some_facts(chance))
        plan_id = "P001" if chance.random() < 0.8 else "P002"
        subject = subjects.status_plan(plan_id, "test")
        if chance.random() < 0.1:
            payload = payload.replace(b'"examineeId":', b'"examinee_id" : ')
        if chance.random() < 0.2:  # any other client may write its JSON so
            payload = payload.replace(b'"examineeId":"E', rb'"examineeId":"\u0045').replace(
                b'"plan_n', rb'"\u0070lan_n'
            )
        sequence = (await bus.publish(Outgoing(subject, payload))).sequence
    return sequence


async def scan(bus: Bus, examinee_id: str) -> list[LogEntry]:
    return [entry async for entry in PlanLog(bus, "P001").new_entries(examinee_id)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_index_finds_what_a_scan_finds(bus: Bus, seed: int) -> None:
    chance = random.Random(seed)
    cache = PlanLogCache(bus)
    for step in range(4):
        last = await publish(bus, chance, 40)
        if step == 2:
            await Redaction(bus, "P001").remove_examinee("E002", "deleted-1f", last)
        for examinee_id in [*EXAMINEES, "deleted-1f", "E999"]:
            whole = await scan(bus, examinee_id)
            read = await cache.read("P001", examinee_id)
            assert (read.entries, read.whole_from) == (whole, 0)
            before = chance.choice(whole).version
            page = await cache.read("P001", examinee_id, before, newest=3)
            assert page.entries == [
                entry
                for entry in whole
                if entry.version < before and (entry.version >= page.whole_from or isinstance(entry.fact, PlanFact))
            ]
            own = {sequence_of(entry.version) for entry in page.entries if isinstance(entry.fact, ExamineeFact)}
            assert len(own) <= 3
    await Redaction(bus, "P001").remove_plan(last + 1)
    assert (await cache.read("P001", "E001")).entries == [] == await scan(bus, "E001")


async def told(bus: Bus, plan_id: str, *examinee_ids: str) -> int:
    """Store their losses in one message; return its sequence."""
    losses = [
        facts.disconnected("S1").model_copy(update={"plan_id": plan_id, "examinee_id": examinee_id})
        for examinee_id in examinee_ids
    ]
    (payload,) = encode_batches(losses)
    return (await bus.publish(Outgoing(subjects.status_plan(plan_id, "test"), payload))).sequence


async def test_a_log_that_was_set_back_is_read_anew(bus: Bus) -> None:
    cache = PlanLogCache(bus)
    first = await told(bus, "P001", "E001")
    for examinee_id in ("E001", "E002", "E003"):
        await told(bus, "P001", examinee_id)
    assert len((await cache.read("P001", "E001")).entries) == 2
    await bus._js.delete_stream(STATUS.name)
    await bus.apply_stream(STATUS, first_seq=first)  # restored from a backup of before
    await told(bus, "P002", "E001")
    for examinee_id in ("E003", "E001", "E001", "E001"):
        await told(bus, "P001", examinee_id)
    whole = await scan(bus, "E001")
    assert len(whole) == 3
    assert (await cache.read("P001", "E001")).entries == whole


async def test_a_second_panel_reads_only_new_messages_and_those_about_its_examinee(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    def reading(bus: Bus, stream: str, *, subject: str, **places: int) -> AsyncIterator[StoredMessage]:
        if subject.endswith(".>"):  # beside it what is from before there were partitions, and what replaces others
            reads.append(places["first"])
        return stream_reader.read_stream(bus, stream, subject=subject, **places)

    gets: list[int] = []

    async def getting(bus: Bus, stream: str, sequences: Sequence[int]) -> list[StoredMessage]:
        gets.extend(sequences)
        return await stream_reader.read_messages(bus, stream, sequences)

    monkeypatch.setattr("actors.status_log.replacements.read_stream", reading)
    monkeypatch.setattr(plan_log_cache, "read_messages", getting)
    now = [1000.0]
    cache = PlanLogCache(bus, clock=lambda: now[0])
    last = await told(bus, "P001", "E001", "E002")
    await told(bus, "P002", "E001")
    entries = (await cache.read("P001", "E002")).entries
    assert [(entry.version, entry.examinee_id) for entry in entries] == [(version_of(last, 1), "E002")]
    newer = await told(bus, "P001", "E002")
    assert (await cache.read("P001", "E003")).entries == []
    assert len((await cache.read("P001", "E002")).entries) == 2
    assert (reads, gets) == ([1, last + 1, newer + 1], [last, last, newer])
    await bus.delete_message(STATUS.name, last)  # it has expired
    for _ in range(2):
        assert len((await cache.read("P001", "E002")).entries) == 1
    assert gets[3:] == [last, newer, newer]
    now[0] += plan_log_cache.IDLE_SECONDS + 1
    await cache.read("P002", "E001")  # nobody looks at the other plan any more
    await cache.read("P001", "E001")
    assert reads[-2:] == [1, 1]
    small = PlanLogCache(bus, most_bytes=1)
    assert len((await small.read("P001", "E002")).entries) == 1  # too much to be kept, and read all the same
    assert small.size == 0


async def test_a_message_that_a_copy_of_the_stream_lacks_is_asked_of_the_leader(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PlanLogCache(bus)
    await told(bus, "P001", "E001")
    whole = (await cache.read("P001", "E001")).entries

    async def behind(*_: object) -> list[StoredMessage]:
        return []

    monkeypatch.setattr(plan_log_cache, "read_plan", nothing_new)
    monkeypatch.setattr(stream_reader, "_direct_get", behind)
    assert (await cache.read("P001", "E001")).entries == whole


async def nothing_new(*_: object) -> AsyncIterator[StoredMessage]:
    return
    yield
