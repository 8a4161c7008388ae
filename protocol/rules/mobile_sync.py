"""Rules of one examinee's mobile sync: the camera picture that a phone uploads, and what a proctor says about it.

Every picture is kept. One counts: the first of a stage; a later one only if a proctor has rejected the one before.
docs/architecture.md, "An upload, step by step".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from protocol.messages.facts import (
    CaptureReview,
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
from protocol.messages.views import CaptureView, MobileSyncView, ReviewView
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import ScheduleTimeout, SendMobileSync
from protocol.rules.history import Outcome, StoredState
from protocol.times import format_time, parse_time

MAX_CAPTURES = 5
"""Number of pictures that a record names, the one that counts among them; the log names all."""

_OPEN = (MobileSyncCode.WAITING, MobileSyncCode.FAILED)


@dataclass(frozen=True, slots=True)
class Capture(StoredState):
    """A picture that was sent: `CaptureView` says what the fields are."""

    capture_id: str
    time: str
    when: str
    device_id: str | None = None
    challenge: str | None = None
    verdict: str | None = None
    reason: str | None = None
    by: str | None = None
    by_name: str | None = None

    def view(self) -> CaptureView:
        return CaptureView.model_validate(asdict(self))


@dataclass(frozen=True, slots=True)
class MobileSyncState(StoredState):
    """The state of an examinee's mobile sync.

    `capture_id`: the picture that counts, or that counted until it was rejected. `captures`: the newest pictures,
    oldest first. `challenge`: what a picture of this stage must show. `wait_version`: the version that began or
    extended the stage; the timer of an older one has no effect. `actions`: the applied extensions and reviews.
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
    captures: tuple[Capture, ...] = ()
    challenge: str | None = None
    wait_version: int = 0
    actions: tuple[str, ...] = ()
    version: int = 0

    def capture(self, capture_id: str | None) -> Capture | None:
        """Return a picture by its id; `None`: not among the newest."""
        return next((capture for capture in self.captures if capture.capture_id == capture_id), None)

    @property
    def shown_image_url(self) -> str | None:
        """The address of the picture that counts; `None`: there is none, or it was rejected."""
        return self.image_url if self.status is MobileSyncCode.COMPLETED else None

    def capture_views(self) -> list[CaptureView] | None:
        return [capture.view() for capture in self.captures] or None

    def review(self) -> ReviewView | None:
        """Return what a proctor says about the picture that counts."""
        capture = self.capture(self.capture_id)
        if capture is None or capture.verdict is None:
            return None
        view = capture.view()
        assert view.verdict is not None
        return ReviewView(**view.model_dump(include=set(ReviewView.model_fields)))

    def view(self) -> MobileSyncView:
        return MobileSyncView(
            status=self.status.value if self.status else "NONE",
            device_id=self.device_id,
            timestamp=self.timestamp,
            image_url=self.shown_image_url,
            reason=self.reason,
            deadline=self.deadline,
            captures=self.capture_views(),
            review=self.review(),
            challenge=self.challenge,
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
                captures=self.capture_views(),
                review=self.review(),
                challenge=self.challenge,
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
            captures=self.capture_views(),
            review=self.review(),
            challenge=self.challenge,
            version=self.version,
        )


def visible_part(state: MobileSyncState) -> tuple[object, ...]:
    """Return the part of a mobile sync that events tell: when it changes, clients must be told."""
    return (state.status, state.capture_id, state.deadline, state.captures, state.challenge)


def apply(state: MobileSyncState, version: int, fact: MobileSyncFact) -> Outcome[MobileSyncState]:
    """Apply one fact to a mobile sync. Facts must come in the order of their versions (`protocol.rules.history`)."""
    match fact:
        case MobileSyncWait():
            return _apply_wait(state, version, fact)
        case MobileSyncStatus():
            return _apply_status(state, version, fact)
        case MobileSyncExtend():
            return _apply_extend(state, version, fact)
        case CaptureReview():
            return _apply_review(state, version, fact)
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
        image_url=state.image_url,
        capture_id=state.capture_id,
        captures=state.captures,
        challenge=fact.challenge,
        wait_version=version,
        actions=state.actions,
        version=version,
        unknown_fields=state.unknown_fields,
    )
    timer = ScheduleTimeout(fact.plan_id, fact.examinee_id, fact.deadline, version)
    return _announce(waiting, timer)


