"""Outages and what is to be compensated: the evidence in a dispute."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.log.entries import LogEntry
from protocol.log.outages import OutageRow, Outages, sum_rows, union_length
from protocol.messages.facts import ExamineeFact
from tests.unit.support import facts
from tests.unit.support.fact_logs import Log, logs
from tests.unit.support.facts import DAWN

windows = st.tuples(st.integers(-10, 320), st.integers(0, 320)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def report(
    *told: ExamineeFact, begin: float = 0, end: float = 1000, ignore_below: float = 0, cut: bool = False
) -> OutageRow:
    """E001 in a window, in seconds after the documents' morning began; the versions are 10, 20, 30, ..."""
    outages = Outages(truncated=cut)
    for number, fact in enumerate(told, 1):
        outages.add(LogEntry(10 * number, DAWN, fact))
    (row,) = outages.rows(DAWN + begin, DAWN + end, ignore_below=ignore_below)
    return row


TWO = (
    facts.connected("SOCK001-a"),
    facts.disconnected("SOCK001-a", 100, "PING_TIMEOUT"),
    facts.attempt(20, 1, 101),
    facts.attempt(20, 2, 105),
    facts.connected("SOCK001-b", 110.25),
    facts.disconnected("SOCK001-b", 200),
    facts.connected("SOCK001-c", 203),
)


def test_outages_are_counted_summed_and_rounded_up_once() -> None:
    row = report(*TWO)
    assert (row.outages, row.outage_seconds, row.longest_seconds) == (2, 13.25, 10.25)
    assert row.compensate_seconds == 14
    assert row.reasons == {"PING_TIMEOUT": 1, "SOCKET_CLOSED": 1}
    assert row.attempts == 2
    assert (row.still_disconnected, row.ongoing_seconds) == (False, 0)


@pytest.mark.parametrize(
    ("begin", "end", "outages", "seconds", "still"),
    [
        (0, 100, 0, 0, True),  # it began in this very moment
        (0, 99.999, 0, 0, False),
        (0, 105, 1, 5, True),
        (105, 107.5, 1, 2.5, True),
        (105, 201, 2, 6.25, True),
        (110.25, 200, 0, 0, True),
        (201, 1000, 1, 2, False),
        (300, 300, 0, 0, False),
    ],
)
def test_in_a_window_counts_what_lies_within(
    begin: float, end: float, outages: int, seconds: float, still: bool
) -> None:
    row = report(*TWO, begin=begin, end=end)
    assert (row.outages, row.outage_seconds, row.still_disconnected) == (outages, seconds, still)
    assert row.compensate_seconds == math.ceil(seconds)


def test_an_outage_that_goes_on_counts_to_the_end_of_the_window() -> None:
    row = report(*TWO[:2], end=160)
    assert (row.outages, row.outage_seconds, row.ongoing_seconds, row.compensate_seconds) == (1, 60, 60, 60)
    assert row.still_disconnected


def test_short_outages_may_be_ignored_by_their_whole_length() -> None:
    assert report(*TWO, ignore_below=10).outage_seconds == 10.25
    assert report(*TWO, ignore_below=10.3).outages == 0
    assert report(*TWO, ignore_below=10, begin=109).outage_seconds == 1.25  # long enough as a whole


def test_who_is_shut_out_is_in_the_same_outage_until_connected_again() -> None:
    row = report(
        facts.connected("SOCK001-a"),
        facts.disconnected("SOCK001-a", 10),
        facts.exhausted(20, 20),
        facts.connected("SOCK001-b", 30),  # refused
        facts.readmit(40),
        facts.connected("SOCK001-c", 50),
    )
    assert (row.outages, row.outage_seconds, row.shut_out, row.readmissions) == (1, 40, 1, 1)
    assert row.reasons == {"SOCKET_CLOSED": 1}


def test_a_migration_is_no_outage_unless_it_ends_in_a_loss() -> None:
    moved = (facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 10, "SERVER_DRAINING"))
    row = report(*moved, facts.attempt(20, 1, 11), facts.connected("SOCK002-b", 13))
    assert (row.outages, row.migrations, row.outage_seconds) == (0, 1, 0)
    assert report(*moved, end=12).still_disconnected is False
    lost = report(*moved, facts.attempt(20, 1, 11), facts.attempt(20, 2, 15), facts.connected("SOCK002-b", 18))
    assert (lost.outages, lost.migrations, lost.outage_seconds) == (1, 1, 8)
    assert lost.reasons == {"SERVER_DRAINING": 1}
    shut_out = report(*moved, facts.exhausted(20, 15), end=20)
    assert (shut_out.outage_seconds, shut_out.shut_out, shut_out.reasons) == (10, 1, {"SERVER_DRAINING": 1})


