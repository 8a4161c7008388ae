"""The texts of timeline entries about a plan: its times, its beginning and end, messages to everybody."""

from __future__ import annotations

from typing import Any

from protocol.log.entry_text import EntryText
from protocol.log.timeline_entry import EntryKind
from protocol.messages.plan_facts import (
    ExamExtend,
    ExamWindow,
    PlanClose,
    PlanFact,
    PlanNotice,
    PlanOpen,
    PlanPurged,
    PlanRecordFact,
    PlanRestate,
    PlanSchedule,
)
from protocol.rules.plan_state import PlanState
from protocol.texts import person
from protocol.times import format_time


def describe_plan(before: PlanState, after: PlanState, fact: PlanRecordFact) -> EntryText:
    """Describe what a fact did to the plan, whose state was `before`."""
    if isinstance(fact, PlanRestate):
        return EntryText(EntryKind.RESTATED, f"plan repeated: {after.status.value}")
    details = _decided(fact)
    if after.version == before.version:
        return EntryText(EntryKind.NO_EFFECT, _without_effect(before, fact), details)
    match fact:
        case PlanSchedule():
            return EntryText(
                EntryKind.PLAN_SCHEDULED, _schedule_text(before, after, fact), {**details, **_times(after)}
            )
        case PlanOpen():
            return EntryText(EntryKind.PLAN_OPENED, _open_text(before, fact), {**details, **_times(after)})
        case PlanClose():
            return _describe_close(after, fact, details)
        case ExamExtend():
            return _describe_extend(after, fact, details)
        case ExamWindow():
            own = _own_times(after, fact.examinee_id)
            return EntryText(EntryKind.OWN_TIMES, _window_text(after, fact), {**details, **own})
        case PlanPurged():
            return describe_purge(fact)


def _times(state: PlanState) -> dict[str, Any]:
    return {"starts_at": state.starts_at, "ends_at": state.ends_at}


def _own_times(state: PlanState, examinee_id: str) -> dict[str, Any]:
    return {"starts_at": state.start_of(examinee_id), "ends_at": state.end_of(examinee_id)}


def _decided(fact: PlanFact) -> dict[str, Any]:
    return {"by": fact.by, "by_name": fact.by_name, "action_id": fact.action_id}


def _by(fact: PlanFact) -> str:
    return f"by {person(fact.by, fact.by_name)}"


def _schedule_text(before: PlanState, after: PlanState, fact: PlanSchedule) -> str:
    changes = []
    if after.name != before.name:
        changes.append(f"named {after.name}")
    if after.starts_at != before.starts_at:
        changes.append(f"begins at {after.starts_at}")
    if after.ends_at != before.ends_at:
        changes.append(f"ends at {after.ends_at}" if after.ends_at is not None else "has no end yet")
    if after.policy != before.policy:
        now, then = (state.policy.model_dump(by_alias=True) for state in (after, before))
        changed = [f"{name} {_value(value)}" for name, value in now.items() if value != then[name]]
        changes.append(f"policy: {', '.join(changed)}")
    if after.status is not before.status:
        changes.append(f"is {after.status.value}")
    return f"scheduled {_by(fact)}: {'; '.join(changes) or 'as before'}"


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return " ".join(map(_value, value))
        case float():
            return f"{value:g}"
    return str(value)


def _open_text(before: PlanState, fact: PlanOpen) -> str:
    if fact.schedule_version is not None:
        return "the exam begins, as scheduled"
    return f"opened again {_by(fact)}" if before.closed else f"opened {_by(fact)}"


def _describe_close(after: PlanState, fact: PlanClose, details: dict[str, Any]) -> EntryText:
    details = {**details, "reason": fact.reason}
    if not after.closed:
        until = format_time(after.ends()[-1])
        text = f"the time is up, except for examinees with more time, until {until} at the latest"
        return EntryText(EntryKind.TIME_UP, text, details)
    if fact.schedule_version is not None:
        return EntryText(EntryKind.PLAN_CLOSED, "the exam ends, as scheduled", details)
    why = f": {fact.reason}" if fact.reason else ""
    return EntryText(EntryKind.PLAN_CLOSED, f"closed {_by(fact)}{why}", details)


def _describe_extend(after: PlanState, fact: ExamExtend, details: dict[str, Any]) -> EntryText:
    times = _times(after) if fact.examinee_id is None else _own_times(after, fact.examinee_id)
    whom = " for everybody" if fact.examinee_id is None else ""
    text = f"{minutes(fact.seconds)} more{whom} {_by(fact)}, until {times['ends_at']}"
    return EntryText(EntryKind.EXTENDED, text, {**details, **times, "seconds": fact.seconds})


def minutes(seconds: int) -> str:
    """Return a length of time for people: whole minutes as `15 min`, else seconds."""
    return f"{seconds} s" if seconds % 60 else f"{seconds // 60} min"


def _window_text(after: PlanState, fact: ExamWindow) -> str:
    own = after.own(fact.examinee_id)
    parts = []
    if own.starts_at is not None:
        parts.append(f"begins at {own.starts_at}")
    if own.ends_at is not None:
        parts.append(f"ends at {own.ends_at}")
    if own.extra_seconds:
        parts.append(f"{minutes(own.extra_seconds)} more")
    return f"own times {_by(fact)}: {', '.join(parts) or 'those of the plan'}"


def _without_effect(before: PlanState, fact: PlanRecordFact) -> str:
    match fact:
        case PlanSchedule():
            return f"schedule {_by(fact)} without effect: repeated, or its end is not after its beginning"
        case PlanOpen(schedule_version=None):
            return f"opened {_by(fact)} again: no effect"
        case PlanOpen():
            return "a scheduled beginning that was moved, or is over: no effect"
        case PlanClose(schedule_version=None):
            return f"closed {_by(fact)} again: no effect"
        case PlanClose():
            return "a scheduled end that was moved, or is over: no effect"
        case ExamExtend():
            why = "the plan is closed" if before.closed else "repeated, or there is no end"
            return f"{minutes(fact.seconds)} more {_by(fact)} without effect: {why}"
        case _:
            return f"own times {_by(fact)} again: no effect"


def describe_plan_notice(fact: PlanNotice) -> EntryText:
    """Describe a message to everybody, or to several."""
    whom = "everybody" if fact.examinees is None else f"{len(fact.examinees)} examinees"
    details = {**_decided(fact), "notice": fact.text}
    return EntryText(EntryKind.PLAN_NOTICE, f"message to {whom} {_by(fact)}: {fact.text}", details)


def describe_purge(fact: PlanPurged) -> EntryText:
    """Describe a deletion."""
    what = "plan" if fact.examinee_id is None else fact.examinee_id
    counts = f"{fact.records} records, {fact.messages} messages, {fact.pictures} pictures"
    return EntryText(
        EntryKind.PURGED, f"{what} deleted {_by(fact)}: {counts}", {"by": fact.by, "by_name": fact.by_name}
    )
