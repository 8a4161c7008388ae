"""Pictures that would cost minutes or gigabytes, and what becomes of everybody else's."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.web_server.pictures import decoders
from tests.integration.support.clients.phones import Site, open_site, picture, problem
from tests.integration.support.settings import changed
from tests.integration.support.system import eventually
from tests.support.metrics import sample


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site
    assert site.server.failed == 0


def flat(kind: str, size: tuple[int, int], *, progressive: bool = False) -> bytes:
    """Few bytes, many pixels."""
    target = io.BytesIO()
    Image.new("RGB", size, "navy").save(target, kind, progressive=progressive)
    return target.getvalue()


def with_scans(scans: int, size: tuple[int, int]) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    jpeg = flat("JPEG", size, progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * (scans - jpeg.count(b"\xff\xda") + 1) + b"\xff\xd9"


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("examwire_web_decoders_ended_total", {"reason": reason}) or 0.0


async def process_of(site: Site) -> int:
    """The process that has decoded somebody's picture, and waits for the next one."""
    assert (await site.put(picture(), examinee_id="E999")).status_code == 201
    (pid,) = site.server.uploads.decoders.pids
    return pid


# -- what is refused, and what is welcome ----------------------------------------------------------------


@pytest.mark.parametrize(("size", "progressive"), [((8160, 6144), False), ((8192, 6144), True)])
async def test_a_picture_of_50_megapixels_is_accepted(site: Site, size: tuple[int, int], progressive: bool) -> None:
    content = flat("JPEG", size, progressive=progressive)
    assert (await site.put(content)).status_code == 201
    assert site.stored() == content


async def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(site: Site) -> None:
    response = await site.put(with_scans(3000, (1280, 1024)))
    assert (response.status_code, problem(response)["code"]) == (413, "IMAGE_TOO_LARGE")
    assert "100 scans" in response.json()["detail"]


async def test_a_decoder_over_its_processor_time_is_killed_and_replaced(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "WALL_FACTOR", 60)
    limits = {"mobile_sync.max_scans": 1_000_000, "mobile_sync.decode_seconds": 1, "mobile_sync.decoders": 1}
    bomb = with_scans(5000, (2048, 2048))
    before = ended("too_costly")
    async with open_site(changed(settings, limits), bus, store) as site:
        first = await process_of(site)
        response = await site.put(bomb)
        assert (response.status_code, problem(response)["code"]) == (413, "IMAGE_TOO_LARGE")
        assert "1 s" in response.json()["detail"]
        assert ended("too_costly") == before + 1
        fact = (await site.published())[-1]
        assert (fact["status"], fact["reason"]) == ("FAILED", "IMAGE_TOO_LARGE")
        # Known by now: it costs nobody anything any more.
        assert (await site.put(bomb, examinee_id="E002")).status_code == 413
        assert ended("too_costly") == before + 1
        assert (await site.put(picture())).status_code == 201
        assert first not in site.server.uploads.decoders.pids


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_a_picture_over_the_memory_limit_is_refused_and_the_next_accepted(
    settings: Settings, bus: Bus, store: StateStore, kind: str
) -> None:
    small = changed(settings, {"mobile_sync.decode_memory_bytes": 64 * 1024 * 1024})
    async with open_site(small, bus, store) as site:
        response = await site.put(flat(kind, (8000, 5000), progressive=True))
        assert (response.status_code, problem(response)["code"]) == (413, "IMAGE_TOO_LARGE")
        assert "memory" in response.json()["detail"]
        assert (await site.put(picture())).status_code == 201


# -- everybody else --------------------------------------------------------------------------------------


async def test_a_small_picture_does_not_wait_for_costly_ones(site: Site) -> None:
    bomb = flat("PNG", (8000, 4000))
    bombs = []
    for number in range(4):
        text = b"tEXt" + bytes([65 + number])
        content = bomb[:-12] + b"\0\0\0\1" + text + zlib.crc32(text).to_bytes(4, "big") + bomb[-12:]
        bombs.append(asyncio.create_task(site.put(content, examinee_id=f"E10{number}")))

    async def all_received() -> bool:
        return len(site.leftovers()) >= 4 or any(bomb.done() for bomb in bombs)

    await eventually(all_received, "four costly pictures on their way")

    async def some_wait() -> bool:
        return sample("examwire_web_pictures_waiting") > 0

    await eventually(some_wait, "they wait for one another")
    for number in range(3):
        assert (await site.put(picture(), examinee_id=f"E20{number}")).status_code == 201
    assert not all(bomb.done() for bomb in bombs)
    assert {response.status_code for response in await asyncio.gather(*bombs)} == {201}
    assert sample("examwire_web_pictures_waiting") == 0
    assert len(site.server.uploads.decoders.pids) == 2


