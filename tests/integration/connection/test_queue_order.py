"""What is lost on its way to a socket server comes again before what is newer: no proctor misses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker import nats_client
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.ordered import OrderedConsumer
from actors.runtime.config.settings import Settings
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.broker.streams import SOCKET, ConsumerSpec
from protocol.errors import NotPermitted
from tests.integration.support.cable import Cable
from tests.integration.support.system import System, eventually


@pytest.fixture
async def cable(engines: tuple[NatsServer, RedisServer]) -> AsyncIterator[Cable]:
    async with Cable(engines[0].port) as cable:
        yield cable


@pytest.fixture
async def system(settings: Settings, cable: Cable) -> AsyncIterator[System]:
    """SOCK001 reaches NATS through the cable."""
    through = settings.model_copy(update={"nats_url": cable.url})
    async with System(settings, settings_of=lambda name: through if name == "SOCK001" else settings) as system:
        yield system
        cable.resume()


@pytest.mark.usefixtures("bus")
async def test_a_loss_resent_after_a_dead_path_is_published_before_the_recovery(
    system: System, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_client, "DEAD_SECONDS", 1.0)
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002")
    examinee = await system.examinee("E001", "SOCK002")
    for proctor in (first_proctor, second_proctor):
        await proctor.expect("examinee_connected", examineeId="E001")
    link = system._buses["SOCK001"]

    cable.pause(up=False)
    examinee.abort()
    await second_proctor.expect("examinee_disconnected", examineeId="E001")

    async def cut_off() -> bool:
        return not link.connected

    await eventually(cut_off, "SOCK001 takes the connection for lost")
    cable.resume()
    await eventually(lambda: _is_connected(system), "SOCK001 is connected again")
    await system.examinee("E001", "SOCK002", connection_no=2)
    for proctor in (second_proctor, first_proctor):
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        kinds = [event["type"] for event in proctor.about("E001") if event["type"] != "examinee_reconnecting"]
        assert kinds == ["examinee_connected", "examinee_disconnected", "examinee_connected"]


async def _is_connected(system: System) -> bool:
    return system._buses["SOCK001"].connected


async def test_a_reader_that_may_not_reset_its_consumer_ends_with_an_error(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the permissions of an earlier release it would take nothing any more, without a word."""
    await apply_topology(bus, settings)
    await bus.apply_consumer(ConsumerSpec(SOCKET.name, "mine", (subjects.socket_proctors("P001"),)))

    async def refused(_stream: str, _name: str) -> None:
        raise NotPermitted("not for this user")

    monkeypatch.setattr(bus, "reset_consumer", refused)
    reader = OrderedConsumer(bus, SOCKET.name, "mine", keep_alive=1.0)
    batches = aiter(reader)
    reading = asyncio.ensure_future(anext(batches))
    await eventually(lambda: _asks(bus), "it reads")
    await reader._read_again()
    with pytest.raises(NotPermitted):
        async with asyncio.timeout(20):
            await reading


async def _asks(bus: Bus) -> bool:
    return any(state.name == "mine" and state.pulls_waiting for state in await bus.consumer_states(SOCKET.name))
