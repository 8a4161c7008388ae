"""What the streams may hold, and what happens when they are full."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.queue_server import log_bound as bounds
from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.log_bound import LogBound
from actors.queue_server.topology import apply_topology, topology_streams
from actors.queue_server.topology_watch import Topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.stream_state import StreamState
from actors.runtime.config.settings import Settings
from actors.status_log.record_checkpoints import Manifest, RecordCheckpoints
from cli.check.doctor_checks import judge_bound
from cli.local.engines import nats_server_binary
from cli.operate.streams import compare_topology
from protocol.broker import subjects
from protocol.broker.streams import ADVISORY, DEADLETTER, LEASE, PHONE, RECONNECT, RECORDS, SOCKET, STATUS, StreamSpec
from protocol.errors import StreamFull
from protocol.log.partitions import PARTS
from tests.integration.support.system import eventually
from tests.support.metrics import sample

KIB = 1024


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a nats-server whose disk is small."""
    ports = tmp_path / "ports"
    ports.mkdir()
    config = tmp_path / "nats.conf"
    store = json.dumps(str(tmp_path / "store"))
    config.write_text(
        f"listen: 127.0.0.1:-1\nports_file_dir: {json.dumps(str(ports))}\n"
        f"jetstream {{ store_dir: {store}, max_file_store: 300MB }}\n"
    )
    with subprocess.Popen([str(nats_server_binary()), "-c", str(config)], stderr=subprocess.DEVNULL) as server:
        try:
            while not (port_files := list(ports.glob("*.ports"))) or not port_files[0].read_text().strip():
                assert server.poll() is None
            yield json.loads(port_files[0].read_text())["nats"][0]
        finally:
            server.terminate()


