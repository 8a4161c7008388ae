"""Rules of a plan: its schedule, its beginning and its end. docs/architecture.md, "The life of an exam"."""

from __future__ import annotations

from bisect import insort
from dataclasses import replace

from protocol.messages.plan_facts import (
    ExamExtend,
    ExamWindow,
    PlanClose,
    PlanOpen,
    PlanPolicy,
    PlanPurged,
    PlanRecordFact,
    PlanRestate,
    PlanSchedule,
    PlanStatusCode,
)
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import Effect, FinishExaminees, ResumeExaminees, SchedulePlan, SendPlanState
from protocol.rules.history import Outcome
from protocol.rules.plan_state import OwnTimes, PlanState
from protocol.times import format_time, parse_time


def apply(state: PlanState, version: int, fact: PlanRecordFact) -> Outcome[PlanState]:
    """Apply one fact to a plan. Facts must come in the order of their versions (`protocol.rules.history`)."""
    if already_applied(state.actions, fact):
        return Outcome(state)
    outcome = _apply(replace(state, plan_id=fact.plan_id), version, fact)
    # The renaming of an examinee changes no version.
    renamed = isinstance(fact, PlanPurged) and state.version
    return outcome if renamed or outcome.state.version == version else Outcome(state)


def _apply(state: PlanState, version: int, fact: PlanRecordFact) -> Outcome[PlanState]:
    match fact:
        case PlanSchedule():
            return _apply_schedule(state, version, fact)
        case PlanOpen():
            return _apply_open(state, version, fact)
        case PlanClose():
            return _apply_close(state, version, fact)
        case ExamExtend():
            return _apply_extend(state, version, fact)
        case ExamWindow():
            return _apply_window(state, version, fact)
        case PlanPurged():
            return _apply_purged(state, version, fact)
        case PlanRestate():
            return _apply_restate(state, version, fact)


def _apply_schedule(state: PlanState, version: int, fact: PlanSchedule) -> Outcome[PlanState]:
    starts_at, ends_at = fact.starts_at or state.starts_at, fact.ends_at or state.ends_at
    if state.closed and fact.ends_at is None and fact.starts_at is not None:
        ends_at = None  # that of the last sitting
    if starts_at is not None and ends_at is not None and parse_time(ends_at) <= parse_time(starts_at):
        return Outcome(state)  # with what was set before the times contradict one another; the door has said so
    begins_later = starts_at is not None and parse_time(starts_at) > parse_time(fact.timestamp)
    status = state.status
    if fact.starts_at is not None and begins_later:
        status = PlanStatusCode.SCHEDULED
    elif status is PlanStatusCode.SCHEDULED and not begins_later:
        status = PlanStatusCode.OPEN
    scheduled = replace(
        state,
        status=status,
        name=fact.name or state.name,
        starts_at=starts_at,
        ends_at=ends_at,
        policy=_merge(state.policy, fact.policy),
        actions=with_action(state.actions, fact),
    )
    if status is not PlanStatusCode.CLOSED:
        scheduled = replace(scheduled, closed_at=None, closed_by=None, closed_by_name=None, closed_reason=None)
    return _announce(scheduled, version, *_resumed(state, scheduled, version, fact.timestamp))


def _merge(policy: PlanPolicy, newer: PlanPolicy | None) -> PlanPolicy:
    return policy if newer is None else policy.model_copy(update=newer.model_dump(exclude_none=True))


def _apply_open(state: PlanState, version: int, fact: PlanOpen) -> Outcome[PlanState]:
    scheduled = fact.schedule_version is not None
    if scheduled and (fact.schedule_version != state.start_version or state.status is not PlanStatusCode.SCHEDULED):
        return Outcome(state)  # the beginning was moved, or somebody opened or closed the plan before
    if state.status is PlanStatusCode.OPEN:
        return Outcome(state)
    now = parse_time(fact.timestamp)
    starts_at, ends_at = state.starts_at, state.ends_at
    if starts_at is not None and parse_time(starts_at) > now:
        starts_at = fact.timestamp
    if ends_at is not None and parse_time(ends_at) <= now:
        ends_at = None  # opened again after its end: until somebody closes it, or sets another end
    opened = replace(
        state,
        status=PlanStatusCode.OPEN,
        starts_at=starts_at,
        ends_at=ends_at,
        own_times=tuple(own for own in state.own_times if not state.closed or _ends_later(own, now)),
        closed_at=None,
        closed_by=None,
        closed_by_name=None,
        closed_reason=None,
        actions=with_action(state.actions, fact),
    )
    return _announce(opened, version, *_resumed(state, opened, version, fact.timestamp))


def _ends_later(own: OwnTimes, now: float) -> bool:
    """Return whether own times still mean something when a closed plan is opened again at `now`."""
    return own.ends_at is None or parse_time(own.ends_at) > now


def _resumed(before: PlanState, after: PlanState, version: int, timestamp: str) -> tuple[Effect, ...]:
    """Return what resumes those whom the end of a plan has finished, when it is not closed any more."""
    if before.closed and not after.closed:
        return (ResumeExaminees(after.plan_id, timestamp, version),)
    return ()


