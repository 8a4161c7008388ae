"""A proctor looks at the picture: accepted, or another one is asked for, with a challenge in it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.web_server.server import WebServer
from protocol.broker import subjects
from protocol.messages.frames import Role
from protocol.messages.plan_facts import PlanPolicy, PlanSchedule
from protocol.records import keys
from protocol.times import format_time, parse_time
from tests.integration.support.clients.phones import picture
from tests.integration.support.system import System, eventually

STAGE = "/v1/plans/P001/examinees/E001"


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        await system.start("web-server", lambda bus: WebServer(settings, bus, system.store))
        yield system
        assert system.failures == []


async def request(system: System, method: str, path: str, role: Role, content: bytes = b"") -> httpx.Response:
    web = system.actors["web-server"]
    assert isinstance(web, WebServer)
    subject = "proctor-1" if role == "proctor" else "E001"
    headers = {"Authorization": f"Bearer {system.token(role, subject)}"}
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(method, f"{web.url}{path}", content=content, headers=headers)


async def send(system: System, content: bytes) -> httpx.Response:
    return await request(system, "PUT", f"{STAGE}/mobile-sync?deviceId=M001", "mobile", content)


async def test_a_rejected_picture_is_asked_for_again_and_every_side_knows_why(system: System, bus: Bus) -> None:
    policy = PlanPolicy(picture_challenge=True, mobile_sync_seconds=300)
    fact = PlanSchedule(plan_id="P001", by="operator", timestamp=format_time(time.time()), policy=policy)
    await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), fact))
    proctor, other = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001")
    await examinee.expect("plan_state")
    await proctor.expect("plan_state", policy={"mobileSyncSeconds": 300, "pictureChallenge": True})

    await examinee.say("mobile_sync_wait")
    waiting = (await examinee.expect("mobile_sync_status", status="WAITING"))["data"]
    assert parse_time(waiting["deadline"]) - parse_time(waiting["timestamp"]) == pytest.approx(300)
    first_challenge = waiting["challenge"]
    assert len(first_challenge) == 6
    first, second = picture(), picture()
    assert (await send(system, first)).status_code == 201
    capture_id = hashlib.sha256(first).hexdigest()
    (capture,) = (await proctor.expect("mobile_sync_completed"))["data"]["captures"]
    assert (capture["captureId"], capture["when"], capture["challenge"]) == (capture_id, "in", first_challenge)

    await examinee.say("capture_review", examineeId="E001", captureId=capture_id, verdict="accepted", requestId="x")
    await examinee.expect("error", code="NOT_ALLOWED", requestType="capture_review")
    unknown = {"examineeId": "E001", "captureId": "0" * 64, "verdict": "rejected", "requestId": "r0"}
    await proctor.say("capture_review", **unknown)
    await proctor.expect("error", code="NOT_FOUND", field="data.captureId", requestId="r0")

    verdict = {"examineeId": "E001", "captureId": capture_id, "verdict": "rejected", "reason": "BLURRED"}
    for _ in range(2):
        await proctor.say("capture_review", **verdict, requestId="r1")
    await proctor.expect("accepted", requestId="r1")
    review = {"captureId": capture_id, "verdict": "rejected", "reason": "BLURRED", "by": "proctor-1"}
    for client in (proctor, other, examinee):
        again = (await client.expect("mobile_sync_status", status="WAITING", review=review))["data"]
        assert again["challenge"] != first_challenge
    assert (await request(system, "GET", f"{STAGE}/mobile-stage", "mobile")).json()["review"] == {
        "captureId": capture_id,
        "verdict": "rejected",
        "reason": "BLURRED",
    }
    refused = await send(system, first)
    assert (refused.status_code, refused.json()["code"]) == (409, "REJECTED")
    assert (await send(system, second)).status_code == 201
    second_id = hashlib.sha256(second).hexdigest()

    async def told() -> bool:
        return second_id in str(proctor.about("E001"))

    await eventually(told, "the proctor knows the second picture")
    await proctor.say("capture_review", examineeId="E001", captureId=second_id, verdict="accepted", requestId="r2")
    accepted = (await other.expect("mobile_sync_completed", actionId="r2"))["data"]
    assert accepted["review"] == {"captureId": second_id, "verdict": "accepted", "by": "proctor-1"}
    assert [capture.get("verdict") for capture in accepted["captures"]] == ["rejected", "accepted"]

    for content in (first, second):
        path = f"/v1/plans/P001/captures/E001/{hashlib.sha256(content).hexdigest()}.jpg"
        assert (await request(system, "GET", path, "proctor")).content == content
    record = await system.store.entries(keys.mobile_sync("P001", "E001"))
    assert (record["status"], record["captureId"]) == ("COMPLETED", hashlib.sha256(second).hexdigest())
    late = await system.proctor("SOCK002", name="proctor-3")
    (row,) = (await late.expect("plan_snapshot"))["data"]["examinees"]
    assert row["mobileSync"]["captures"] == accepted["captures"]
    assert row["mobileSync"]["review"] == accepted["review"]


async def test_a_code_belongs_to_the_device_that_redeems_it_and_ends_with_the_picture(system: System) -> None:
    examinee = await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status", status="WAITING")
    code = (await request(system, "POST", f"{STAGE}/phone-code", "examinee")).json()["code"]

    async def redeem(device_id: str) -> tuple[int, str | None]:
        answer = await request(
            system, "POST", f"/v1/phone-codes/{code}{device_id and f'?deviceId={device_id}'}", "mobile"
        )
        return answer.status_code, answer.json().get("code")

    assert await redeem("not/an/id") == (400, "INVALID_FIELD")
    assert await redeem("M001") == (200, None)
    assert await redeem("M002") == (409, "OTHER_DEVICE")
    assert await redeem("") == (409, "OTHER_DEVICE")
    assert await redeem("M001") == (200, None), "its own device: it was opened in the browser once more"
    assert (await send(system, picture())).status_code == 201

    async def used_up() -> bool:
        return await redeem("M001") == (410, "USED_UP")

    await eventually(used_up, "the code is void, because the picture is there")
