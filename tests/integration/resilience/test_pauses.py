"""Pauses on the way to NATS: nothing that comes late does harm, and what is dead is known within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from actors.runtime.broker import nats_client
from actors.runtime.broker.connection import Bus
from cli.local.engines import NatsServer, RedisServer
from protocol.errors import BrokerUnavailable, NoResponders
from tests.integration.support.cable import Cable
from tests.integration.support.system import eventually
from tests.support.nats_faults import fail_pongs, flusher_task, reading_task

EITHER_WAY = pytest.mark.parametrize(
    ("up", "down"), [(True, False), (False, True), (True, True)], ids=["to NATS", "from NATS", "both"]
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dead is known sooner."""
    monkeypatch.setattr(nats_client, "DEAD_SECONDS", 1.0)


@pytest.fixture
async def cable(engines: tuple[NatsServer, RedisServer]) -> AsyncIterator[Cable]:
    async with Cable(engines[0].port) as cable:
        yield cable


@pytest.fixture
async def ours(cable: Cable) -> AsyncIterator[Bus]:
    """A connection through the cable."""
    bus = await Bus.connect(cable.url, "ours")
    yield bus
    cable.resume()
    await bus.close()


async def works(bus: Bus, seconds: float = 20.0) -> None:
    """Wait until what is published comes back."""

    async def comes_back() -> bool:
        arrived = asyncio.Event()

        async def arrive(_msg: Msg) -> None:
            arrived.set()

        inbox = bus.new_inbox()
        sub = await bus.subscribe(inbox, arrive)
        with suppress(TimeoutError, BrokerUnavailable):
            await bus.publish_core(inbox, b"")
            async with asyncio.timeout(1):
                await arrived.wait()
        with suppress(nats.errors.Error):
            await sub.unsubscribe()
        return arrived.is_set()

    await eventually(comes_back, "the connection works", seconds)


async def is_cut_off(bus: Bus) -> None:
    async def noticed() -> bool:
        return not bus.connected

    await eventually(noticed, "the connection counts as lost")


@EITHER_WAY
async def test_a_late_pong_is_harmless(cable: Cable, ours: Bus, up: bool, down: bool) -> None:
    reading = reading_task(ours)
    cable.pause(up=up, down=down)
    with pytest.raises(nats.errors.TimeoutError):
        await ours._nc.rtt(timeout=0.2)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await ours._nc.flush(timeout=0.2)  # type: ignore[arg-type]
    probing = asyncio.create_task(ours.round_trip())
    await asyncio.sleep(0)
    probing.cancel()
    cable.resume()
    await ours.round_trip()
    await works(ours)
    assert reading_task(ours) is reading
    assert ours._nc.stats["reconnects"] == 0


@EITHER_WAY
@pytest.mark.usefixtures("impatient")
async def test_a_half_open_connection_counts_as_lost_and_works_again_when_the_path_is_back(
    cable: Cable, ours: Bus, up: bool, down: bool
) -> None:
    cable.pause(up=up, down=down)
    asking = asyncio.create_task(ours.request("nobody.answers", timeout=60))
    await is_cut_off(ours)
    with pytest.raises(BrokerUnavailable, match="no answer"):  # at once, not after its minute
        await asking
    with pytest.raises(BrokerUnavailable):
        await ours.round_trip()
    cable.resume()
    await works(ours)
    assert ours.connected
    with pytest.raises(NoResponders):
        await ours.request("nobody.answers")


@pytest.mark.usefixtures("impatient")
async def test_unsent_data_does_not_prevent_a_reconnect(cable: Cable, ours: Bus) -> None:
    """Closing the old connection would wait for it without end."""
    cable.pause()
    chunk = bytes(512 * 1024)
    filling = asyncio.create_task(_publish_much(ours, chunk))
    await is_cut_off(ours)
    filling.cancel()
    cable.resume()
    await works(ours)


async def test_closing_does_not_wait_for_a_dead_path(cable: Cable) -> None:
    bus = await Bus.connect(cable.url, "closing")
    cable.pause()
    filling = asyncio.create_task(_publish_much(bus, bytes(512 * 1024)))
    async with asyncio.timeout(20):
        await bus.close()
    filling.cancel()


async def _publish_much(bus: Bus, chunk: bytes) -> None:
    with suppress(BrokerUnavailable):
        for _ in range(24):
            await bus.publish_core("much", chunk)


@pytest.mark.parametrize("task_of", [reading_task, flusher_task])
async def test_a_task_of_nats_py_that_has_ended_counts_as_a_lost_connection(
    ours: Bus, task_of: Callable[[Bus], asyncio.Task[Any]]
) -> None:
    task_of(ours).cancel()

    async def connected_again() -> bool:
        return ours.connected and ours._nc.stats["reconnects"] == 1

    await eventually(connected_again, "a new connection")
    await works(ours)


async def test_an_error_in_the_reading_task_leads_to_a_new_connection(
    ours: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        fail_pongs(broken, ours, asyncio.InvalidStateError())

        async def connected_again() -> bool:
            return ours._nc.stats["reconnects"] >= 1

        await eventually(connected_again, "a new connection")
    await works(ours)


@pytest.mark.usefixtures("impatient")
async def test_a_paused_process_does_not_drop_its_broker(ours: Bus) -> None:
    await works(ours)
    _stand_still(2.5)
    await works(ours)
    assert ours._nc.stats["reconnects"] == 0
    assert ours.steady_seconds < 2.5, "but what others sent meanwhile may have been held up"


def _stand_still(seconds: float) -> None:
    time.sleep(seconds)