@pytest.fixture
async def guarded(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> StreamSpec:
    """STATUS with little room, guarded in seconds instead of days."""
    monkeypatch.setattr(bounds, "LEAST_AGE", 0.2)
    monkeypatch.setattr(bounds, "NEEDED_MARGIN", 1.0)
    monkeypatch.setattr(bounds, "NEEDED_SOON", 0.9)
    monkeypatch.setattr(bounds, "NEEDED_EACH_SECONDS", 0.0)
    monkeypatch.setattr(bounds, "PAUSE_SECONDS", 0.2)
    spec = replace(STATUS, max_bytes=1024 * KIB, duplicate_window=0.1)
    await bus.apply_stream(spec)
    await bus.apply_stream(RECORDS)
    await bus.apply_stream(LEASE)
    await bus.clock.measure()
    return spec


async def fill(bus: Bus, kib: int, plan_id: str = "P001") -> list[int]:
    """Facts of 10 KiB each; where they are."""
    facts = [Outgoing(subjects.status_plan(plan_id, "web"), bytes(10 * KIB)) for _ in range(kib // 10)]
    return [ack.sequence for ack in await bus.publish_until_stored(facts)]


async def checkpoint(bus: Bus, sequence: int) -> None:
    """The checkpoints hold all facts up to here."""
    checkpoints = RecordCheckpoints(bus)
    for part in PARTS:
        await checkpoints.write(await checkpoints.checkpoint(part), Manifest(sequence=sequence))


async def has(bus: Bus, sequences: list[int]) -> list[bool]:
    return [await bus.message_at(STATUS.name, sequence) is not None for sequence in sequences]


async def test_a_log_that_is_nearly_full_drops_the_oldest_facts_and_nothing_that_is_needed(
    bus: Bus, guarded: StreamSpec
) -> None:
    log_bound = LogBound(bus, 1)
    timer = Outgoing(subjects.status_timer("P009", subjects.WHOLE_PLAN, "x"), b"x", headers={"Nats-TTL": "never"})
    schedule = (await bus.publish(timer)).sequence
    old = await fill(bus, 600)
    await checkpoint(bus, old[-1])
    stored = (await bus.stream_state(STATUS.name)).last
    await _passes(bus, 1.5)
    needed = await fill(bus, 250)
    assert stored + len(needed) == needed[-1]

    async def room_again() -> bool:
        await log_bound.look(guarded)
        return (await bus.stream_state(STATUS.name)).size < 700 * KIB

    await eventually(room_again, "the oldest facts are gone")
    state = await bus.stream_state(STATUS.name)
    assert not any(await has(bus, old[:6]))
    assert all(await has(bus, [schedule, *needed]))
    assert state.limit == guarded.max_bytes
    await log_bound.look(guarded)
    assert sample("examwire_log_shortened_seconds") == pytest.approx(guarded.max_age - state.max_age)
    (finding,) = judge_bound(guarded, state)
    assert "kept for" in finding.found
    # Nobody works them off: their age must not drop them, either.
    began = bus.clock.now()

    async def older_than_the_log_was_kept() -> bool:
        await log_bound.look(guarded)
        return bus.clock.now() - began > state.max_age

    await eventually(older_than_the_log_was_kept, "the needed facts are as old")
    assert all(await has(bus, [schedule, *needed]))
    assert (await bus.stream_state(STATUS.name)).max_age == guarded.max_age


async def test_a_log_that_is_full_of_what_is_needed_drops_nothing_until_it_may(bus: Bus, guarded: StreamSpec) -> None:
    log_bound = LogBound(bus, 1)
    needed = await fill(bus, 950)
    await log_bound.look(guarded)
    needed += await fill(bus, 900)
    await log_bound.look(guarded)
    assert all(await has(bus, needed))
    state = await bus.stream_state(STATUS.name)
    assert state.size > guarded.max_bytes
    (finding,) = judge_bound(guarded, state)
    assert finding.state == "failed"

    await checkpoint(bus, needed[-1])
    await _passes(bus, 0.5)

    async def as_declared() -> StreamState | None:
        await log_bound.look(guarded)
        state = await bus.stream_state(STATUS.name)
        return state if state.size < 0.8 * guarded.max_bytes and state.max_age == guarded.max_age else None

    await eventually(as_declared, "it is within its bound, and kept as long as declared")
    await log_bound.look(guarded)
    assert sample("examwire_log_shortened_seconds") == 0


async def _passes(bus: Bus, seconds: float) -> None:
    began = bus.clock.now()

    async def over() -> bool:
        return bus.clock.now() - began > seconds

    await eventually(over, f"{seconds} s by the broker's clock")


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        (SOCKET, "socket.plan.P{}.proctors"),
        (LEASE, "lease.SOCK{}"),
        (RECONNECT, "reconnect.P001.E{}"),
        (ADVISORY, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.STATUS.c{}"),
        (PHONE, "phone.d{}"),
        (DEADLETTER, "deadletter.S{}"),
    ],
    ids=lambda value: value.name if isinstance(value, StreamSpec) else "",
)
async def test_other_streams_drop_the_oldest_messages_and_keep_the_newest(
    bus: Bus, stream: StreamSpec, subject: str
) -> None:
    assert stream.at_bound == "the oldest messages are dropped"
    assert stream.max_bytes > 0
    assert stream.max_age > 0
    small = replace(stream, max_bytes=256 * KIB)
    await bus.apply_stream(small)
    acks = [await bus.publish(Outgoing(subject.format(number), bytes(50 * KIB))) for number in range(10)]
    state = await bus.stream_state(stream.name)
    assert (state.last, state.messages) == (acks[-1].sequence, 5)
    assert state.first == acks[5].sequence
    (finding,) = judge_bound(small, state)
    assert "the oldest messages are dropped" in finding.found


async def test_checkpoints_are_refused_when_there_is_no_room_and_none_is_dropped(bus: Bus) -> None:
    await bus.apply_stream(replace(RECORDS, max_bytes=256 * KIB))
    checkpoints = RecordCheckpoints(bus)
    first = await checkpoints.write(await checkpoints.checkpoint("0"), Manifest(sequence=1))
    records = [Outgoing(f"record.0.P001.examinee.E{number}.progress", bytes(50 * KIB)) for number in range(10)]
    with pytest.raises(StreamFull):
        await checkpoints.write(first, Manifest(sequence=2), records)
    manifest = await checkpoints.manifest("0")
    assert manifest is not None
    assert manifest.sequence == 1
    (finding,) = judge_bound(RECORDS, StreamState(1, 9, 9, 250, limit=256))
    assert finding.state == "failed"


async def test_on_a_small_disk_all_streams_get_smaller_bounds(small_server: str, settings: Settings) -> None:
    ours = settings.model_copy(update={"nats_url": small_server})
    bus = await Bus.connect(small_server, "test")
    try:
        await eventually(lambda: _there(bus), "JetStream is up")
        await apply_topology(bus, ours)
        for spec in topology_streams(ours):
            limit = (await bus.stream_state(spec.name)).limit
            assert limit is not None, spec.name
            assert spec.least_bytes <= limit <= spec.max_bytes
        assert [comparison for comparison in await compare_topology(bus, ours) if comparison.state != "same"] == []
        await apply_topology(bus, ours)  # a queue server that starts again
    finally:
        await bus.close()


async def test_a_log_of_an_earlier_release_keeps_all_when_its_bound_is_lowered(bus: Bus) -> None:
    await bus.apply_stream(replace(STATUS, guarded=False, max_bytes=1024 * KIB))  # NATS itself has the bound
    facts = await fill(bus, 200)
    small = replace(STATUS, max_bytes=64 * KIB, least_bytes=64 * KIB)
    await Topology(bus, [LEASE, small], [], 1, Checkpoints(bus)).apply()
    facts += await fill(bus, 200)
    assert all(await has(bus, facts))
    assert (await bus.stream_state(STATUS.name)).limit == 64 * KIB


async def _there(bus: Bus) -> bool:
    return await bus.stream_config(STATUS.name) is None