def _apply_status(state: MobileSyncState, version: int, fact: MobileSyncStatus) -> Outcome[MobileSyncState]:
    if fact.status is MobileSyncCode.COMPLETED:
        known = fact.capture_id == state.capture_id or state.capture(fact.capture_id) is not None
        if fact.capture_id is not None and known:
            return Outcome(state)  # the same upload, tried again
        state = _with_capture(state, fact)
        if state.status is MobileSyncCode.COMPLETED and state.capture_id is not None:
            return _announce(replace(state, version=version))  # nobody has asked for it: it is kept and does not count
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


def _with_capture(state: MobileSyncState, fact: MobileSyncStatus) -> MobileSyncState:
    """Return the state with a stored picture; the oldest that does not count makes room."""
    if fact.capture_id is None:
        return state
    info = fact.capture_info
    moment = (info.received_at if info is not None else None) or fact.timestamp
    when = "before"
    if state.deadline is not None:
        when = "in" if parse_time(moment) <= parse_time(state.deadline) else "after"
    capture = Capture(fact.capture_id, fact.timestamp, when, fact.device_id, state.challenge)
    kept = list(state.captures)
    if len(kept) >= MAX_CAPTURES:
        kept.remove(next(known for known in kept if known.capture_id != state.capture_id))
    return replace(state, captures=(*kept, capture))


def _apply_review(state: MobileSyncState, version: int, fact: CaptureReview) -> Outcome[MobileSyncState]:
    capture = state.capture(fact.capture_id)
    if capture is None or capture.verdict == fact.verdict or already_applied(state.actions, fact):
        return Outcome(state)
    reason = fact.reason if fact.verdict == "rejected" else None
    reviewed = replace(capture, verdict=fact.verdict, reason=reason, by=fact.by, by_name=fact.by_name)
    state = replace(
        state,
        captures=tuple(reviewed if known is capture else known for known in state.captures),
        actions=with_action(state.actions, fact),
        version=version,
    )
    counts = fact.capture_id == state.capture_id
    if counts and fact.verdict == "rejected" and state.status is MobileSyncCode.COMPLETED:
        deadline = format_time(parse_time(fact.timestamp) + fact.seconds)
        waiting = replace(
            state,
            status=MobileSyncCode.WAITING,
            timestamp=fact.timestamp,
            deadline=deadline,
            challenge=fact.challenge,
            wait_version=version,
        )
        return _by(fact, _announce(waiting, ScheduleTimeout(fact.plan_id, fact.examinee_id, deadline, version)))
    if counts and fact.verdict == "accepted" and state.status is not MobileSyncCode.COMPLETED:
        # It was rejected, and the proctor has changed their mind before another picture came.
        accepted = replace(
            state,
            status=MobileSyncCode.COMPLETED,
            device_id=capture.device_id,
            timestamp=capture.time,
            challenge=capture.challenge,
            reason=None,
        )
        return _by(fact, _announce(accepted))
    return _by(fact, _announce(state))


def _by(fact: MobileSyncExtend | CaptureReview, outcome: Outcome[MobileSyncState]) -> Outcome[MobileSyncState]:
    """Return the outcome with an event that names the proctor, the action and the reviewed picture."""
    (event,) = outcome.events
    who = {"by": fact.by, "by_name": fact.by_name, "action_id": fact.action_id}
    if isinstance(fact, CaptureReview):
        who["capture_id"] = fact.capture_id
    return replace(outcome, events=(event.model_copy(update=who),))


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
    return _by(fact, _announce(waiting, ScheduleTimeout(fact.plan_id, fact.examinee_id, waiting.deadline, version)))


def _apply_timeout(state: MobileSyncState, version: int, fact: MobileSyncTimeout) -> Outcome[MobileSyncState]:
    # A failed upload may be repeated until the deadline, so FAILED can still run out of time.
    if state.status not in _OPEN or state.wait_version != fact.wait_version:
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
    if state.deadline is None or state.status not in _OPEN:
        return _announce(state)
    # The fact that began the stage may have become a dead letter without a timer; else the timer stays as it is.
    return _announce(state, ScheduleTimeout(state.plan_id, state.examinee_id, state.deadline, state.wait_version))


def _announce(state: MobileSyncState, *timer: ScheduleTimeout) -> Outcome[MobileSyncState]:
    tell = SendMobileSync(state.plan_id, state.examinee_id, state.version)
    return Outcome(state, (state.event(),), (*timer, tell))
