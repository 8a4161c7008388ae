"""The life of a plan: its schedule, its beginning and its end, and own times of examinees."""

from __future__ import annotations

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.plan_facts import PlanPolicy, PlanRecordFact, PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from protocol.records.kinds import PLAN, PLAN_NOTICES
from protocol.rules.effects import FinishExaminees, ResumeExaminees, SchedulePlan, SendPlanNotice, SendPlanState
from protocol.rules.history import compact, insert
from protocol.rules.plan_state import Phase, PlanState
from tests.unit.support.facts import (
    DAWN,
    at,
    close_plan,
    extend_exam,
    open_plan,
    plan_notice,
    restate_plan,
    schedule,
    window,
)
from tests.unit.support.scenario import Scenario

SCHEDULED, OPEN, CLOSED = PlanStatusCode.SCHEDULED, PlanStatusCode.OPEN, PlanStatusCode.CLOSED
BEFORE, RUNNING, OVER = Phase.BEFORE, Phase.RUNNING, Phase.OVER


def plan(*facts: PlanRecordFact) -> Scenario[PlanState, PlanRecordFact]:
    return Scenario(PLAN, facts)


def phase(scenario: Scenario[PlanState, PlanRecordFact], second: float, examinee: str = "E001") -> Phase:
    return scenario.state.phase_of(examinee, DAWN + second)


def test_a_plan_that_nobody_has_set_up_is_open_and_never_ends() -> None:
    assert PlanState().phase_of("E001", DAWN) is RUNNING


def test_a_schedule_makes_the_broker_open_and_close_the_plan() -> None:
    scenario = plan(schedule(60, 3660, name="Mathematics"))
    assert scenario.state.status is SCHEDULED
    assert (*scenario.effects,) == (
        SchedulePlan("P001", at(60), opens=True, version=1),
        SchedulePlan("P001", at(3660), opens=False, version=1),
        SendPlanState("P001", 1),
    )
    event = scenario.event()
    assert isinstance(event, PlanStateEvent)
    assert (event.status, event.name, event.starts_at, event.ends_at) == (SCHEDULED, "Mathematics", at(60), at(3660))
    assert [phase(scenario, second) for second in (59, 60, 3659, 3660)] == [BEFORE, RUNNING, RUNNING, OVER]
    scenario.add(open_plan(60, scheduled=1))
    assert scenario.state.status is OPEN
    scenario.add(close_plan(3660, scheduled=2))
    assert (scenario.state.status, scenario.state.closed_by, scenario.state.closed_at) == (CLOSED, "schedule", at(3660))
    assert FinishExaminees("P001", at(3660), 3) in scenario.effects


def test_a_scheduled_moment_that_was_moved_has_no_effect() -> None:
    scenario = plan(schedule(60, 3660), schedule(120, 7200))
    assert scenario.changes_nothing(open_plan(60, scheduled=1))
    assert scenario.changes_nothing(close_plan(3660, scheduled=1))
    assert scenario.add(close_plan(7200, scheduled=2)).state.closed


def test_an_operator_may_open_early_and_close_at_any_time() -> None:
    scenario = plan(schedule(60, 3660), open_plan(10))
    assert (scenario.state.status, scenario.state.starts_at) == (OPEN, at(10))
    assert scenario.changes_nothing(open_plan(60, scheduled=1))
    scenario.add(close_plan(20, reason="fire alarm"))
    assert (scenario.state.status, scenario.state.closed_reason) == (CLOSED, "fire alarm")
    assert scenario.changes_nothing(close_plan(21))
    assert scenario.changes_nothing(close_plan(3660, scheduled=2))


def test_a_closed_plan_that_is_opened_again_resumes_whom_its_end_has_finished() -> None:
    scenario = plan(schedule(0, 60), close_plan(60, scheduled=1), open_plan(100))
    assert (scenario.state.status, scenario.state.ends_at, scenario.state.closed_at) == (OPEN, None, None)
    assert ResumeExaminees("P001", at(100), 3) in scenario.effects
    assert phase(scenario, 10**6) is RUNNING


