"""Three real nodes with R3 streams, users and permissions: nodes come late, leaders die, nothing is lost."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actors.queue_server.server import QueueServer
from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.consumers.stream_snapshot import delete_stream, restore_stream, save_stream
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.operate.streams import compare_topology
from protocol.broker.streams import LEASE, STATE_MANAGERS, STATUS, STREAMS
from protocol.errors import BrokerUnavailable, ConfigurationError
from protocol.log.entries import read_entries
from protocol.messages.facts import ConnectionStatus
from tests.integration.support.nats_cluster import NatsCluster, logged_in, user_of_actor
from tests.integration.support.system import System, eventually
from tests.integration.support.unsteady_exam import EXAMINEES, Exam


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path / "cluster") as cluster:
        yield cluster


def of_cluster(settings: Settings, cluster: NatsCluster, *, replicas: int = 3) -> Settings:
    section = settings.nats.model_copy(update={"replicas": replicas})
    return settings.model_copy(update={"nats_url": cluster.url, "nats": section})


@pytest.fixture
async def system(settings: Settings, cluster: NatsCluster, store: StateStore) -> AsyncIterator[System]:
    ours = of_cluster(settings, cluster)
    async with System(ours, settings_of=lambda name: logged_in(ours, user_of_actor(name))) as system:
        yield system
        assert system.failures == []


@pytest.fixture
async def operator(system: System) -> AsyncIterator[Bus]:
    bus = await Bus.connect(logged_in(system.settings, "operator"), "operator")
    yield bus
    await bus.close()


class FaithfulExam(Exam):
    """Each examinee comes back to the same server, so the log has everything in the order in which it happened."""

    def server_for(self, examinee_id: str) -> str:
        return ("SOCK001", "SOCK002")[EXAMINEES.index(examinee_id) % 2]


async def leader_of(bus: Bus, stream: str) -> str:
    leader = (await bus.stream_state(stream)).leader
    assert leader is not None
    return leader


async def test_leaders_killed_under_load_lose_and_double_no_message(
    system: System, cluster: NatsCluster, operator: Bus
) -> None:
    proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002")]
    exam = FaithfulExam(system, seed=3)
    for examinee_id in EXAMINEES:
        await exam.join(examinee_id)
    over = asyncio.Event()

    async def load() -> None:
        while not over.is_set():
            await exam.step()
            await asyncio.sleep(0.02)

    loading = asyncio.create_task(load())
    # The log; and the leases, which all expire while nobody can renew them.
    for stream in (STATUS.name, LEASE.name):
        await _killed_and_back(cluster, operator, stream)
    over.set()
    await loading
    await exam.everybody_agrees(proctors)
    logged = [
        entry.fact
        async for stored in read_stream(operator, STATUS.name, subject="status.plan.P001.>")
        for entry in read_entries(stored.subject, stored.sequence, 0.0, stored.payload)
        if isinstance(entry.fact, ConnectionStatus)
    ]
    for examinee_id in EXAMINEES:
        sockets = {fact.socket_id for fact in logged if fact.examinee_id == examinee_id}
        assert len(sockets) == exam.connects[examinee_id], "each connection is in the log"
    reasons = {frame["data"].get("reason") for proctor in proctors for frame in proctor.frames}
    assert not reasons & {"SERVER_LOST", "SERVER_RESTARTED"}, "an election must not make anybody lost"


async def _killed_and_back(cluster: NatsCluster, operator: Bus, stream: str) -> None:
    """Kill the node that leads the stream, wait for another to lead and the stream to go on, start the node again."""
    killed = await leader_of(operator, stream)
    before = (await operator.stream_state(stream)).last
    cluster.nodes[killed].kill()
    died = time.monotonic()

    async def goes_on() -> bool:
        try:
            state = await operator.stream_state(stream)
        except BrokerUnavailable:
            return False  # nobody leads
        return state.leader not in (None, killed) and state.last > before + 10

    await eventually(goes_on, f"{stream} goes on without {killed}", 30)
    assert 0 <= await operator.leader_age(stream) < time.monotonic() - died, "by what the lease watch bides its time"
    await asyncio.to_thread(cluster.nodes[killed].start)

    async def caught_up() -> bool:
        try:
            return all([(await operator.stream_state(stream.name)).current == 3 for stream in STREAMS])
        except BrokerUnavailable:
            return False

    await eventually(caught_up, f"{killed} has caught up", 30)


async def test_a_queue_server_waits_until_the_cluster_has_formed(
    settings: Settings, tmp_path: Path, store: StateStore
) -> None:
    with NatsCluster(tmp_path / "cluster", start=1) as cluster:
        ours = logged_in(of_cluster(settings, cluster), "queue-server")
        bus = await Bus.connect(ours, "queue-server")
        server = QueueServer(ours, bus)
        starting = asyncio.create_task(server.start())
        nodes = list(cluster.nodes.values())
        finished, _ = await asyncio.wait({starting}, timeout=2)
        assert not finished, "one node of three makes no streams"
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes[1:]))
        await asyncio.wait_for(starting, 25)
        for stream in STREAMS:
            state = await bus.stream_state(stream.name)
            assert (state.replicas, state.leader in cluster.nodes) == (3, True)
        assert {finding.state for finding in await compare_topology(bus, ours)} == {"same"}
        other = {
            finding.name: finding.fields
            for finding in await compare_topology(bus, of_cluster(ours, cluster, replicas=1))
        }
        assert other["STATUS"] == {"num_replicas": (3, 1)}
        await server.stop()
        await bus.close()


async def test_a_lease_that_expired_without_a_leader_is_checked_again_before_a_loss(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one node: it says that its stream has a leader since just now, as after an election."""
    async with System(settings, servers=("SOCK001",)) as system:
        leader_age = 0.0
        attempts = 0

        async def led(_stream: str) -> float:
            nonlocal attempts
            attempts += 1
            return leader_age

        assert await bus.leader_age(LEASE.name) == math.inf
        watch = system._buses["lease-watch"]
        monkeypatch.setattr(watch, "leader_age", led)
        monkeypatch.setattr(watch, "connected_at", time.monotonic() - 60)
        examinee = await system.examinee("E001")
        await system._buses["SOCK001"]._nc.close()

        async def looked_at_often() -> bool:
            return attempts >= 3

        await eventually(looked_at_often, "the expired lease has been looked at three times", 20)
        assert await system.server_is("SOCK001", "READY")
        leader_age = math.inf
        await system.status("E001", "DISCONNECTED")
        assert (await system.progress("E001"))["reason"] == "SERVER_LOST"
        examinee.abort()


