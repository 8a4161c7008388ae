"""One reading of a plan, encoded once and shared by all proctors who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import pydantic_core

from actors.runtime.store.state_store import StateStore
from protocol.client.plan_view import Parsed, event_key
from protocol.errors import StateDamaged, StateUnavailable
from protocol.messages.codec import encode
from protocol.messages.facts import Aspect
from protocol.messages.frames import ExamineeRow, PlanSnapshot
from protocol.records import keys
from protocol.records.snapshot_rows import (
    MOBILE_SYNC_FIELDS,
    NOTICES_FIELDS,
    PROGRESS_FIELDS,
    examinee_row,
    mobile_sync_view,
    notices_view,
)

log = logging.getLogger("examwire.plan_snapshot")

Values = list[str | None]
T = TypeVar("T")
Versions = dict[tuple[str, Aspect], int]

ROWS_A_FRAME = 500
ROWS_A_READ = 250
REUSE = 2.0  # times as long as the reading took: however proctors come, a third of the time at most is spent on it
OVERLAP_SECONDS = 15.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0


class SharedSnapshot:
    """Every examinee of a plan in encoded frames, and the events since its reading began.

    Whoever is sent all `frames()` and then all of `since` knows everything that was told up to then. `known` are the
    versions that the frames tell; they are forgotten once everything that is older has passed. `heal` is called once
    for each record that nobody can read.
    """

    def __init__(self, plan_id: str, store: StateStore, heal: Callable[[str], None], *, resync: bool = False) -> None:
        self.plan_id = plan_id
        self.resync = resync
        self.complete = False
        self.fresh = True
        self.takers = 0
        self.since: list[bytes] = []
        self.since_bytes = 0
        self.known: Versions = {}
        self._store = store
        self._heal = heal
        self._healed: set[str] = set()
        self._frames: list[bytes] = []
        self._size = 0
        self._more = asyncio.Event()
        self._error: BaseException | None = None

    # -- what is sent --------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[bytes]:
        """The frames in their order, each as soon as it is read. Raises what the reading ended with."""
        number = 0
        while not (self.complete and number >= len(self._frames)):
            if number < len(self._frames):
                yield self._frames[number]
                number += 1
            elif self._error is not None:
                raise self._error
            else:
                await self._more.wait()

    def add(self, events: list[Parsed], payload: bytes) -> bytes:
        """What `events` (encoded: `payload`) tell beyond the frames: empty when nothing.

        What the frames tell is not known before they are complete; until then, everything counts.
        """
        news = self._news(events, payload) if self.complete else payload
        if news and (self.takers or self.joinable):
            self.since.append(news)
            self.since_bytes += len(news)
        return news

    @property
    def joinable(self) -> bool:
        """Whether a proctor who comes now is sent this snapshot: it costs no more than a new one."""
        return self.fresh and not self.resync and (not self.complete or self.since_bytes <= self._size)

    def forget_frames(self) -> None:
        """Give back the memory: nobody is sent them any more."""
        self.fresh = False
        self._frames, self.since = [], []

    def _news(self, events: list[Parsed], payload: bytes) -> bytes:
        if not self.known:
            return payload
        news = [event for event in events if event["data"]["version"] > self.known.get(event_key(event), 0)]
        return payload if len(news) == len(events) else text_of(news)

    # -- how it is read ------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read everybody. However long Redis is away, the frames come, and each is read after `since` began."""
        examinees = await self._surely(partial(self._store.members, keys.plan_examinees(self.plan_id)))
        slices = [examinees[start : start + ROWS_A_FRAME] for start in range(0, len(examinees), ROWS_A_FRAME)] or [[]]
        for number, some in enumerate(slices):
            rows: list[ExamineeRow] = []
            for start in range(0, len(some), ROWS_A_READ):
                read = partial(read_rows, self._store, self.plan_id, some[start : start + ROWS_A_READ])
                rows += await self._surely(read)
            self.known.update(_versions(rows))
            frame = encode(
                PlanSnapshot(
                    plan_id=self.plan_id,
                    examinees=rows,
                    part=number + 1,
                    parts=len(slices),
                    resync=True if self.resync else None,
                )
            )
            self._frames.append(frame)
            self._size += len(frame)
            self.complete = number + 1 == len(slices)
            if self.complete:
                self.since = [news for events in self.since if (news := self._news(_parsed(events), events))]
                self.since_bytes = sum(len(news) for news in self.since)
            self._wake()
            await asyncio.sleep(0)  # others first: a row costs some 50 µs

    def fail(self, error: BaseException) -> None:
        """The reading has ended without the rest."""
        self.fresh, self._error = False, error
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def _surely(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read until it works. A record that cannot be read is written anew by the log, on demand."""
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return await read()
            except (StateUnavailable, StateDamaged) as error:
                log.warning("plan %s: no snapshot yet: %s", self.plan_id, error, extra={"plan": self.plan_id})
                if isinstance(error, StateDamaged) and error.key is not None and error.key not in self._healed:
                    self._healed.add(error.key)
                    self._heal(error.key)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)


def text_of(events: list[Parsed]) -> bytes:
    """Events as one frame; empty when there are none."""
    return pydantic_core.to_json(events if len(events) > 1 else events[0]) if events else b""


def _parsed(payload: bytes) -> list[Parsed]:
    parsed = pydantic_core.from_json(payload)
    return parsed if isinstance(parsed, list) else [parsed]


def _versions(rows: list[ExamineeRow]) -> Versions:
    versions: Versions = {}
    for row in rows:
        versions[row.examinee_id, "connection"] = row.version
        if row.mobile_sync.version:
            versions[row.examinee_id, "mobile_sync"] = row.mobile_sync.version
        if row.notices is not None:
            versions[row.examinee_id, "notices"] = row.notices.version
    return versions


async def read_rows(store: StateStore, plan_id: str, examinees: Sequence[str]) -> list[ExamineeRow]:
    """The rows of some examinees. Raises `StateUnavailable`, and `StateDamaged` with the key that is to blame."""
    progress = await store.fields([keys.progress(plan_id, one) for one in examinees], PROGRESS_FIELDS)
    pictures = await store.fields([keys.mobile_sync(plan_id, one) for one in examinees], MOBILE_SYNC_FIELDS)
    notices = await store.fields([keys.notices(plan_id, one) for one in examinees], NOTICES_FIELDS)
    rows: list[ExamineeRow] = []
    for one, *fields in zip(examinees, progress, pictures, notices, strict=True):
        try:
            rows.append(examinee_row(one, *fields))
        except ValueError as error:
            key = _garbled(plan_id, one, *fields[1:])
            raise StateDamaged(f"{key}: {str(error).splitlines()[0]}", key) from error
    return rows


def _garbled(plan_id: str, examinee_id: str, mobile_sync: Values, notices: Values) -> str:
    """Which record of an examinee is to blame when no row can be made of the three."""
    try:
        mobile_sync_view(dict(zip(MOBILE_SYNC_FIELDS, mobile_sync, strict=True)))
    except ValueError:
        return keys.mobile_sync(plan_id, examinee_id)
    try:
        notices_view(dict(zip(NOTICES_FIELDS, notices, strict=True)))
    except ValueError:
        return keys.notices(plan_id, examinee_id)
    return keys.progress(plan_id, examinee_id)
