"""What is nobody's fault leaves nothing in the log: ends and cancellations in the middle of something."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from actors.queue_server import apply_topology
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.metrics_server import MetricsServer
from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from actors.runtime.stream_reading import read_stream
from actors.runtime.supervision import Supervisor


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What asyncio has complained of; none is expected."""
    found: list[str] = []
    yield found
    gc.collect()
    for record in (*caplog.get_records("call"), *caplog.get_records("teardown")):
        if record.name == "asyncio" or (record.exc_info and record.levelno >= logging.ERROR):
            found.append(record.getMessage())
    assert found == []


class Standstill(StateStore):
    """A Redis that never answers; `asked` is set when somebody waits for it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def ping(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_role_that_stops_while_it_is_asked_whether_it_is_ready_leaves_no_traceback(
    bus: Bus, complaints: list[str]
) -> None:
    server, store = MetricsServer("role", "127.0.0.1", 0, needs_redis=True), Standstill()
    await server.start(Supervisor("role"))
    server.watch(bus, store)
    port = urlsplit(server.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
    await store.asked.wait()
    server.stop()
    assert await reader.read() == b""
    writer.close()


async def test_an_ack_that_nobody_waits_for_any_more_leaves_no_complaint(
    bus: Bus, settings: Settings, complaints: list[str]
) -> None:
    await apply_topology(bus, settings)
    sent = await bus.send([Outgoing("status.plan.P001", b"{}"), Outgoing("status.plan.P001", b"{}")])
    waiting = asyncio.create_task(bus.confirm(sent))
    await asyncio.sleep(0)
    waiting.cancel()
    bus._fail_unacknowledged("the connection broke")
    del sent
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_reader_who_is_gone_when_the_answer_comes_leaves_no_complaint(
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
