"""Uploads of phones through real HTTP: what is taken, what counts once, what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import struct
import time
import zlib
from collections.abc import AsyncIterator
from unittest.mock import ANY

import pytest
from PIL import Image

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.broker import subjects
from protocol.messages.frames import Role
from protocol.times import format_time
from tests.integration.support.clients.phones import (
    Site,
    open_site,
    picture,
    problem,
    record,
    seconds_from_now,
    upload_path,
)
from tests.integration.support.system import eventually


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site
    assert site.server.failed == 0


# -- taken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["mobile", "examinee"])
async def test_a_jpeg_is_stored_byte_for_byte_and_announced(site: Site, role: Role) -> None:
    content = picture()
    response = await site.put(content, headers=site.bearer(role))
    assert response.status_code == 201
    record = response.json()
    digest = hashlib.sha256(content).hexdigest()
    assert record == {
        "status": "COMPLETED",
        "deviceId": "M001",
        "timestamp": record["timestamp"],
        "imageUrl": "/captures/E001/sync_cap.jpg",
        "deviceInfo": {"model": "iPhone 12", "osVersion": "iOS 15.0"},
        "captureId": digest,
    }
    assert response.headers["location"] == "/v1/plans/P001/captures/E001/sync_cap.jpg"
    assert (site.stored(), site.leftovers()) == (content, [])
    assert await site.published() == [
        {
            "type": "mobile_sync_status",
            "subject": subjects.status_plan("P001", subjects.WEB),
            "planId": "P001",
            "examineeId": "E001",
            "deviceId": "M001",
            "status": "COMPLETED",
            "timestamp": record["timestamp"],
            "captureInfo": {
                "imageUrl": record["imageUrl"],
                "deviceInfo": record["deviceInfo"],
                "receivedAt": ANY,
            },
            "captureId": digest,
        }
    ]
    picture_response = await site.http.get(response.headers["location"], headers=site.bearer("proctor", "proctor-1"))
    assert picture_response.content == content


async def test_a_png_is_kept_as_the_jpeg_that_its_name_says(site: Site) -> None:
    content = picture("PNG")
    response = await site.put(content)
    assert response.json()["captureId"] == hashlib.sha256(content).hexdigest()
    picture_response = await site.get()
    image = Image.open(io.BytesIO(picture_response.content))
    assert (image.format, image.size, picture_response.headers["content-type"]) == ("JPEG", (320, 240), "image/jpeg")


async def test_model_and_version_may_be_left_out(site: Site) -> None:
    response = await site.http.put(
        upload_path().partition("?")[0] + "?deviceId=M001", content=picture(), headers=site.bearer()
    )
    assert (response.status_code, response.json()["deviceInfo"]) == (201, {})


async def test_plans_and_examinees_never_share_a_file(site: Site) -> None:
    contents = {(plan, examinee): picture() for plan in ("P001", "P002") for examinee in ("E001", "E002")}
    for (plan, examinee), content in contents.items():
        assert (await site.put(content, plan_id=plan, examinee_id=examinee)).status_code == 201
    for (plan, examinee), content in contents.items():
        assert (await site.get(plan, examinee)).content == content


async def test_a_body_without_a_content_length_is_taken(site: Site) -> None:
    content = picture()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    assert (await site.put(pieces())).status_code == 201
    assert site.stored() == content


# -- once ------------------------------------------------------------------------------------------------


async def test_a_retry_has_one_effect_and_the_answer_of_the_first_try(site: Site) -> None:
    content = picture()
    first, second = await site.put(content), await site.put(content, osVersion="iOS 15.0.1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert len(await site.published()) == 1
    assert site.stored() == content


async def test_another_device_or_picture_is_another_upload(site: Site) -> None:
    content = picture()
    await site.put(content)
    await site.put(content, deviceId="M002")
    await site.put(picture())
    assert len(await site.published()) == 3


async def test_the_same_picture_counts_again_when_the_stage_was_entered_again(site: Site) -> None:
    content = picture()
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60), version="1")
    await site.put(content)
    await record(site.settings, status="FAILED", version="2")  # the same stage: its deadline stays
    await site.put(content)
    assert len(await site.published()) == 1
    await record(site.settings, status="WAITING", deadline=seconds_from_now(90), version="3")
    await site.put(content)
    assert len(await site.published()) == 2


async def test_a_failure_is_published_once_for_each_stage(site: Site) -> None:
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60))
    await site.put(b"not a picture")
    await site.put(b"not a picture")
    assert len(await site.published()) == 1
    await record(site.settings, status="WAITING", deadline=seconds_from_now(90))
    await site.put(b"not a picture")
    assert len(await site.published()) == 2


async def test_beside_a_picture_that_is_there_only_the_same_one_is_taken_again(site: Site) -> None:
    content = picture()
    response = await site.put(content)
    # What the state manager does with it:
    await record(site.settings, status="COMPLETED", captureId=response.json()["captureId"])
    unasked = await site.put(picture())
    assert (unasked.status_code, problem(unasked)["code"]) == (409, "ALREADY_STORED")
    again = await site.put(content)
    assert (again.status_code, again.json()["captureId"]) == (201, response.json()["captureId"])
    assert (site.stored(), site.leftovers()) == (content, [])


async def test_a_rejected_picture_is_not_taken_again_and_another_one_is(site: Site) -> None:
    content = picture()
    capture_id = hashlib.sha256(content).hexdigest()
    rejected = {"captureId": capture_id, "time": "2026-11-22T09:00:00.000Z", "when": "in", "verdict": "rejected"}
    captures = json.dumps([{**rejected, "reason": "BLURRED"}])
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60), captures=captures)
    refused = await site.put(content)
    assert (refused.status_code, problem(refused)["code"]) == (409, "REJECTED")
    assert "BLURRED" in problem(refused)["detail"]
    assert (await site.put(picture())).status_code == 201


async def test_of_uploads_at_the_same_time_the_stored_one_is_the_one_announced_last(site: Site) -> None:
    contents = [picture() for _ in range(6)]
    responses = await asyncio.gather(*(site.put(content) for content in contents))
    assert {response.status_code for response in responses} == {201}
    stored_picture = site.stored()
    assert stored_picture is not None
    messages = await site.published()
    assert len(messages) == 6
    assert messages[-1]["captureId"] == hashlib.sha256(stored_picture).hexdigest()


# -- refused: who, for whom, when ------------------------------------------------------------------------


async def test_without_a_valid_token_nothing_is_read(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    expired = site.bearer(seconds=-11)
    valid = site.bearer()["Authorization"]
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": valid + "x"}, expired):
        response = await site.put(picture(), headers=headers)
        assert (response.status_code, problem(response)["code"]) == (401, "UNAUTHORIZED")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert "expired" in response.json()["detail"]
    assert (await site.published(), site.stored()) == ([], None)
    assert (await site.put(picture(), headers={"Authorization": valid})).status_code == 201
    for secret in (valid, expired["Authorization"]):
        assert secret.removeprefix("Bearer ") not in caplog.text


@pytest.mark.parametrize(
    ("role", "subject", "plan_id"),
    [
        ("mobile", "E002", "P001"),
        ("examinee", "E002", "P001"),
        ("mobile", "E001", "P002"),
        ("proctor", "E001", "P001"),
        ("operator", "E001", "P001"),
    ],
)
async def test_a_token_for_somebody_or_something_else_is_refused(
    site: Site, role: Role, subject: str, plan_id: str
) -> None:
    response = await site.put(picture(), headers=site.bearer(role, subject, plan_id))
    assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
    assert (await site.published(), site.stored()) == ([], None)


BAD_IDS = ["E.1", "E*", ">", "E:1", "E/1", "../E001", "E 1", "E" * 65, "수험자", "E\n1", "E%00"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_a_bad_id_gets_an_error_that_names_the_field(site: Site, bad: str) -> None:
    content, headers = picture(), site.bearer()
    paths = {
        "planId": upload_path(plan_id=bad),
        "examineeId": upload_path(examinee_id=bad),
        "deviceId": upload_path(deviceId=bad),
    }
    for field, path in paths.items():
        if "\n" in bad and field != "deviceId":
            continue  # no route takes a path with a line break: 404
        response = await site.http.put(path, content=content, headers=headers)
        document = problem(response)
        assert (response.status_code, document["code"], document["field"]) == (400, "INVALID_FIELD", field), path
    assert (await site.published(), list((site.settings.data_dir / "captures").rglob("*"))) == ([], [])


async def test_a_missing_device_and_texts_that_are_too_long_are_named(site: Site) -> None:
    path = upload_path().partition("?")[0]
    cases = {"": "deviceId", "?deviceId=": "deviceId", f"?deviceId=M001&model={'x' * 257}": "model"}
    cases[f"?deviceId=M001&osVersion={'x' * 257}"] = "osVersion"
    for query, field in cases.items():
        response = await site.http.put(path + query, content=picture(), headers=site.bearer())
        assert (response.status_code, problem(response)["field"]) == (400, field)
    assert await site.published() == []


@pytest.mark.parametrize(
    ("status", "seconds", "answer"),
    [
        ("TIMED_OUT", -5, 409),
        ("TIMED_OUT", 5, 409),  # the broker's clock decided, ours is late
        ("WAITING", -5, 409),
        ("FAILED", -5, 409),
        ("WAITING", 60, 201),
        ("FAILED", 60, 201),
        ("COMPLETED", -5, 201),  # a retry of what was in time
    ],
)
async def test_the_deadline_of_the_stage_decides(site: Site, status: str, seconds: float, answer: int) -> None:
    content = picture()
    there = {"captureId": hashlib.sha256(content).hexdigest()} if status == "COMPLETED" else {}
    await record(site.settings, status=status, deadline=seconds_from_now(seconds), **there)
    response = await site.put(content)
    assert response.status_code == answer
    if answer == 409:
        assert problem(response)["code"] == "DEADLINE_PASSED"
        assert (await site.published(), site.stored()) == ([], None)


async def test_a_picture_that_arrives_after_the_deadline_is_refused_though_it_began_before(site: Site) -> None:
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60))
    content = picture()
    upload = await site.raw(len(content), content[:1000])
    await site.on_its_way()
    await record(site.settings, status="TIMED_OUT", deadline=seconds_from_now(-1))
    await upload.send(content[1000:])
    status, document = await upload.response()
    assert (status, document["code"]) == (409, "DEADLINE_PASSED")
    assert (site.stored(), site.leftovers(), await site.published()) == (None, [], [])
    await upload.close()


async def test_a_picture_that_arrived_in_time_counts_after_a_slow_decode(site: Site) -> None:
    await site.put(picture(), examinee_id="E002")
    (decoder,) = site.server.uploads.decoders.pids
    os.kill(decoder, signal.SIGSTOP)
    deadline = time.time() + 0.5
    await record(site.settings, status="WAITING", deadline=format_time(deadline))
    putting = asyncio.create_task(site.put(picture()))
    await site.on_its_way()

    async def passed() -> bool:
        return time.time() > deadline + 0.01

    await eventually(passed, "the deadline")
    await record(site.settings, status="TIMED_OUT")
    os.kill(decoder, signal.SIGCONT)
    assert (await putting).status_code == 201


# -- refused: what ---------------------------------------------------------------------------------------


def announcing(width: int, height: int) -> bytes:
    """A PNG whose few bytes announce so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


