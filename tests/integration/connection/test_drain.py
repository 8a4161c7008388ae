"""A socket server is drained: its clients go to other servers, nobody is called lost who is not, and then it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from actors.client.examinee import ExamineeClient
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import RequestRefused, ask
from cli.shared.output import NotFound
from protocol.broker import subjects
from protocol.messages.codec import encode
from protocol.messages.frames import Welcome
from protocol.messages.operator_requests import Kick
from protocol.messages.session_messages import SessionLost
from protocol.records import keys
from tests.integration.support.drains import drain, end_of, know_each_other
from tests.integration.support.server_process import ServerProcess, join, story
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    """Two servers that know each other, and a short ladder."""
    quick = changed(settings, {"reconnect.max_attempts": 3, "reconnect.backoff_seconds": [2.0, 2.0, 2.0]})
    async with System(quick) as system:
        await know_each_other(system)
        yield system
        assert system.failures == []


async def test_a_migrating_examinee_who_never_arrives_is_lost_since_the_migration(system: System, bus: Bus) -> None:
    proctor = await system.proctor("SOCK002")
    absent, slow = await system.examinee("E001"), await system.examinee("E002")
    server_end = end_of(system, "SOCK001")
    await drain(bus, "SOCK001")
    for client in (absent, slow):
        frame = await client.expect("migrate")
        assert frame["data"]["endpoints"] == [system.server("SOCK002").url]
        assert await client.closed() == 4006
    migrating = await proctor.expect("examinee_migrating", examineeId="E001")
    await system.status("E001", "MIGRATING")
    await asyncio.wait_for(server_end.wait(), 20)

    await system.examinee("E002", "SOCK002", connection_no=2)
    loss = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert (loss["data"]["reason"], loss["data"]["attempt"]) == ("SERVER_DRAINING", 2)
    assert loss["data"]["timestamp"] == migrating["data"]["timestamp"]
    await system.status("E001", "DISCONNECTED")
    kinds = [event["type"] for event in proctor.about("E001")]
    assert kinds == ["examinee_connected", "examinee_migrating", "examinee_disconnected"]

    await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=3)
    returning = await system.examinee("E001", "SOCK002", connection_no=2)
    recovered = await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
    assert recovered["data"]["outageSeconds"] >= 1.0
    assert (await returning.expect("session_state"))["data"]["reconnect"]["count"] == 1
    assert story(proctor, "E002") == [("connected", None), ("migrating", None), ("connected", None)]


async def test_a_snapshot_during_a_drain_shows_migrating_examinees(system: System, bus: Bus) -> None:
    await system.examinee("E001")
    await drain(bus, "SOCK001")
    await system.status("E001", "MIGRATING")
    proctor = await system.proctor("SOCK002")
    (row,) = (await proctor.expect("plan_snapshot"))["data"]["examinees"]
    assert (row["status"], row["connection"]["reason"]) == ("MIGRATING", "SERVER_DRAINING")
    await system.examinee("E001", "SOCK002", connection_no=2)
    connected = await proctor.expect("examinee_connected", examineeId="E001")
    assert (connected["data"]["migrated"], connected["data"]["recovered"]) == (True, False)


async def test_a_server_killed_during_its_drain_loses_only_its_remaining_examinees(
    bus: Bus, settings: Settings
) -> None:
    async with System(changed(settings, {"server.lease_seconds": 1}), servers=("SOCK002",)) as system:
        system._buses["lease-watch"].connected_at -= 60
        proctor = await system.proctor("SOCK002")
        server = await ServerProcess.start(system.settings)
        names = [f"E{number:03}" for number in range(10)]
        successor = None
        try:
            clients = {name: await join(system, server.url, name) for name in names}
            await drain(bus, "SOCK001", 20.0)
            moved = names[:2]
            for name in moved:
                assert await clients[name].closed() == 4006
                await system.examinee(name, "SOCK002", connection_no=2)
            await server.kill()
            for name in names[2:]:
                loss = await proctor.expect("examinee_disconnected", examineeId=name)
                assert loss["data"]["reason"] == "SERVER_LOST"
            assert await system.server_is("SOCK001", "LOST")
            successor = await ServerProcess.start(system.settings)
            for name in names[2:]:
                await join(system, successor.url, name, connection_no=2)
                await proctor.expect("examinee_connected", examineeId=name, recovered=True)
            for name in moved:
                assert story(proctor, name) == [("connected", None), ("migrating", None), ("connected", None)]
                assert (await system.progress(name))["serverId"] == "SOCK002"
            assert await system.server_is("SOCK001", "READY")
            assert system.failures == []
        finally:
            await server.kill()
            if successor is not None:
                await successor.kill()


async def test_a_draining_server_that_is_declared_lost_objects_and_keeps_draining(system: System, bus: Bus) -> None:
    first, second = await system.examinee("E001"), await system.examinee("E002")
    socket_id = (await system.progress("E002"))["socketId"]
    await drain(bus, "SOCK001", 60.0)
    assert await first.closed() == 4006
    frame_count = len(second.frames)
    loss = SessionLost(server_id="SOCK001", socket_ids=[socket_id])
    await bus.publish(Outgoing(subjects.socket_server("SOCK001"), encode(loss)))
    await second.expect("session_state", after=frame_count)  # it was announced again, after the server's own word
    record = await system.store.entries(keys.server_status("SOCK001"))
    assert (record["statusCode"], record["incarnation"]) == ("DRAINING", system.server("SOCK001").incarnation)


async def test_a_draining_server_refuses_clients_and_reports_its_progress(system: System, bus: Bus) -> None:
    early, silent = await system.raw("SOCK001"), await system.raw("SOCK001")  # half-way in: no hello yet
    first, second = await system.examinee("E001"), await system.examinee("E002")
    server_end = end_of(system, "SOCK001")
    first_answer = await drain(bus, "SOCK001", 3.0)
    assert (first_answer.details["clients"], first_answer.details["sentAway"]) == (2, 0)
    with pytest.raises(InvalidStatus) as refused:
        await RawClient.open(system.server("SOCK001").url)
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) > 0
    await early.say("hello", token=system.token("examinee", "E003"), clientId="b", connectionNo=1)
    assert await early.closed() == 4006
    assert [frame["type"] for frame in early.frames] == ["migrate"]
    await eventually(lambda: system.server_is("SOCK001", "DRAINING"), "DRAINING in Redis")

    async def forgotten() -> bool:
        return system.server("SOCK002")._endpoints.others == []

    await eventually(forgotten, "nobody is sent to a drained server")
    assert await first.closed() == 4006
    second_answer = await drain(bus, "SOCK001", 0.0)
    assert second_answer.text == "is being drained already: 1 of 2 clients are sent away"
    assert second.websocket.close_code is None
    assert [await second.closed(), await silent.closed()] == [4006, 4006]
    await asyncio.wait_for(server_end.wait(), 20)
    assert system.server("SOCK001").details()["drain"]["left"] == 0
    assert await system.progress("E003") == {}


async def test_the_last_server_is_not_drained_unless_forced(bus: Bus, settings: Settings) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        client = await system.examinee("E001")
        with pytest.raises(RequestRefused, match="no other server is READY"):
            await drain(bus, "SOCK001")
        assert system.server("SOCK001").details()["drain"] is None
        server_end = end_of(system, "SOCK001")
        await drain(bus, "SOCK001", force=True)
        assert (await client.expect("migrate"))["data"]["endpoints"] == []
        assert await client.closed() == 4006
        await asyncio.wait_for(server_end.wait(), 20)


async def test_a_drain_waits_until_another_server_is_ready(system: System, bus: Bus) -> None:
    """The only other server goes away in the middle: a client is better off on a server that is to be drained."""
    first, second = await system.examinee("E001"), await system.examinee("E002")
    await drain(bus, "SOCK001", 4.0)
    assert await first.closed() == 4006
    await system.stop("SOCK002")

    async def waits() -> bool:
        return bool(system.server("SOCK001").details()["drain"]["waiting"])

    await eventually(waits, "the drain waits")
    before = len(second.frames)
    await second.say("heartbeat")
    await second.expect("heartbeat", after=before)
    other = await system.start_server("SOCK003")
    assert (await second.expect("migrate"))["data"]["endpoints"] == [other.url]
    assert await second.closed() == 4006


async def test_clients_of_a_drained_server_are_spread_over_the_remaining_servers(system: System, bus: Bus) -> None:
    await system.start_server("SOCK003")

    async def known() -> bool:
        return len(system.server("SOCK001")._endpoints.others) == 2

    await eventually(known, "the new server is known")
    clients = [await system.examinee(f"E{number:03}") for number in range(4)]
    await drain(bus, "SOCK001")
    frames = [await client.expect("migrate") for client in clients]
    urls = [system.server("SOCK002").url, system.server("SOCK003").url]
    assert all(sorted(frame["data"]["endpoints"]) == sorted(urls) for frame in frames)
    firsts = [frame["data"]["endpoints"][0] for frame in frames]
    assert [firsts.count(url) for url in urls] == [2, 2]


async def test_a_client_migrates_to_a_server_that_it_did_not_know(system: System, bus: Bus) -> None:
    clients = [
        ExamineeClient(system.server("SOCK001").url, system.token("examinee", f"E{number:03}")) for number in range(4)
    ]
    for client in clients:
        assert (await client.connect()).endpoints == [
            system.server(server_id).url for server_id in ("SOCK001", "SOCK002")
        ]
    await system.start_server("SOCK003")

    async def known() -> bool:
        return len(system.server("SOCK001")._endpoints.others) == 2

    await eventually(known, "the new server is known")
    await drain(bus, "SOCK001")
    try:
        for client in clients:
            while not isinstance(await client.receive(), Welcome):
                pass
        arrived = [client.welcome.server_id for client in clients if client.welcome is not None]
        assert sorted(arrived) == ["SOCK002", "SOCK002", "SOCK003", "SOCK003"]
    finally:
        for client in clients:
            await client.close()


async def test_a_kicked_client_is_lost_and_may_come_back(system: System, bus: Bus) -> None:
    proctor = await system.proctor("SOCK002")
    client = await system.examinee("E001")
    socket_id = (await system.progress())["socketId"]
    address = subjects.socket_server("SOCK001")
    answer = await ask(bus, address, Kick(socket_id=socket_id))
    assert answer.details["examineeId"] == "E001"
    assert await client.closed() == 4007
    loss = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "KICKED"
    with pytest.raises(NotFound, match="SOCK001 holds no"):
        await ask(bus, address, Kick(socket_id=socket_id))
    await system.examinee("E001", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", recovered=True)

    kicked = (await proctor.expect("welcome"))["data"]["socketId"]
    await ask(bus, subjects.socket_server("SOCK002"), Kick(socket_id=kicked))
    assert await proctor.closed() == 4007


async def test_an_unknown_examinee_cannot_be_readmitted(system: System) -> None:
    proctor = await system.proctor()
    await system.examinee("E001")
    await proctor.say("readmit", examineeId="E999", requestId="r1")
    refused = await proctor.expect("error")
    assert (refused["data"]["code"], refused["data"]["field"]) == ("NOT_FOUND", "data.examineeId")
    await proctor.say("readmit", examineeId="E001", requestId="r2")
    await proctor.expect("accepted", requestId="r2")
    assert await system.progress("E999") == {}
