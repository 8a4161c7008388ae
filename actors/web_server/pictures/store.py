"""The store of the phones' pictures: a directory, or an object store bucket of NATS.

Every picture is kept under its own name, its `captureId`, until its plan or examinee is purged (`delete`). The record
in Redis names the one that counts. So it does not matter which of two web servers stores a picture of an examinee
first: the one that the log names is served. `sync_cap.jpg` is a second name of the picture stored last; it is served
while the record cannot be read.

| | directory | nats |
|---|---|---|
| a picture | `{planId}/{examineeId}/{captureId}.jpg` | an object of this name |
| the last one | `{planId}/{examineeId}/sync_cap.jpg`, a hard link | an object of this name, a link |
| appears in one step | written aside in the same directory, synced, renamed | its last message makes it an object |
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from actors.runtime.config.settings import Settings
from actors.web_server.pictures.incoming import STALE_SECONDS, Incoming, delete_files_older
from protocol.broker.streams import DAY

log = logging.getLogger("examwire.captures")
T = TypeVar("T")

FILE_NAME = "sync_cap.jpg"
CAPTURE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture in the store. `stored_at`: seconds since the epoch.

    Example::

        StoredPicture("P001", "E001", capture_id, stored_at=1_763_802_000.0)
    """

    plan_id: str
    examinee_id: str
    capture_id: str
    stored_at: float


class PictureStore(ABC):
    """The pictures of all plans. The caller checks ids (`protocol.ids`).

    Example::

        incoming = await pictures.begin("P001", "E001")
        await pictures.in_thread(incoming.write, content)
        await pictures.commit(incoming)
    """

    def __init__(self, uploads: Path, now: Callable[[], float] = time.time) -> None:
        """`uploads`: the directory of unfinished uploads. `now`: the broker's clock, seconds since the epoch."""
        self._uploads = uploads
        self._now = now
        # Threads of their own, so that nobody waits behind a decoder.
        self._threads = ThreadPoolExecutor(4, "files")

    def close(self) -> None:
        """End the threads; running work is finished, queued work is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work`, which blocks, in one of the threads for files and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def begin(self, plan_id: str, examinee_id: str) -> Incoming:
        """Begin a new upload of an examinee. Raises `StoreFailed`."""
        return await self.in_thread(Incoming, self._aside_of(plan_id, examinee_id), plan_id, examinee_id, self._now)

    async def sweep(self, keep_seconds: float) -> int:
        """Remove files of killed processes, and pictures older than `keep_seconds`; return how many.

        Raises `StoreFailed` and the errors of the store.
        """
        removed = await self._sweep_leftovers(self._now() - STALE_SECONDS)
        oldest = self._now() - keep_seconds
        if math.isinf(oldest):
            return removed
        for picture in await self.pictures():
            if picture.stored_at < oldest:
                removed += await self._remove(picture)
        return removed

    async def purge(self, plan_id: str, examinee_id: str | None, before: float) -> int:
        """Delete the pictures of a plan, or of one of its examinees, that were stored `before`; return how many.

        Newer ones are of a plan that has the planId since. Raises the errors of `delete`.
        """
        stored = await self.pictures(plan_id, examinee_id)
        older = [picture for picture in stored if picture.stored_at <= before]
        if older and len(older) == len(stored):
            return await self.delete(plan_id, examinee_id)
        return sum([await self._remove(picture) for picture in older])

    @abstractmethod
    async def pictures(self, plan_id: str | None = None, examinee_id: str | None = None) -> list[StoredPicture]:
        """Return the pictures of an examinee, of a plan, or all. Raises the errors of `read`."""

    @abstractmethod
    async def delete(self, plan_id: str, examinee_id: str | None = None) -> int:
        """Delete all pictures of a plan, or of one of its examinees, with what was uploaded of others; return how many.

        May be repeated. Raises the errors of `commit`.
        """

    @abstractmethod
    async def commit(self, incoming: Incoming) -> None:
        """Store a complete upload durably (it survives a power cut).

        Raises `StoreFailed`, and `BrokerUnavailable` when the pictures are in NATS.
        """

    @abstractmethod
    async def read(self, plan_id: str, examinee_id: str, capture_id: str | None) -> bytes | None:
        """Return a picture of an examinee, or `None`; without a `capture_id` the picture that was stored last.

        Raises `StoreFailed` when it exists and cannot be read, `BrokerUnavailable` when the pictures are in NATS.
        """

    @abstractmethod
    async def _remove(self, picture: StoredPicture) -> bool:
        """Remove a picture, unless it has been stored again since."""

    @abstractmethod
    def _aside_of(self, plan_id: str, examinee_id: str) -> Path: ...

    async def _sweep_leftovers(self, before: float) -> int:
        return await self.in_thread(delete_files_older, self._uploads, before)


def keep_seconds(settings: Settings) -> float:
    """Return for how many seconds pictures are kept; infinite when they are never removed."""
    return settings.captures.keep_days * DAY or math.inf


def file_name(capture_id: str | None) -> str:
    """Return the name of a picture; without a valid `capture_id` that of the picture stored last."""
    if capture_id is None or CAPTURE_ID.fullmatch(capture_id) is None:
        return FILE_NAME
    return f"{capture_id}.jpg"
