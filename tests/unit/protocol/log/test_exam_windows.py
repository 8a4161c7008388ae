"""Outages count while the exam runs for an examinee: from its start to their finish or own end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.log.entries import LogEntry
from protocol.log.outages import OutageRow, Outages
from protocol.messages.facts import ExamineeFact, FinishReason
from protocol.messages.plan_facts import PlanFact, PlanPolicy
from tests.unit.support import facts
from tests.unit.support.fact_logs import Draw, Log, connection_fact
from tests.unit.support.facts import DAWN

Fact = ExamineeFact | PlanFact


def collect(log: Log) -> Outages:
    outages = Outages()
    for version, fact in log:
        assert isinstance(fact, Fact)
        outages.add(LogEntry(version, DAWN, fact))
    return outages


def report(*logged: Fact, begin: float = -100, end: float = 1000) -> OutageRow:
    """E001 in a window, in seconds after the documents' morning began; the versions are 10, 20, 30, ..."""
    (row,) = collect([(10 * number, fact) for number, fact in enumerate(logged, 1)]).rows(DAWN + begin, DAWN + end)
    return row


def away(begin: int, end: int) -> tuple[Fact, ...]:
    """Connected, then away from `begin` to `end`."""
    return (
        facts.connected(f"SOCK001-{begin}", min(0, begin)),
        facts.disconnected(f"SOCK001-{begin}", begin, "PING_TIMEOUT"),
        facts.connected(f"SOCK001-{end}", end),
    )


@pytest.mark.parametrize(
    ("begin", "end", "seconds"),
    [(10, 90, 0), (80, 130, 30), (120, 150, 30), (190, 250, 10), (200, 250, 0), (50, 300, 100)],
)
def test_an_outage_is_cut_at_the_beginning_and_the_end_of_the_exam(begin: int, end: int, seconds: int) -> None:
    row = report(facts.schedule(100, 200), *away(begin, end))
    assert (row.outage_seconds, row.outages) == (seconds, seconds > 0)
    assert (row.window_start, row.window_end) == (facts.at(100), facts.at(200))


def test_nothing_after_a_finish_counts_until_the_examinee_goes_on() -> None:
    gone = (facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 110))
    row = report(facts.schedule(100, 200), *gone, facts.finish(130, "anna"), end=190)
    assert (row.outage_seconds, row.still_disconnected, row.window_end) == (20, False, facts.at(130))
    assert (row.end_status, row.finished_by, row.finished_at) == ("DECIDED", "anna", facts.at(130))
    row = report(facts.schedule(100, 200), *gone, facts.finish(130), facts.resume(150), end=190)
    assert (row.outage_seconds, row.still_disconnected) == (20 + 40, True)
    assert row.reasons == {"SOCKET_CLOSED": 1, "RESUMED": 1}
    assert (row.end_status, row.finished_by, row.window_end) == ("LOST", None, facts.at(200))
    handed_in = facts.finish(50, "E001", reason=FinishReason.HANDED_IN)
    row = report(facts.connected("SOCK001-a"), handed_in, facts.disconnected("SOCK001-a", 60), end=70)
    assert (row.end_status, row.outages, row.finished_at) == ("HANDED_IN", 0, facts.at(50))


def test_more_time_that_is_given_during_an_outage_counts() -> None:
    exam = (facts.schedule(100, 200), *away(150, 290)[:2])
    extended = (*exam, facts.extend_exam(60, "E001", second=190), *away(150, 290)[2:])
    assert report(*extended).outage_seconds == 110
    assert report(*exam, facts.extend_exam(30, "E002", second=190)).outage_seconds == 50
    assert report(*exam, facts.extend_exam(30, second=190)).outage_seconds == 80
    assert report(*exam, facts.window("E001", start=160, end=170)).outage_seconds == 10


def test_after_a_close_nothing_counts_until_the_plan_is_opened_again() -> None:
    story = (facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 10), facts.close_plan(30))
    row = report(*story, end=50)
    assert (row.outage_seconds, row.end_status, row.still_disconnected) == (20, "LOST", False)
    assert report(*story, facts.open_plan(60), end=100).outage_seconds == 20 + 40
    second_sitting = (*story, facts.schedule(500, 600, second=60))
    assert report(*second_sitting, end=100).outage_seconds == 20
    row = report(*second_sitting, facts.connected("SOCK001-b", 510))
    assert (row.outage_seconds, row.window_start, row.window_end) == (20 + 10, None, facts.at(600))
    assert report(*second_sitting, begin=400).window_start == facts.at(500)
    assert report(*second_sitting, facts.extend_exam(60, second=70), begin=590).window_end == facts.at(660)


