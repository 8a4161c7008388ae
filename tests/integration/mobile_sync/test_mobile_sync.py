"""Mobile sync end to end: the examinee waits, the phone uploads, everybody is told."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.state_manager.manager import StateManager
from actors.web_server.server import WebServer
from protocol.records import keys
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

HURRIED = "SOCK002"
"""Who enters the stage at this server has 1.2 s for it; at SOCK001 there is time enough for every test."""


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    hurried = changed(settings, {"mobile_sync.timeout_seconds": 1.2})
    async with System(settings, settings_of=lambda name: hurried if name == HURRIED else settings) as system:
        await system.start("web-server", lambda bus: WebServer(settings, bus, system.store))
        yield system
        assert system.failures == []


def jpeg(colour: str = "navy") -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), colour).save(picture, "JPEG")
    return picture.getvalue()


def web(system: System) -> WebServer:
    actor = system.actors["web-server"]
    assert isinstance(actor, WebServer)
    return actor


def upload_url(system: System, examinee_id: str = "E001") -> str:
    query = "deviceId=M001&model=iPhone%2012&osVersion=iOS%2015.0"
    return f"{web(system).url}/v1/plans/P001/examinees/{examinee_id}/mobile-sync?{query}"


async def upload(system: System, body: bytes, examinee_id: str = "E001") -> httpx.Response:
    headers = {"Authorization": f"Bearer {system.token('mobile', examinee_id)}"}
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.put(upload_url(system, examinee_id), content=body, headers=headers)


async def record(system: System, examinee_id: str = "E001") -> dict[str, str]:
    return await system.store.entries(keys.mobile_sync("P001", examinee_id))


async def status_is(system: System, expected: str, seconds: float = 10.0) -> None:
    async def says() -> bool:
        return (await record(system)).get("status") == expected

    await eventually(says, f"mobile sync {expected} in Redis", seconds)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_mobile_sync_goes_from_waiting_to_a_picture_for_the_proctor(system: System, tmp_path: Path) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    for client in (examinee, first_proctor, second_proctor):
        waiting = await client.expect("mobile_sync_status", status="WAITING")
        assert waiting["data"]["deadline"] > waiting["data"]["timestamp"]
    await status_is(system, "WAITING")

    picture = tmp_path / "camera.jpg"
    picture.write_bytes(jpeg())
    token = system.token("mobile", "E001")
    command = ["curl", "-sS", "--noproxy", "*", "-T", str(picture), "-H", f"Authorization: Bearer {token}"]
    result = await asyncio.to_thread(subprocess.run, [*command, upload_url(system)], capture_output=True, check=True)
    stored = json.loads(result.stdout)
    assert stored["imageUrl"] == "/captures/E001/sync_cap.jpg"
    for client in (examinee, first_proctor, second_proctor):
        completed = await client.expect("mobile_sync_completed", examineeId="E001")
        assert (completed["data"]["status"], completed["data"]["deviceId"]) == ("COMPLETED", "M001")
    stored_record = await record(system)
    assert (stored_record["status"], stored_record["deviceId"], stored_record["imageUrl"]) == (
        "COMPLETED",
        "M001",
        "/captures/E001/sync_cap.jpg",
    )
    assert stored_record["timestamp"] == stored["timestamp"]
    assert json.loads(stored_record["deviceInfo"]) == {"model": "iPhone 12", "osVersion": "iOS 15.0"}
    assert (system.settings.data_dir / "captures/P001/E001/sync_cap.jpg").read_bytes() == picture.read_bytes()

    async with httpx.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {system.token('proctor', 'proctor-1')}"}
        response = await http.get(f"{web(system).url}/v1/plans/P001/captures/E001/sync_cap.jpg", headers=headers)
    assert response.content == picture.read_bytes()


async def test_the_same_upload_again_has_one_effect(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await status_is(system, "WAITING")
    body = jpeg()
    assert [(await upload(system, body)).status_code for _ in range(3)] == [201, 201, 201]
    await proctor.expect("mobile_sync_completed", examineeId="E001")
    await system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")
    assert [f["type"] for f in proctor.about("E001")].count("mobile_sync_completed") == 1


async def test_a_reload_keeps_the_deadline_and_the_picture(system: System) -> None:
    examinee = await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    first = await examinee.expect("mobile_sync_status", status="WAITING")
    returning = await system.examinee("E001", connection_no=2)
    state = await returning.expect("session_state")
    assert state["data"]["mobileSync"]["status"] == "WAITING"
    await returning.say("mobile_sync_wait")
    repeated = await returning.expect("mobile_sync_status", status="WAITING")
    assert repeated["data"]["deadline"] == first["data"]["deadline"]
    assert (await upload(system, jpeg())).status_code == 201
    await returning.expect("mobile_sync_completed")
    reloaded = await system.examinee("E001", connection_no=3)
    await reloaded.say("mobile_sync_wait")
    await reloaded.expect("mobile_sync_completed")
    assert (await record(system))["status"] == "COMPLETED"


async def test_after_the_deadline_uploads_are_refused_until_the_stage_is_entered_again(
    system: System,
) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001", HURRIED)
    await examinee.say("mobile_sync_wait")
    for client in (proctor, examinee):
        timed_out = await client.expect("mobile_sync_status", status="TIMED_OUT", examineeId="E001")
        assert timed_out["data"]["reason"] == "SYNC_TIMEOUT"
    await status_is(system, "TIMED_OUT")
    late = await upload(system, jpeg())
    assert (late.status_code, late.json()["code"]) == (409, "DEADLINE_PASSED")
    returning = await system.examinee("E001", connection_no=2)
    before = len(returning.frames)  # its queue may have brought what the last server was told
    await returning.say("mobile_sync_wait")
    await returning.expect("mobile_sync_status", status="WAITING", after=before)
    assert (await upload(system, jpeg())).status_code == 201
    await returning.expect("mobile_sync_completed")


async def test_the_deadline_counts_even_when_the_state_manager_was_down_at_that_moment(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001", HURRIED)
    await examinee.say("mobile_sync_wait")
    await status_is(system, "WAITING")
    await system.stop("state-manager")

    async def fired() -> bool:
        newest = await system._buses["queue-server"].last_message("STATUS", "status.plan.P001.timer.*")
        return newest is not None and b"mobile_sync_timeout" in newest.payload

    await eventually(fired, "the broker's schedule has fired without anybody of ours")
    assert (await record(system))["status"] == "WAITING"
    assert (await upload(system, jpeg())).status_code == 409
    await system.start("sm2", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
    await proctor.expect("mobile_sync_status", status="TIMED_OUT", examineeId="E001")
    await status_is(system, "TIMED_OUT")


async def test_an_invalid_picture_fails_the_stage_and_a_valid_one_completes_it(system: System) -> None:
    proctor, examinee = await system.proctor(), await system.examinee("E001")
    await examinee.say("mobile_sync_wait")
    await status_is(system, "WAITING")
    assert (await upload(system, jpeg()[:200])).status_code == 415
    for client in (proctor, examinee):
        failed = await client.expect("mobile_sync_status", status="FAILED", examineeId="E001")
        assert failed["data"]["reason"] == "IMAGE_DAMAGED"
    assert (await upload(system, jpeg("green"))).status_code == 201
    await proctor.expect("mobile_sync_completed", examineeId="E001")
    await status_is(system, "COMPLETED")
    assert (await upload(system, b"GIF89a not one of ours")).status_code == 409
    await system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")
    assert (await record(system))["status"] == "COMPLETED", "a second upload does not undo the picture"
