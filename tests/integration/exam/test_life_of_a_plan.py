"""The beginning and the end of an exam, through real sockets: what everybody is told, and what Redis holds."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.store.state_store import StateStore
from actors.state_manager.decisions import Decision
from actors.state_manager.plan_effects import PlanEffects
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.close_codes import CloseCode
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.plan_facts import PlanClose, PlanFact, PlanOpen, PlanPolicy, PlanSchedule
from protocol.records import keys
from protocol.rules.effects import SchedulePlan
from protocol.times import format_time, parse_time
from tests.integration.support.system import System, eventually


async def decide(bus: Bus, fact: type[PlanFact], **fields: Any) -> None:
    """Put a fact about P001 into the log, as an operator does."""
    message = fact(plan_id="P001", by="operator", timestamp=format_time(bus.clock.now()), **fields)
    address = subjects.status_plan("P001", subjects.OPERATOR)
    await bus.publish_until_stored([Outgoing.of(address, message)])


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)


async def test_everybody_is_told_of_the_plan_at_connecting_and_at_each_change(bus: Bus, system: System) -> None:
    proctor, examinee = await system.proctor("SOCK001"), await system.examinee("E001", "SOCK002")
    for client in (proctor, examinee):
        told = (await client.expect("plan_state", status="OPEN", version=0))["data"]
        assert "serverTime" in told
    starts_at, ends_at = soon(3600), soon(7200)
    await decide(bus, PlanSchedule, name="Mathematics", starts_at=starts_at, ends_at=ends_at)
    late = await system.examinee("E002", "SOCK001")
    for client in (proctor, examinee, late):
        told = (await client.expect("plan_state", status="SCHEDULED"))["data"]
        assert (told["name"], told["startsAt"], told["endsAt"]) == ("Mathematics", starts_at, ends_at)
        assert "serverTime" in told
    assert (await proctor.expect("plan_state", status="SCHEDULED"))["data"]["policy"] == {}
    assert "policy" not in (await examinee.expect("plan_state", status="SCHEDULED"))["data"]
    await decide(bus, PlanOpen)
    for client in (proctor, examinee, late):
        await client.expect("plan_state", status="OPEN", name="Mathematics")


async def test_whoever_hands_in_and_leaves_is_finished_and_not_lost(bus: Bus, system: System) -> None:
    proctor, examinee = await system.proctor("SOCK002"), await system.examinee("E001", "SOCK001")
    await proctor.expect("examinee_connected", examineeId="E001")
    await examinee.say("finish", requestId="f1")
    await examinee.expect("accepted", requestType="finish", requestId="f1")
    state = (await examinee.expect("session_state", after=3))["data"]["connection"]
    assert (state["status"], state["reason"]) == ("FINISHED", "HANDED_IN")
    told = (await proctor.expect("examinee_finished", examineeId="E001"))["data"]
    assert (told["by"], told["reason"]) == ("E001", "HANDED_IN")
    await examinee.close()
    again = await system.examinee("E001", "SOCK002")  # let in, and still finished
    assert (await again.expect("session_state"))["data"]["connection"]["status"] == "FINISHED"
    await proctor.say("resume", examineeId="E001", requestId="r1")
    resumed = (await proctor.expect("examinee_resumed", examineeId="E001"))["data"]
    assert resumed["connection"]["status"] == "CONNECTED"
    await system.status("E001", "CONNECTED")
    assert not [frame for frame in proctor.frames if frame["type"] == "examinee_disconnected"]
    again.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")


async def test_the_end_comes_by_the_broker_and_finishes_those_who_are_there(bus: Bus, system: System) -> None:
    proctor = await system.proctor("SOCK001")
    clients = [await system.examinee(f"E00{number}", f"SOCK00{1 + number % 2}") for number in range(3)]
    handed_in = await system.examinee("E008", "SOCK002")
    await handed_in.say("finish")
    await proctor.expect("examinee_finished", examineeId="E008")
    gone = await system.examinee("E009", "SOCK001")
    gone.abort()
    await proctor.expect("examinee_disconnected", examineeId="E009")
    await decide(bus, PlanSchedule, ends_at=soon(1))
    for client in (*clients, handed_in):
        await client.expect("plan_state", status="CLOSED")
        assert await client.closed() == CloseCode.EXAM_OVER
    for number in range(3):
        told = (await proctor.expect("examinee_finished", examineeId=f"E00{number}"))["data"]
        assert (told["by"], told["reason"]) == ("plan", "PLAN_ENDED")
        await system.status(f"E00{number}", "FINISHED")
    await system.status("E009", "DISCONNECTED")
    lost = [frame["data"]["examineeId"] for frame in proctor.frames if frame["type"] == "examinee_disconnected"]
    assert lost == ["E009"]
    late = await system.raw("SOCK002")
    await late.say("hello", token=system.token("examinee", "E000"), clientId="browser-1", connectionNo=2)
    assert await late.closed() == CloseCode.EXAM_OVER
    await proctor.say("resume", examineeId="E000", requestId="r1")
    refused = (await proctor.expect("error", requestId="r1"))["data"]
    assert (refused["code"], refused["message"]) == ("CONFLICT", "plan P001 is closed; open it again first")
    await decide(bus, PlanOpen)
    for number in range(3):
        await proctor.expect("examinee_resumed", examineeId=f"E00{number}")
    back = await system.examinee("E000", "SOCK001", connection_no=3)
    assert (await back.expect("session_state"))["data"]["connection"]["status"] == "CONNECTED"


async def test_an_end_that_is_further_away_than_the_log_keeps_facts_still_comes(bus: Bus, store: StateStore) -> None:
    await bus.apply_stream(replace(STATUS, max_age=1.0))
    decision = Decision(effects=[SchedulePlan("P001", soon(3), opens=False, version=7)])
    await bus.publish_until_stored(await PlanEffects(store).messages(decision))

    async def fired() -> StoredMessage | None:
        return await bus.last_message(STATUS.name, subjects.status_plan("P001", subjects.TIMER))

    stored = await eventually(fired, "plan_close by the schedule")
    closed = STATUS_CODEC.decode_one(stored.payload)
    assert isinstance(closed, PlanClose)
    assert (closed.by, closed.schedule_version) == ("schedule", 7)


async def test_one_examinee_gets_more_time_than_the_others(bus: Bus, system: System) -> None:
    proctor = await system.proctor("SOCK001")
    slow, quick = await system.examinee("E001", "SOCK002"), await system.examinee("E002", "SOCK001")
    await decide(bus, PlanSchedule, ends_at=soon(2))
    ends_at = (await proctor.expect("plan_state", after=3))["data"]["endsAt"]
    await proctor.say("extend_exam", examineeId="E001", seconds=3600, requestId="x1")
    await proctor.expect("accepted", requestId="x1")
    assert await quick.closed() == CloseCode.EXAM_OVER
    own_end = format_time(parse_time(ends_at) + 3600)
    await slow.expect("plan_state", status="OPEN", endsAt=own_end)
    await proctor.expect("plan_state", status="OPEN", endsAt=ends_at, ownTimes={"E001": {"endsAt": own_end}})
    assert slow.websocket.close_code is None
    await decide(bus, PlanClose, reason="handed in on paper")
    assert await slow.closed() == CloseCode.EXAM_OVER


async def test_the_policy_of_a_plan_travels_in_the_welcome(bus: Bus, system: System) -> None:
    policy = PlanPolicy(max_attempts=2, backoff_seconds=(1.0, 2.0), jitter=0.1)
    await decide(bus, PlanSchedule, policy=policy)
    await eventually(lambda: _known(system), "the plan in Redis")
    examinee = await system.examinee("E001", "SOCK001")
    welcome = (await examinee.expect("welcome"))["data"]
    assert welcome["reconnect"] == {"maxAttempts": 2, "backoffSeconds": [1.0, 2.0], "jitter": 0.1}
    assert "serverTime" in welcome


async def _known(system: System) -> bool:
    ((policy,),) = await system.store.fields([keys.plan("P001")], ("policy",))
    return policy is not None