def test_what_the_client_closed_is_told_apart_and_compensated_only_by_the_policy() -> None:
    story = (
        facts.connected("SOCK001-a"),
        facts.disconnected("SOCK001-a", 10),
        facts.connected("SOCK001-b", 20),
        facts.disconnected("SOCK001-b", 30, "CLIENT_CLOSED"),
        facts.connected("SOCK001-c", 34.5),
    )
    row = report(*story)
    assert (row.outages, row.outage_seconds, row.compensate_seconds) == (2, 14.5, 10)
    assert (row.client_closed_outages, row.client_closed_seconds) == (1, 4.5)
    compensated = facts.schedule(policy=PlanPolicy(compensate_client_closed=True))
    assert report(*story, compensated).compensate_seconds == 15


def test_repeated_and_outdated_facts_about_a_plan_change_nothing() -> None:
    story = (facts.schedule(100, 200), *away(80, 130))
    outages = collect([(10 * number, fact) for number, fact in enumerate(story, 1) for _ in range(2)])
    outages.add(LogEntry(5, DAWN, facts.schedule(0, 90)))
    outages.add(LogEntry(100, DAWN, facts.close_plan(110, scheduled=3)))  # of a time that was moved
    (row,) = outages.rows(DAWN, DAWN + 1000)
    assert row.outage_seconds == 30


# -- properties -------------------------------------------------------------------------------------------

_moments = st.integers(0, 300)
_maybe = st.one_of(st.none(), _moments)


def _plan_fact(draw: Draw, log: Log) -> Fact:
    second = draw(_moments)
    match draw(st.sampled_from("SOCEWFR")):
        case "S":
            start, end = draw(_maybe), draw(_maybe)
            if start is not None and end is not None and end <= start:
                end = start + 1
            return facts.schedule(start, end, second=second)
        case "O":
            return facts.open_plan(second)
        case "C":
            return facts.close_plan(second, scheduled=draw(st.one_of(st.none(), st.sampled_from([10, 20, 30]))))
        case "E":
            return facts.extend_exam(draw(_moments) + 1, draw(st.sampled_from([None, "E001", "E002"])), second=second)
        case "W":
            return facts.window("E001", draw(_maybe), None, extra=draw(_moments))
        case "F":
            return facts.finish(second)
        case _:
            return facts.resume(second)


@st.composite
def exams(draw: st.DrawFn) -> Log:
    """Facts about one examinee and their plan, in the order of the log."""
    log: Log = [(10, facts.connected("SOCK001-a"))]
    for number in range(2, draw(st.integers(2, 14)) + 1):
        about_plan = draw(st.booleans())
        log.append((10 * number, _plan_fact(draw, log) if about_plan else connection_fact(draw, log)))
    return log


@given(exams(), st.lists(st.integers(-10, 320), min_size=3, max_size=3).map(sorted))
def test_no_moment_counts_twice_and_windows_that_are_cut_add_up(exam: Log, moments: list[int]) -> None:
    begin, middle, end = moments
    outages = collect(exam)
    rows = [outages.rows(DAWN + first, DAWN + last) for first, last in ((begin, end), (begin, middle), (middle, end))]
    if not all(rows):
        return  # not known yet in the first part
    (whole,), (first,), (second,) = rows
    assert whole.outage_seconds == pytest.approx(first.outage_seconds + second.outage_seconds)
    assert whole.client_closed_seconds == pytest.approx(first.client_closed_seconds + second.client_closed_seconds)
    assert 0 <= whole.ongoing_seconds <= whole.outage_seconds <= end - begin
    assert whole.longest_seconds <= whole.outage_seconds
    assert whole.compensate_seconds < whole.outage_seconds + 1
    assert sum(whole.reasons.values()) == whole.outages


@given(exams())
def test_without_the_facts_about_the_plan_never_less_counts(exam: Log) -> None:
    """A plan's times only take away from what would count without them."""
    alone: Log = [(version, fact) for version, fact in exam if isinstance(fact, ExamineeFact)]
    (without,) = collect(alone).rows(DAWN - 10, DAWN + 1000)
    (within,) = collect(exam).rows(DAWN - 10, DAWN + 1000)
    assert within.outage_seconds <= without.outage_seconds
    assert within.end_status == without.end_status