REFUSED = {
    "text": (b"not a picture", 415, "NOT_AN_IMAGE"),
    "empty": (b"", 415, "NOT_AN_IMAGE"),
    "gif": (picture("GIF"), 415, "IMAGE_NOT_SUPPORTED"),
    "truncated jpeg": (picture()[:-2], 415, "IMAGE_DAMAGED"),
    "truncated png": (picture("PNG")[:-1], 415, "IMAGE_DAMAGED"),
    "bomb": (announcing(60_000, 60_000), 413, "IMAGE_TOO_LARGE"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_invalid_picture_is_refused_and_published_as_failed(site: Site, name: str) -> None:
    content, status, code = REFUSED[name]
    earlier = picture()
    await site.put(earlier)
    response = await site.put(content)
    assert (response.status_code, problem(response)["code"]) == (status, code)
    fact = (await site.published())[-1]
    assert (fact["status"], fact["reason"], fact["deviceId"]) == ("FAILED", code, "M001")
    assert "captureInfo" not in fact
    assert (site.stored(), site.leftovers()) == (earlier, [])
    assert (await site.put(picture())).status_code == 201


@pytest.fixture
def settings_with_a_small_limit(settings: Settings) -> Settings:
    limit = settings.mobile_sync.model_copy(update={"max_bytes": 100_000})
    return settings.model_copy(update={"mobile_sync": limit})


async def test_a_picture_that_is_too_large_is_refused_by_its_length_or_by_its_bytes(
    settings_with_a_small_limit: Settings, bus: Bus, store: StateStore
) -> None:
    async with open_site(settings_with_a_small_limit, bus, store) as site:
        upload = await site.raw(100_001)  # refused before a byte of it was sent
        status, document = await upload.response()
        assert (status, document["code"]) == (413, "IMAGE_TOO_LARGE")
        assert "100000" in document["detail"]
        await upload.close()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(10_000)

        response = await site.put(endless())
        assert (response.status_code, problem(response)["code"]) == (413, "IMAGE_TOO_LARGE")
        assert [message["reason"] for message in await site.published()] == ["IMAGE_TOO_LARGE"] * 2
        assert (site.leftovers(), site.stored()) == ([], None)
        just = picture()
        just += bytes(100_000 - len(just))  # as large as is allowed
        assert (await site.put(just)).status_code == 201
