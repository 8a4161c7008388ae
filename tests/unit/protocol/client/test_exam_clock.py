"""Where the exam stands for a client, and the server's time as a client knows it."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.client.exam_clock import ExamMoment, ExamPhase, ServerClock, exam_at
from protocol.messages.plan_facts import PlanPolicy, PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from protocol.times import format_time

START, END = 1000.0, 2000.0
BOTH = {"starts_at": format_time(START), "ends_at": format_time(END)}
GRACE = {**BOTH, "grace_seconds": 60}
POLICY = {**BOTH, "policy": PlanPolicy(grace_seconds=60)}
SCHEDULED, OPEN, CLOSED = PlanStatusCode.SCHEDULED, PlanStatusCode.OPEN, PlanStatusCode.CLOSED
BEFORE, RUNNING, OVER = ExamPhase.BEFORE, ExamPhase.RUNNING, ExamPhase.OVER


def plan(status: PlanStatusCode, **fields: Any) -> PlanStateEvent:
    return PlanStateEvent(plan_id="P001", status=status, version=1, **fields)


@pytest.mark.parametrize(
    ("state", "now", "expected"),
    [
        (plan(SCHEDULED, **BOTH), START - 1, (BEFORE, 1.0)),
        (plan(OPEN, **BOTH), START - 1, (BEFORE, 1.0)),
        (plan(SCHEDULED, **BOTH), START, (RUNNING, 1000.0)),
        (plan(SCHEDULED), START, (BEFORE, None)),
        (plan(SCHEDULED, ends_at=BOTH["ends_at"]), START, (BEFORE, None)),
        (plan(OPEN), START, (RUNNING, None)),
        (plan(OPEN, starts_at=BOTH["starts_at"]), END, (RUNNING, None)),
        (plan(OPEN, **BOTH), END - 0.5, (RUNNING, 0.5)),
        (plan(OPEN, **BOTH), END, (OVER, None)),
        (plan(OPEN, **GRACE), END, (ExamPhase.GRACE, 60.0)),
        (plan(OPEN, **GRACE), END + 59, (ExamPhase.GRACE, 1.0)),
        (plan(OPEN, **GRACE), END + 60, (OVER, None)),
        (plan(OPEN, **POLICY), END + 59, (ExamPhase.GRACE, 1.0)),
        (plan(CLOSED, **GRACE), START, (OVER, None)),
        (None, START, (ExamPhase.UNKNOWN, None)),
        (plan(OPEN), None, (ExamPhase.UNKNOWN, None)),
    ],
)
def test_a_moment_is_in_a_phase_of_the_exam_and_some_seconds_from_the_next(
    state: PlanStateEvent | None, now: float | None, expected: tuple[ExamPhase, float | None]
) -> None:
    assert exam_at(state, now) == ExamMoment(*expected)


def test_the_phases_have_the_names_that_the_pages_know() -> None:
    assert [phase.value for phase in ExamPhase] == ["UNKNOWN", "BEFORE", "RUNNING", "GRACE", "OVER"]


def test_the_servers_time_counts_on_by_a_steady_clock() -> None:
    steady = 5.0
    clock = ServerClock(lambda: steady)
    assert clock.now() is None
    clock.correct(None)
    clock.restart(None)
    assert clock.now() is None
    clock.correct(format_time(900.0))
    assert clock.now() == 900.0
    clock.restart(format_time(1000.0))
    steady = 15.0
    assert clock.now() == 1010.0
    clock.correct(format_time(1009.0))  # was long under way
    assert clock.now() == 1010.0
    clock.correct(format_time(1011.0))
    assert clock.now() == 1011.0
    clock.restart(format_time(990.0))  # another server
    assert clock.now() == 990.0
