"""Entries of an examinee's timeline, and the state at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from protocol.messages.base import Wire
from protocol.times import format_time


class EntryKind(StrEnum):
    """Kind of a timeline entry.

    LEFT, RETURNED: a finished examinee has disconnected or connected, which is no loss. TIME_UP: the end has come for
    all but those with more time. NEWER: only a newer release knows what has happened.
    """

    ENROLLED = "ENROLLED"
    JOINED = "JOINED"
    RECOVERED = "RECOVERED"
    ARRIVED = "ARRIVED"
    REPLACED = "REPLACED"
    REFUSED = "REFUSED"
    LOST = "LOST"
    MIGRATING = "MIGRATING"
    RECONNECTING = "RECONNECTING"
    SHUT_OUT = "SHUT_OUT"
    STABLE = "STABLE"
    REMOVED = "REMOVED"
    FINISHED = "FINISHED"
    RESUMED = "RESUMED"
    LEFT = "LEFT"
    RETURNED = "RETURNED"
    READMITTED = "READMITTED"
    SYNC_WAITING = "SYNC_WAITING"
    SYNC_EXTENDED = "SYNC_EXTENDED"
    SYNC_COMPLETED = "SYNC_COMPLETED"
    SYNC_KEPT = "SYNC_KEPT"
    SYNC_ACCEPTED = "SYNC_ACCEPTED"
    SYNC_REJECTED = "SYNC_REJECTED"
    SYNC_FAILED = "SYNC_FAILED"
    SYNC_TIMED_OUT = "SYNC_TIMED_OUT"
    NOTICE = "NOTICE"
    NOTICE_CONFIRMED = "NOTICE_CONFIRMED"
    HELP_REQUESTED = "HELP_REQUESTED"
    HELP_TAKEN = "HELP_TAKEN"
    HELP_CLOSED = "HELP_CLOSED"
    PLAN_SCHEDULED = "PLAN_SCHEDULED"
    PLAN_OPENED = "PLAN_OPENED"
    PLAN_CLOSED = "PLAN_CLOSED"
    TIME_UP = "TIME_UP"
    EXTENDED = "EXTENDED"
    OWN_TIMES = "OWN_TIMES"
    PLAN_NOTICE = "PLAN_NOTICE"
    PURGED = "PURGED"
    RESTATED = "RESTATED"
    NO_EFFECT = "NO_EFFECT"
    NEWER = "NEWER"


class TimelineEntry(Wire):
    """One fact and what was decided about it.

    `text` says it to people. `effect`: it changed what is recorded, or refused somebody. `status` and `mobileSync` are
    those after it; without `examineeId` the fact is about the whole plan, and `status` is the plan's. `seconds`: how
    long the outage (or the migration) lasted that this ends, or how much more time there is. `by`: who has decided it,
    with the action `actionId`; of a confirmation, whose message was confirmed. `startsAt` and `endsAt`: the times after
    it, of the plan or of the examinee. `closeCode`: that of the close frame by which a connection ended. `userAgent`:
    the header that was seen when it opened.
    """

    version: int
    logged: str
    time: str
    plan_id: str
    examinee_id: str | None = None
    what: EntryKind
    effect: bool
    text: str
    status: str
    mobile_sync: str
    reason: str | None = None
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    close_code: int | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    by: str | None = None
    by_name: str | None = None
    action_id: str | None = None
    name: str | None = None
    notice: str | None = None
    seconds: float | None = None
    device_id: str | None = None
    image_url: str | None = None
    capture_id: str | None = None
    deadline: str | None = None
    starts_at: str | None = None
    ends_at: str | None = None


_ABOUT_NO_CONNECTION = frozenset(
    {
        *(EntryKind.NOTICE, EntryKind.NOTICE_CONFIRMED, EntryKind.PLAN_NOTICE, EntryKind.PLAN_SCHEDULED),
        *(EntryKind.PLAN_OPENED, EntryKind.PLAN_CLOSED, EntryKind.TIME_UP, EntryKind.EXTENDED, EntryKind.OWN_TIMES),
        *(EntryKind.PURGED, EntryKind.HELP_REQUESTED, EntryKind.HELP_TAKEN, EntryKind.HELP_CLOSED),
    }
)


@dataclass(frozen=True, slots=True)
class StatusAtTime:
    """The status of an examinee at a time of the log, and the entries that led to it.

    `status_entry` is the entry that set `status`, `latest_entry` the last one about the connection (an attempt, say),
    `mobile_sync_entry` the one that set `mobile_sync`. `next_entry` is the first one after that time.
    """

    status: str
    mobile_sync: str
    status_entry: TimelineEntry | None
    latest_entry: TimelineEntry | None
    mobile_sync_entry: TimelineEntry | None
    next_entry: TimelineEntry | None


def status_at_time(entries: Iterable[TimelineEntry], time: float) -> StatusAtTime:
    """Return the status of one examinee at `time` (seconds since the epoch), by the time at which the log took each
    entry (`logged`).

    `entries`: the examinee's entries in the order of the log.
    """
    limit = format_time(time)
    status_entry = latest_entry = mobile_sync_entry = next_entry = None
    for entry in entries:
        if not entry.effect:
            continue
        if entry.logged > limit:
            next_entry = entry
            break
        if entry.what.name.startswith("SYNC_"):
            mobile_sync_entry = entry
            continue
        if entry.what in _ABOUT_NO_CONNECTION:
            continue
        if status_entry is None or status_entry.status != entry.status or entry.what is EntryKind.REPLACED:
            status_entry = entry
        latest_entry = entry
    return StatusAtTime(
        status_entry.status if status_entry is not None else "NEVER",
        mobile_sync_entry.mobile_sync if mobile_sync_entry is not None else "NONE",
        status_entry,
        latest_entry,
        mobile_sync_entry,
        next_entry,
    )
