"""A snapshot of a plan: read from Redis once, encoded once, and shared by all proctors who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import pydantic_core

from actors.runtime.store.state_store import StateStore
from actors.sessions.context import ServerContext
from protocol.access.scope import PlanLabels, Scope, scoped_notices, scoped_rows
from protocol.broker.passed_on import PlanEvent
from protocol.client.plan_view import EventKey
from protocol.errors import StateDamaged, StateUnavailable
from protocol.ids import RecordRef
from protocol.messages.codec import encode, join_batch
from protocol.messages.frames import ExamineeRow, PlanSnapshot
from protocol.messages.plan_facts import PlanNotice
from protocol.records import keys
from protocol.records.placement import restate_fact
from protocol.records.snapshot_rows import (
    MOBILE_SYNC_FIELDS,
    NOTICES_FIELDS,
    PLAN_NOTICES_FIELDS,
    PROGRESS_FIELDS,
    examinee_row,
    labels_of,
    mobile_sync_view,
    notices_view,
    plan_notices,
)
from protocol.times import format_time

log = logging.getLogger("examwire.plan_snapshot")

Values = list[str | None]
T = TypeVar("T")
Versions = dict[EventKey, int]

ROWS_A_FRAME = 500
ROWS_A_READ = 250
LABELS_A_READ = 1000
REUSE = 2.0
"""Proctors who join share a snapshot for this many times as long as its reading took: so reading takes at most a third
of the time, however often proctors join."""

OVERLAP_SECONDS = 15.0
"""For so long after a snapshot was read, events that it holds already may still arrive."""

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0


class SharedLabels:
    """The labels of a plan, which its snapshots share. `reading`: held by the one that reads them."""

    def __init__(self) -> None:
        self.labels = PlanLabels()
        self.reading = asyncio.Lock()


class SharedSnapshot:
    """Every examinee of a plan in encoded frames, and the events since its reading began.

    snapshot = SharedSnapshot(context, "P001")
    reading = asyncio.create_task(snapshot.read())
    async for frame in snapshot.frames(): ...  # and then everything in `snapshot.since`

    A proctor who is sent all frames and then all of `since` knows every event up to then. `known` holds the versions
    that are in the frames, until `forget_versions`. `takers`: how many proctors are being sent the snapshot.

    `scope`: the frames hold only the examinees in it, and `add` is given only what it is told. `labels` learn from the
    rows that are read.
    """

    def __init__(
        self,
        context: ServerContext,
        plan_id: str,
        *,
        resync: bool = False,
        scope: Scope | None = None,
        labels: SharedLabels | None = None,
    ) -> None:
        self.plan_id = plan_id
        self.scope = scope
        self._shared_labels = labels or SharedLabels()
        self._labels = self._shared_labels.labels
        self.resync = resync
        self.complete = False
        self.fresh = True
        self.takers = 0
        self.since: list[bytes] = []
        self.since_bytes = 0
        self.known: Versions = {}
        self._context = context
        self._repairs_requested: set[RecordRef] = set()
        self._frames: list[bytes] = []
        self._size = 0
        self._next_frame = asyncio.Event()
        self._error: BaseException | None = None

    # -- what is sent --------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the frames in order, each as soon as it is read. Raises the error that has ended the reading."""
        number = 0
        while not (self.complete and number >= len(self._frames)):
            if number < len(self._frames):
                yield self._frames[number]
                number += 1
            elif self._error is not None:
                raise self._error
            else:
                await self._next_frame.wait()

    def add(self, events: list[PlanEvent], payload: bytes) -> bytes:
        """Keep events (`payload` when encoded) for those who are being sent the frames. Returns the events to send now.

        That is without the events that the frames hold already; empty when they hold all of them. Which ones they hold
        is not known before they are complete.
        """
        beyond = self._beyond_frames(events, payload) if self.complete else payload
        if beyond and (self.takers or self.joinable):
            self.since.append(beyond)
            self.since_bytes += len(beyond)
        return beyond

    @property
    def joinable(self) -> bool:
        """Whether a proctor who joins now shares this snapshot: it costs no more than a new one."""
        return self.fresh and not self.resync and (not self.complete or self.since_bytes <= self._size)

    def expire(self) -> None:
        """Share this snapshot with nobody else."""
        self.fresh = False

    def forget_versions(self) -> None:
        """Free the versions in the frames: no event that the frames hold arrives any more."""
        self.known = {}

    def forget_frames(self) -> None:
        """Free the frames: nobody is sent them any more."""
        self.fresh = False
        self._frames, self.since = [], []

    def _beyond_frames(self, events: list[PlanEvent], payload: bytes) -> bytes:
        if not self.known:
            return payload
        beyond = [event for event in events if event.version > self.known.get(event.key, 0)]
        return payload if len(beyond) == len(events) else text_of(beyond)

    # -- reading -------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read every examinee; while Redis is away, try again. Each frame is read after `since` began."""
        store = self._context.store
        examinees = await self._read_with_retries(partial(store.members, keys.plan_examinees(self.plan_id)))
        cleared = self._labels.cleared
        if self.scope is not None:
            examinees = await self._within(self.scope, examinees)
        slices = [examinees[start : start + ROWS_A_FRAME] for start in range(0, len(examinees), ROWS_A_FRAME)] or [[]]
        for number, examinees_of_frame in enumerate(slices):
            rows: list[ExamineeRow] = []
            for start in range(0, len(examinees_of_frame), ROWS_A_READ):
                names = examinees_of_frame[start : start + ROWS_A_READ]
                rows += await self._read_with_retries(partial(read_rows, store, self.plan_id, names))
            for row in rows:
                self._labels.learn(row.examinee_id, row.version, row.labels or {})
            if self.scope is not None:
                rows = scoped_rows(rows, self.scope, self._labels)
            self.known.update(_versions(rows))
            notices = await self._read_with_retries(self._read_plan_notices) if number == 0 else []
            if self.scope is not None:
                notices = scoped_notices(notices, self.scope, self._labels)
            frame = encode(
                PlanSnapshot(
                    plan_id=self.plan_id,
                    examinees=rows,
                    part=number + 1,
                    parts=len(slices),
                    resync=True if self.resync else None,
                    plan_notices=notices or None,
                )
            )
            self._frames.append(frame)
            self._size += len(frame)
            self.complete = number + 1 == len(slices)
            if self.complete and self.scope is None:
                self._labels.all_read(cleared)
            if self.complete:
                beyond = [self._beyond_frames(_events_in(payload), payload) for payload in self.since]
                self.since = [payload for payload in beyond if payload]
                self.since_bytes = sum(len(payload) for payload in self.since)
            self._wake()
            await asyncio.sleep(0)  # let other work run: a row costs some 50 µs

    async def _within(self, scope: Scope, examinees: Sequence[str]) -> list[str]:
        """Return the examinees in a scope. Their labels are read once for all scopes of the plan."""
        async with self._shared_labels.reading:
            cleared = self._labels.cleared
            for start in range(0, 0 if self._labels.complete else len(examinees), LABELS_A_READ):
                names = examinees[start : start + LABELS_A_READ]
                known = await self._read_with_retries(partial(read_labels, self._context.store, self.plan_id, names))
                for examinee_id, (version, labels) in known.items():
                    self._labels.learn(examinee_id, version, labels)
            self._labels.all_read(cleared)
        return [examinee_id for examinee_id in examinees if scope.matches(self._labels.of(examinee_id))]

    async def _read_plan_notices(self) -> list[PlanNotice]:
        """Read the messages to several. They are in the frames from then on, so their events are not sent again."""
        key = keys.plan_notices(self.plan_id)
        (fields,) = await self._context.store.fields([key], PLAN_NOTICES_FIELDS)
        try:
            notices = plan_notices(self.plan_id, fields)
        except ValueError as error:
            raise StateDamaged(f"{key}: {str(error).splitlines()[0]}", keys.parse_key(key)) from error
        self.known.update({(notice.action_id, "plan_notices"): notice.version or 0 for notice in notices})
        return notices

    def fail(self, error: BaseException) -> None:
        """Note that the reading has ended with an error, without the rest of the frames."""
        self.fresh, self._error = False, error
        self._wake()

    def _wake(self) -> None:
        self._next_frame.set()
        self._next_frame = asyncio.Event()

    async def _read_with_retries(self, read: Callable[[], Awaitable[T]]) -> T:
        """Call `read` until it succeeds. For a record that is damaged, request its repair once."""
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return await read()
            except (StateUnavailable, StateDamaged) as error:
                log.warning(
                    "plan %s: the snapshot cannot be read yet: %s", self.plan_id, error, extra={"plan": self.plan_id}
                )
                if isinstance(error, StateDamaged) and error.record is not None:
                    self._request_repair(error.record)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    def _request_repair(self, record: RecordRef) -> None:
        """Have a damaged record written anew from the log: it would keep the whole plan from its proctors."""
        if record in self._repairs_requested:
            return
        self._repairs_requested.add(record)
        if (fact := restate_fact(record, format_time(self._context.clock.now()))) is not None:
            self._context.outbox.add(fact)


