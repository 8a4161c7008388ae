"""Uploads when something goes wrong around them: the network, the disk, the broker, Redis, a stop of the server."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.web_server.api.mobile_upload import MobileUploads
from actors.web_server.pictures.incoming import Incoming
from actors.web_server.server import WebServer
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import STATUS
from protocol.records import keys
from tests.integration.support.clients.phones import RawUpload, Site, open_site, picture, problem
from tests.integration.support.system import eventually


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site
    assert site.server.failed == 0


# -- connections that misbehave --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["reset", "closed", "half-closed"])
async def test_a_phone_that_goes_away_leaves_nothing(site: Site, way: str, caplog: pytest.LogCaptureFixture) -> None:
    content = picture(size=(1200, 900))
    upload = await site.raw(len(content), content[: len(content) // 2])
    await site.on_its_way()
    if way == "reset":
        await upload.vanish()
    elif way == "closed":
        await upload.close()
    else:
        upload.writer.write_eof()
    await site.outcome("CLIENT_GONE")
    await site.nothing_left()
    assert (site.stored(), await site.published()) == (None, [])
    assert [entry for entry in caplog.records if entry.levelname in ("ERROR", "CRITICAL")] == []
    assert (await site.put(content)).status_code == 201
    await upload.close()


async def test_bytes_after_the_declared_length_are_ignored(site: Site) -> None:
    content = picture()
    upload = await site.raw(len(content), content + b"and more\r\n\r\n")
    status, document = await upload.response()
    assert (status, document["captureId"]) == (201, hashlib.sha256(content).hexdigest())
    assert await upload.status() == 400
    await upload.close()


async def test_a_stalled_upload_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MobileUploads, "stall_seconds", 0.1)
    upload = await site.raw(1000, b"\xff\xd8\xff")
    status, document = await upload.response()
    assert (status, document["code"]) == (408, "UPLOAD_STALLED")
    await site.nothing_left()
    await upload.close()


# -- disk, broker, Redis ---------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(settings: Settings) -> Iterator[Path]:
    """`data_dir/captures` as a file system of 64 KiB."""
    directory = settings.data_dir / "captures"
    directory.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"cannot mount a small file system: {os.strerror(ctypes.get_errno())}")
    yield directory
    libc.umount2(str(directory).encode(), 2)  # MNT_DETACH


async def test_a_full_disk_is_reported_and_leaves_no_file(
    tiny_disk: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    small = picture(size=(64, 48))
    assert (await site.put(small)).status_code == 201
    response = await site.put(picture(size=(640, 480)))
    assert (response.status_code, problem(response)["code"]) == (507, "STORE_FAILED")
    fact = (await site.published())[-1]
    assert (fact["status"], fact["reason"]) == ("FAILED", "IMAGE_STORE_FAILED")
    assert (site.stored(), site.leftovers()) == (small, [])
    assert "No space left on device" in caplog.text
    assert str(tiny_disk) not in response.text
    assert (await site.put(picture(size=(64, 48)))).status_code == 201


async def test_a_failing_sync_of_the_disk_is_a_store_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    response = await site.put(picture())
    assert (response.status_code, problem(response)["code"]) == (507, "STORE_FAILED")
    assert [message["reason"] for message in await site.published()] == ["IMAGE_STORE_FAILED"]
    assert (site.stored(), site.leftovers()) == (None, [])


async def test_the_leftovers_of_a_killed_server_are_swept_at_the_next_start(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    Incoming(settings.data_dir / "captures" / "P001" / "E001", "P001", "E001")  # and killed
    (leftover,) = (settings.data_dir / "captures").rglob("*.part")
    os.utime(leftover, (0, 0))
    server = WebServer(settings, bus, store)
    await server.start()

    async def gone() -> bool:
        return not leftover.exists()

    await eventually(gone, "the leftover")
    await server.stop()


@pytest.fixture
async def own_site(own_engines: tuple[NatsServer, RedisServer], tmp_path: Path) -> AsyncIterator[Site]:
    nats, redis = own_engines
    settings = load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "data")
    bus, store = await Bus.connect(nats.url, "web"), StateStore(redis.url)
    async with open_site(settings, bus, store) as site:
        yield site
    await bus.close()
    await store.close()


async def test_with_the_broker_away_the_phone_is_told_to_retry_and_the_retry_has_one_effect(
    own_engines: tuple[NatsServer, RedisServer], own_site: Site
) -> None:
    nats, _ = own_engines
    content = picture()
    nats.stop()
    refusal = await own_site.put(content)
    assert (refusal.status_code, problem(refusal)["code"]) == (503, "UNAVAILABLE")
    assert int(refusal.headers["retry-after"]) > 0
    nats.start()
    await own_site.connected()
    retry = await own_site.put(content)
    assert retry.status_code == 201
    messages = await own_site.published()
    assert [(message["status"], message["captureId"]) for message in messages] == [
        ("COMPLETED", hashlib.sha256(content).hexdigest())
    ]
    assert own_site.stored() == content


async def test_with_the_broker_away_a_bad_picture_gets_its_own_answer(
    own_engines: tuple[NatsServer, RedisServer], own_site: Site
) -> None:
    nats, _ = own_engines
    nats.stop()
    response = await own_site.put(b"not a picture")
    assert (response.status_code, problem(response)["code"]) == (415, "NOT_AN_IMAGE")
    nats.start()
    await own_site.connected()


async def test_with_redis_away_a_picture_is_taken(own_engines: tuple[NatsServer, RedisServer], own_site: Site) -> None:
    own_engines[1].stop()
    content = picture()
    assert (await own_site.put(content)).status_code == 201
    assert [message["status"] for message in await own_site.published()] == ["COMPLETED"]
    assert own_site.stored() == content


async def test_a_damaged_record_does_not_keep_a_phone_out(site: Site) -> None:
    redis = Redis.from_url(site.settings.redis_url)
    await redis.set(keys.mobile_sync("P001", "E001"), "no hash")
    await redis.aclose()
    assert (await site.put(picture())).status_code == 201


# -- stopping --------------------------------------------------------------------------------------------


async def half_an_upload(site: Site, content: bytes) -> RawUpload:
    upload = await site.raw(len(content), content[: len(content) // 2])
    await site.on_its_way()
    return upload


async def test_a_stop_finishes_the_current_upload(settings: Settings, bus: Bus, store: StateStore) -> None:
    await bus.apply_stream(STATUS)
    server = WebServer(settings, bus, store)
    await server.start()
    site = Site(server, settings, bus)
    content = picture()
    upload = await half_an_upload(site, content)
    stopping = asyncio.create_task(site.close())

    async def refused() -> bool:
        try:
            other = await site.raw(0)
        except OSError:
            return True
        await other.close()
        return False

    await eventually(refused, "new connections refused")
    await upload.send(content[len(content) // 2 :])
    status, document = await upload.response()
    assert (status, document["captureId"]) == (201, hashlib.sha256(content).hexdigest())
    await upload.close()
    await stopping
    assert (site.stored(), site.leftovers()) == (content, [])


async def test_a_stop_does_not_wait_for_an_upload_that_never_ends(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.web_server.server.DRAIN_SECONDS", 1)
    server = WebServer(settings, bus, store)
    await server.start()
    site = Site(server, settings, bus)
    upload = await half_an_upload(site, picture())
    await asyncio.wait_for(site.close(), 8)
    status, document = await upload.response()
    assert (status, document["code"]) == (503, "UNAVAILABLE")
    assert site.leftovers() == []
    await upload.close()
