"""A start while NATS has no leader waits, says so, and goes on when there is one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from actors.queue_server.server import QueueServer
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.socket_server.server import SocketServer
from tests.integration.support.nats_cluster import NatsCluster, logged_in, user_of_actor
from tests.integration.support.system import eventually


async def test_servers_that_start_without_a_leader_wait_for_one(
    settings: Settings, tmp_path: Path, store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsCluster(tmp_path / "cluster") as cluster:
        section = settings.nats.model_copy(update={"replicas": 3})
        ours = settings.model_copy(update={"nats_url": cluster.url, "nats": section})
        async with contextlib.AsyncExitStack() as stack:
            buses = []
            for name in ("queue-server", "SOCK001", "queue-server"):
                buses.append(await Bus.connect(logged_in(ours, user_of_actor(name)), name))
                stack.push_async_callback(buses[-1].close)
            queue_server = QueueServer(ours, buses[0])
            await queue_server.start()
            stack.push_async_callback(queue_server.stop)
            nodes = list(cluster.nodes.values())
            for node in nodes[1:]:
                node.kill()
            server, second = SocketServer(ours, buses[1], store, "SOCK001"), QueueServer(ours, buses[2], "second")
            starting = [asyncio.create_task(server.start()), asyncio.create_task(second.start())]

            async def both_wait() -> bool:
                texts = [record.getMessage() for record in caplog.records if "waits for NATS" in record.getMessage()]
                return all(any(text.startswith(actor.address) for text in texts) for actor in (server, second))

            await eventually(both_wait, "both say that they wait", 40)
            assert not any(task.done() for task in starting)
            assert not [record for record in caplog.records if "attempt 1 of" in record.getMessage()], "none is used up"
            for node in nodes[1:]:
                await asyncio.to_thread(node.start)
            async with asyncio.timeout(60):
                await asyncio.gather(*starting)
            assert server.details()["accepting"]
            await server.stop()
            await second.stop()
