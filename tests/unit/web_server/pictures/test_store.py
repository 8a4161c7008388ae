"""How a picture's file gets to its place, and what a disk that fails leaves behind.

What holds for every store is in tests/integration/mobile_sync/test_picture_stores.py, against the directory and
against NATS.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from actors.web_server.pictures.directory_store import DirectoryPictureStore
from actors.web_server.pictures.incoming import StoreFailed
from actors.web_server.pictures.store import StoredPicture

MAX_PIXELS = 1_000_000


def jpeg(colour: str = "navy") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(target, "JPEG")
    return target.getvalue()


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryPictureStore]:
    store = DirectoryPictureStore(tmp_path / "captures")
    yield store
    store.close()


async def keep(store: DirectoryPictureStore, content: bytes) -> str:
    incoming = await store.begin("P001", "E001")
    incoming.write(content)
    await store.commit(incoming)
    incoming.discard()
    return incoming.capture_id


async def test_a_picture_is_stored_by_its_captureid_and_the_last_one_as_sync_cap(store: DirectoryPictureStore) -> None:
    first, second = await keep(store, jpeg("navy")), await keep(store, jpeg("red"))
    directory = store.directory / "P001" / "E001"
    assert files_in(directory) == sorted([f"{first}.jpg", f"{second}.jpg", "sync_cap.jpg"])
    assert (directory / "sync_cap.jpg").samefile(directory / f"{second}.jpg"), "one file, two names"


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
async def test_a_failing_commit_leaves_the_earlier_picture(
    step: str, store: DirectoryPictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    capture_id = await keep(store, jpeg("navy"))
    incoming = await store.begin("P001", "E001")
    incoming.write(jpeg("red"))
    with monkeypatch.context() as broken:
        broken.setattr(os, step, full)
        with pytest.raises(StoreFailed, match="No space left on device"):
            await store.commit(incoming)
    incoming.discard()
    assert await store.read("P001", "E001", capture_id) == jpeg("navy")
    assert await store.read("P001", "E001", None) == jpeg("navy")
    leftovers = set(files_in(store.directory / "P001" / "E001")) - {f"{capture_id}.jpg", "sync_cap.jpg"}
    # With its file in place and the second name missing, the picture is there, and known to nobody: the sweep's.
    assert leftovers == ({f"{name_of(jpeg('red'))}.jpg"} if step == "link" else set())


async def test_the_file_and_the_directories_above_it_are_synced(
    store: DirectoryPictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    await keep(store, jpeg())
    assert Path(synced[0]).name.startswith(".upload-")
    above = store.directory
    assert synced[1:] == [str(above / "P001" / "E001"), str(above / "P001"), str(above)]


async def test_a_directory_that_cannot_be_created_raises_store_failed(store: DirectoryPictureStore) -> None:
    store.directory.mkdir()
    (store.directory / "P001").write_text("in the way")
    with pytest.raises(StoreFailed):
        await store.begin("P001", "E001")


async def test_an_unreadable_picture_is_an_error_and_not_a_missing_one(store: DirectoryPictureStore) -> None:
    (store.directory / "P001" / "E001" / "sync_cap.jpg").mkdir(parents=True)
    with pytest.raises(StoreFailed):
        await store.read("P001", "E001", None)


async def test_an_invalid_captureid_never_names_another_file(store: DirectoryPictureStore) -> None:
    capture_id = await keep(store, jpeg())
    (store.directory / "secret.jpg").write_text("not yours")
    assert await store.read("P001", "E001", "../../secret") == jpeg(), "no captureId: the last picture"
    assert await store.read("P001", "E001", capture_id[:-1] + ("0" if capture_id[-1] != "0" else "1")) is None


async def test_a_picture_stored_again_during_the_sweep_stays(
    store: DirectoryPictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_id = await keep(store, jpeg("navy"))
    directory = store.directory / "P001" / "E001"
    os.utime(directory / f"{first_id}.jpg", (0, 0))
    really = store._remove

    async def stored_again(picture: StoredPicture) -> bool:
        await keep(store, jpeg("navy"))
        return await really(picture)

    monkeypatch.setattr(store, "_remove", stored_again)

    await store.sweep(1e6)
    assert await store.read("P001", "E001", first_id) == jpeg("navy")


@pytest.mark.parametrize("ahead", [90.0, -7200.0])
async def test_a_pictures_age_is_by_the_clock_of_the_store(tmp_path: Path, ahead: float) -> None:
    now = time.time() + ahead
    store = DirectoryPictureStore(tmp_path / "captures", lambda: now)
    incoming = await store.begin("P001", "E001")
    content = jpeg()
    for part in (content[:100], content[100:]):
        incoming.write(part)
        (aside,) = store.directory.rglob("*.part")
        assert aside.stat().st_mtime == pytest.approx(now, abs=0.01)
    incoming.replace(content)
    assert aside.stat().st_mtime == pytest.approx(now, abs=0.01)
    await store.commit(incoming)
    (picture,) = await store.pictures()
    assert picture.stored_at == pytest.approx(now, abs=0.01)
    assert await store.sweep(0.1) == 0
    now += 0.2
    assert await store.sweep(0.1) == 1