def text_of(events: list[PlanEvent]) -> bytes:
    """Return the text of one frame with these events; empty when there are none."""
    return join_batch([event.encoded for event in events]) if events else b""


def _events_in(payload: bytes) -> list[PlanEvent]:
    parsed = pydantic_core.from_json(payload)
    return [PlanEvent.of(event) for event in (parsed if isinstance(parsed, list) else [parsed])]


def _versions(rows: list[ExamineeRow]) -> Versions:
    versions: Versions = {}
    for row in rows:
        versions[row.examinee_id, "connection"] = row.version
        if row.mobile_sync.version:
            versions[row.examinee_id, "mobile_sync"] = row.mobile_sync.version
        if row.notices is not None:
            versions[row.examinee_id, "notices"] = row.notices.version
    return versions


async def read_labels(
    store: StateStore, plan_id: str, examinees: Sequence[str]
) -> dict[str, tuple[int, dict[str, str]]]:
    """Read the version and the labels of each examinee. Raises `StateUnavailable`, or `StateDamaged` with the key."""
    record_keys = [keys.progress(plan_id, examinee) for examinee in examinees]
    known: dict[str, tuple[int, dict[str, str]]] = {}
    fields = await store.fields(record_keys, ("version", "labels"))
    for examinee, key, (version, labels) in zip(examinees, record_keys, fields, strict=True):
        try:
            known[examinee] = int(version or 0), labels_of(labels)
        except ValueError as error:
            raise StateDamaged(f"{key}: {str(error).splitlines()[0]}", keys.parse_key(key)) from error
    return known


