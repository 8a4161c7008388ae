"""Enrol the examinees of a roster: publish facts for those who are new, or whose name, labels or times have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.store.state_store import StateStore
from cli.plans.decisions import NotApplied, plan_state, wait_applied
from protocol.access.roster import RosterEntry
from protocol.access.roster_file import InvalidRoster
from protocol.broker import subjects
from protocol.messages.facts import Enrol
from protocol.messages.plan_facts import ExamWindow
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of
from protocol.rules.plan_state import OwnTimes, PlanState
from protocol.times import format_time, parse_time

CHUNK = 500


@dataclass(slots=True)
class EnrolmentCounts:
    """How many entries of a roster were `new`, got another name (`renamed`), other labels only (`relabelled`), or were
    `known` unchanged. `timed`: how many got other times than before. `late`: set when the log has all of it, and Redis
    had not all of it in time.
    """

    new: int = 0
    renamed: int = 0
    relabelled: int = 0
    known: int = 0
    timed: int = 0
    late: NotApplied | None = None


async def enrol(
    bus: Bus,
    store: StateStore,
    plan_id: str,
    entries: Sequence[RosterEntry],
    by: str | None,
    windows: Sequence[OwnTimes] = (),
) -> EnrolmentCounts:
    """Publish the entries, and the times of those who differ; return when they are applied, or in the log and late.

    Raises `BrokerUnavailable`, `StateUnavailable`. Can be repeated. Entries that Redis already has are skipped to keep
    the log short; publishing them again would have no effect.
    """
    counts = EnrolmentCounts(timed=len(windows))
    changed: list[RosterEntry] = []
    for start in range(0, len(entries), CHUNK):
        batch = entries[start : start + CHUNK]
        bus.progress("comparing the roster", start, len(entries))
        for entry, news in zip(batch, await _compare(store, plan_id, batch), strict=True):
            setattr(counts, news.value, getattr(counts, news.value) + 1)
            if news is not _News.KNOWN:
                changed.append(entry)
    bus.progress("comparing the roster", len(entries), len(entries))
    now = format_time(bus.clock.now())
    facts = [
        Enrol(
            plan_id=plan_id,
            examinee_id=entry.examinee_id,
            name=entry.name,
            labels=dict(entry.labels) if entry.labels is not None else None,
            by=by,
            timestamp=now,
        )
        for entry in changed
    ]
    times = [
        ExamWindow(
            plan_id=plan_id,
            examinee_id=own.examinee_id,
            starts_at=own.starts_at,
            ends_at=own.ends_at,
            extra_seconds=own.extra_seconds,
            by=by or subjects.OPERATOR,
            timestamp=now,
        )
        for own in windows
    ]
    subject = subjects.status_plan(plan_id, subjects.OPERATOR)
    outgoing = [*Outgoing.batches(subject, facts, _message_id), *Outgoing.batches(subject, times, _message_id)]
    await bus.confirm(await bus.send(outgoing))
    try:
        await _wait_applied(bus, store, plan_id, changed, windows)
    except NotApplied as late:
        counts.late = late
    return counts


class _News(Enum):
    """What an entry changes; each value is the field of `EnrolmentCounts` that counts it."""

    NEW = "new"
    RENAMED = "renamed"
    RELABELLED = "relabelled"
    KNOWN = "known"


async def _compare(store: StateStore, plan_id: str, entries: Sequence[RosterEntry]) -> list[_News]:
    """Return what each entry would change in Redis. Raises `StateUnavailable`, `StateDamaged`."""
    found: list[_News] = []
    record_keys = [keys.progress(plan_id, entry.examinee_id) for entry in entries]
    records = await store.fields(record_keys, ("enrolled", "name", "labels"))
    for entry, (enrolled, name, labels) in zip(entries, records, strict=True):
        if enrolled != "1":
            found.append(_News.NEW)
        elif entry.name is not None and entry.name != name:
            found.append(_News.RENAMED)
        elif entry.labels is not None and entry.labels != labels_of(labels):
            found.append(_News.RELABELLED)
        else:
            found.append(_News.KNOWN)
    return found


async def _wait_applied(
    bus: Bus, store: StateStore, plan_id: str, changed: Sequence[RosterEntry], windows: Sequence[OwnTimes]
) -> None:
    """Wait until Redis has these entries and times. Raises `NotApplied` when a part is not there in time."""
    what = f"the roster of plan {plan_id}"
    for start in range(0, len(changed), CHUNK):
        batch = changed[start : start + CHUNK]
        await wait_applied(
            partial(_compare, store, plan_id, batch),
            lambda found: all(news is _News.KNOWN for news in found),
            what,
        )
        bus.progress("enrolling", start + len(batch), len(changed))
    if windows:
        await wait_applied(
            lambda: plan_state(store, plan_id),
            lambda plan: all(plan.own(own.examinee_id) == own for own in windows),
            what,
        )


def changed_windows(plan: PlanState, entries: Sequence[RosterEntry], now: float) -> list[OwnTimes]:
    """Return the own times that a roster changes. `plan`: as it is when the roster has been read.

    An empty cell leaves what is set. Raises `InvalidRoster` when times contradict one another or the plan's, or when a
    new end is in the past (`now`: seconds since the epoch).
    """
    windows: list[OwnTimes] = []
    problems: list[str] = []
    for entry in entries:
        if not entry.has_times:
            continue
        before = plan.own(entry.examinee_id)
        own = replace(
            before,
            starts_at=entry.starts_at or before.starts_at,
            ends_at=entry.ends_at or before.ends_at,
            extra_seconds=before.extra_seconds if entry.extra_seconds is None else entry.extra_seconds,
        )
        if own == before:
            continue
        windows.append(own)
        starts_at, ends_at = own.starts_at or plan.starts_at, own.ends_at or plan.ends_at
        if starts_at is not None and ends_at is not None and parse_time(ends_at) <= parse_time(starts_at):
            problems.append(f"line {entry.line}: the exam of {entry.examinee_id} would end before it begins")
        elif own.ends_at is not None and own.ends_at != before.ends_at and parse_time(own.ends_at) <= now:
            problems.append(f"line {entry.line}, column endsAt: {own.ends_at} is in the past")
    if problems:
        raise InvalidRoster(problems)
    return windows


def _message_id(payload: bytes) -> str:
    """The same facts, enrolled again, are stored once."""
    return "enrol-" + hashlib.sha256(payload).hexdigest()
