"""What proctors decide, through real sockets: each action durable, with one effect, seen by everybody, and undone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from actors.client.client import GaveUp
from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog, facts_of
from protocol.broker import subjects
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import ExamineeFact, MobileSyncTimeout, Notice, NoticeConfirmed, Remove
from protocol.messages.frames import Accepted, Welcome
from protocol.messages.session_messages import SessionState
from protocol.records import keys
from protocol.records.placement import VersionedMessage
from protocol.times import format_time, parse_time
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(
        settings,
        {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 5.0], "mobile_sync.timeout_seconds": 2.5},
    )


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        await agrees_with_the_log(system)
        assert system.failures == []


async def agrees_with_the_log(system: System) -> None:
    report = await Audit(StatusLog(system._buses["state-manager"]), system.store).run()
    assert (report.differences, report.whole) == ([], True)


async def log_of(system: System, kind: type[Message]) -> list[ExamineeFact]:
    """The facts of a type in STATUS."""
    status = StatusLog(system._buses["state-manager"])
    extent = await status.extent()
    facts = [
        item.message
        async for stored in status.read(1, extent.last)
        for item in facts_of(stored)
        if isinstance(item, VersionedMessage)
    ]
    return [fact for fact in facts if isinstance(fact, kind) and isinstance(fact, ExamineeFact)]


async def refused(client: RawClient, token: str) -> int | None:
    """The close code of somebody who says hello."""
    await client.say("hello", token=token, clientId="browser-again", connectionNo=9)
    return await client.closed()


# -- messages ---------------------------------------------------------------------------------------------


async def test_a_message_reaches_the_examinee_and_every_proctor_sees_it_confirmed(system: System) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001", "SOCK002")
    await first_proctor.expect("examinee_connected", examineeId="E001")
    await first_proctor.say("notify", examineeId="E001", requestId="n-1", text="시험 화면을 확인하십시오.")
    accepted = await first_proctor.expect("accepted", requestId="n-1")
    assert accepted["data"]["requestType"] == "notify"
    notice = (await examinee.expect("notice", actionId="n-1"))["data"]
    assert (notice["text"], notice["by"]) == ("시험 화면을 확인하십시오.", "proctor-1")
    for proctor in (first_proctor, second_proctor):
        data = (await proctor.expect("notice", actionId="n-1"))["data"]
        assert (data["by"], data["unconfirmed"], data["sent"]) == ("proctor-1", ["n-1"], 1)
    await examinee.say("notice_confirm", actionId="n-1")
    await examinee.expect("accepted", requestType="notice_confirm", requestId="n-1")
    for proctor in (first_proctor, second_proctor):
        data = (await proctor.expect("notice_confirmed", actionId="n-1"))["data"]
        assert (data["by"], data.get("unconfirmed")) == ("proctor-1", [])
    late = await system.proctor("SOCK001", name="proctor-3")
    (row,) = (await late.expect("plan_snapshot"))["data"]["examinees"]
    assert row["notices"]["unconfirmed"] == []
    assert row["notices"]["sent"] == 1


async def test_unconfirmed_messages_are_shown_again_after_a_reconnect(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    await proctor.say("notify", examineeId="E001", requestId="n-1", text="one")
    await examinee.expect("notice", actionId="n-1")
    examinee.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await proctor.say("notify", examineeId="E001", requestId="n-2", text="two, while away")
    await proctor.expect("notice", actionId="n-2")
    returning = await system.examinee("E001", "SOCK002", connection_no=2)
    state = (await returning.expect("session_state"))["data"]
    assert [(notice["actionId"], notice["text"], notice["by"]) for notice in state["notices"]] == [
        ("n-1", "one", "proctor-1"),
        ("n-2", "two, while away", "proctor-1"),
    ]
    await returning.say("notice_confirm", actionId="n-1")
    await proctor.expect("notice_confirmed", actionId="n-1", unconfirmed=["n-2"])
    third_client = await system.examinee("E001", connection_no=3)
    assert [notice["actionId"] for notice in (await third_client.expect("session_state"))["data"]["notices"]] == ["n-2"]


async def test_notices_are_restored_after_redis_was_emptied(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    for number in (1, 2):
        await proctor.say("notify", examineeId="E001", requestId=f"n-{number}", text=f"message {number}")
        await examinee.expect("notice", actionId=f"n-{number}")
    await examinee.say("notice_confirm", actionId="n-1")
    await proctor.expect("notice_confirmed", actionId="n-1")
    key = keys.notices("P001", "E001")
    before = await system.store.entries(key)
    async with Redis.from_url(system.settings.redis_url) as redis:
        await redis.flushall()
    await eventually(system.store.mark.is_whole, "Redis is whole")
    after = await system.store.entries(key)
    assert {name: after[name] for name in ("notices", "unconfirmed", "sent")} == {
        name: before[name] for name in ("notices", "unconfirmed", "sent")
    }


# -- removal ----------------------------------------------------------------------------------------------


async def test_a_removed_examinee_is_closed_and_refused_until_readmitted(system: System) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001", "SOCK002")
    await first_proctor.expect("examinee_connected", examineeId="E001")
    await first_proctor.say("remove", examineeId="E001", requestId="r-1", reason="talking")
    await first_proctor.expect("accepted", requestType="remove", requestId="r-1")
    assert await examinee.closed() == 4508
    for proctor in (first_proctor, second_proctor):
        data = (await proctor.expect("examinee_removed", examineeId="E001"))["data"]
        assert (data["by"], data["actionId"], data["reason"]) == ("proctor-1", "r-1", "talking")
    token = system.token("examinee", "E001")
    for server_id in ("SOCK001", "SOCK002"):
        assert await refused(await system.raw(server_id), token) == 4508
    record = await system.progress("E001")
    assert (record["connStatusCode"], record["reason"], record["removed"]) == ("DISCONNECTED", "REMOVED", "1")
    assert [frame["type"] for frame in first_proctor.about("E001")] == ["examinee_connected", "examinee_removed"]
    await second_proctor.say("readmit", examineeId="E001", requestId="r-2")
    data = (await first_proctor.expect("examinee_readmitted", examineeId="E001"))["data"]
    assert (data["by"], data["actionId"]) == ("proctor-2", "r-2")
    await system.examinee("E001", connection_no=10)
    await first_proctor.expect("examinee_connected", examineeId="E001", recovered=True)


async def test_attempts_stop_when_an_absent_examinee_is_removed(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    examinee.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await proctor.say("remove", examineeId="E001", requestId="r-1")
    await proctor.expect("examinee_removed", examineeId="E001")
    watch = system._buses["state-manager"]

    async def waited_for() -> bool:
        states = await watch.consumer_states("RECONNECT")
        return not any(state.unacknowledged or state.pending for state in states)

    await eventually(waited_for, "nobody waits for the examinee")
    removed = next(n for n, frame in enumerate(proctor.about("E001")) if frame["type"] == "examinee_removed")
    assert proctor.about("E001")[removed + 1 :] == []
    assert (await system.progress("E001"))["exhausted"] == "0"


# -- more time --------------------------------------------------------------------------------------------


async def test_more_time_before_the_deadline_outlasts_the_old_timer(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    waiting = (await examinee.expect("mobile_sync_status", status="WAITING"))["data"]
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x-1", seconds=30)
    await proctor.expect("accepted", requestType="extend_mobile_sync", requestId="x-1")
    status = (await proctor.expect("mobile_sync_status", actionId="x-1"))["data"]
    longer = parse_time(waiting["deadline"]) + 30
    assert (status["status"], status["by"], parse_time(status["deadline"])) == ("WAITING", "proctor-1", longer)
    await examinee.expect("mobile_sync_status", deadline=status["deadline"])

    async def old_timer() -> Any:
        return await log_of(system, MobileSyncTimeout)

    await eventually(old_timer, "the old timer has fired")
    await proctor.say("notify", examineeId="E001", requestId="n-1", text="after it in the log")
    await proctor.expect("notice", actionId="n-1")
    record = await system.store.entries(keys.mobile_sync("P001", "E001"))
    assert (record["status"], parse_time(record["deadline"])) == ("WAITING", longer)


async def test_more_time_after_the_deadline_opens_the_stage_again(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status", status="TIMED_OUT")
    began = time.time()
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x-1", seconds=10)
    status = (await examinee.expect("mobile_sync_status", after=len(examinee.frames), status="WAITING"))["data"]
    assert began + 10 <= parse_time(status["deadline"]) + 0.001 <= time.time() + 10.001


# -- once -------------------------------------------------------------------------------------------------


async def test_an_action_repeated_through_another_server_has_one_effect(system: System) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002")
    examinee = await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await first_proctor.expect("mobile_sync_status", status="WAITING")
    for proctor in (first_proctor, second_proctor, first_proctor):
        await proctor.say("notify", examineeId="E001", requestId="n-1", text="once")
        await proctor.expect("accepted", requestId="n-1")
        await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x-1", seconds=60)
        await proctor.expect("accepted", requestId="x-1")
    await first_proctor.say("notify", examineeId="E001", requestId="n-2", text="the end")
    for client in (first_proctor, second_proctor, examinee):
        await client.expect("notice", actionId="n-2")
        assert [frame["data"]["actionId"] for frame in client.frames if frame["type"] == "notice"] == ["n-1", "n-2"]
    assert len(await log_of(system, Notice)) == 2, "the broker has recognised the retries"
    assert len([frame for frame in second_proctor.frames if frame["data"].get("actionId") == "x-1"]) == 1


async def test_an_action_repeated_after_the_deduplication_window_has_one_effect(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    bus = system._buses["state-manager"]
    action = Notice(
        plan_id="P001", examinee_id="E001", action_id="n-1", text="once", by="p", timestamp=format_time(time.time())
    )
    removed = Remove(plan_id="P001", examinee_id="E001", action_id="r-1", by="p", timestamp=format_time(time.time()))
    for fact in (action, action, removed):
        await bus.publish(Outgoing(subjects.status_plan("P001"), encode(fact)))
    assert await examinee.closed() == 4508
    await proctor.say("readmit", examineeId="E001", requestId="r-2")
    await proctor.expect("examinee_readmitted", examineeId="E001")
    await bus.publish(Outgoing(subjects.status_plan("P001"), encode(removed)))
    await system.examinee("E001", connection_no=5)
    await proctor.expect("examinee_connected", recovered=True)
    kinds = [frame["type"] for frame in proctor.about("E001")]
    assert kinds == [
        "examinee_connected", "notice", "examinee_removed", "examinee_readmitted", "examinee_connected",
    ]  # fmt: skip


async def test_actions_of_different_kinds_with_one_request_id_each_have_their_effect(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await proctor.expect("mobile_sync_status", status="WAITING")
    kinds: dict[str, dict[str, Any]] = {
        "notify": {"text": "x"},
        "extend_mobile_sync": {"seconds": 60},
        "remove": {},
        "readmit": {},
    }
    for kind, data in kinds.items():
        await proctor.say(kind, examineeId="E001", requestId="one", **data)
        await proctor.expect("accepted", requestType=kind, requestId="one")
    for event in ("notice", "mobile_sync_status", "examinee_removed", "examinee_readmitted"):
        await proctor.expect(event, examineeId="E001", actionId="one")
    # And the other way round, for somebody else; said again, nothing happens.
    await system.examinee("E002")
    for kind in ("remove", "readmit", "remove", "readmit", "remove"):
        await proctor.say(kind, examineeId="E002", requestId="one")
    await proctor.expect("examinee_readmitted", examineeId="E002")
    await proctor.say("notify", examineeId="E002", requestId="two", text="the end")
    await proctor.expect("notice", examineeId="E002")
    assert [frame["type"] for frame in proctor.about("E002")] == [
        "examinee_connected", "examinee_removed", "examinee_readmitted", "notice",
    ]  # fmt: skip


# -- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "code", "field"),
    [
        ("notify", {"examineeId": "E404", "text": "who?"}, "NOT_FOUND", "data.examineeId"),
        ("remove", {"examineeId": "E404"}, "NOT_FOUND", "data.examineeId"),
        ("extend_mobile_sync", {"examineeId": "E404", "seconds": 60}, "NOT_FOUND", "data.examineeId"),
        ("readmit", {"examineeId": "E404"}, "NOT_FOUND", "data.examineeId"),
        ("notify", {"examineeId": "E001", "text": ""}, "INVALID_FIELD", "data.text"),
        ("notify", {"examineeId": "E001", "text": "x" * 1001}, "INVALID_FIELD", "data.text"),
        ("notify", {"examineeId": "E 1", "text": "x"}, "INVALID_FIELD", "data.examineeId"),
        ("extend_mobile_sync", {"examineeId": "E001", "seconds": 9}, "INVALID_FIELD", "data.seconds"),
        ("extend_mobile_sync", {"examineeId": "E001", "seconds": 3601}, "INVALID_FIELD", "data.seconds"),
        ("extend_mobile_sync", {"examineeId": "E001", "seconds": "60"}, "INVALID_FIELD", "data.seconds"),
        ("remove", {"examineeId": "E001", "reason": "x" * 257}, "INVALID_FIELD", "data.reason"),
        ("notice_confirm", {"actionId": "n-1"}, "NOT_ALLOWED", None),
    ],
)
async def test_an_invalid_action_is_refused_naming_the_request_and_the_field(
    system: System, kind: str, data: dict[str, Any], code: str, field: str | None
) -> None:
    proctor = await system.proctor()
    await system.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    await proctor.say(kind, requestId="q-1", **data)
    error = (await proctor.expect("error"))["data"]
    assert (error["code"], error.get("field"), error["requestType"]) == (code, field, kind)
    assert error.get("requestId") == (None if kind == "notice_confirm" else "q-1")
    await proctor.say("heartbeat")
    await proctor.expect("heartbeat")
    assert [frame["type"] for frame in proctor.frames if frame["type"] == "accepted"] == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [("remove", {}), ("notify", {"text": "x"}), ("extend_mobile_sync", {"seconds": 60}), ("readmit", {})],
)
async def test_an_examinee_cannot_send_proctor_actions(system: System, kind: str, data: dict[str, Any]) -> None:
    examinee = await system.examinee("E001")
    await examinee.say(kind, examineeId="E002", requestId="q-1", **data)
    error = (await examinee.expect("error"))["data"]
    assert (error["code"], error["requestType"], error["requestId"]) == ("NOT_ALLOWED", kind, "q-1")


# -- the typed client -------------------------------------------------------------------------------------


async def test_the_typed_clients_send_and_receive_every_action(system: System) -> None:
    proctor = ProctorClient(system.server("SOCK001").url, system.token("proctor", "T001"))
    examinee = ExamineeClient(system.server("SOCK002").url, system.token("examinee", "E001"))
    try:
        await proctor.connect()
        await examinee.connect()

        async def next_of(client: ProctorClient | ExamineeClient, kind: type[Message]) -> Message:
            while not isinstance(message := await client.receive(), kind):
                pass
            return message

        await next_of(examinee, SessionState)
        while "E001" not in proctor.view.connected():
            await proctor.receive()
        action = await proctor.notify("E001", "Please look up.")
        accepted = await next_of(proctor, Accepted)
        assert isinstance(accepted, Accepted)
        assert accepted.request_id == action
        await next_of(examinee, Notice)
        (shown_notice,) = examinee.notices.values()
        assert (shown_notice.action_id, shown_notice.text, shown_notice.by) == (action, "Please look up.", "T001")
        await examinee.confirm_notice(action)
        assert examinee.notices == {}
        await next_of(proctor, NoticeConfirmed)
        row = proctor.view.examinees["E001"]
        assert (row.notices, row.unconfirmed) == (1, [])
        await proctor.remove("E001", reason="talking")
        with pytest.raises(GaveUp) as gave_up:
            await next_of(examinee, Welcome)  # it comes back no more
        assert gave_up.value.step.code == 4508
        while not proctor.view.examinees["E001"].removed:
            await proctor.receive()
        await proctor.readmit("E001")
        while proctor.view.examinees["E001"].removed:
            await proctor.receive()
        await examinee.connect()
        await next_of(examinee, SessionState)
        await examinee.enter_mobile_sync()
        while proctor.view.examinees["E001"].mobile_sync == "NONE":
            await proctor.receive()
        await proctor.extend_mobile_sync("E001", 600)
        while (examinee.mobile_sync.deadline or "") < format_time(time.time() + 300):
            await examinee.receive()
    finally:
        await proctor.close()
        await examinee.close()
