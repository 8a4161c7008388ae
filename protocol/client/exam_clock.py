"""The clock of an exam as a client knows it: by the server's time, never by the clock of the client's computer.

Example::

    clock = ServerClock()
    clock.restart(welcome.server_time)
    exam_at(plan_state, clock.now()).phase  # ExamPhase.RUNNING
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from protocol.times import parse_time


class ExamPhase(StrEnum):
    """Where the exam stands for a client. UNKNOWN: the server has not said yet.

    GRACE: the time is up, and answers may still be handed in. OVER: the grace is up, too, or the plan is closed.
    """

    UNKNOWN = "UNKNOWN"
    BEFORE = "BEFORE"
    RUNNING = "RUNNING"
    GRACE = "GRACE"
    OVER = "OVER"


class ExamMoment(NamedTuple):
    """A phase, and the seconds until the start, the end, or the end of the grace; `None`: no time is set."""

    phase: ExamPhase
    seconds: float | None = None


def exam_at(plan: PlanStateEvent | None, now: float | None) -> ExamMoment:
    """Return where the exam stands at `now` (seconds since the epoch, by the server)."""
    if plan is None or now is None:
        return ExamMoment(ExamPhase.UNKNOWN)
    if plan.status is PlanStatusCode.CLOSED:
        return ExamMoment(ExamPhase.OVER)
    start = None if plan.starts_at is None else parse_time(plan.starts_at)
    if plan.ends_at is None:
        return _before(plan, start, now) or ExamMoment(ExamPhase.RUNNING)
    end = parse_time(plan.ends_at)
    closing = end + (plan.grace_seconds or (plan.policy.grace_seconds if plan.policy else None) or 0)
    if now >= closing:
        return ExamMoment(ExamPhase.OVER)
    if (before := _before(plan, start, now)) is not None:
        return before
    if now < end:
        return ExamMoment(ExamPhase.RUNNING, end - now)
    return ExamMoment(ExamPhase.GRACE, closing - now)


def _before(plan: PlanStateEvent, start: float | None, now: float) -> ExamMoment | None:
    """Return the time until the beginning; `None`: it has passed."""
    if start is None:
        return ExamMoment(ExamPhase.BEFORE) if plan.status is PlanStatusCode.SCHEDULED else None
    return ExamMoment(ExamPhase.BEFORE, start - now) if now < start else None


class ServerClock:
    """The server's time, from the moment at which a frame with `serverTime` arrived. `steady` counts on in between."""

    __slots__ = ("_ahead", "_steady")

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._ahead: float | None = None

    def now(self) -> float | None:
        """Return the seconds since the epoch by the server; `None`: not known yet."""
        return None if self._ahead is None else self._steady() + self._ahead

    def restart(self, server_time: str | None) -> None:
        """Begin anew with the time of a welcome."""
        if server_time is not None:
            self._ahead = parse_time(server_time) - self._steady()

    def correct(self, server_time: str | None) -> None:
        """Correct the clock by a later frame. One that was long under way says too little: the largest time counts."""
        if server_time is not None:
            ahead = parse_time(server_time) - self._steady()
            self._ahead = ahead if self._ahead is None else max(ahead, self._ahead)
