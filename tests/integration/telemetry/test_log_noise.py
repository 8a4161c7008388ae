"""What is nobody's fault leaves nothing in the log: ends and cancellations in the middle of something."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.actor.supervisor import Supervisor
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.role.metrics_server import MetricsServer
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import LEASE_WATCH
from tests.integration.support.system import System, eventually


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What asyncio has complained of; none is expected."""
    texts: list[str] = []
    yield texts
    gc.collect()
    for record in (*caplog.get_records("call"), *caplog.get_records("teardown")):
        if record.name == "asyncio" or (record.exc_info and record.levelno >= logging.ERROR):
            texts.append(record.getMessage())
    assert texts == []


class Standstill(StateStore):
    """A Redis that never answers; `asked` is set when somebody waits for it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def ping(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_stop_during_a_readiness_request_logs_no_traceback(bus: Bus, complaints: list[str]) -> None:
    server, store = MetricsServer("role", "127.0.0.1", 0, needs_redis=True), Standstill()
    await server.start(Supervisor("role"))
    server.watch(bus, store)
    port = urlsplit(server.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    await store.asked.wait()
    await server.stop()
    assert await reader.read() == b""
    writer.close()


async def test_an_abandoned_ack_logs_nothing(bus: Bus, settings: Settings, complaints: list[str]) -> None:
    await apply_topology(bus, settings)
    sent = await bus.send([Outgoing("status.plan.P001", b"{}"), Outgoing("status.plan.P001", b"{}")])
    waiting = asyncio.create_task(bus.confirm(sent))
    await asyncio.sleep(0)
    waiting.cancel()
    bus._fail_unacknowledged("the connection broke")
    del sent
    await asyncio.gather(waiting, return_exceptions=True)


async def test_an_answer_for_a_cancelled_reader_logs_nothing(
    bus: Bus, settings: Settings, complaints: list[str]
) -> None:
    for _ in range(20):
        reading = asyncio.create_task(anext(read_stream(bus, "NOWHERE", last=7), None))
        await asyncio.sleep(0)
        reading.cancel()
        asking = asyncio.create_task(bus.request("nobody.listens"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(reading, asking, return_exceptions=True)
    await bus._nc.flush()


async def test_a_missing_redis_is_logged_once_by_each_waiting_actor(
    own_engines: tuple[NatsServer, RedisServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at each heartbeat of each server, nor at each attempt of each examinee."""
    nats, redis = own_engines
    settings = load_settings(
        nats_url=nats.url,
        redis_url=redis.url,
        data_dir=tmp_path / "data",
        reconnect={"max_attempts": 20, "backoff_seconds": [0.5] * 20},
    )
    async with System(settings) as system:
        for number in range(5):
            (await system.examinee(f"E{number}")).abort()
            await system.status(f"E{number}", "DISCONNECTED")
        watch, lease = system.actors["reconnect-watch"], system.actors["lease-watch"]
        redis.stop()

        def heartbeats_delivered() -> float:
            return (
                REGISTRY.get_sample_value("examwire_delivery_age_seconds_count", {"consumer": LEASE_WATCH.name}) or 0.0
            )

        def of(logger: str) -> list[str]:
            return [
                record.getMessage()
                for record in caplog.records
                if record.name == logger and record.levelno >= logging.WARNING
            ]

        async def all_wait() -> bool:
            return bool(
                of("examwire.reconnect_watch") and [text for text in of("examwire.receiver") if "later" in text]
            )

        await eventually(all_wait, "they say so")
        attempts, heartbeats = watch.handled, heartbeats_delivered()

        async def go_on() -> bool:
            return watch.handled >= attempts + 10 and heartbeats_delivered() >= heartbeats + 3

        await eventually(go_on, "attempts and heartbeats go on")
        assert len(of("examwire.reconnect_watch")) == 1
        assert len([text for text in of("examwire.receiver") if lease.address in text]) == 1
        redis.start()
        await system.status("E0", "DISCONNECTED")