async def test_replicas_without_a_cluster_are_a_configuration_error(bus: Bus, settings: Settings) -> None:
    section = settings.nats.model_copy(update={"replicas": 3})
    with pytest.raises(ConfigurationError, match=r"nats\.replicas: 3 copies need a cluster"):
        await apply_topology(bus, settings.model_copy(update={"nats": section}))


async def test_streams_of_a_cluster_are_saved_and_restored_with_their_copies(
    settings: Settings, cluster: NatsCluster
) -> None:
    async with asyncio.timeout(60):
        queue_server = await Bus.connect(logged_in(of_cluster(settings, cluster), "queue-server"), "queue-server")
        await apply_topology(queue_server, of_cluster(settings, cluster))
        await queue_server.close()
        bus = await Bus.connect(logged_in(of_cluster(settings, cluster), "operator"), "operator")
        assert await save_stream(bus, "OBJ_captures", bytearray().extend) is None  # there, nobody would answer
        saved = bytearray()
        about = await save_stream(bus, "STATUS", saved.extend)
        assert about is not None
        await delete_stream(bus, "STATUS")
        await restore_stream(bus, about["config"], about["state"], io.BytesIO(saved).read)

        async def has_consumers() -> bool:
            names = {state.name for state in await bus.consumer_states("STATUS")}
            return names == {consumer.name for consumer in STATE_MANAGERS}

        await eventually(has_consumers, "the consumers")

        async def has_copies() -> bool:
            state = await bus.stream_state("STATUS")
            return (state.replicas, state.current) == (3, 3)

        await eventually(has_copies, "three copies")
        await bus.close()
