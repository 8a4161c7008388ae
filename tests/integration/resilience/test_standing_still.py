"""Processes, brokers and paths that stand still for a while: nobody is lost who was there."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.socket_server.server import SocketServer
from cli.local.engines import NatsServer, RedisServer
from protocol.messages.frames import HELLO_SECONDS
from protocol.records import keys
from tests.integration.support.cable import Cable
from tests.integration.support.server_process import ServerProcess, join, story
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually

QUICK_PINGS = {"socket.ping_interval_seconds": 1.0, "socket.ping_timeout_seconds": 1.0}


def stand_still(seconds: float) -> None:
    """This process, which is all of a `System`."""
    time.sleep(seconds)


async def passed(seconds: float, since: float) -> None:
    async def so() -> bool:
        return time.monotonic() - since >= seconds

    await eventually(so, f"{seconds} s have passed", seconds + 20)


async def all_answer(clients: list[RawClient]) -> None:
    for client in clients:
        before = len(client.frames)
        await client.say("heartbeat")
        await client.expect("heartbeat", after=before)


async def test_a_paused_server_closes_nobody_when_it_continues(bus: Bus, settings: Settings) -> None:
    """Their answers lie in its sockets, and so does the hello of one who came meanwhile."""
    settings = changed(settings, {**QUICK_PINGS, "server.lease_seconds": 60})
    async with System(settings, servers=("SOCK002",)) as system:
        proctor = await system.proctor("SOCK002")
        server = await ServerProcess.start(settings)
        try:
            clients = [await join(system, server.url, f"E{number:03}") for number in range(20)]
            silent = await join(system, server.url, "E900")
            newcomer = await RawClient.open(server.url)
            system.clients.append(newcomer)
            server.stand_still()
            start = time.monotonic()
            await newcomer.say("hello", token=system.token("examinee", "E800"), clientId="late", connectionNo=1)
            silent.websocket.transport.pause_reading()
            await passed(HELLO_SECONDS + 1.5, start)  # thrice what a client may be silent for
            server.go_on()
            await newcomer.expect("welcome")
            # Who really is silent is still noticed, and by then the others would have been cut as well.
            await proctor.expect("examinee_disconnected", examineeId="E900", reason="PING_TIMEOUT")
            await all_answer([*clients, newcomer])
            lost_ids = {
                frame["data"]["examineeId"] for frame in proctor.frames if frame["type"] == "examinee_disconnected"
            }
            assert lost_ids == {"E900"}
        finally:
            await server.kill()


async def test_a_blocked_event_loop_closes_nobody(bus: Bus, settings: Settings) -> None:
    quick = {"socket.ping_interval_seconds": 0.4, "socket.ping_timeout_seconds": 0.4, "server.lease_seconds": 60}
    async with System(changed(settings, quick), servers=("SOCK001",)) as system:
        proctor = await system.proctor("SOCK001")
        clients = [await system.examinee(f"E{number:03}") for number in range(20)]
        silent = await system.examinee("E900")
        silent.websocket.transport.pause_reading()
        for _ in range(3):
            stand_still(1.2)
            await all_answer(clients)
        await proctor.expect("examinee_disconnected", examineeId="E900", reason="PING_TIMEOUT")
        await all_answer(clients)
        assert [name for name in proctor.frames if name["type"] == "examinee_disconnected"] == proctor.about("E900")[
            -1:
        ]
        assert system.failures == []


@pytest.mark.parametrize("seconds", [2.0, 6.0])
async def test_a_paused_broker_declares_no_server_lost(
    own_engines: tuple[NatsServer, RedisServer], settings: Settings, seconds: float
) -> None:
    """All leases expire the moment it goes on, whether the connections have outlived it or not."""
    nats, redis = own_engines
    own = load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=settings.data_dir)
    async with System(changed(own, {"server.lease_seconds": 1})) as system:
        system._buses["lease-watch"].connected_at -= 60  # as if all had been there for long
        proctor = await system.proctor("SOCK002")
        examinees = [await system.examinee("E001", "SOCK001"), await system.examinee("E002", "SOCK002")]
        pid = nats.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        try:
            await passed(seconds, start)
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: _all_connected(system), "all are connected")
        late = await system.examinee("E003", "SOCK001")
        await proctor.expect("examinee_connected", examineeId="E003")
        watch = system.actors["lease-watch"]

        async def expiries_are_dealt_with() -> bool:
            info = await system._buses["lease-watch"]._js.consumer_info("LEASE", "lease-watch")
            return not info.num_ack_pending and not info.num_pending

        await eventually(expiries_are_dealt_with, "the lease watch has looked at every expiry")
        assert watch.details()["lost"] == 0
        await all_answer([*examinees, late])
        for examinee_id in ("E001", "E002"):
            assert [kind for kind, _ in story(proctor, examinee_id)] == ["connected"]
        assert system.failures == []


async def test_a_server_cut_off_longer_than_the_backoff_shuts_nobody_out(
    bus: Bus, settings: Settings, engines: tuple[NatsServer, RedisServer]
) -> None:
    """The path to NATS stood still: their sockets were open all the time, and nobody had to come back."""
    short = {"server.lease_seconds": 1, "reconnect.max_attempts": 2, "reconnect.backoff_seconds": [0.4, 0.4]}
    async with Cable(engines[0].port) as cable, System(changed(settings, short), servers=("SOCK002",)) as system:
        system._buses["lease-watch"].connected_at -= 60
        proctor = await system.proctor("SOCK002")
        cut_bus = await Bus.connect(cable.url, "SOCK001")
        system._buses["SOCK001"] = cut_bus
        server = system.actors["SOCK001"] = SocketServer(system.settings, cut_bus, system.store, "SOCK001")
        await server.start(lambda _, error: system.failures.append(error))
        clients = [await system.examinee(f"E{number:03}", "SOCK001") for number in range(20)]
        cable.pause()

        async def known() -> bool:
            return not cut_bus.connected and not server.details()["accepting"]

        await eventually(known, "the server knows that it is cut off")
        for number in range(20):
            await proctor.expect("examinee_reconnect_exhausted", examineeId=f"E{number:03}")
        cable.resume()
        for number in range(20):
            await proctor.expect("examinee_connected", examineeId=f"E{number:03}", recovered=True)
            await system.status(f"E{number:03}", "CONNECTED")
        await all_answer(clients)
        assert all(client.websocket.close_code is None for client in clients)
        record = await system.store.entries(keys.server_status("SOCK001"))
        assert record["statusCode"] == "READY"
        assert system.failures == []
        await system.stop("SOCK001")


async def test_pauses_of_every_role_end_with_everybody_connected(
    bus: Bus, settings: Settings, engines: tuple[NatsServer, RedisServer]
) -> None:
    """One direction after the other, shorter and longer than it takes to call a connection dead."""
    cables: dict[str, Cable] = {}

    def behind_its_cable(name: str) -> Settings:
        return settings.model_copy(update={"nats_url": cables[name].url})

    names = ("queue-server", "state-manager", "reconnect-watch", "lease-watch", "advisory-watch", "SOCK001")
    try:
        for name in names:
            cables[name] = await Cable(engines[0].port).__aenter__()
        async with System(settings, servers=("SOCK001",), settings_of=behind_its_cable) as system:
            clients = [await system.examinee("E001")]
            proctor = await system.proctor()
            for index, (up, down, seconds) in enumerate([(True, False, 5.0), (False, True, 2.4), (True, True, 1.0)]):
                for cable in cables.values():
                    cable.pause(up=up, down=down)
                start = time.monotonic()
                await passed(seconds, start)
                for cable in cables.values():
                    cable.resume()
                await eventually(lambda: _all_connected(system), "all are connected")
                client = await system.examinee(f"N{index:03}")
                await proctor.expect("examinee_connected", examineeId=f"N{index:03}")
                client.abort()
                await proctor.expect("examinee_disconnected", examineeId=f"N{index:03}")
                await all_answer(clients)
            lost_ids = {f["data"]["examineeId"] for f in proctor.frames if f["type"] == "examinee_disconnected"}
            assert "E001" not in lost_ids
            assert system.failures == []
    finally:
        for cable in cables.values():
            await cable.__aexit__()


async def _all_connected(system: System) -> bool:
    await asyncio.sleep(0)
    return all(bus.connected for bus in system._buses.values())
