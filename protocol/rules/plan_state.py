"""The recorded state of a plan: its times, its policy, and whether it is over. Its rules are in `plan`."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from protocol.messages.plan_facts import PlanPolicy, PlanStatusCode
from protocol.messages.proctor_events import OwnExamTimes, PlanStateEvent
from protocol.rules.history import StoredState
from protocol.times import format_time, parse_time


class Phase(StrEnum):
    """Where an examinee is in the exam.

    BEFORE: it has not begun for them. OVER: their time is up, or the plan is closed.
    """

    BEFORE = "BEFORE"
    RUNNING = "RUNNING"
    OVER = "OVER"


NO_POLICY = PlanPolicy()
"""A plan that does everything as the settings say."""


@lru_cache(maxsize=4096)
def _later(moment: str, seconds: int) -> str:
    """Return the time so many seconds later. Most own times of a plan are alike, and each change tells all of them."""
    return format_time(parse_time(moment) + seconds)


@lru_cache(maxsize=4096)
def _exam_times(starts_at: str | None, ends_at: str | None) -> OwnExamTimes:
    return OwnExamTimes(starts_at=starts_at, ends_at=ends_at)


@dataclass(frozen=True, slots=True)
class OwnTimes(StoredState):
    """What one examinee has otherwise than the plan; times RFC 3339. `extra_seconds`: on top of the end."""

    examinee_id: str
    starts_at: str | None = None
    ends_at: str | None = None
    extra_seconds: int = 0


@dataclass(frozen=True, slots=True)
class PlanState(StoredState):
    """The state of a plan. A plan that nobody has set up is OPEN and has no times.

    `own_times`: of the examinees whose times differ, in the order of their ids. `end_version`: the fact that set the
    current end; a scheduled end of another one has no effect. `start_version`: the same for the beginning.
    `actions`: the applied actions.
    """

    plan_id: str = ""
    status: PlanStatusCode = PlanStatusCode.OPEN
    name: str | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    policy: PlanPolicy = NO_POLICY
    own_times: tuple[OwnTimes, ...] = ()
    closed_at: str | None = None
    closed_by: str | None = None
    closed_by_name: str | None = None
    closed_reason: str | None = None
    closed_version: int = 0
    start_version: int = 0
    end_version: int = 0
    actions: tuple[str, ...] = ()
    version: int = 0

    @property
    def closed(self) -> bool:
        return self.status is PlanStatusCode.CLOSED

    def own(self, examinee_id: str) -> OwnTimes:
        """Return the own times of an examinee; without a difference when they have none."""
        place = bisect_left(self.own_times, examinee_id, key=lambda own: own.examinee_id)
        if place < len(self.own_times) and self.own_times[place].examinee_id == examinee_id:
            return self.own_times[place]
        return OwnTimes(examinee_id)

    def start_of(self, examinee_id: str) -> str | None:
        """Return when the exam begins for an examinee; `None`: whenever they come."""
        return self.own(examinee_id).starts_at or self.starts_at

    def end_of(self, examinee_id: str) -> str | None:
        """Return when the exam ends for an examinee, without the grace; `None`: when somebody closes the plan."""
        return self._end_with(self.own(examinee_id))

    def _end_with(self, own: OwnTimes) -> str | None:
        end = own.ends_at or self.ends_at
        if end is None or not own.extra_seconds:
            return end
        return _later(end, own.extra_seconds)

    def phase_of(self, examinee_id: str, now: float) -> Phase:
        """Return where an examinee is in the exam at `now` (seconds since the epoch)."""
        if self.closed:
            return Phase.OVER
        own = self.own(examinee_id)  # searched once: asked for at each connect
        end = self._end_with(own)
        if end is not None and now >= parse_time(end) + self.grace_seconds:
            return Phase.OVER
        if own.starts_at is not None:
            return Phase.BEFORE if now < parse_time(own.starts_at) else Phase.RUNNING
        start = self.starts_at
        if self.status is PlanStatusCode.SCHEDULED and (start is None or now < parse_time(start)):
            return Phase.BEFORE
        return Phase.RUNNING

    @property
    def grace_seconds(self) -> int:
        return self.policy.grace_seconds or 0

    def ends(self) -> list[float]:
        """Return the moments at which the exam ends for somebody, with the grace, in order; seconds since the epoch."""
        texts = {self.ends_at, *(self._end_with(own) for own in self.own_times)}
        return sorted(parse_time(text) + self.grace_seconds for text in texts if text is not None)

    def event(self, *, restated: bool | None = None) -> PlanStateEvent:
        """Return the `plan_state` event for this state; `serverTime` is for the sender to fill in."""
        return PlanStateEvent(
            plan_id=self.plan_id,
            status=self.status,
            name=self.name,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            policy=self.policy,
            own_times={
                own.examinee_id: _exam_times(own.starts_at or self.starts_at, self._end_with(own))
                for own in self.own_times
            }
            or None,
            closed_at=self.closed_at,
            closed_by=self.closed_by,
            closed_by_name=self.closed_by_name,
            reason=self.closed_reason,
            restated=restated,
            version=self.version,
        )


def visible_part(state: PlanState) -> tuple[object, ...]:
    """Return the part of a plan that events tell: when it changes, clients must be told."""
    return (state.status, state.name, state.starts_at, state.ends_at, state.policy, state.own_times)
