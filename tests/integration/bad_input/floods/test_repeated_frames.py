"""Frames that are repeated: what changes nothing is not stored, and nobody fills the log."""

from __future__ import annotations

import asyncio
import json
import time

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from protocol.records import keys
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.system import RawClient, System, eventually
from tests.support.metrics import sample


async def facts_about(bus: Bus, examinee_id: str, kind: str) -> int:
    """How many facts of a type the log holds about an examinee."""
    count = 0
    async for stored in read_stream(bus, "STATUS", subject="status.plan.P001.>"):
        parsed = json.loads(stored.payload)
        for fact in parsed if isinstance(parsed, list) else [parsed]:
            count += fact["type"] == kind and fact["data"]["examineeId"] == examinee_id
    return count


async def heartbeat(client: RawClient) -> None:
    """Wait until everything that was said before has been handled."""
    before = len(client.frames)
    await client.say("heartbeat")
    await client.expect("heartbeat", after=before)


async def test_confirmations_of_messages_that_were_never_sent_reach_no_log(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    flooding = await system.examinee("E001")
    for number in range(60):
        await flooding.say("notice_confirm", actionId=f"invented-{number}")

    async def answered() -> list[str]:
        errors = [frame["data"] for frame in flooding.frames if frame["type"] == "error"]
        return [error["code"] for error in errors] if len(errors) == 60 else []

    codes = await eventually(answered, "60 answers")
    assert set(codes) == {"NOT_FOUND", "TOO_MANY_REQUESTS"}
    errors = [frame["data"] for frame in flooding.frames if frame["type"] == "error"]
    assert all(error["field"] == "data.actionId" and error["requestType"] == "notice_confirm" for error in errors)
    assert await facts_about(bus, "E001", "notice_confirmed") == 0


async def test_repeated_confirmations_of_a_message_are_stored_once(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    examinee = await system.examinee("E001")
    for number in range(12):  # more than may be stored at once: these are paced, and none is refused
        await neighbours.proctor.say("notify", examineeId="E001", requestId=f"n-{number}", text="Please wait.")
        await examinee.expect("notice", actionId=f"n-{number}")
    for _ in range(3):
        for number in range(12):
            await examinee.say("notice_confirm", actionId=f"n-{number}")
    for number in range(12):
        await examinee.expect("accepted", requestId=f"n-{number}", seconds=60)
        await neighbours.proctor.expect("notice_confirmed", actionId=f"n-{number}", seconds=60)
    before = len(examinee.frames)
    await examinee.say("notice_confirm", actionId="n-3")
    await examinee.expect("accepted", after=before, requestId="n-3")
    # A page that does not know whether its confirmation arrived says it again, on another connection.
    returning = await system.examinee("E001", connection_no=2)
    await returning.say("notice_confirm", actionId="n-4")
    await returning.expect("accepted", requestId="n-4")
    assert await facts_about(bus, "E001", "notice_confirmed") == 12
    assert not [frame for frame in examinee.frames if frame["type"] == "error"]


async def test_a_confirmation_before_the_first_session_state_is_stored(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    examinee = await system.examinee("E001")
    await neighbours.proctor.say("notify", examineeId="E001", requestId="n-1", text="Please wait.")
    await examinee.expect("notice", actionId="n-1")
    session = next(
        examinee for examinee in system.server("SOCK001").sessions.examinees.values() if examinee.examinee_id == "E001"
    )
    session._confirmations._steps.clear()  # as if it had been shown on an earlier connection, and no state had come yet
    await examinee.say("notice_confirm", actionId="n-1")
    await examinee.expect("accepted", requestId="n-1")
    await neighbours.proctor.expect("notice_confirmed", actionId="n-1")


async def test_a_stage_that_is_entered_again_and_again_is_stored_once(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    examinee = await system.examinee("E001")
    for _ in range(50):
        await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status", status="WAITING")
    await heartbeat(examinee)  # all of them are answered
    before = len(examinee.frames)
    for _ in range(50):
        await examinee.say("mobile_sync_wait")
    await heartbeat(examinee)
    statuses = [frame["data"] for frame in examinee.frames[before:] if frame["type"] == "mobile_sync_status"]
    assert len(statuses) == 50
    assert {status["status"] for status in statuses} == {"WAITING"}
    reloaded = await system.examinee("E001", connection_no=2)
    await reloaded.say("mobile_sync_wait")
    assert (await reloaded.expect("mobile_sync_status"))["data"]["deadline"] == statuses[0]["deadline"]
    assert await facts_about(bus, "E001", "mobile_sync_wait") == 1


async def test_three_hundred_readmits_of_one_proctor_all_have_their_effect(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    proctor = await system.proctor(name="proctor-2")
    await system.examinee("E001")
    for number in range(300):
        await proctor.say("readmit", examineeId="E001", requestId=f"r-{number}")
    for number in range(300):
        await proctor.expect("accepted", requestId=f"r-{number}", seconds=120)
    before = len(proctor.frames)
    await proctor.say("readmit", examineeId="E001", requestId="r-7")
    await proctor.expect("accepted", after=before, requestId="r-7")
    assert await facts_about(bus, "E001", "readmit") == 300


async def test_a_loop_of_connections_is_throttled_and_its_last_loss_is_published(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    token = system.token("examinee", "E001")
    refused = sample("examwire_facts_held_total", kind="connection", outcome="refused")
    began = time.monotonic()

    async def connect(number: int) -> None:
        client = await system.raw()
        await client.say("hello", token=token, clientId="loop", connectionNo=number)
        await asyncio.sleep(0.05)
        client.abort()

    await asyncio.gather(*(connect(number) for number in range(1, 41)))
    assert sample("examwire_facts_held_total", kind="connection", outcome="refused") > refused
    # Whoever owns the token comes in after that.
    staying = None
    for number in range(100, 140):
        client = await system.raw()
        await client.say("hello", token=token, clientId="loop", connectionNo=number)
        try:
            await client.expect("session_state")
        except AssertionError:
            assert client.websocket.close_code == 4009
            await asyncio.sleep(1)  # the backoff that the code asks for, and less
        else:
            staying = client
            break
    assert staying is not None
    await system.status("E001", "CONNECTED")
    staying.abort()
    await system.status("E001", "DISCONNECTED")
    stored = await facts_about(bus, "E001", "connection_status")
    assert stored <= 2 * (10 + 1 + time.monotonic() - began)
    assert await system.store.entries(keys.server_sockets("SOCK001")) != {}  # the neighbour's
