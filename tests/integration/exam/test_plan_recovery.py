"""The life of an exam survives: Redis emptied, records damaged, every process of ours down when the end comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.messages.plan_facts import (
    ExamExtend,
    ExamWindow,
    PlanClose,
    PlanNotice,
    PlanOpen,
    PlanPolicy,
    PlanSchedule,
)
from protocol.records import keys
from tests.integration.exam.test_life_of_a_plan import decide, soon
from tests.integration.support.command_line import Invoke
from tests.integration.support.server_process import ServerProcess, join
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

EVERYBODY = ("E001", "E002", "E003")


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A connection of the test's own, to look and to do damage."""
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        yield redis


async def agrees(bus: Bus, system: System) -> None:
    """Assert that Redis and the log agree in every field."""
    report = await Audit(StatusLog(bus), system.store).run()
    assert (report.differences, report.whole) == ([], True)


async def out(invoke: Invoke, *arguments: str) -> Any:
    """Return the JSON that a command prints."""
    result = await invoke(*arguments, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


async def test_a_plan_is_rebuilt_from_the_log_and_its_scheduled_end_still_comes(
    bus: Bus, settings: Settings, redis: Redis, invoke: Invoke
) -> None:
    async with System(settings) as system:
        proctor = await system.proctor("SOCK001")
        clients = {name: await system.examinee(name, "SOCK002") for name in EVERYBODY}
        policy = PlanPolicy(compensate_client_closed=True)
        await decide(bus, PlanSchedule, name="Mathematics", ends_at=soon(2), policy=policy)
        await decide(bus, ExamWindow, examinee_id="E002", extra_seconds=600)
        await decide(bus, ExamExtend, examinee_id="E003", seconds=3600)
        await decide(bus, PlanNotice, action_id="n1", text="Ten minutes are left.")
        await proctor.expect("plan_notice", actionId="n1")
        (before,) = await out(invoke, "plans", "ls")
        assert (before["plan"]["name"], before["plan"]["ownTimes"].keys()) == ("Mathematics", {"E002", "E003"})
        await redis.flushall()
        await eventually(system.store.mark.is_whole, "Redis is whole")
        assert await out(invoke, "plans", "ls") == [before]
        assert json.loads(await redis.hget(keys.plan_notices("P001"), "notices") or "")[0]["actionId"] == "n1"

        assert await clients["E001"].closed() == CloseCode.EXAM_OVER
        await system.status("E001", "FINISHED")
        await system.status("E003", "CONNECTED")
        await clients["E002"].close()
        await proctor.expect("examinee_disconnected", examineeId="E002", reason="CLIENT_CLOSED")
        await decide(bus, PlanClose, reason="everybody is done")
        assert await clients["E003"].closed() == CloseCode.EXAM_OVER
        await system.status("E003", "FINISHED")
        await agrees(bus, system)
        report = await out(invoke, "plans", "report", "P001")
        ends = {row["examineeId"]: row["endStatus"] for row in report["examinees"]}
        assert ends == {"E001": "PLAN_ENDED", "E002": "LOST", "E003": "PLAN_ENDED"}
        assert report["plan"]["closedReason"] == "everybody is done"
        assert {row["examineeId"]: row["clientClosedOutages"] for row in report["examinees"]}["E002"] == 1
        assert not any(row["stillDisconnected"] for row in report["examinees"])
        own = [entry["what"] for entry in await out(invoke, "plans", "timeline", "P001", "E003")]
        decided = ["PLAN_SCHEDULED", "EXTENDED", "PLAN_NOTICE", "TIME_UP", "PLAN_CLOSED"]
        assert own[:7] == ["JOINED", *decided, "FINISHED"]
        explained = await out(invoke, "examinees", "show", "P001", "E002")
        assert "The exam is over for them: closed by operator" in explained["headline"]
        assert system.failures == []


async def test_a_damaged_plan_is_repaired_and_what_was_decided_meanwhile_is_told(
    bus: Bus, settings: Settings, redis: Redis, invoke: Invoke
) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        proctor, client = await system.proctor(), await system.examinee("E001")
        await decide(bus, PlanSchedule, name="Mathematics", ends_at=soon(3600))
        await proctor.expect("plan_state", name="Mathematics")
        # With another revision: otherwise the state manager decides from its copy and writes the record anew.
        await redis.hset(keys.plan("P001"), mapping={"history": "no history", "rev": "1"})
        await redis.hset(keys.plan_notices("GHOST"), mapping={"version": "7", "history": '{"base": {}, "floor": 7}'})
        await decide(bus, PlanClose)

        async def filed() -> list[dict[str, Any]]:
            return list(await out(invoke, "dead-letters", "ls"))

        (letter,) = await eventually(filed, "nobody can process the close")
        verified = await invoke("state", "verify", "-o", "json")
        differing = {difference["key"] for difference in json.loads(verified.stdout)["differences"]}
        assert differing == {keys.plan("P001"), keys.plan_notices("GHOST")}
        assert (await invoke("state", "rebuild", "--yes")).exit_code == 0
        await proctor.expect("plan_state", status="CLOSED", restated=True)
        assert await client.closed() == CloseCode.EXAM_OVER
        await system.status("E001", "FINISHED")
        (replayed,) = await out(invoke, "dead-letters", "replay", str(letter["number"]))
        assert replayed["outcome"] == "handled", replayed  # it is in the record: no effect
        await decide(bus, PlanOpen)
        await proctor.expect("examinee_resumed", examineeId="E001")
        await agrees(bus, system)
        assert system.failures == []


async def test_the_end_comes_when_every_process_of_ours_is_down_at_that_moment(
    bus: Bus, settings: Settings, invoke: Invoke
) -> None:
    settings = changed(settings, {"server.lease_seconds": 1})
    async with System(settings, servers=()) as system:
        server = await ServerProcess.start(settings)
        for name in EVERYBODY:
            await join(system, server.url, name)
        await decide(bus, PlanSchedule, name="Mathematics", ends_at=soon(2))
        await eventually(lambda: bus.last_message("STATUS", "status.timer.P001.>"), "the end is scheduled")
        await server.kill()
        for name in ("state-manager", "lease-watch", "reconnect-watch", "advisory-watch", "queue-server"):
            await system.stop(name)
    ended = subjects.status_of_plan("P001")
    await eventually(lambda: _by_the_schedule(bus, ended), "the broker has said that the exam is over")
    async with System(settings, servers=("SOCK002",)) as system:
        for name in EVERYBODY:
            await system.status(name, "FINISHED")
        late = await system.raw("SOCK002")
        await late.say("hello", token=system.token("examinee", "E001"), clientId="browser-1", connectionNo=2)
        assert await late.closed() == CloseCode.EXAM_OVER
        await eventually(lambda: system.server_is("SOCK001", "LOST"), "the killed server is lost")
        await agrees(bus, system)
        report = await out(invoke, "plans", "report", "P001")
        assert report["totals"]["outages"] == 0, "the server died before the end, and was missed after it"
        assert {row["endStatus"] for row in report["examinees"]} == {"PLAN_ENDED"}
        assert report["plan"]["closedBy"] == "schedule"
        assert system.failures == []


async def _by_the_schedule(bus: Bus, of_the_plan: tuple[str, ...]) -> bool:
    messages = [await bus.last_message("STATUS", subject) for subject in of_the_plan]
    return any(message is not None and b'"plan_close"' in message.payload for message in messages)