async def read_rows(store: StateStore, plan_id: str, examinees: Sequence[str]) -> list[ExamineeRow]:
    """Read the rows of these examinees. Raises `StateUnavailable`, or `StateDamaged` with the key of the record."""
    progress = await store.fields([keys.progress(plan_id, examinee) for examinee in examinees], PROGRESS_FIELDS)
    pictures = await store.fields([keys.mobile_sync(plan_id, examinee) for examinee in examinees], MOBILE_SYNC_FIELDS)
    notices = await store.fields([keys.notices(plan_id, examinee) for examinee in examinees], NOTICES_FIELDS)
    rows: list[ExamineeRow] = []
    for examinee, *fields in zip(examinees, progress, pictures, notices, strict=True):
        try:
            rows.append(examinee_row(examinee, *fields))
        except ValueError as error:
            record = _damaged_record(plan_id, examinee, *fields[1:])
            raise StateDamaged(f"{record.key}: {str(error).splitlines()[0]}", record) from error
    return rows


def _damaged_record(plan_id: str, examinee_id: str, mobile_sync: Values, notices: Values) -> RecordRef:
    """Return the record that is damaged when the three of an examinee do not make a row."""
    try:
        mobile_sync_view(dict(zip(MOBILE_SYNC_FIELDS, mobile_sync, strict=True)))
    except ValueError:
        return keys.parse_key(keys.mobile_sync(plan_id, examinee_id))
    try:
        notices_view(dict(zip(NOTICES_FIELDS, notices, strict=True)))
    except ValueError:
        return keys.parse_key(keys.notices(plan_id, examinee_id))
    return keys.parse_key(keys.progress(plan_id, examinee_id))