async def test_pictures_of_one_examinee_are_decoded_one_after_the_other(site: Site) -> None:
    pid = await process_of(site)
    os.kill(pid, signal.SIGSTOP)
    uploads = [asyncio.create_task(site.put(picture(), examinee_id="E001")) for _ in range(4)]

    async def all_received() -> bool:
        return len(site.leftovers()) == 4

    await eventually(all_received, "four pictures of one examinee")
    # Only one of them is at the process that hangs; the other process is there for everybody else.
    assert (await site.put(picture(), examinee_id="E002")).status_code == 201
    assert not any(upload.done() for upload in uploads)
    assert (await site.http.get("/healthz")).status_code == 200
    os.kill(pid, signal.SIGCONT)
    assert {response.status_code for response in await asyncio.gather(*uploads)} == {201}


async def test_concurrent_uploads_of_an_examinee_are_limited(site: Site) -> None:
    pid = await process_of(site)
    os.kill(pid, signal.SIGSTOP)
    uploads = [asyncio.create_task(site.put(picture())) for _ in range(8)]

    async def all_received() -> bool:
        return len(site.leftovers()) == 8

    await eventually(all_received, "eight uploads")
    one_more = await site.put(picture())
    assert (one_more.status_code, problem(one_more)["code"]) == (429, "TOO_MANY_REQUESTS")
    assert int(one_more.headers["retry-after"]) > 0
    os.kill(pid, signal.SIGCONT)
    assert {response.status_code for response in await asyncio.gather(*uploads)} == {201}


# -- processes that die or hang --------------------------------------------------------------------------


async def test_a_picture_is_decoded_again_when_its_decoder_is_killed(site: Site) -> None:
    pid = await process_of(site)
    os.kill(pid, signal.SIGSTOP)
    upload = asyncio.create_task(site.put(picture()))
    await site.on_its_way()
    os.kill(pid, signal.SIGKILL)
    assert (await upload).status_code == 201


async def test_a_process_that_was_killed_between_two_pictures_is_replaced(site: Site) -> None:
    os.kill(await process_of(site), signal.SIGKILL)
    assert (await site.put(picture())).status_code == 201


async def test_a_picture_that_always_crashes_the_decoder_is_refused(site: Site) -> None:
    killed: set[int] = set()
    upload = asyncio.create_task(site.put(picture()))

    async def crashed() -> bool:
        for pid in site.server.uploads.decoders.pids:
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGSEGV)  # while it still starts
        return upload.done()

    await eventually(crashed, "an answer")
    response = await upload
    assert (response.status_code, problem(response)["code"]) == (415, "IMAGE_DAMAGED")
    assert len(killed) == 2
    assert (await site.put(picture())).status_code == 201


async def test_a_process_that_hangs_is_killed_and_the_phone_is_told_to_try_again(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(settings, bus, store) as site:
        pid = await process_of(site)
        content = picture()
        with monkeypatch.context() as patch:
            patch.setattr(decoders, "WALL_FACTOR", 0.02)
            os.kill(pid, signal.SIGSTOP)
            response = await site.put(content)
        assert (response.status_code, problem(response)["code"]) == (503, "UNAVAILABLE")
        assert int(response.headers["retry-after"]) > 0
        assert (await site.put(content)).status_code == 201
        assert pid not in site.server.uploads.decoders.pids


async def test_decoders_know_no_secret_and_end_with_the_web_server(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMWIRE_SECRET", "not for those who decode pictures")
    async with open_site(settings, bus, store) as site:
        pid = await process_of(site)
        environment = await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_bytes)
        assert b"PATH=" in environment
        assert b"EXAMWIRE" not in environment
    assert not psutil.pid_exists(pid)


# -- the quota -------------------------------------------------------------------------------------------


async def test_new_pictures_of_an_examinee_are_limited_and_retries_are_not(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    few = changed(settings, {"mobile_sync.pictures_per_minute": 3})
    async with open_site(few, bus, store) as site:
        pictures = [picture(), picture("PNG"), b"not a picture"]
        statuses = [(await site.put(content)).status_code for content in pictures]
        assert statuses == [201, 201, 415]
        refused = await site.put(picture())
        assert (refused.status_code, problem(refused)["code"]) == (429, "TOO_MANY_REQUESTS")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        (pid,) = site.server.uploads.decoders.pids
        os.kill(pid, signal.SIGSTOP)  # nothing of this is decoded again
        for _ in range(3):
            assert [(await site.put(content)).status_code for content in pictures] == statuses
        assert (await site.get()).content[:3] == b"\xff\xd8\xff"
        os.kill(pid, signal.SIGCONT)
        assert (await site.put(picture(), examinee_id="E002")).status_code == 201
        assert [message["status"] for message in await site.published()].count("FAILED") == 1
