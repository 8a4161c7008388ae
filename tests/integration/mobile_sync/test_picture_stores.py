"""Pictures in a directory and in NATS: one suite against both, and what several web servers make of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker import object_store
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.object_store import ObjectStore
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.web_server.pictures.directory_store import DirectoryPictureStore
from actors.web_server.pictures.incoming import STALE_SECONDS, StoreFailed
from actors.web_server.pictures.nats_store import NatsPictureStore
from actors.web_server.pictures.store import PictureStore
from actors.web_server.server import WebServer
from cli.operate.streams import compare_topology
from protocol.broker.streams import CAPTURES_BUCKET, GIB, captures_stream
from protocol.errors import BrokerUnavailable
from protocol.records import keys
from tests.integration.support.clients.phones import Site, open_site, picture, problem
from tests.integration.support.system import System, eventually

OWNER = ("P001", "E001")
KEPT_FOREVER = 1e9


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With pictures in NATS, unless the test is one of both."""
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else "nats"
    return settings.model_copy(update={"captures": settings.captures.model_copy(update={"store": kind})})


@pytest.fixture(params=["directory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def objects(bus: Bus) -> AsyncIterator[ObjectStore]:
    """An empty bucket."""
    spec = captures_stream(KEPT_FOREVER, GIB)
    await bus.apply_stream(spec)
    yield ObjectStore(bus, CAPTURES_BUCKET)
    await bus._js.delete_stream(spec.name)


@pytest.fixture
async def captures(kind: str, bus: Bus, objects: ObjectStore, tmp_path: Path) -> AsyncIterator[PictureStore]:
    store: PictureStore
    store = (
        DirectoryPictureStore(tmp_path / "captures")
        if kind == "directory"
        else NatsPictureStore(bus, tmp_path / "uploads")
    )
    yield store
    store.close()


async def store_picture(captures: PictureStore, content: bytes, examinee_id: str = "E001") -> str:
    incoming = await captures.begin("P001", examinee_id)
    try:
        incoming.write(content[:100])
        incoming.write(content[100:])
        await captures.commit(incoming)
    finally:
        incoming.discard()
    return incoming.capture_id


def aside(directory: Path) -> list[str]:
    """The uploads on their way."""
    return [path.name for path in directory.rglob("*.part")]


# -- both stores -----------------------------------------------------------------------------------------


async def test_a_picture_is_readable_only_after_its_commit(captures: PictureStore, tmp_path: Path) -> None:
    content = picture()
    incoming = await captures.begin(*OWNER)
    incoming.write(content)
    assert await captures.read(*OWNER, None) is None
    await captures.commit(incoming)
    incoming.discard()
    assert incoming.capture_id == hashlib.sha256(content).hexdigest()
    assert await captures.read(*OWNER, incoming.capture_id) == content
    assert await captures.read(*OWNER, None) == content
    assert aside(tmp_path) == []


async def test_each_picture_has_its_own_file_and_the_newest_is_current(
    captures: PictureStore,
) -> None:
    first, second = picture(), picture(size=(1600, 1200))  # of several chunks
    names = [await store_picture(captures, content) for content in (first, second)]
    assert [await captures.read(*OWNER, name) for name in names] == [first, second]
    assert await captures.read(*OWNER, None) == second
    await store_picture(captures, first)  # sent again
    assert await captures.read(*OWNER, None) == first
    assert await captures.read("P002", "E001", names[0]) is None


async def test_a_discarded_upload_leaves_nothing(captures: PictureStore, tmp_path: Path) -> None:
    capture_id = await store_picture(captures, picture())
    before = await captures.read(*OWNER, capture_id)
    incoming = await captures.begin(*OWNER)
    incoming.write(picture())
    incoming.discard()
    incoming.discard()
    assert (await captures.read(*OWNER, None), aside(tmp_path)) == (before, [])


async def test_every_picture_is_kept_until_it_is_old_or_deleted(captures: PictureStore) -> None:
    kept = [await store_picture(captures, picture()) for _ in range(3)]
    assert await captures.sweep(KEPT_FOREVER) == 0
    assert [await captures.read(*OWNER, name) is not None for name in kept] == [True] * 3
    assert {stored.capture_id for stored in await captures.pictures("P001")} == set(kept)
    assert await captures.sweep(-5.0) == 3
    assert [await captures.read(*OWNER, name) for name in (*kept, None)] == [None] * 4


async def test_an_examinee_or_a_plan_is_deleted_with_nothing_left(
    captures: PictureStore, kind: str, bus: Bus, tmp_path: Path
) -> None:
    for examinee_id in ("E001", "E002", "E003"):
        for _ in range(2):
            await store_picture(captures, picture(), examinee_id)
    other = await store_picture(captures, picture(), "E1")
    assert await captures.delete("P001", "E1") == 1
    assert (await captures.read("P001", "E1", other), await captures.read("P001", "E1", None)) == (None, None)
    assert len(await captures.pictures()) == 6
    assert await captures.delete("P001") == 6
    assert await captures.delete("P001") == 0
    assert await captures.delete("P999", "E001") == 0
    assert await captures.read(*OWNER, None) is None
    if kind == "directory":
        assert not (tmp_path / "captures" / "P001").exists()
    else:
        assert (await bus.stream_state("OBJ_captures")).messages == 0


async def test_leftovers_are_removed_and_running_uploads_are_not(
    captures: PictureStore, kind: str, tmp_path: Path
) -> None:
    abandoned, going_on = [await captures.begin(*OWNER) for _ in range(2)]
    long_ago = time.time() - STALE_SECONDS - 60
    os.utime(abandoned._aside, (long_ago, long_ago))
    assert await captures.sweep(KEPT_FOREVER) == 1
    assert aside(tmp_path) == [going_on._aside.name]
    for incoming in (abandoned, going_on):
        incoming.discard()


# -- the bucket ------------------------------------------------------------------------------------------


async def test_objects_are_compatible_with_nats_py(objects: ObjectStore, bus: Bus) -> None:
    content = os.urandom(300_000)
    await objects.put("P001/E001/ours.jpg", content)
    await objects.link("P001/E001/sync_cap.jpg", "P001/E001/ours.jpg")
    theirs = await bus._js.object_store(CAPTURES_BUCKET)
    assert (await theirs.get("P001/E001/ours.jpg")).data == content
    assert (await theirs.get("P001/E001/sync_cap.jpg")).data == content
    await theirs.put("theirs", content[:1000])
    assert await objects.get("theirs") == content[:1000]
    await theirs.delete("theirs")
    assert await objects.get("theirs") is None
    assert {stored.name for stored in await objects.objects()} == {"P001/E001/ours.jpg", "P001/E001/sync_cap.jpg"}


async def test_old_chunks_without_an_object_are_removed(
    objects: ObjectStore, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await objects.put("whole", os.urandom(200_000))
    await objects.put("replaced", os.urandom(200_000))
    await objects.put("replaced", b"now")

    async def killed(_name: str, _about: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(objects, "_publish_metadata", killed)
        with pytest.raises(KeyboardInterrupt):
            await objects.put("cut off", os.urandom(200_000))
    assert await objects.sweep(time.time() - 60) == 0, "an upload that is on its way looks the same"
    assert await objects.sweep(time.time() + 60) == 2
    state = await bus.stream_state("OBJ_captures")
    assert state.messages == 2 + 2 + 1, "two chunks and one, and what tells of them"
    assert [await objects.get(name) for name in ("replaced", "cut off")] == [b"now", None]


async def test_removing_an_old_object_keeps_a_newer_one_of_the_same_name(objects: ObjectStore) -> None:
    await objects.put("one", b"first")
    (stored_object,) = await objects.objects()
    await objects.put("one", b"second")
    assert await objects.remove(stored_object) is False
    assert await objects.get("one") == b"second"


async def test_a_reader_gets_one_version_or_the_other_while_it_is_replaced(objects: ObjectStore) -> None:
    versions = [bytes([number]) * 400_000 for number in range(8)]
    await objects.put("one", versions[0])

    async def replace() -> None:
        for version in versions[1:]:
            await objects.put("one", version)
            await objects.sweep(time.time() + 60)  # takes the chunks away under the reader

    replacing = asyncio.create_task(replace())
    read_versions = set()
    while not replacing.done():
        content = await objects.get("one")
        assert content in versions
        read_versions.add(content)
    await replacing
    assert await objects.get("one") == versions[-1]
    assert len(read_versions) > 1


async def test_an_object_with_missing_chunks_is_an_error(
    objects: ObjectStore, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "GET_ATTEMPTS", 2)
    await objects.put("one", os.urandom(400_000))
    (stored_object,) = await objects.objects()
    await bus.delete_message("OBJ_captures", stored_object.sequence - 2)
    with pytest.raises(BrokerUnavailable, match="not read completely"):
        await objects.get("one")


async def test_a_full_bucket_is_a_store_failure(settings: Settings, bus: Bus, tmp_path: Path) -> None:
    await bus.apply_stream(captures_stream(KEPT_FOREVER, 1024 * 1024))
    captures = NatsPictureStore(bus, tmp_path / "uploads")
    try:
        first = await store_picture(captures, picture())
        with pytest.raises(StoreFailed, match="maximum bytes exceeded"):
            await store_picture(captures, picture(size=(2000, 1500)))
        assert await captures.read(*OWNER, None) is not None
        assert await captures.read(*OWNER, first) is not None
    finally:
        captures.close()
        await bus._js.delete_stream("OBJ_captures")


async def test_the_queue_server_creates_the_bucket_as_declared(settings: Settings, bus: Bus) -> None:
    assert ("OBJ_captures", "missing") in [
        (comparison.name, comparison.state) for comparison in await compare_topology(bus, settings)
    ]
    await apply_topology(bus, settings)
    assert {comparison.state for comparison in await compare_topology(bus, settings)} == {"same"}
    config = await bus.stream_config("OBJ_captures")
    assert config is not None
    assert config["max_age"] == settings.captures.keep_days * 86400
    elsewhere = settings.model_copy(update={"captures": settings.captures.model_copy(update={"store": "directory"})})
    assert "OBJ_captures" not in {comparison.name for comparison in await compare_topology(bus, elsewhere)}
    await bus._js.delete_stream("OBJ_captures")


# -- web servers -----------------------------------------------------------------------------------------


@pytest.fixture
async def sites(kind: str, settings: Settings, bus: Bus) -> AsyncIterator[tuple[Site, Site, System]]:
    """Two web servers, on one directory or one bucket, and all the other roles."""
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(System(settings, servers=("SOCK001",)))
        started_sites = []
        for name in ("web-1", "web-2"):
            web = await system.start(name, lambda bus: WebServer(settings, bus, system.store))
            assert isinstance(web, WebServer)
            site = Site(web, settings, system._buses[name])
            stack.push_async_callback(site.http.aclose)
            started_sites.append(site)
        yield started_sites[0], started_sites[1], system
        assert system.failures == []
    if await bus.stream_config("OBJ_captures") is not None:
        await bus._js.delete_stream("OBJ_captures")


async def test_two_web_servers_serve_the_picture_that_the_log_has_first(
    sites: tuple[Site, Site, System],
) -> None:
    """Pictures that come at once are all kept; the first one of the log counts, until somebody asks for another."""
    first_site, second_site, system = sites
    contents = [picture() for _ in range(4)]
    answers = await asyncio.gather(
        *((first_site if number % 2 else second_site).put(content) for number, content in enumerate(contents))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    first, *others = [fact["captureId"] for fact in await _completed(first_site)]

    async def settled() -> bool:
        record = await system.store.entries(keys.mobile_sync(*OWNER))
        return bool(record.get("captureId") == first) and all(other in record["captures"] for other in others)

    await eventually(settled, "the record names the pictures of the log")
    by_id = {hashlib.sha256(content).hexdigest(): content for content in contents}
    assert [(await site.get()).content for site in (first_site, second_site)] == [by_id[first], by_id[first]]
    proctor = first_site.bearer("proctor", "S001")
    for capture_id in (first, *others):
        path = f"/v1/plans/P001/captures/E001/{capture_id}.jpg"
        assert (await second_site.http.get(path, headers=proctor)).content == by_id[capture_id]
    assert (await second_site.http.get(path, headers=second_site.bearer("examinee"))).status_code == 403
    unknown = await second_site.http.get(f"/v1/plans/P001/captures/E001/{'0' * 64}.jpg", headers=proctor)
    assert unknown.status_code == 404
    invalid = await second_site.http.get("/v1/plans/P001/captures/E001/secret.jpg", headers=proctor)
    assert (invalid.status_code, problem(invalid)["field"]) == (400, "captureId")


async def test_a_retry_at_the_other_web_server_has_one_effect(sites: tuple[Site, Site, System]) -> None:
    first_site, second_site, _ = sites
    content = picture()
    first, second = await first_site.put(content), await second_site.put(content)
    assert (first.status_code, second.status_code, second.json()) == (201, 201, first.json())
    assert len(await _completed(first_site)) == 1
    assert (await second_site.get()).content == content


async def _completed(site: Site) -> list[dict[str, Any]]:
    return [fact for fact in await site.published() if fact.get("status") == "COMPLETED"]


async def test_without_the_bucket_the_phone_is_told_to_try_again(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    async with open_site(settings, bus, store) as site:
        answer = await site.put(picture())
        assert (answer.status_code, problem(answer)["code"]) == (503, "UNAVAILABLE")
        assert await site.published() == []
        fetched = await site.get()
        assert (fetched.status_code, problem(fetched)["code"]) == (503, "UNAVAILABLE")
