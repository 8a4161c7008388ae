"""Captures: where the pictures of phones are kept, a directory or an object store bucket of NATS.

Every picture is kept under its own name, its `captureId`, and the record in Redis says which one counts. So it does not
matter who was quicker when two web servers store a picture of one examinee: what is served is what the log came to.
`sync_cap.jpg` is a second name of the one that was stored last, for people, and for when nobody knows better. What the
record has moved on from is removed a while later.

| | directory | nats |
|---|---|---|
| a picture | `{planId}/{examineeId}/{captureId}.jpg` | an object of this name |
| the last one | `{planId}/{examineeId}/sync_cap.jpg`, a hard link | an object of this name, a link |
| appears in one step | written aside in the same directory, synced, renamed | its last message makes it an object |
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import math
import os
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.object_store import ObjectStore, StoredObject
from actors.runtime.config.settings import Settings
from protocol.broker.streams import CAPTURES_BUCKET, DAY
from protocol.errors import ExamwireError, NotPermitted, StreamFull

log = logging.getLogger("examwire.captures")
T = TypeVar("T")

FILE_NAME = "sync_cap.jpg"
STALE_SECONDS = 3600.0
"""An upload takes minutes; what is older and not finished belongs to a process that was killed."""
REPLACED_SECONDS = 60.0
"""From storing a picture to its announcement it is seconds, by one clock."""
_CAPTURE_ID = re.compile(r"[0-9a-f]{64}")

Counted = Callable[[str, str], Awaitable[tuple[str, float] | None]]
"""Of (planId, examineeId): the captureId that counts and when it was announced (seconds); `None`: not known."""


class StoreFailed(ExamwireError):
    """The file system or the bucket did not take the capture (full, read only, not permitted, ...)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture that is kept. `stored_at`: seconds since the epoch."""

    plan_id: str
    examinee_id: str
    capture_id: str
    stored_at: float


class Incoming:
    """An upload on its way: written to a file aside, hashed as it comes. End it with `discard`. Everything blocks.

    `now`: the clock by which the file's age counts; those of the machines that share the directory may differ.
    """

    def __init__(self, directory: Path, plan_id: str, examinee_id: str, now: Callable[[], float] = time.time) -> None:
        """`directory`: where the file aside is. Raises `StoreFailed`."""
        self.plan_id = plan_id
        self.examinee_id = examinee_id
        self._now = now
        self._digest = hashlib.sha256()
        with store_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # Buffered on purpose: its lock makes a discard() wait for a write that is still going on in a thread.
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                "w+b", dir=directory, prefix=".upload-", suffix=".part", delete=False
            )
            self._aside = Path(self._file.name)
            self._touch()

    @property
    def capture_id(self) -> str:
        """SHA-256 (hex) of what was received so far; a conversion does not change it."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Append. Raises `StoreFailed`."""
        self._digest.update(content)
        with store_errors(self._aside):
            self._file.write(content)
            self._touch()

    def replace(self, jpeg: bytes) -> None:
        """Keep this instead of what was received; the captureId stays. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(jpeg)
            self._touch()

    def content(self) -> bytes:
        """What is in the file aside. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._touch()
            return self._file.read()

    def move_to(self, target: Path) -> None:
        """Give the file its name, whole and for good. Raises `StoreFailed`."""
        with store_errors(target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._touch()  # its age counts from here, not from when it came
            os.replace(self._aside, target)

    def _touch(self) -> None:
        moment = self._now()
        os.utime(self._aside, (moment, moment))

    def discard(self) -> None:
        """Remove the file aside; nothing happens after `move_to`. Raises nothing: there is nobody to act on it."""
        with suppress(OSError):  # what could not be flushed is about to be removed
            self._file.close()
        with suppress(OSError):  # a later sweep takes what cannot be removed now
            self._aside.unlink(missing_ok=True)


class CaptureStore(ABC):
    """The captures of all plans. Ids are checked before they get here (`protocol.ids`)."""

    def __init__(self, uploads: Path, now: Callable[[], float] = time.time) -> None:
        """`uploads`: the directory under which files aside are. `now`: the clock of the log (the broker's)."""
        self._uploads = uploads
        self._now = now
        # Threads of their own, so that nobody waits behind a decoder.
        self._threads = ThreadPoolExecutor(4, "files")

    def close(self) -> None:
        """Let the threads end; what they have begun they finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """`work`, which blocks, in one of the threads for files."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def begin(self, plan_id: str, examinee_id: str) -> Incoming:
        """A new upload of an examinee. Raises `StoreFailed`."""
        return await self.in_thread(Incoming, self._aside_of(plan_id, examinee_id), plan_id, examinee_id, self._now)

    async def sweep(self, counted: Counted, keep_seconds: float) -> int:
        """Remove what killed processes left, what is replaced, and what is older than `keep_seconds`; how many.

        A picture is replaced when another one was announced well after this one was stored: its own announcement, if
        there ever was one, stands before that in the log. Raises `StoreFailed` and what the store and `counted` raise.
        """
        removed = await self._sweep_leftovers(self._now() - STALE_SECONDS)
        by_examinee: dict[tuple[str, str], list[Kept]] = defaultdict(list)
        for kept in await self._kept():
            by_examinee[kept.plan_id, kept.examinee_id].append(kept)
        oldest = self._now() - keep_seconds
        for (plan_id, examinee_id), pictures in by_examinee.items():
            counts = await counted(plan_id, examinee_id) if len(pictures) > 1 else None
            for kept in pictures:
                if kept.stored_at < oldest or _replaced(kept, counts):
                    removed += await self._remove(kept)
        return removed

    @abstractmethod
    async def commit(self, incoming: Incoming) -> None:
        """Keep an upload, whole and for good: it is there after a power cut too. Raises `StoreFailed`, and
        `BrokerUnavailable` where the pictures are in NATS."""

    @abstractmethod
    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        """A picture of an examinee, whole, or `None`; with no `capture_id` the one that was stored last.

        Raises `StoreFailed` when it is there and cannot be read, and `BrokerUnavailable` where they are in NATS.
        """

    @abstractmethod
    async def _kept(self) -> list[Kept]: ...

    @abstractmethod
    async def _remove(self, kept: Kept) -> bool:
        """Remove a picture, unless it has been stored again since."""

    @abstractmethod
    def _aside_of(self, plan_id: str, examinee_id: str) -> Path: ...

    async def _sweep_leftovers(self, before: float) -> int:
        return await self.in_thread(_sweep_files, self._uploads, before)


class DirectoryCaptures(CaptureStore):
    """Under one directory, which several web servers may share."""

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
            for one in (directory, directory.parent, directory.parent.parent):
                _sync_directory(one)

    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        directory = self.directory / plan_id / examinee_id
        return await self.in_thread(_read, directory / _file_name(capture_id))

    async def _kept(self) -> list[Kept]:
        return await self.in_thread(self._list)

    def _list(self) -> list[Kept]:
        found = []
        with store_errors(self.directory):
            for path in self.directory.glob("*/*/*.jpg"):
                if _CAPTURE_ID.fullmatch(path.stem) is None:
                    continue
                with suppress(FileNotFoundError):  # another web server on the same files was quicker
                    found.append(Kept(path.parts[-3], path.parts[-2], path.stem, path.stat().st_mtime))
        return found

    async def _remove(self, kept: Kept) -> bool:
        return await self.in_thread(self._unlink, kept)

    def _unlink(self, kept: Kept) -> bool:
        directory = self.directory / kept.plan_id / kept.examinee_id
        picture, last = directory / f"{kept.capture_id}.jpg", directory / FILE_NAME
        with store_errors(picture), _locked(directory):
            try:
                found = picture.stat()
                if found.st_mtime != kept.stored_at:
                    return False
                with suppress(FileNotFoundError):
                    if os.path.samestat(last.stat(), found):
                        last.unlink()
                picture.unlink()
            except FileNotFoundError:
                return False
        return True

    def _aside_of(self, plan_id: str, examinee_id: str) -> Path:
        return self.directory / plan_id / examinee_id  # a rename works within one file system only


class NatsCaptures(CaptureStore):
    """In a bucket that the queue server has made, for any number of web servers. `uploads`: a directory of our own."""

    def __init__(self, bus: Bus, uploads: Path) -> None:
        super().__init__(uploads, bus.clock.now)
        self._objects = ObjectStore(bus, CAPTURES_BUCKET)
        self._found: dict[Kept, StoredObject] = {}
        self._links: dict[str, StoredObject] = {}

    async def commit(self, incoming: Incoming) -> None:
        content = await self.in_thread(incoming.content)
        owner = f"{incoming.plan_id}/{incoming.examinee_id}"
        try:
            await self._objects.put(f"{owner}/{incoming.capture_id}.jpg", content)
            await self._objects.link(f"{owner}/{FILE_NAME}", f"{owner}/{incoming.capture_id}.jpg")
        except (StreamFull, NotPermitted) as error:
            raise StoreFailed(str(error)) from error

    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        return await self._objects.get(f"{plan_id}/{examinee_id}/{_file_name(capture_id)}")

    async def _kept(self) -> list[Kept]:
        self._found, self._links = {}, {}
        for one in await self._objects.objects():
            *owner, name = one.name.split("/")
            if one.link is not None:
                self._links[one.link] = one
            elif len(owner) == 2 and _CAPTURE_ID.fullmatch(stem := name.removesuffix(".jpg")):
                self._found[Kept(owner[0], owner[1], stem, one.stored_at)] = one
        return list(self._found)

    async def _remove(self, kept: Kept) -> bool:
        found = self._found[kept]
        if (link := self._links.get(found.name)) is not None:
            await self._objects.remove(link)
        return await self._objects.remove(found)

    def _aside_of(self, _plan_id: str, _examinee_id: str) -> Path:
        return self._uploads

    async def _sweep_leftovers(self, before: float) -> int:
        return await super()._sweep_leftovers(before) + await self._objects.sweep(before)


def capture_store(settings: Settings, bus: Bus) -> CaptureStore:
    """The store that the settings ask for."""
    if settings.captures.store == "nats":
        return NatsCaptures(bus, settings.data_dir / "uploads")
    return DirectoryCaptures(settings.data_dir / "captures", lambda: bus.clock.now())


def keep_seconds(settings: Settings) -> float:
    """How long pictures are kept; infinite when they are kept for good."""
    return settings.captures.keep_days * DAY or math.inf


def _replaced(kept: Kept, counts: tuple[str, float] | None) -> bool:
    if counts is None:
        return False
    capture_id, announced_at = counts
    return kept.capture_id != capture_id and kept.stored_at < announced_at - REPLACED_SECONDS


def _file_name(capture_id: str | None) -> str:
    if capture_id is None or _CAPTURE_ID.fullmatch(capture_id) is None:
        return FILE_NAME
    return f"{capture_id}.jpg"


def _read(path: Path) -> bytes | None:
    with store_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _sweep_files(directory: Path, before: float) -> int:
    removed = 0
    with store_errors(directory):
        for path in directory.rglob(".upload-*.part"):
            with suppress(FileNotFoundError):  # another web server on the same files was quicker
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
    return removed


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Trouble with files as `StoreFailed`."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One at a time in an examinee's directory, also among processes: storing a picture again, and removing it."""
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
