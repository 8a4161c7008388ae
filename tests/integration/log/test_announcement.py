"""Sessions announced anew, after what was recorded about them is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.announcement import announce_sessions
from protocol.records import keys
from protocol.records.writes import Guard
from tests.integration.support.system import System


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    """A whole system on an empty broker and an empty Redis."""
    async with System(settings) as system:
        yield system
        assert system.failures == []


async def test_sessions_announced_anew_make_records_and_screens_right(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    forgotten, kept = await system.examinee("E001"), await system.examinee("E002", "SOCK002")
    record = await system.progress("E001")
    await system.store.delete_unchanged([Guard(keys.progress("P001", "E001"), "rev", record["rev"])])
    # The end of this socket was lost with the log: nobody else knows that it is closed.
    ghost = await system.examinee("E003")
    ghost_socket = (await system.progress("E003"))["socketId"]
    session = system.server("SOCK001").sessions.examinees[ghost_socket]
    session.over = True
    await ghost.close()
    begin = len(proctor.frames)

    assert await announce_sessions(system._buses["state-manager"], "STATE_REPAIRED") == ["SOCK001", "SOCK002"]

    await proctor.expect("examinee_connected", after=begin, examineeId="E001", socketId=record["socketId"])
    loss = await proctor.expect("examinee_disconnected", after=begin, examineeId="E003", socketId=ghost_socket)
    assert loss["data"]["reason"] == "SOCKET_CLOSED"
    await system.status("E001", "CONNECTED")
    await kept.expect("session_state", after=2)
    assert [forgotten.websocket.close_code, kept.websocket.close_code] == [None, None]
    assert [frame["type"] for frame in proctor.frames[begin:] if frame["data"].get("examineeId") == "E002"] == []
