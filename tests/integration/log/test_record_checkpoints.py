"""The checkpoints in RECORDS by themselves: what is written is read, and one of two writers is refused."""

from __future__ import annotations

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.status_log.record_checkpoints import CheckpointedKey, Manifest, RecordCheckpoints, SocketPlace
from protocol.broker import subjects
from protocol.broker.streams import RECORDS
from protocol.errors import WrongLastSequence
from protocol.log.partitions import part_of
from protocol.records import keys

PLAN, PART = "P001", part_of("P001")


@pytest.fixture
async def checkpoints(settings: Settings, bus: Bus) -> RecordCheckpoints:
    await apply_topology(bus, settings)
    return RecordCheckpoints(bus)


def record(examinee_id: str, text: str = "") -> CheckpointedKey:
    return CheckpointedKey(keys.progress(PLAN, examinee_id), {"rev": "1", "history": "{}", "text": text}, member=True)


async def read(checkpoints: RecordCheckpoints, plan_id: str | None = None) -> dict[str, CheckpointedKey]:
    return {checkpointed.key: checkpointed async for checkpointed in checkpoints.read(PART, plan_id)}


async def test_what_was_written_is_read(checkpoints: RecordCheckpoints) -> None:
    assert await checkpoints.manifest(PART) is None
    socket = CheckpointedKey(
        keys.socket(PLAN, "S1-1"), {"status": "CONNECTED"}, entry=SocketPlace("S1", "7 P001 E001 ")
    )
    large = record("E002", text="own times " * 300_000)
    plan = CheckpointedKey(keys.plan(PLAN), {})
    begun = await checkpoints.checkpoint(PART)
    written = [one.encode() for one in (record("E001"), large, socket, plan)]
    assert len(written[1].payload) < 1024 * 1024, "it fits into a message"
    await checkpoints.write(begun, Manifest(sequence=17, time="2026-01-01T00:00:00.000Z"), written)

    manifest = await checkpoints.manifest(PART)
    assert manifest is not None
    assert manifest.sequence == 17
    found = await read(checkpoints, PLAN)
    assert {key: (one.fields, one.member, one.entry) for key, one in found.items()} == {
        one.key: (one.fields, one.member, one.entry) for one in (record("E001"), large, socket, plan)
    }
    assert await checkpoints.plans(PART) == [PLAN]
    assert await read(checkpoints) == found
    assert await read(checkpoints, "P00") == {}


async def test_a_key_that_is_written_while_it_is_read_comes_again(checkpoints: RecordCheckpoints) -> None:
    begun = await checkpoints.checkpoint(PART)
    begun = await checkpoints.write(begun, Manifest(sequence=1), [record(f"E{n:03}").encode() for n in range(3)])
    found: dict[str, list[str]] = {}
    async for checkpointed in checkpoints.read(PART):
        if not found:
            await checkpoints.write(begun, Manifest(sequence=2), [record("E002", "newer").encode()])
        found.setdefault(checkpointed.key, []).append(checkpointed.fields["text"])
    assert found[keys.progress(PLAN, "E002")][-1] == "newer"
    assert set(found) == {keys.progress(PLAN, f"E{n:03}") for n in range(3)}


async def test_of_two_writers_one_is_refused_with_all_it_wanted_to_write(checkpoints: RecordCheckpoints) -> None:
    stale = await checkpoints.checkpoint(PART)
    holder = await checkpoints.write(stale, Manifest(sequence=5), [record("E001", "of the holder").encode()])
    with pytest.raises(WrongLastSequence):
        await checkpoints.write(
            stale, Manifest(sequence=4), [record(f"E{n:03}", "stale").encode() for n in range(1, 9)]
        )
    with pytest.raises(WrongLastSequence):
        await checkpoints.write(stale, Manifest(sequence=4))
    assert [one.fields["text"] for one in (await read(checkpoints)).values()] == ["of the holder"]
    await checkpoints.write(holder, Manifest(sequence=6), [record("E001", "again").encode()])
    manifest = await checkpoints.manifest(PART)
    assert manifest is not None
    assert manifest.sequence == 6


async def test_a_checkpoint_that_cannot_be_read_is_left_out(checkpoints: RecordCheckpoints, bus: Bus) -> None:
    await checkpoints.write(await checkpoints.checkpoint(PART), Manifest(sequence=5), [record("E001").encode()])
    await bus.publish(Outgoing(subjects.record(keys.progress(PLAN, "E002")), b"{}"))
    await bus.publish(
        Outgoing(subjects.record(keys.progress(PLAN, "E003")), b"?", headers={"Examwire-Encoding": "zlib"})
    )
    assert list(await read(checkpoints)) == [keys.progress(PLAN, "E001")]
    await bus.publish(Outgoing(subjects.records_checkpoint(PART), b"?"))
    assert await checkpoints.manifest(PART) is None
    newer = await bus.publish(Outgoing(subjects.records_checkpoint(PART), b'{"sequence": 9, "format": 99}'))
    assert await checkpoints.manifest(PART) is None
    assert (await checkpoints.checkpoint(PART)).newer
    assert (await checkpoints.checkpoint(PART)).place == newer.sequence


async def test_the_part_that_is_being_made_is_complete_up_to_nowhere(checkpoints: RecordCheckpoints, bus: Bus) -> None:
    await checkpoints.write(await checkpoints.checkpoint(PART), Manifest(sequence=0), [record("E001").encode()])
    assert await checkpoints.manifest(PART) is None
    assert (await bus.stream_state(RECORDS.name)).messages == 2
