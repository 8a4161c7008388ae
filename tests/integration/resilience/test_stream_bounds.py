"""What the log may hold: at the bound the oldest goes, and less than was asked for will do where a disk is small."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.stream_admin import LEAST_SAFEGUARD
from actors.runtime.config.settings import Settings
from cli.check.doctor_checks import judge_fill
from cli.local.engines import nats_server_binary
from cli.operate.streams import compare_topology
from protocol.broker.streams import STATUS, status_stream
from tests.integration.support.system import eventually

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
        f"jetstream {{ store_dir: {store}, max_file_store: 700MB }}\n"
    )
    with subprocess.Popen([str(nats_server_binary()), "-c", str(config)], stderr=subprocess.DEVNULL) as server:
        try:
            while not (port_files := list(ports.glob("*.ports"))) or not port_files[0].read_text().strip():
                assert server.poll() is None
            yield json.loads(port_files[0].read_text())["nats"][0]
        finally:
            server.terminate()


async def test_at_the_bound_the_oldest_facts_go_and_the_newest_stay(bus: Bus) -> None:
    await bus.apply_stream(replace(status_stream(256 * KIB), duplicate_window=1.0))
    state = await bus.stream_state(STATUS.name)
    assert judge_fill(STATUS.name, state) is None
    for number in range(10):
        ack = await bus.publish(Outgoing("status.plan.P001", b"%d" % number + b" " * 50 * KIB))
        if number == 3:
            finding = judge_fill(STATUS.name, await bus.stream_state(STATUS.name))
            assert finding is not None
            assert "STATUS" in finding.found
    state = await bus.stream_state(STATUS.name)
    assert (state.last, state.limit) == (ack.sequence, 256 * KIB)
    assert state.first > 1
    newest = await bus.message_at(STATUS.name, ack.sequence)
    assert newest is not None
    assert newest.payload.startswith(b"9")


async def test_a_stream_limit_is_halved_when_nats_cannot_reserve_it(small_server: str, settings: Settings) -> None:
    ours = settings.model_copy(update={"nats_url": small_server})
    bus = await Bus.connect(small_server, "test")
    try:
        await eventually(lambda: _there(bus), "JetStream is up")
        await apply_topology(bus, ours)
        config = await bus.stream_config(STATUS.name)
        assert config is not None
        assert LEAST_SAFEGUARD <= config["max_bytes"] < ours.nats.status_max_bytes
        assert [comparison for comparison in await compare_topology(bus, ours) if comparison.state != "same"] == []
        await apply_topology(bus, ours)  # a queue server that starts again
        second_config = await bus.stream_config(STATUS.name)
        assert second_config is not None
        assert second_config["max_bytes"] >= LEAST_SAFEGUARD
    finally:
        await bus.close()


async def _there(bus: Bus) -> bool:
    return await bus.stream_config(STATUS.name) is None
