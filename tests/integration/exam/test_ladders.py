"""Reconnect ladders by plan and by phase, through real engines; who is unstable, and who took over from where."""

from __future__ import annotations

import time
from typing import Any

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from protocol.broker import subjects
from protocol.broker.streams import ADVISORY, RECONNECT, ConsumerSpec
from protocol.close_codes import CloseCode
from protocol.messages.facts import Enrol
from protocol.messages.plan_facts import PlanClose, PlanPolicy, PlanSchedule
from protocol.times import format_time
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [0.3, 0.3]})


async def schedule(bus: Bus, plan_id: str, **fields: Any) -> None:
    fact = PlanSchedule(plan_id=plan_id, by="operator", timestamp=format_time(bus.clock.now()), **fields)
    await bus.publish_until_stored([Outgoing.of(subjects.status_plan(plan_id, subjects.OPERATOR), fact)])


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)


async def ladders_are_over(bus: Bus, examinees: int) -> None:
    """Wait until so many examinees were waited for, and nobody is any more."""

    async def over() -> bool:
        progress = await bus.consumer_progress(RECONNECT.name, "reconnect-watch")
        stored = await bus.stream_state(RECONNECT.name)
        assert progress is not None
        return stored.messages == examinees and progress.ack_floor == stored.last

    await eventually(over, f"the ladders of {examinees} examinees are over")


def attempts(proctor: RawClient, examinee_id: str = "E001") -> list[tuple[int, int]]:
    told = [frame["data"] for frame in proctor.about(examinee_id) if frame["type"] == "examinee_reconnecting"]
    return [(data["attempt"], data["maxAttempts"]) for data in told]


async def test_plans_with_different_ladders_count_at_the_same_time(bus: Bus, system: System) -> None:
    await schedule(bus, "P002", policy=PlanPolicy(max_attempts=4, backoff_seconds=(0.1,)))
    await schedule(bus, "P003", policy=PlanPolicy(max_attempts=1, backoff_seconds=(0.2,), shut_out=False))
    proctors = {plan: await system.proctor("SOCK002", plan_id=plan) for plan in ("P001", "P002", "P003")}
    for plan, proctor in proctors.items():
        if plan != "P001":
            await proctor.expect("plan_state", status="OPEN")
        examinee = await system.examinee("E001", plan_id=plan)
        examinee.abort()
    for plan, expected in (("P001", 2), ("P002", 4)):
        told = await proctors[plan].expect("examinee_reconnect_exhausted", examineeId="E001")
        assert told["data"]["maxAttempts"] == expected
        assert attempts(proctors[plan]) == [(number, expected) for number in range(1, expected + 1)]
        refused = await system.raw()
        await refused.say("hello", token=system.token("examinee", "E001", plan), clientId="b", connectionNo=2)
        assert await refused.closed() == CloseCode.RECONNECT_LIMIT_EXCEEDED
    await proctors["P003"].expect("examinee_reconnecting", examineeId="E001")
    await ladders_are_over(bus, 3)
    assert attempts(proctors["P003"]) == [(1, 1)]
    back = await system.examinee("E001", plan_id="P003", connection_no=2)
    assert (await back.expect("welcome"))["data"]["reconnect"]["shutOut"] is False
    assert (await back.expect("session_state"))["data"]["connection"]["status"] == "CONNECTED"


async def test_no_ladder_runs_before_the_start_or_after_the_end(bus: Bus, system: System) -> None:
    proctor = await system.proctor("SOCK002")
    await schedule(bus, "P001", starts_at=soon(3600), ends_at=soon(7200))
    await proctor.expect("plan_state", status="SCHEDULED")
    (await system.examinee("E001")).abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await ladders_are_over(bus, 1)
    await schedule(bus, "P001", starts_at=soon(-10))
    await proctor.expect("plan_state", status="OPEN")
    (await system.examinee("E002")).abort()
    await proctor.expect("examinee_reconnecting", examineeId="E002", attempt=1)
    close = PlanClose(plan_id="P001", by="operator", timestamp=format_time(bus.clock.now()))
    await bus.publish_until_stored([Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), close)])
    await proctor.expect("plan_state", status="CLOSED")
    await ladders_are_over(bus, 2)
    await system.status("E002", "DISCONNECTED")
    assert attempts(proctor) == []
    assert "examinee_reconnect_exhausted" not in [frame["type"] for frame in proctor.frames]


