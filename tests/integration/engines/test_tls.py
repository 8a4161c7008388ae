"""nats/cluster.conf as it is: three nodes, TLS for clients and between the nodes, roles as processes (uvloop)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from cli.shared.options import to_environment
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable
from tests.integration.support.nats_cluster import (
    ConfiguredNats,
    NatsCluster,
    logged_in,
    password_of,
    settled_port,
    user_of_actor,
)
from tests.integration.support.system import System, eventually
from tests.support.certificates import Certificates, issue


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def cluster(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("cluster"), certificates=certificates) as cluster:
        yield cluster


@pytest.fixture
def secured(settings: Settings, cluster: NatsCluster, certificates: Certificates) -> Settings:
    section = settings.nats.model_copy(update={"ca_file": certificates.ca, "replicas": 3})
    return settings.model_copy(update={"nats_url": cluster.url, "nats": section})


def environment(settings: Settings, user: str) -> dict[str, str]:
    """Variables of a role's process."""
    nats = {
        "nats.user": user,
        "nats.password": password_of(user),
        "nats.ca_file": settings.nats.ca_file,
        "nats.replicas": settings.nats.replicas,
    }
    places = {"nats_url": settings.nats_url, "redis_url": settings.redis_url, "data_dir": settings.data_dir}
    return {**os.environ, **to_environment({**places, **nats})}


async def test_roles_as_processes_work_over_tls_and_copies_are_kept(
    secured: Settings, store: StateStore, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cli.main", "run", "queue-server", "--name", "q1", "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(secured, "queue-server"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (ready["event"], ready["role"]) == ("ready", "queue-server")
        async with System(secured, settings_of=lambda name: logged_in(secured, user_of_actor(name))) as system:
            proctor = await system.proctor("SOCK002")
            examinee = await system.examinee("E001", "SOCK001")
            examinee.abort()
            await proctor.expect("examinee_disconnected", examineeId="E001")
            state = await system._buses["queue-server"].stream_state(STATUS.name)
            assert state.replicas == 3
            urls = {bus._nc.connected_url.scheme for bus in system._buses.values() if bus._nc.connected_url is not None}
            assert urls == {"tls"}
            listed = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "cli.main", "actors", "ls", "-o", "json"],
                env=environment(secured, "operator"),
                capture_output=True,
                text=True,
                check=False,
            )
            assert listed.returncode == 0, listed.stderr
            assert {"queue-server.q1", "socket.SOCK001"} <= {actor["address"] for actor in json.loads(listed.stdout)}
            assert system.failures == []
        process.send_signal(signal.SIGTERM)
        _, output = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, output.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_server_of_another_authority_is_refused(secured: Settings, tmp_path: Path) -> None:
    other = issue(tmp_path / "other")
    with pytest.raises(
        BrokerUnavailable, match=r"no TLS with NATS at tls://.*certificate verify failed.*nats\.ca_file"
    ):
        await Bus.connect(logged_in(secured, "operator", ca_file=other.ca), "cli", wait=1)
    with pytest.raises(BrokerUnavailable, match="no TLS with NATS"):  # the machine's authorities know nothing of it
        await Bus.connect(logged_in(secured, "operator", ca_file=None), "cli", wait=1)


async def test_a_url_without_tls_gets_no_plain_connection(secured: Settings, cluster: NatsCluster) -> None:
    plain = load_settings(nats_url=secured.nats_url.replace("tls://", "nats://"))
    with pytest.raises(BrokerUnavailable, match=r"no TLS with NATS at nats://.*nats\.ca_file"):
        await Bus.connect(logged_in(plain, "operator"), "cli", wait=1)


async def test_a_node_of_another_authority_does_not_join(cluster: NatsCluster, tmp_path: Path) -> None:
    """It knows where the nodes are and has every password; between nodes both sides show a certificate."""
    stranger = ConfiguredNats(tmp_path / "nats-4", "cluster.conf", "nats-4", issue(tmp_path / "other"))
    honest = cluster.nodes["nats-1"]
    assert stranger.environment is not None
    assert honest.environment is not None
    stranger.environment["NATS_CLUSTER_LISTEN"] = f"127.0.0.1:{settled_port()}"
    stranger.environment["NATS_ROUTES"] = honest.environment["NATS_ROUTES"]

    async def turned_away() -> bool:
        return "TLS route handshake error" in honest.log_path.read_text()

    await asyncio.to_thread(stranger.start)
    try:
        await eventually(turned_away, "nats-1 turns it away")
        assert {name for node in cluster.nodes.values() for name in node.neighbours()} == set(cluster.nodes)
    finally:
        stranger.kill()