def test_a_second_sitting_is_scheduled_with_times_of_its_own() -> None:
    scenario = plan(schedule(0, 60), close_plan(60, scheduled=1), schedule(1000, second=100))
    assert (scenario.state.status, scenario.state.ends_at) == (SCHEDULED, None)
    assert phase(scenario, 500) is BEFORE
    assert ResumeExaminees("P001", at(100), 3) in scenario.effects


def test_what_a_schedule_does_not_name_stays() -> None:
    scenario = plan(
        schedule(60, 3660, name="Mathematics", policy=PlanPolicy(max_attempts=8, grace_seconds=30)),
        schedule(second=5, policy=PlanPolicy(grace_seconds=60)),
    )
    assert (scenario.state.name, scenario.state.ends_at) == ("Mathematics", at(3660))
    assert scenario.state.policy == PlanPolicy(max_attempts=8, grace_seconds=60)


def test_an_end_that_is_not_after_the_start_is_refused_also_when_they_come_in_two_facts() -> None:
    with pytest.raises(pydantic.ValidationError, match="must be after startsAt"):
        schedule(60, 60)
    with pytest.raises(pydantic.ValidationError, match="must be after startsAt"):
        window("E001", 60, 60)
    assert plan(schedule(60, 3660)).add(schedule(end=30)).state.ends_at == at(3660)


def test_the_grace_comes_after_the_end() -> None:
    scenario = plan(schedule(0, 60, policy=PlanPolicy(grace_seconds=30)))
    assert [phase(scenario, second) for second in (89, 90)] == [RUNNING, OVER]
    assert SchedulePlan("P001", at(90), opens=False, version=1) in scenario.effects


def test_more_time_for_everybody_moves_every_end() -> None:
    scenario = plan(schedule(0, 60), window("E001", end=100), extend_exam(30, action="x1"))
    assert (scenario.state.end_of("E001"), scenario.state.end_of("E002")) == (at(130), at(90))
    assert scenario.changes_nothing(extend_exam(30, action="x1"))
    assert scenario.changes_nothing(close_plan(60, scheduled=2))


def test_more_time_for_one_examinee_keeps_the_plan_open_for_them() -> None:
    scenario = plan(schedule(0, 60), extend_exam(30, "E001", second=5), extend_exam(10, "E001", second=6))
    assert ResumeExaminees("P001", at(6), 3, "E001") in scenario.effects
    assert (scenario.state.end_of("E001"), scenario.state.end_of("E002")) == (at(100), at(60))
    event = scenario.event()
    assert isinstance(event, PlanStateEvent)
    assert event.for_examinee("E001", at(7)).ends_at == at(100)
    assert event.for_examinee("E002", at(7)).ends_at == at(60)
    assert event.for_examinee("E001", at(7)).own_times is None
    scenario.add(close_plan(60, scheduled=3))
    assert scenario.state.status is OPEN
    assert (*scenario.effects,) == (
        SchedulePlan("P001", at(100), opens=False, version=4),
        SendPlanState("P001", 4),
        FinishExaminees("P001", at(60), 4),
    )
    assert [phase(scenario, 60, name) for name in ("E001", "E002")] == [RUNNING, OVER]
    assert scenario.add(close_plan(100, scheduled=4)).state.closed


def test_own_times_of_the_roster_replace_earlier_ones() -> None:
    scenario = plan(schedule(0, 60), window("E001", 30, 200, extra=10))
    assert (scenario.state.start_of("E001"), scenario.state.end_of("E001")) == (at(30), at(210))
    assert [phase(scenario, second) for second in (29, 30, 209, 210)] == [BEFORE, RUNNING, RUNNING, OVER]
    assert scenario.changes_nothing(window("E001", 30, 200, extra=10))
    scenario.add(window("E001"))
    assert (scenario.state.own_times, scenario.state.end_of("E001")) == ((), at(60))


def test_more_time_has_no_effect_without_an_end_or_on_a_closed_plan() -> None:
    assert plan(schedule(name="Mathematics")).changes_nothing(extend_exam(60))
    assert plan(schedule(name="Mathematics")).changes_nothing(extend_exam(60, "E001"))
    assert plan(schedule(0, 60), close_plan(10)).changes_nothing(extend_exam(60))