async def test_a_broker_of_an_earlier_release_gets_the_new_ladder(bus: Bus, settings: Settings) -> None:
    """Its consumer limited the deliveries and spaced them, and another one read what NATS said about the last."""
    await apply_topology(bus, settings)
    old = ConsumerSpec(
        RECONNECT.name,
        "reconnect-watch",
        (subjects.reconnect("*", "*"),),
        ack_wait=5.0,
        max_deliver=2,
        backoff=(5.0, 10.0),
        max_ack_pending=-1,
    )
    await bus.apply_consumer(old, anew=True)
    gone = f"{subjects.MAX_DELIVERIES}.RECONNECT.reconnect-watch"
    await bus.apply_consumer(ConsumerSpec(ADVISORY.name, "reconnect-exhausted", (gone,)))
    await apply_topology(bus, settings)
    config = await bus.consumer_config(RECONNECT.name, "reconnect-watch")
    assert config is not None
    assert (config["max_deliver"], config.get("backoff"), config["ack_wait"]) == (-1, None, 5.0)
    assert await bus.consumer_config(ADVISORY.name, "reconnect-exhausted") is None


async def test_an_examinee_who_is_away_too_often_is_unstable_until_they_stay(bus: Bus, system: System) -> None:
    proctor = await system.proctor("SOCK002")
    policy = PlanPolicy(unstable_share=0.01, unstable_window_seconds=60, max_attempts=9, backoff_seconds=(0.2,))
    await schedule(bus, "P001", policy=policy)
    await proctor.expect("plan_state", status="OPEN")
    examinee = await system.examinee("E001")
    examinee.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await proctor.expect("examinee_reconnecting", examineeId="E001", unstable=True)
    back = await system.examinee("E001", connection_no=2)
    state = (await back.expect("session_state"))["data"]
    connected = (await proctor.expect("examinee_connected", examineeId="E001", recovered=True))["data"]
    assert connected["unstable"]
    assert state["reconnect"]["unstable"]
    row = (await (await system.proctor("SOCK001", name="p2")).expect("plan_snapshot"))["data"]["examinees"][0]
    assert row["reconnect"]["unstable"]
    timer = await bus.last_message("STATUS", subjects.status_timer("P001", "E001", "*"))
    assert timer is not None
    # The minute until the schedule is not waited for.
    await bus.publish_until_stored([Outgoing(subjects.status_plan("P001", subjects.TIMER), timer.payload)])
    told = (await proctor.expect("examinee_unstable", examineeId="E001"))["data"]
    assert (told["unstable"], told["windowSeconds"], told["connection"]["status"]) == (False, 60, "CONNECTED")
    assert told["share"] <= 0.01


async def test_a_takeover_by_another_device_is_flagged_to_proctors(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    first = await system.examinee("E001", client_id="laptop")
    await system.examinee("E001", "SOCK002", client_id="phone")
    assert await first.closed() == CloseCode.REPLACED
    told = (await proctor.expect("examinee_connected", examineeId="E001", flags=["device"]))["data"]
    assert told["replaced"]["differs"] == ["device"]
    row = (await (await system.proctor("SOCK001", name="p2")).expect("plan_snapshot"))["data"]["examinees"][0]
    assert row["connection"]["flags"] == ["device"]


async def test_the_deadline_of_the_picture_is_that_of_the_plan(bus: Bus, system: System) -> None:
    await schedule(bus, "P001", policy=PlanPolicy(mobile_sync_seconds=3000))
    proctor = await system.proctor()
    await proctor.expect("plan_state", status="OPEN")
    examinee = await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    stage = (await examinee.expect("mobile_sync_status", status="WAITING"))["data"]
    assert stage["deadline"] > soon(2900)


async def test_a_proctor_has_a_name_for_people_and_an_examinee_sees_their_own(bus: Bus, system: System) -> None:
    enrolled = Enrol(plan_id="P001", examinee_id="E001", name="김하늘", timestamp=format_time(bus.clock.now()))
    await bus.publish_until_stored([Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), enrolled)])
    proctor = await system.raw("SOCK002")
    token = issue_token(system.settings, "proctor", "P001", "park", name="박감독")
    await proctor.hello(token, "park")
    examinee = await system.examinee("E001")
    assert (await examinee.expect("session_state"))["data"]["name"] == "김하늘"
    await proctor.say("notify", examineeId="E001", requestId="n1", text="Please look up.")
    for client in (examinee, proctor):
        notice = (await client.expect("notice", actionId="n1"))["data"]
        assert (notice["by"], notice["byName"]) == ("park", "박감독")
    await proctor.say("finish", examineeId="E001", requestId="f1")
    told = (await proctor.expect("examinee_finished", examineeId="E001"))["data"]
    assert (told["by"], told["byName"]) == ("park", "박감독")
    row = (await (await system.proctor("SOCK001", name="p2")).expect("plan_snapshot"))["data"]["examinees"][0]
    assert row["connection"]["finishedByName"] == "박감독"
