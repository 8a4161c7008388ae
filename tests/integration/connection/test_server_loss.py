"""A socket server that starts again, dies or is cut off: its sessions end, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.socket_server.server import SocketServer
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.errors import RoleSuperseded
from protocol.messages.codec import encode
from protocol.messages.server_messages import QueueCreate
from protocol.records import keys
from tests.integration.support.cable import Cable
from tests.integration.support.server_process import ServerProcess, join, story
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample


def with_lease(settings: Settings, lease_seconds: int) -> Settings:
    return changed(settings, {"server.lease_seconds": lease_seconds, "server.start_attempts": 2})


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    """SOCK002 runs; SOCK001 is the test's."""
    async with System(with_lease(settings, 1), servers=("SOCK002",)) as system:
        # As if it had been there for long: the lease watch gives servers time after the broker's own outage.
        system._buses["lease-watch"].connected_at -= 60
        yield system


async def server_record(system: System, server_id: str = "SOCK001") -> dict[str, str]:
    return await system.store.entries(keys.server_status(server_id))


async def test_a_killed_server_and_its_sessions_are_lost_but_not_moved_examinees(
    system: System,
) -> None:
    proctor = await system.proctor("SOCK002")
    server = await ServerProcess.start(system.settings)
    expiries = sample("examwire_lease_expiries_total")
    try:
        await join(system, server.url, "E001")
        await join(system, server.url, "E002")
        await system.examinee("E003", "SOCK002")
    finally:
        await server.kill()
    moved = await system.examinee("E002", "SOCK002", connection_no=2)

    loss = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "SERVER_LOST"
    await system.status("E001", "DISCONNECTED")
    record = await server_record(system)
    assert (record["statusCode"], record["reason"]) == ("LOST", "SERVER_LOST")
    assert await system.store.entries(keys.server_sockets("SOCK001")) == {}
    assert sample("examwire_lease_expiries_total") == expiries + 1

    # What follows the loss in the log has been handled too: nothing about the others came before it.
    await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=1)
    returning = await system.examinee("E001", "SOCK002", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
    assert story(proctor, "E002") == [("connected", None), ("connected", None)]
    assert story(proctor, "E003") == [("connected", None)]
    assert (await system.progress("E002"))["serverId"] == "SOCK002"
    for client in (moved, returning):
        before = len(client.frames)
        await client.say("heartbeat")
        await client.expect("heartbeat", after=before)
    assert system.failures == []


async def test_a_second_process_of_the_same_server_ends_the_first_and_its_sessions(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    first = await ServerProcess.start(system.settings)
    second: ServerProcess | None = None
    try:
        client = await join(system, first.url, "E001")
        await join(system, first.url, "E002")
        await system.examinee("E002", "SOCK002", connection_no=2)  # moved on before
        second = await ServerProcess.start(system.settings)
        assert await client.closed() == 4003
        code, output = await first.ended()
        assert code == 6
        assert "another process has started as SOCK001" in output.strip().splitlines()[-1]

        loss = await proctor.expect("examinee_disconnected", examineeId="E001")
        assert loss["data"]["reason"] == "SERVER_RESTARTED"
        await join(system, second.url, "E001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert story(proctor, "E001") == [
            ("connected", None),
            ("disconnected", "SERVER_RESTARTED"),
            ("connected", None),
        ]
        assert story(proctor, "E002") == [("connected", None), ("connected", None)]
        record = await server_record(system)
        assert (record["statusCode"], record["url"]) == ("READY", second.url)
        assert system.failures == []
    finally:
        await first.kill()
        if second is not None:
            await second.kill()


async def test_a_restart_after_a_crash_ends_the_old_sessions_without_waiting_for_the_lease(
    bus: Bus, settings: Settings
) -> None:
    async with System(with_lease(settings, 60), servers=("SOCK002",)) as system:
        proctor = await system.proctor("SOCK002")
        first = await ServerProcess.start(system.settings)
        try:
            await join(system, first.url, "E001")
            await join(system, first.url, "E002")
        finally:
            await first.kill()
        await system.examinee("E002", "SOCK002", connection_no=2)  # moves on before the restart
        server = await system.start_server("SOCK001")
        loss = await proctor.expect("examinee_disconnected", examineeId="E001")
        assert loss["data"]["reason"] == "SERVER_RESTARTED"
        await join(system, server.url, "E001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert story(proctor, "E002") == [("connected", None), ("connected", None)]
        assert await system.server_is("SOCK001", "READY")
        assert system.failures == []


async def test_a_superseded_server_ends_when_its_sessions_are_declared_lost(bus: Bus, settings: Settings) -> None:
    # Its next heartbeat comes in 40 s; until then it would announce its sessions anew, and each would be lost again.
    async with System(with_lease(settings, 120), servers=("SOCK001", "SOCK002")) as system:
        proctor = await system.proctor("SOCK002")
        first = await system.examinee("E001", "SOCK001")
        other = system._buses["second"] = await Bus.connect(system.settings.nats_url, "second")
        second = system.actors["second"] = SocketServer(system.settings, other, system.store, "SOCK001")
        await second.start()
        assert await first.closed() == 4003
        await join(system, second.url, "E001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert story(proctor, "E001") == [
            ("connected", None),
            ("disconnected", "SERVER_RESTARTED"),
            ("connected", None),
        ]
        assert [type(failure) for failure in system.failures] == [RoleSuperseded]


async def test_a_superseded_server_does_not_take_messages_of_its_successor(system: System, bus: Bus) -> None:
    first = await system.start_server("SOCK001")
    old = await system.examinee("E001", "SOCK001")
    await system.proctor("SOCK001")
    second_bus = system._buses["second"] = await Bus.connect(system.settings.nats_url, "second")
    second = system.actors["second"] = SocketServer(system.settings, second_bus, system.store, "SOCK001")
    failures: list[BaseException] = []
    await second.start(lambda _, error: failures.append(error))

    # Its clients are served from the first moment, though the first does not know yet that it is over.
    for number in range(20):
        client = await join(system, second.url, f"N{number:03}")
        assert (await client.expect("session_state"))["data"]["connection"]["serverId"] == "SOCK001"

    assert await old.closed() == 4003

    async def said() -> bool:
        return bool(system.failures)

    await eventually(said, "the first has ended itself")
    (failure,) = system.failures
    assert isinstance(failure, RoleSuperseded)
    assert "another process has started as SOCK001" in str(failure)
    await system.stop("SOCK001")
    assert await system.server_is("SOCK001", "READY")  # the word of the old process about itself does not count
    config = await bus.consumer_config("SOCKET", "SOCK001_Q")
    assert config is not None
    assert config["metadata"]["examwire.incarnation"] == second.incarnation != first.incarnation
    assert failures == []


async def test_a_process_without_the_lease_cannot_take_the_queue(system: System, bus: Bus) -> None:
    server = await system.start_server("SOCK001")
    request = QueueCreate(server_id="SOCK001", queue_id="SOCK001_Q", incarnation="older")
    answer = json.loads(await bus.request(subjects.QUEUE_CREATE, encode(request)))
    assert (answer["type"], answer["data"]["code"]) == ("error", "NOT_ALLOWED")
    config = await bus.consumer_config("SOCKET", "SOCK001_Q")
    assert config is not None
    assert config["metadata"]["examwire.incarnation"] == server.incarnation
    assert system.failures == []


async def test_the_state_manager_role_watches_the_leases(system: System, bus: Bus) -> None:
    await system.stop("lease-watch")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", "state-manager", "--json"),
        *("--nats-url", system.settings.nats_url, "--redis-url", system.settings.redis_url),
        *("--data-dir", str(system.settings.data_dir)),
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert json.loads(line)["event"] == "ready"
        assert "lease-watch" in {entry.name for entry in await bus.services()}
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)


async def test_a_server_cut_off_longer_than_its_lease_comes_back_with_all_its_sessions(
    system: System, engines: tuple[NatsServer, RedisServer]
) -> None:
    proctor = await system.proctor("SOCK002")
    async with Cable(engines[0].port) as cable:
        bus = system._buses["SOCK001"] = await Bus.connect(cable.url, "SOCK001")
        server = SocketServer(system.settings, bus, system.store, "SOCK001")
        system.actors["SOCK001"] = server
        await server.start(lambda _, error: system.failures.append(error))
        clients = [await system.examinee(f"E{number:03}", "SOCK001") for number in range(30)]
        inside = await system.proctor("SOCK001", name="proctor-inside")

        cable.pull_out()
        # E000 goes while the server is cut off; E001 moves to the other server. Nobody else moves.
        await clients[0].close()
        await proctor.expect("examinee_disconnected", examineeId="E001", reason="SERVER_LOST")
        moved = await system.examinee("E001", "SOCK002", connection_no=2)
        for number in range(30):
            await proctor.expect("examinee_disconnected", examineeId=f"E{number:03}", reason="SERVER_LOST")
        assert await system.server_is("SOCK001", "LOST")
        assert all(client.websocket.close_code is None for client in clients[1:])

        cable.put_back()
        await eventually(lambda: system.server_is("SOCK001", "READY"), "READY again")
        for number in range(2, 30):
            for screen in (proctor, inside):
                await screen.expect("examinee_connected", examineeId=f"E{number:03}", recovered=True)
            await system.status(f"E{number:03}", "CONNECTED")
        await system.status("E000", "DISCONNECTED")
        assert await clients[1].closed() == 4503  # replaced by the connection on the other server
        assert (await system.progress("E001"))["serverId"] == "SOCK002"
        await system.status("E001", "CONNECTED")
        for number in range(2, 30):
            assert story(proctor, f"E{number:03}") == [
                ("connected", None),
                ("disconnected", "SERVER_LOST"),
                ("connected", None),
            ]
        before = len(moved.frames)
        await moved.say("heartbeat")
        await moved.expect("heartbeat", after=before)
        assert system.failures == []
        await system.stop("SOCK001")


async def test_a_broker_outage_longer_than_the_lease_declares_no_server_lost(
    own_engines: tuple[NatsServer, RedisServer], settings: Settings
) -> None:
    nats, redis = own_engines
    own = with_lease(load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=settings.data_dir), 1)
    async with System(own) as system:
        proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002")]
        examinees = [await system.examinee("E001", "SOCK001"), await system.examinee("E002", "SOCK002")]
        nats.kill()
        loop = asyncio.get_running_loop()
        down = loop.time()

        async def long_enough() -> bool:
            return loop.time() - down > 2 * own.server.lease_seconds

        await eventually(long_enough, "the broker was away for two leases")
        nats.start()

        # Marks that follow everything the outage brought: a heartbeat of each server, then a loss and a recovery.
        for server_id in ("SOCK001", "SOCK002"):
            heartbeat = (await server_record(system, server_id)).get("lastHeartbeat", "")

            async def renewed(server_id: str = server_id, heartbeat: str = heartbeat) -> bool:
                return (await server_record(system, server_id)).get("lastHeartbeat", "") > heartbeat

            await eventually(renewed, f"a heartbeat of {server_id}", 20)
        watch: Any = system.actors["lease-watch"]
        beats = watch.heartbeats

        async def beyond_the_grace() -> bool:
            watched = system._buses["lease-watch"]
            connected_seconds = loop.time() - watched.connected_at
            return bool(connected_seconds > watch._grace + 0.5 and watch.heartbeats > beats + 4)

        await eventually(beyond_the_grace, "the lease watch has looked at every expiry", 20)
        third = await system.examinee("E003", "SOCK001")
        for proctor in proctors:
            await proctor.expect("examinee_connected", examineeId="E003")
            for examinee_id in ("E001", "E002"):
                assert "disconnected" not in [kind for kind, _ in story(proctor, examinee_id)]
        for examinee_id in ("E001", "E002"):
            assert (await system.progress(examinee_id))["connStatusCode"] == "CONNECTED"
        for server_id in ("SOCK001", "SOCK002"):
            assert (await server_record(system, server_id))["statusCode"] == "READY"
        assert watch.lost == 0
        for client in (*examinees, third):
            before = len(client.frames)
            await client.say("heartbeat")
            await client.expect("heartbeat", after=before)
        assert system.failures == []


async def test_a_lease_renewed_before_the_second_look_declares_no_server_lost(
    system: System, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that stood still for a moment longer than the lease."""
    proctor = await system.proctor("SOCK002")
    await system.examinee("E001", "SOCK002")
    heartbeat = system.server("SOCK002")._lease

    async def silence() -> None:
        return

    with monkeypatch.context() as patch:
        patch.setattr(heartbeat, "_publish", silence)

        async def expired() -> bool:
            newest = await bus.last_message("LEASE", subjects.lease("SOCK002"))
            return newest is not None and "Nats-Marker-Reason" in newest.headers

        await eventually(expired, "the lease has expired")

    async def looked_twice() -> bool:
        consumer = await bus._js.consumer_info("LEASE", "lease-watch")
        return not consumer.num_ack_pending and not consumer.num_pending

    await eventually(looked_twice, "the expiry has been looked at for good")
    assert system.actors["lease-watch"].details()["lost"] == 0
    await system.examinee("E002", "SOCK002")
    await proctor.expect("examinee_connected", examineeId="E002")
    assert [frame["type"] for frame in proctor.about("E001")] == ["examinee_connected"]


async def test_a_lease_that_expired_during_a_stall_is_checked_again_before_a_loss(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What held up the lease watch's own connection may have held up the servers' renewals as well."""
    await system.examinee("E001", "SOCK002")
    watch: Any = system.actors["lease-watch"]
    looks = 0

    def steady_seconds(_bus: Bus) -> float:
        nonlocal looks
        looks += 1
        return 0.0

    monkeypatch.setattr(Bus, "steady_seconds", property(steady_seconds))
    await system._buses["SOCK002"]._nc.close()

    async def looked_often() -> bool:
        return looks >= 3

    await eventually(looked_often, "the expiry has been looked at three times")
    assert watch.lost == 0
    watch._looks = 5  # trouble without end makes nobody immortal
    await system.status("E001", "DISCONNECTED")
    assert (await system.progress("E001"))["reason"] == "SERVER_LOST"
