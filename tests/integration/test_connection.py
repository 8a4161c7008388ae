"""Connection loss and recovery (document 10) through real sockets and real engines."""

from __future__ import annotations

import json

import pytest

from actors.runtime.bus import Bus
from actors.runtime.settings import Settings
from protocol import keys
from tests.integration.system import System, eventually


@pytest.fixture
async def system(bus: Bus, settings: Settings):  # type: ignore[no-untyped-def]
    async with System(settings) as system:
        yield system
        assert system.failures == []


async def test_a_loss_and_a_recovery_reach_redis_and_the_proctors_on_both_servers(system: System) -> None:
    here, there = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001")
    for proctor in (here, there):
        await proctor.expect("examinee_connected", examineeId="E001", recovered=False)
    examinee.abort()
    for proctor in (here, there):
        lost = await proctor.expect("examinee_disconnected", examineeId="E001")
        assert lost["data"]["reason"] == "SOCKET_CLOSED"
    record = await system.progress("E001")
    assert record["connStatusCode"] == "DISCONNECTED"
    socket = await system.store.entries(keys.socket("P001", record["socketId"]))
    assert (socket["examineeId"], socket["status"]) == ("E001", "DISCONNECTED")

    back = await system.examinee("E001", "SOCK002", connection_no=2)
    for proctor in (here, there):
        found = await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert found["data"]["serverId"] == "SOCK002"
        events = [event["type"] for event in proctor.about("E001") if "reconnecting" not in event["type"]]
        assert events == ["examinee_connected", "examinee_disconnected", "examinee_connected"]
    await system.status("E001", "CONNECTED")
    assert (await back.expect("session_state"))["data"]["reconnect"]["count"] == 1
