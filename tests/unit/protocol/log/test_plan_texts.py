"""The timeline entries of facts about a plan: what was decided, in words."""

from __future__ import annotations

import pytest

from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import TimelineEntry
from protocol.messages.facts import ExamineeFact
from protocol.messages.plan_facts import PlanFact, PlanPolicy, PlanPurged
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at

PURGED = PlanPurged(plan_id="P001", by="operator", timestamp=at(9), records=7, messages=80, pictures=2)
POLICY = PlanPolicy(max_attempts=2, backoff_seconds=(1, 2.5), shut_out=False)
Story = list[tuple[ExamineeFact | PlanFact, str, str]]

STORIES: dict[str, Story] = {
    "a plan with times": [
        (
            facts.schedule(10, 60, name="Mathematics", policy=POLICY),
            "PLAN_SCHEDULED",
            f"scheduled by operator: named Mathematics; begins at {at(10)}; ends at {at(60)}; "
            "policy: maxAttempts 2, backoffSeconds 1 2.5, shutOut no; is SCHEDULED",
        ),
        (facts.open_plan(10, scheduled=10), "PLAN_OPENED", "the exam begins, as scheduled"),
        (facts.open_plan(11), "NO_EFFECT", "opened by operator again: no effect"),
        (facts.extend_exam(600), "EXTENDED", f"10 min more for everybody by T1, until {at(660)}"),
        (facts.extend_exam(30, "E001"), "EXTENDED", f"30 s more by T1, until {at(690)}"),
        (facts.window("E001", 20, extra=60), "OWN_TIMES", f"own times by operator: begins at {at(20)}, 1 min more"),
        (facts.window("E001", 20, extra=60), "NO_EFFECT", "own times by operator again: no effect"),
        (facts.close_plan(60, scheduled=10), "NO_EFFECT", "a scheduled end that was moved, or is over: no effect"),
        (
            facts.close_plan(660, scheduled=60),
            "TIME_UP",
            f"the time is up, except for examinees with more time, until {at(720)} at the latest",
        ),
        (facts.close_plan(720, scheduled=90), "PLAN_CLOSED", "the exam ends, as scheduled"),
        (facts.extend_exam(60, "E001"), "NO_EFFECT", "1 min more by T1 without effect: the plan is closed"),
    ],
    "a plan without times": [
        (facts.extend_exam(60), "NO_EFFECT", "1 min more by T1 without effect: repeated, or there is no end"),
        (facts.close_plan(5, reason="a fire"), "PLAN_CLOSED", "closed by operator: a fire"),
        (facts.close_plan(6), "NO_EFFECT", "closed by operator again: no effect"),
        (facts.open_plan(7), "PLAN_OPENED", "opened again by operator"),
        (facts.restate_plan(8), "RESTATED", "plan repeated: OPEN"),
        (facts.plan_notice(), "PLAN_NOTICE", "message to everybody by T1: Ten minutes are left."),
        (
            facts.plan_notice("n2", "Come in.", ["E1", "E2"]),
            "PLAN_NOTICE",
            "message to 2 examinees by T1: Come in.",
        ),
        (PURGED, "PURGED", "plan deleted by operator: 7 records, 80 messages, 2 pictures"),
    ],
    "a finished examinee": [
        (facts.connected("SOCK001-a"), "JOINED", "joined on SOCK001"),
        (facts.finish(5, "anna"), "FINISHED", "finished by anna"),
        (facts.disconnected("SOCK001-a", 6, "CLIENT_CLOSED"), "LEFT", "left SOCK001 after finishing (CLIENT_CLOSED)"),
        (facts.connected("SOCK002-b", 7), "RETURNED", "connected on SOCK002, still finished"),
        (facts.resume(8, "kim"), "RESUMED", "resumed by kim"),
    ],
}


def read(*story: ExamineeFact | PlanFact, truncated: bool = False) -> list[TimelineEntry]:
    timeline = Timeline(truncated=truncated)
    entries = [timeline.add(LogEntry(10 * number, DAWN, fact)) for number, fact in enumerate(story, 1)]
    return [entry for entry in entries if entry is not None]


@pytest.mark.parametrize("name", list(STORIES))
def test_each_entry_says_what_was_decided(name: str) -> None:
    entries = read(*(fact for fact, _, _ in STORIES[name]))
    assert [(entry.what, entry.text) for entry in entries] == [(what, text) for _, what, text in STORIES[name]]


def test_an_entry_about_the_whole_plan_names_nobody_and_has_the_status_of_the_plan() -> None:
    joined, scheduled, own = read(facts.connected("SOCK001-a"), facts.schedule(10, 60), facts.extend_exam(5, "E001"))
    assert (joined.examinee_id, joined.status) == ("E001", "CONNECTED")
    assert (scheduled.examinee_id, scheduled.status, scheduled.by) == (None, "SCHEDULED", "operator")
    assert (scheduled.starts_at, scheduled.ends_at) == (at(10), at(60))
    assert (own.examinee_id, own.status, own.seconds, own.ends_at) == ("E001", "CONNECTED", 5, at(65))


def test_in_a_log_whose_beginning_has_expired_a_scheduled_end_closes_the_plan() -> None:
    (entry,) = read(facts.close_plan(60, scheduled=3), truncated=True)
    assert (entry.what, entry.status) == ("PLAN_CLOSED", "CLOSED")


@pytest.mark.parametrize(
    ("fact", "concerned", "needed"),
    [
        (facts.schedule(10, 60), True, True),
        (facts.extend_exam(60, "E001"), True, True),
        (facts.extend_exam(60, "E002"), False, True),
        (facts.window("E002"), False, True),
        (facts.plan_notice(examinees=["E002", "E001"]), True, True),
        (facts.plan_notice(examinees=["E002"]), False, True),
        (facts.connected("SOCK001-a"), True, True),
        (
            facts.connected("SOCK001-a").model_copy(update={"examinee_id": "E002"}),
            False,
            False,
        ),
    ],
)
def test_which_facts_belong_to_the_timeline_of_an_examinee(
    fact: ExamineeFact | PlanFact, concerned: bool, needed: bool
) -> None:
    entry = LogEntry(10, DAWN, fact)
    assert (entry.concerns("E001"), entry.needed_for("E001")) == (concerned, needed)
