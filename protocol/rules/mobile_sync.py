"""Rules of one examinee's mobile sync: the camera picture that a phone uploads.

docs/architecture.md, "An upload, step by step".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.messages.facts import (
    MobileSyncCode,
    MobileSyncExtend,
    MobileSyncFact,
    MobileSyncReason,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Restate,
)
from protocol.messages.proctor_events import Event, MobileSyncCompleted
from protocol.messages.views import MobileSyncView
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import ScheduleTimeout, SendMobileSync
from protocol.rules.history import Outcome
from protocol.times import format_time, parse_time


@dataclass(frozen=True, slots=True)
class MobileSyncState:
    """The state of an examinee's mobile sync.

    `wait_version`: the version that began or extended the stage; the timer of an older one has no effect. `actions`:
    the applied extensions.
    """

    plan_id: str = ""
    examinee_id: str = ""
    status: MobileSyncCode | None = None
    device_id: str | None = None
    timestamp: str | None = None
    image_url: str | None = None
    model: str | None = None
    os_version: str | None = None
    capture_id: str | None = None
    reason: str | None = None
    deadline: str | None = None
    wait_version: int = 0
    actions: tuple[str, ...] = ()
    version: int = 0

    def view(self) -> MobileSyncView:
        return MobileSyncView(
            status=self.status.value if self.status else "NONE",
            device_id=self.device_id,
            timestamp=self.timestamp,
            image_url=self.image_url,
            reason=self.reason,
            deadline=self.deadline,
            version=self.version,
        )

    def event(self) -> Event:
        """Return the event for this state: `mobile_sync_completed`, or `mobile_sync_status` before that."""
        assert self.status is not None
        assert self.timestamp is not None
        if self.status is MobileSyncCode.COMPLETED and self.device_id is not None:
            return MobileSyncCompleted(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                device_id=self.device_id,
                timestamp=self.timestamp,
                image_url=self.image_url,
                version=self.version,
            )
        return MobileSyncStatus(
            plan_id=self.plan_id,
            examinee_id=self.examinee_id,
            device_id=self.device_id,
            status=self.status,
            timestamp=self.timestamp,
            reason=self.reason,
            deadline=self.deadline,
            version=self.version,
        )


def visible_part(state: MobileSyncState) -> tuple[MobileSyncCode | None, str | None, str | None]:
    """Return the part of a mobile sync that events tell: when it changes, clients must be told."""
    return (state.status, state.capture_id, state.deadline)


def apply(state: MobileSyncState, version: int, fact: MobileSyncFact) -> Outcome[MobileSyncState]:
    """Apply one fact to a mobile sync. Facts must come in the order of their versions (`protocol.rules.history`)."""
    match fact:
        case MobileSyncWait():
            return _apply_wait(state, version, fact)
        case MobileSyncStatus():
            return _apply_status(state, version, fact)
        case MobileSyncExtend():
            return _apply_extend(state, version, fact)
        case MobileSyncTimeout():
            return _apply_timeout(state, version, fact)
        case Restate():
            return _apply_restate(state, version)


def _apply_wait(state: MobileSyncState, version: int, fact: MobileSyncWait) -> Outcome[MobileSyncState]:
    if state.status in (MobileSyncCode.WAITING, MobileSyncCode.COMPLETED):
        # The page was reloaded: the stage goes on, its deadline and picture stay.
        return Outcome(state, effects=(SendMobileSync(fact.plan_id, fact.examinee_id, version),))
    waiting = MobileSyncState(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=MobileSyncCode.WAITING,
        timestamp=fact.timestamp,
        deadline=fact.deadline,
        wait_version=version,
        actions=state.actions,
        version=version,
    )
    timer = ScheduleTimeout(fact.plan_id, fact.examinee_id, fact.deadline, version)
    return _announce(waiting, timer)


def _apply_status(state: MobileSyncState, version: int, fact: MobileSyncStatus) -> Outcome[MobileSyncState]:
    if fact.status is MobileSyncCode.COMPLETED:
        if fact.capture_id is not None and fact.capture_id == state.capture_id:
            return Outcome(state)  # the same upload, tried again
        info = fact.capture_info
        return _announce(
            replace(
                state,
                plan_id=fact.plan_id,
                examinee_id=fact.examinee_id,
                status=MobileSyncCode.COMPLETED,
                device_id=fact.device_id,
                timestamp=fact.timestamp,
                image_url=info.image_url if info else None,
                model=info.device_info.model if info else None,
                os_version=info.device_info.os_version if info else None,
                capture_id=fact.capture_id,
                reason=None,
                version=version,
            )
        )
    if state.status is MobileSyncCode.COMPLETED or fact.status is not MobileSyncCode.FAILED:
        return Outcome(state)  # a failed second upload does not undo the picture that is there
    return _announce(
        replace(
            state,
            plan_id=fact.plan_id,
            examinee_id=fact.examinee_id,
            status=MobileSyncCode.FAILED,
            device_id=fact.device_id or state.device_id,
            timestamp=fact.timestamp,
            reason=fact.reason or MobileSyncReason.IMAGE_UPLOAD_FAILED.value,
            version=version,
        )
    )


def _apply_extend(state: MobileSyncState, version: int, fact: MobileSyncExtend) -> Outcome[MobileSyncState]:
    if already_applied(state.actions, fact) or state.status in (None, MobileSyncCode.COMPLETED):
        return Outcome(state)
    until = max(parse_time(fact.timestamp), parse_time(state.deadline or fact.timestamp)) + fact.seconds
    waiting = replace(
        state,
        status=MobileSyncCode.WAITING,
        timestamp=fact.timestamp,
        deadline=format_time(until),
        reason=None,
        wait_version=version,
        actions=with_action(state.actions, fact),
        version=version,
    )
    assert waiting.deadline is not None
    outcome = _announce(waiting, ScheduleTimeout(fact.plan_id, fact.examinee_id, waiting.deadline, version))
    (event,) = outcome.events
    who = {"by": fact.by, "action_id": fact.action_id}
    return replace(outcome, events=(event.model_copy(update=who),))


def _apply_timeout(state: MobileSyncState, version: int, fact: MobileSyncTimeout) -> Outcome[MobileSyncState]:
    # A failed upload may be repeated until the deadline, so FAILED can still run out of time.
    open_stage = state.status in (MobileSyncCode.WAITING, MobileSyncCode.FAILED)
    if not open_stage or state.wait_version != fact.wait_version:
        return Outcome(state)
    return _announce(
        replace(
            state,
            status=MobileSyncCode.TIMED_OUT,
            timestamp=fact.timestamp,
            reason=MobileSyncReason.SYNC_TIMEOUT.value,
            version=version,
        )
    )


def _apply_restate(state: MobileSyncState, version: int) -> Outcome[MobileSyncState]:
    if state.status is None:
        return Outcome(state)
    state = replace(state, version=version)
    if state.deadline is None or state.status not in (MobileSyncCode.WAITING, MobileSyncCode.FAILED):
        return _announce(state)
    # The fact that began the stage may have become a dead letter without a timer; else the timer stays as it is.
    return _announce(state, ScheduleTimeout(state.plan_id, state.examinee_id, state.deadline, state.wait_version))


def _announce(state: MobileSyncState, *timer: ScheduleTimeout) -> Outcome[MobileSyncState]:
    tell = SendMobileSync(state.plan_id, state.examinee_id, state.version)
    return Outcome(state, (state.event(),), (*timer, tell))