def test_a_replacement_and_a_late_disconnect_are_no_outage() -> None:
    row = report(facts.connected("SOCK001-a"), facts.connected("SOCK001-b", 10), facts.disconnected("SOCK001-a", 20))
    assert (row.outages, row.still_disconnected) == (0, False)


def test_clocks_that_differ_never_count_a_moment_twice_or_less_than_nothing() -> None:
    row = report(
        facts.connected("SOCK001-a"),
        facts.disconnected("SOCK001-a", 100),
        facts.connected("SOCK002-b", 95),  # a server whose clock is behind
        facts.disconnected("SOCK002-b", 90),
        facts.connected("SOCK001-c", 120),
        facts.disconnected("SOCK001-c", 110),
        facts.connected("SOCK001-d", 130),
    )
    assert row.outage_seconds == 40  # 90 to 130, each moment once


def test_the_mobile_sync_is_the_one_at_the_end_of_the_window() -> None:
    told = (facts.wait(0), facts.upload_failed(10), facts.uploaded("a", 20))
    assert report(*told, end=5).mobile_sync == "WAITING"
    failed = report(*told, end=15)
    assert (failed.mobile_sync, failed.mobile_sync_reason) == ("FAILED", "IMAGE_STORE_FAILED")
    done = report(*told)
    assert (done.mobile_sync, done.mobile_sync_time, done.mobile_sync_reason) == ("COMPLETED", facts.at(20), None)


def test_who_came_after_the_window_is_not_in_it_and_an_expired_beginning_is_said() -> None:
    outages = Outages()
    outages.add(LogEntry(10, DAWN, facts.connected("SOCK001-a", 50)))
    assert outages.rows(DAWN, DAWN + 49) == []
    row = report(facts.disconnected("SOCK001-a", 10), facts.connected("SOCK001-b", 14), cut=True)
    assert (row.complete, row.outage_seconds) == (False, 4)


def test_the_totals_are_the_sums() -> None:
    rows = [report(*TWO), report(*TWO[:2], end=160), report(TWO[0])]
    sums = sum_rows(rows)
    assert (sums.examinees, sums.affected, sums.outages, sums.still_disconnected) == (3, 2, 3, 1)
    assert (sums.outage_seconds, sums.longest_seconds, sums.compensate_seconds) == (73.25, 60, 74)
    assert sum_rows([]).outage_seconds == 0


# -- properties -------------------------------------------------------------------------------------------


def _taken(log: Log, *, step: int = 1) -> Outages:
    outages = Outages()
    for version, fact in log:
        assert isinstance(fact, ExamineeFact)
        for again in range(step):
            outages.add(LogEntry(version + again, DAWN, fact))
    return outages


@given(logs("connection", most=14), windows)
def test_the_sum_is_never_negative_and_never_more_than_the_window(log: Log, window: tuple[int, int]) -> None:
    begin, end = window
    for row in _taken(log).rows(DAWN + begin, DAWN + end):
        assert 0 <= row.longest_seconds <= row.outage_seconds <= end - begin
        assert row.outage_seconds <= row.compensate_seconds < row.outage_seconds + 1
        assert row.ongoing_seconds <= row.outage_seconds
        assert sum(row.reasons.values()) == row.outages
        assert (row.outages > 0) == (row.outage_seconds > 0)


@given(logs("connection", most=14), windows)
def test_what_comes_again_at_once_or_is_read_again_changes_nothing(log: Log, window: tuple[int, int]) -> None:
    begin, end = DAWN + window[0], DAWN + window[1]
    once = _taken(log).rows(begin, end)
    assert _taken([*log, *log]).rows(begin, end) == once
    # Told twice to the log (a retry after the duplicate window): a fact of its own each time. One examinee refused
    # twice was refused twice, so only what is measured is compared.
    twice = _taken(log, step=2).rows(begin, end)
    assert [(row.outages, row.outage_seconds, row.still_disconnected) for row in twice] == [
        (row.outages, row.outage_seconds, row.still_disconnected) for row in once
    ]


@given(logs("connection", most=14), windows, st.integers(0, 320))
def test_a_window_in_two_parts_sums_to_the_whole(log: Log, window: tuple[int, int], middle: int) -> None:
    begin, end = window
    cut = min(max(middle, begin), end)
    outages = _taken(log)
    whole = sum(row.outage_seconds for row in outages.rows(DAWN + begin, DAWN + end))
    parts = [*outages.rows(DAWN + begin, DAWN + cut), *outages.rows(DAWN + cut, DAWN + end)]
    assert sum(row.outage_seconds for row in parts) == pytest.approx(whole)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))))
def test_a_union_covers_each_moment_once(parts: list[tuple[int, int]]) -> None:
    assert union_length(parts) == len({moment for first, last in parts for moment in range(first, last)})