def test_a_restatement_tells_the_plan_again() -> None:
    assert plan().changes_nothing(restate_plan())
    scenario = plan(schedule(0, 60), close_plan(60), restate_plan(70))
    event = scenario.event()
    assert isinstance(event, PlanStateEvent)
    assert (event.restated, event.status) == (True, CLOSED)
    assert (*scenario.effects,) == (SendPlanState("P001", 3), FinishExaminees("P001", at(70), 3))


def test_a_message_to_the_plan_is_told_once_and_kept_for_those_whom_it_is_for() -> None:
    scenario = Scenario(PLAN_NOTICES, [plan_notice("n1"), plan_notice("n2", examinees=["E001"])])
    assert (*scenario.effects,) == (SendPlanNotice("P001", "n2", 2),)
    assert [notice.is_for("E002") for notice in scenario.state.kept] == [True, False]
    assert scenario.changes_nothing(plan_notice("n1"))
    assert scenario.add(restate_plan()).effects == (SendPlanNotice("P001", "n1", 4), SendPlanNotice("P001", "n2", 4))
    for number in range(30):
        scenario.add(plan_notice(f"m{number}"))
    assert [notice.action_id for notice in scenario.state.kept] == [f"m{number}" for number in range(10, 30)]


SECONDS = st.integers(0, 50).map(lambda step: 10 * step)
FACTS = st.one_of(
    st.builds(lambda start, length, now: schedule(start, start + length + 1, second=now), SECONDS, SECONDS, SECONDS),
    st.builds(lambda now: open_plan(now), SECONDS),
    st.builds(lambda now: close_plan(now), SECONDS),
    st.builds(lambda now, version: open_plan(now, scheduled=version), SECONDS, st.integers(1, 8)),
    st.builds(lambda now, version: close_plan(now, scheduled=version), SECONDS, st.integers(1, 8)),
    st.builds(extend_exam, st.integers(1, 90), st.sampled_from([None, "E001", "E002"])),
    st.builds(lambda who, extra: window(who, extra=extra), st.sampled_from(["E001", "E002"]), st.integers(0, 90)),
    st.builds(restate_plan, SECONDS),
)


@given(st.lists(FACTS, max_size=8), st.randoms(use_true_random=False), st.integers(0, 8))
def test_the_record_is_the_same_in_any_order_of_arrival_and_after_it_was_stored(facts, random, floor) -> None:  # type: ignore[no-untyped-def]
    expected = plan(*facts).state
    arrivals = list(enumerate(facts, start=1))
    random.shuffle(arrivals)
    history = PLAN.empty()
    for version, fact in [*arrivals, *arrivals[:2]]:
        insertion = insert(history, PLAN.rule, version, fact, PLAN.visible_part)
        fields = PLAN.write(insertion.history, insertion.state, 1)
        history = PLAN.read(fields["history"])
        assert history == insertion.history
    if facts:
        assert insertion.state == expected
        settled = compact(history, PLAN.rule, floor)
        assert PLAN.read(PLAN.write(settled, expected, 2)["history"]) == settled


def ends(scenario: Scenario[PlanState, PlanRecordFact]) -> dict[int, str]:
    """The ends that the last fact has scheduled, by the version that they belong to."""
    schedules = [effect for effect in scenario.effects if isinstance(effect, SchedulePlan)]
    return {effect.version: effect.at for effect in schedules if not effect.opens}


@given(st.lists(FACTS, max_size=10))
def test_an_open_plan_with_an_end_always_has_a_schedule_that_closes_it(facts: list[PlanRecordFact]) -> None:
    scenario = plan()
    pending: dict[int, str] = {}
    for fact in facts:
        scenario.add(fact)
        pending |= {
            effect.version: effect.at
            for effect in scenario.effects
            if isinstance(effect, SchedulePlan) and not effect.opens
        }
    for _ in range(20):
        state = scenario.state
        if state.closed or not state.ends():
            return
        assert state.end_version in pending, "nothing will close this plan"
        moment = pending.pop(state.end_version)
        scenario.add(close_plan(0, scheduled=state.end_version).model_copy(update={"timestamp": moment}))
        pending |= ends(scenario)
    raise AssertionError("the plan is not closed after all of its ends")
