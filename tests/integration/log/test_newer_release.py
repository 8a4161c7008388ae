"""What only a newer release understands, on real engines: it waits in the log, and everything else goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.state_manager import partitions, recovery
from actors.state_manager.manager import StateManager
from actors.state_manager.recovery.audit import Audit, Difference
from actors.state_manager.recovery.repair import StateRepair
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.broker.streams import DEADLETTER, STATUS
from protocol.log.partitions import part_of
from protocol.messages.base import FORMAT
from protocol.messages.codec import encode
from protocol.records import keys
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample
from tests.unit.support.facts import enrol

CONSUMER = f"state-manager-{part_of('P001')}"
PLAN = subjects.status_plan("P001", subjects.OPERATOR)


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


def element(examinee_id: str, **fields: object) -> bytes:
    fact = json.loads(encode(enrol("Kim").model_copy(update={"examinee_id": examinee_id})))
    return json.dumps({**fact, **fields}).encode()


async def test_newer_facts_and_records_wait_for_a_newer_release_and_nothing_else_does(
    system: System, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LEFT_SECONDS", 0.3)
    monkeypatch.setattr(partitions, "LEFT_MOST_SECONDS", 0.3)
    monkeypatch.setattr(recovery.audit, "PAUSE_SECONDS", 0.1)
    bus = system._buses["state-manager"]

    # A record that a newer release has written, and a message of which one element is newer.
    lost = await system.examinee("E001")
    key = keys.progress("P001", "E001")
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        history = json.dumps({**json.loads(str(await redis.hget(key, "history"))), "format": FORMAT + 1})
        await redis.hset(key, "history", history)

        lost.abort()
        batch = b"[%s,%s]" % (element("E003", format=FORMAT + 1), element("E004"))
        await bus.publish(Outgoing(PLAN, batch))
        redelivered = sample("examwire_redeliveries_total", consumer=CONSUMER)

        async def both_wait() -> bool:
            return bool(system.actors["state-manager"].details()["newer"] == 2)

        await eventually(both_wait, "both messages wait")
        assert sample("examwire_newer_messages_waiting") == 2
        assert (await system.progress("E004"))["enrolled"] == "1"
        await system.examinee("E002")
        await system.status("E002", "CONNECTED")
        await eventually(lambda: _more(redelivered + 4), "they come again")

        # Also after a restart of the state manager, whose successor gets everything after the oldest of them again.
        await system.stop("state-manager")
        manager = await system.start("state-manager", lambda bus: StateManager(settings, bus, system.store, "sm2"))
        bus = system._buses["state-manager"]
        await system.examinee("E005")
        await eventually(both_wait, "both messages wait")

        async def reported() -> bool:
            progress = manager._progress.report().partitions[part_of("P001")]
            late = (progress.still_seconds or 0.0, progress.oldest_seconds or 0.0)
            assert max(late) < 2.0, "no view is called outdated because of them"
            return (progress.newer, progress.pending) == (2, 0)

        await eventually(reported, "they are reported as such")
        audit = Audit(StatusLog(bus), system.store, "P001")
        report = await audit.run()
        assert (report.differences, report.newer) == ([], 1)
        everything = [Difference(key, "", "by a newer release", None)]
        await StateRepair(bus, system.store).correct(audit.projection, everything)
        assert await redis.hget(key, "history") == history
        assert not await redis.exists(keys.progress("P001", "E003"))
        assert (await bus.stream_state(DEADLETTER.name)).messages == 0

    # A release that understands both.
    monkeypatch.setattr("protocol.messages.codec.FORMAT", FORMAT + 1)
    await system.status("E001", "DISCONNECTED")

    async def nothing_waits() -> bool:
        (state,) = [state for state in await bus.consumer_states(STATUS.name) if state.name == CONSUMER]
        return not state.unacknowledged and not state.pending

    await eventually(nothing_waits, "nothing waits any more")
    assert (await system.progress("E003"))["enrolled"] == "1"
    report = await Audit(StatusLog(bus), system.store, "P001").run()
    assert (report.differences, report.newer, manager.details()["newer"]) == ([], 0, 0)


async def _more(count: float) -> bool:
    return sample("examwire_redeliveries_total", consumer=CONSUMER) >= count
