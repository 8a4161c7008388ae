"""Pictures as files of a directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from actors.web_server.pictures.incoming import Incoming, store_errors
from actors.web_server.pictures.store import CAPTURE_ID, FILE_NAME, PictureStore, StoredPicture, file_name


class DirectoryPictureStore(PictureStore):
    """Pictures in a directory, which several web servers may share.

    Example::

        pictures = DirectoryPictureStore(data_dir / "captures", bus.clock.now)
        content = await pictures.read("P001", "E001", capture_id)
    """

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        super().__init__(directory, now)
        self.directory = directory

    async def commit(self, incoming: Incoming) -> None:
        await self.in_thread(self._commit, incoming)

    def _commit(self, incoming: Incoming) -> None:
        directory = self.directory / incoming.plan_id / incoming.examinee_id
        picture = directory / f"{incoming.capture_id}.jpg"
        with store_errors(picture), _locked(directory):
            incoming.move_to(picture)
            with tempfile.TemporaryDirectory(prefix=".link-", dir=directory) as aside:
                os.link(picture, Path(aside) / FILE_NAME)
                os.replace(Path(aside) / FILE_NAME, directory / FILE_NAME)
            # The directories above may be as new as the file.
            for changed in (directory, directory.parent, directory.parent.parent):
                _sync_directory(changed)

    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        directory = self.directory / plan_id / examinee_id
        return await self.in_thread(_read, directory / file_name(capture_id))

    async def pictures(self, plan_id: str | None = None, examinee_id: str | None = None) -> list[StoredPicture]:
        return await self.in_thread(self._list, plan_id, examinee_id)

    def _list(self, plan_id: str | None, examinee_id: str | None) -> list[StoredPicture]:
        pictures = []
        with store_errors(self.directory):
            for path in self.directory.glob(f"{plan_id or '*'}/{examinee_id or '*'}/*.jpg"):
                if CAPTURE_ID.fullmatch(path.stem) is None:
                    continue
                with suppress(FileNotFoundError):  # another web server has removed it meanwhile
                    pictures.append(StoredPicture(path.parts[-3], path.parts[-2], path.stem, path.stat().st_mtime))
        return pictures

    async def delete(self, plan_id: str, examinee_id: str | None = None) -> int:
        return await self.in_thread(self._delete, plan_id, examinee_id)

    def _delete(self, plan_id: str, examinee_id: str | None) -> int:
        deleted = len(self._list(plan_id, examinee_id))
        directory = self.directory / plan_id
        if examinee_id is not None:
            directory /= examinee_id
        with store_errors(directory), suppress(FileNotFoundError):
            shutil.rmtree(directory)
            _sync_directory(directory.parent)
        return deleted

    async def _remove(self, picture: StoredPicture) -> bool:
        return await self.in_thread(self._unlink, picture)

    def _unlink(self, picture: StoredPicture) -> bool:
        directory = self.directory / picture.plan_id / picture.examinee_id
        path, last_path = directory / f"{picture.capture_id}.jpg", directory / FILE_NAME
        with store_errors(path), _locked(directory):
            try:
                status = path.stat()
                if status.st_mtime != picture.stored_at:
                    return False
                with suppress(FileNotFoundError):
                    if os.path.samestat(last_path.stat(), status):
                        last_path.unlink()
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def _aside_of(self, plan_id: str, examinee_id: str) -> Path:
        return self.directory / plan_id / examinee_id  # a rename works within one file system only


def _read(path: Path) -> bytes | None:
    with store_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock an examinee's directory, also against other processes: a picture may be stored again while it is removed."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