def _apply_close(state: PlanState, version: int, fact: PlanClose) -> Outcome[PlanState]:
    scheduled = fact.schedule_version is not None
    if state.closed or (scheduled and fact.schedule_version != state.end_version):
        return Outcome(state)  # closed before, or its end was moved
    moment = parse_time(fact.timestamp)
    finish = FinishExaminees(fact.plan_id, fact.timestamp, version)
    if scheduled and (later := [end for end in state.ends() if end > moment]):
        # The time of some examinees is not up yet: finish the others, and come again at the next end.
        waiting = replace(state, end_version=version, version=version)
        again = SchedulePlan(fact.plan_id, format_time(later[0]), opens=False, version=version)
        return Outcome(waiting, (waiting.event(),), (again, SendPlanState(fact.plan_id, version), finish))
    closed = replace(
        state,
        status=PlanStatusCode.CLOSED,
        closed_at=fact.timestamp,
        closed_by=fact.by,
        closed_by_name=fact.by_name,
        closed_reason=fact.reason,
        closed_version=version,
        actions=with_action(state.actions, fact),
    )
    return _announce(closed, version, finish)


def _apply_extend(state: PlanState, version: int, fact: ExamExtend) -> Outcome[PlanState]:
    if state.closed:
        return Outcome(state)
    if fact.examinee_id is None:
        if state.ends_at is None:
            return Outcome(state)
        extended = replace(state, ends_at=format_time(parse_time(state.ends_at) + fact.seconds))
        own_times = tuple(
            own if own.ends_at is None else replace(own, ends_at=format_time(parse_time(own.ends_at) + fact.seconds))
            for own in state.own_times
        )
        extended = replace(extended, own_times=own_times)
    else:
        if state.end_of(fact.examinee_id) is None:
            return Outcome(state)
        own = state.own(fact.examinee_id)
        extended = _with_own(state, replace(own, extra_seconds=own.extra_seconds + fact.seconds))
    extended = replace(extended, actions=with_action(state.actions, fact))
    resume = ResumeExaminees(fact.plan_id, fact.timestamp, version, fact.examinee_id)
    return _announce(extended, version, resume)


def _apply_window(state: PlanState, version: int, fact: ExamWindow) -> Outcome[PlanState]:
    own = OwnTimes(fact.examinee_id, fact.starts_at, fact.ends_at, fact.extra_seconds)
    if own == state.own(fact.examinee_id):
        return Outcome(state)
    changed = _with_own(state, own)
    return _announce(replace(changed, actions=with_action(state.actions, fact)), version)


def _with_own(state: PlanState, own: OwnTimes) -> PlanState:
    """Return the plan with these own times of an examinee; without an entry for them when they differ in nothing."""
    own_times = [other for other in state.own_times if other.examinee_id != own.examinee_id]
    if own != OwnTimes(own.examinee_id):
        insort(own_times, own, key=lambda other: other.examinee_id)
    return replace(state, own_times=tuple(own_times))


def _apply_purged(state: PlanState, version: int, fact: PlanPurged) -> Outcome[PlanState]:
    """Rename an examinee who is deleted, whose own times may have moved the plan's end; then tell the times again.

    The first fact of a purge is deleted itself, and later the log has the new name only: so the renaming changes no
    version.
    """
    if not state.version:
        return Outcome(state)
    if not fact.begins:
        return _announce(state, version)
    own_times = {own.examinee_id: own for own in state.own_times}
    if fact.examinee_id is None or fact.alias is None or fact.examinee_id not in own_times:
        return Outcome(state)
    own = replace(own_times[fact.examinee_id], examinee_id=fact.alias)
    return Outcome(_with_own(_with_own(state, OwnTimes(fact.examinee_id)), own))


def _apply_restate(state: PlanState, version: int, fact: PlanRestate) -> Outcome[PlanState]:
    if not state.version:
        return Outcome(state)
    effects = (FinishExaminees(fact.plan_id, fact.timestamp, version),) if state.closed else ()
    return _announce(state, version, *effects, restated=True)


def _announce(state: PlanState, version: int, *effects: Effect, restated: bool | None = None) -> Outcome[PlanState]:
    """Return the outcome of a change: the event, the schedules of the beginning and of the next end, and `effects`."""
    schedules: list[Effect] = []
    start_version, end_version = 0, 0
    if state.status is PlanStatusCode.SCHEDULED and state.starts_at is not None:
        start_version = version
        schedules.append(SchedulePlan(state.plan_id, state.starts_at, opens=True, version=version))
    if not state.closed and (ends := state.ends()):
        end_version = version
        schedules.append(SchedulePlan(state.plan_id, format_time(ends[0]), opens=False, version=version))
    state = replace(state, start_version=start_version, end_version=end_version, version=version)
    told = SendPlanState(state.plan_id, version)
    return Outcome(state, (state.event(restated=restated),), (*schedules, told, *effects))


def deleted_at(closed_at: str | None, keep_seconds: float) -> float | None:
    """Return when a plan that was closed at `closed_at` is deleted, in seconds since the epoch; `None`: never."""
    return parse_time(closed_at) + keep_seconds if closed_at and keep_seconds > 0 else None
