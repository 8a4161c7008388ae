"""Outages and what is to be compensated: the evidence in a dispute."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.log.entries import LogEntry
from protocol.log.outage_csv import outages_csv
from protocol.log.outages import Enrolled, Outage, OutageRow, Outages, sum_rows, union_length
from protocol.messages.facts import ExamineeFact
from tests.unit.support import facts
from tests.unit.support.fact_logs import Log, logs
from tests.unit.support.facts import DAWN

windows = st.tuples(st.integers(-10, 320), st.integers(0, 320)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def report(
    *logged: ExamineeFact, begin: float = 0, end: float = 1000, ignore_below: float = 0, cut: bool = False
) -> OutageRow:
    """E001 in a window, in seconds after the documents' morning began; the versions are 10, 20, 30, ..."""
    outages = Outages(truncated=cut)
    for number, fact in enumerate(logged, 1):
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
        (105, 106.001, 1, 1.001, True),
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


def test_an_outage_of_a_shut_out_examinee_lasts_until_it_connects_again() -> None:
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
    loss = report(*moved, facts.attempt(20, 1, 11), facts.attempt(20, 2, 15), facts.connected("SOCK002-b", 18))
    assert (loss.outages, loss.migrations, loss.outage_seconds) == (1, 1, 8)
    assert loss.reasons == {"SERVER_DRAINING": 1}
    shut_out = report(*moved, facts.exhausted(20, 15), end=20)
    assert (shut_out.outage_seconds, shut_out.shut_out, shut_out.reasons) == (10, 1, {"SERVER_DRAINING": 1})


def test_a_replacement_and_a_late_disconnect_are_no_outage() -> None:
    row = report(facts.connected("SOCK001-a"), facts.connected("SOCK001-b", 10), facts.disconnected("SOCK001-a", 20))
    assert (row.outages, row.still_disconnected) == (0, False)


def test_clocks_that_differ_never_count_a_moment_twice_or_less_than_nothing() -> None:
    story = (
        facts.connected("SOCK001-a"),
        facts.disconnected("SOCK001-a", 100),
        facts.connected("SOCK002-b", 95),  # a server whose clock is behind
        facts.disconnected("SOCK002-b", 90),
        facts.connected("SOCK001-c", 120),
        facts.disconnected("SOCK001-c", 110),
        facts.connected("SOCK001-d", 130),
    )
    assert report(*story).outage_seconds == 40  # 90 to 130, each moment once
    row = report(*story, end=115)  # two outages go on
    assert (row.outages, row.ongoing_seconds, row.outage_seconds) == (2, 25, 25)


def test_the_mobile_sync_is_the_one_at_the_end_of_the_window() -> None:
    logged = (facts.wait(0), facts.upload_failed(10), facts.uploaded("a", 20))
    assert report(*logged, end=5).mobile_sync == "WAITING"
    failed = report(*logged, end=15)
    assert (failed.mobile_sync, failed.mobile_sync_reason) == ("FAILED", "IMAGE_STORE_FAILED")
    row = report(*logged)
    assert (row.mobile_sync, row.mobile_sync_time, row.mobile_sync_reason) == ("COMPLETED", facts.at(20), None)


def test_an_examinee_first_seen_after_the_window_is_left_out_and_an_expired_beginning_is_marked() -> None:
    outages = Outages()
    outages.add(LogEntry(10, DAWN, facts.connected("SOCK001-a", 50)))
    assert outages.rows(DAWN, DAWN + 49) == []
    row = report(facts.disconnected("SOCK001-a", 10), facts.connected("SOCK001-b", 14), cut=True)
    assert (row.complete, row.outage_seconds) == (False, 4)


def test_the_roster_names_whom_the_log_does_not_and_lists_who_never_came() -> None:
    outages = Outages()
    outages.add(LogEntry(10, DAWN, facts.connected("SOCK001-a")))
    roster = {
        "E002": Enrolled("Lee", {"room": "A"}, came=False),
        "E001": Enrolled("Kim", {}, came=True),
        "E003": Enrolled("Park", {}, came=True),  # their facts have left the log
    }
    rows = outages.rows(DAWN, DAWN + 10, roster=roster)
    assert [(row.examinee_id, row.name, row.labels, row.end_status) for row in rows] == [
        ("E001", "Kim", {}, "CONNECTED"),
        ("E002", "Lee", {"room": "A"}, "NEVER_CAME"),
    ]
    # What the log holds is what was so then.
    outages.add(LogEntry(20, DAWN, facts.enrol("Hana")))
    assert outages.rows(DAWN, DAWN + 10, roster=roster)[0].name == "Hana"


def test_the_totals_are_the_sums() -> None:
    rows = [report(*TWO), report(*TWO[:2], end=160), report(TWO[0])]
    sums = sum_rows(rows)
    assert (sums.examinees, sums.affected, sums.outages, sums.still_disconnected) == (3, 2, 3, 1)
    assert (sums.outage_seconds, sums.longest_seconds, sums.compensate_seconds) == (73.25, 60, 74)
    assert sum_rows([]).outage_seconds == 0


def test_every_column_of_a_row_is_what_happened_in_the_window() -> None:
    story = (
        facts.wait(-5),
        facts.connected("SOCK001-a", 5),
        facts.disconnected("SOCK001-a", 10, "PING_TIMEOUT"),
        facts.attempt(30, 1, 11),
        facts.exhausted(30, 20),
        facts.readmit(40),
        facts.connected("SOCK001-b", 50),
        facts.remove(60),
        facts.readmit(70),
        facts.connected("SOCK001-c", 80.5),
        facts.sent_away("SOCK001-c", 90),
        facts.connected("SOCK001-d", 91),
        facts.upload_failed(95),
        facts.uploaded("a", 300),
    )
    assert report(*story, end=100).model_dump() == {
        "examinee_id": "E001",
        "outages": 2,
        "outage_seconds": 50.5,
        "longest_seconds": 40.0,
        "ongoing_seconds": 0.0,
        "still_disconnected": False,
        "compensate_seconds": 51,
        "reasons": {"PING_TIMEOUT": 1, "READMITTED": 1},
        "attempts": 1,
        "shut_out": 1,
        "removals": 1,
        "readmissions": 2,
        "migrations": 1,
        "mobile_sync": "FAILED",
        "mobile_sync_time": facts.at(95),
        "mobile_sync_reason": "IMAGE_STORE_FAILED",
        "first_seen": facts.at(-5),
        "complete": True,
        "client_closed_outages": 0,
        "client_closed_seconds": 0.0,
        "unstable": 0,
        "end_status": "CONNECTED",
        "finished_by": None,
        "finished_at": None,
        "window_start": None,
        "window_end": None,
        "name": None,
        "labels": {},
    }
    before = report(*story, begin=-10, end=-5)
    assert (before.mobile_sync, before.first_seen, before.outages) == ("WAITING", facts.at(-5), 0)
    assert report(*story[1:], end=5).mobile_sync == "NONE"
    assert (report(*story[1:], end=5).mobile_sync_time, report(*story[1:], end=5).mobile_sync_reason) == (None, None)


@pytest.mark.parametrize(("begin", "end", "attempts"), [(101, 105, 2), (101.001, 105, 1), (101, 104.999, 1)])
def test_both_ends_of_a_window_belong_to_it(begin: float, end: float, attempts: int) -> None:
    assert report(*TWO, begin=begin, end=end).attempts == attempts


@pytest.mark.parametrize(("end", "ongoing", "still"), [(110.249, 10.249, True), (110.25, 0, False), (111, 0, False)])
def test_an_outage_goes_on_until_the_moment_it_ends(end: float, ongoing: float, still: bool) -> None:
    row = report(*TWO, end=end)
    assert (row.ongoing_seconds, row.still_disconnected) == (ongoing, still)


def test_an_outage_as_long_as_the_limit_is_counted() -> None:
    assert report(*TWO, ignore_below=10.25).outages == 1
    assert report(*TWO[:2], end=160, ignore_below=60).outages == 1
    assert report(*TWO[:2], end=160, ignore_below=60.001).outages == 0


def test_first_seen_is_the_earliest_timestamp_of_any_fact() -> None:
    logged = (facts.connected("SOCK001-a", 50), facts.disconnected("SOCK001-a", 40))
    assert report(*logged).first_seen == facts.at(40)
    outages = Outages()
    assert outages.begin is None
    for number, fact in enumerate(logged):
        outages.add(LogEntry(10 * number + 10, DAWN, fact))
    assert outages.begin == DAWN + 40
    assert len(outages.rows(DAWN, DAWN + 40)) == 1
    assert outages.rows(DAWN, DAWN + 39.999) == []


def test_a_loss_at_the_moment_of_the_connection_has_no_length() -> None:
    row = report(facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 5), facts.connected("SOCK001-b", 5))
    assert (row.outages, row.outage_seconds) == (0, 0)


def test_an_enrolled_examinee_never_came_and_repeated_entries_change_nothing() -> None:
    outages = Outages()
    outages.add(LogEntry(10, DAWN, facts.enrol("Kim")))
    (row,) = outages.rows(DAWN, DAWN + 1)
    assert (row.end_status, row.first_seen, row.outages, outages.begin) == ("NEVER_CAME", None, 0, DAWN)
    assert sum_rows([row]).never_came == 1
    for _ in range(2):
        outages.add(LogEntry(20, DAWN, facts.connected("SOCK001-a", 5)))
        outages.add(LogEntry(30, DAWN, facts.disconnected("SOCK001-a", 7)))
    (row,) = outages.rows(DAWN, DAWN + 10)
    assert (row.first_seen, row.outage_seconds, row.complete) == (facts.at(5), 3, True)


def test_by_default_the_log_is_complete_and_every_outage_counts() -> None:
    outages = Outages()
    outages.add(LogEntry(10, DAWN, facts.disconnected("SOCK001-a")))  # what the log knows no beginning of counts too
    outages.add(LogEntry(20, DAWN, facts.connected("SOCK001-b", 1)))
    outages.add(LogEntry(30, DAWN, facts.disconnected("SOCK001-b", 2)))
    (row,) = outages.rows(DAWN, DAWN + 2.5)
    assert (row.outages, row.outage_seconds, row.complete) == (2, 1.5, True)


def test_rows_are_sorted_by_examinee() -> None:
    outages = Outages()
    for version, examinee_id in ((10, "E2"), (20, "E1")):
        joined = facts.connected("SOCK001-a", version).model_copy(update={"examinee_id": examinee_id})
        outages.add(LogEntry(version, DAWN, joined))
    assert [row.examinee_id for row in outages.rows(DAWN, DAWN + 30)] == ["E1", "E2"]
    assert outages.begin == DAWN + 10


def test_a_removed_examinee_who_was_cut_off_is_no_longer_in_an_outage() -> None:
    row = report(facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 10), facts.remove(15), end=20)
    assert (row.outage_seconds, row.still_disconnected, row.removals) == (5, False, 1)


def test_the_totals_count_each_examinee_once() -> None:
    rows = [
        report(*TWO).model_copy(update={"shut_out": shut_out, "removals": 3, "readmissions": 4, "migrations": 5})
        for shut_out in (2, 1, 0)
    ]
    sums = sum_rows(rows)
    assert (sums.shut_out, sums.removals, sums.readmissions, sums.migrations) == (2, 9, 12, 15)
    assert (sums.outage_seconds, sums.longest_seconds, sums.compensate_seconds) == (39.75, 10.25, 42)
    assert sum_rows([]).longest_seconds == 0
    thirds = [report(*TWO).model_copy(update={"outage_seconds": 0.1}) for _ in range(3)]
    assert sum_rows(thirds).outage_seconds == 0.3


@pytest.mark.parametrize(
    ("begin", "end", "part"),
    [(0, 100, (10, 20)), (10, 20, (10, 20)), (15, 100, (15, 20)), (0, 15, (10, 15)), (0, 10, None), (20, 30, None)],
)
def test_the_part_of_an_outage_in_a_window(begin: int, end: int, part: tuple[int, int] | None) -> None:
    assert Outage(10, "PING_TIMEOUT", 20).part(begin, end) == part


# -- the table for spreadsheets ----------------------------------------------------------------------------


def test_a_row_has_the_name_and_the_labels_of_the_roster() -> None:
    row = report(facts.enrol("Kim", labels={"room": "A"}), *TWO, end=205)
    assert (row.name, row.labels) == ("Kim", {"room": "A"})


def test_the_table_has_a_header_and_a_line_an_examinee() -> None:
    changes = {
        "examinee_id": "-E1",
        "mobile_sync_reason": "=x\x1b",
        "reasons": {"SOCKET_CLOSED": 1, "PING_TIMEOUT": 1},
        "name": "=Kim",
        "labels": {"room": "@A", "name": "Hana"},
    }
    row = report(*TWO, end=205).model_copy(update=changes)
    ongoing = report(*TWO[:2], end=160)
    header, first, second, rest = outages_csv("P001", [row, ongoing]).decode("utf-8-sig").split("\r\n")
    assert header == (
        "planId,examineeId,outages,outageSeconds,longestSeconds,compensateSeconds,stillDisconnected,"
        "ongoingSeconds,reasons,attempts,shutOut,removals,readmissions,migrations,"
        "mobileSync,mobileSyncTime,mobileSyncReason,firstSeen,complete,"
        "endStatus,finishedBy,finishedAt,windowStart,windowEnd,clientClosedOutages,clientClosedSeconds,unstable,name,"
        "room,label name"
    )
    assert first == (
        "P001,'-E1,2,13.250,10.250,14,no,0.000,PING_TIMEOUT 1; SOCKET_CLOSED 1,2,0,0,0,0,NONE,,'=x\\x1b,"
        f"{facts.at(0)},yes,CONNECTED,,,,,0,0.000,0,'=Kim,'@A,Hana"
    )
    assert second == (
        f"P001,E001,1,60.000,60.000,60,yes,60.000,PING_TIMEOUT 1,0,0,0,0,0,NONE,,,{facts.at(0)},yes,LOST,,,,,0,0.000,0"
        ",,,"
    )
    assert rest == ""


# -- properties -------------------------------------------------------------------------------------------


def _taken(log: Log, *, step: int = 1) -> Outages:
    outages = Outages()
    for version, fact in log:
        assert isinstance(fact, ExamineeFact)
        for _ in range(step):
            outages.add(LogEntry(version + _, DAWN, fact))
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
def test_repeated_facts_and_entries_change_nothing(log: Log, window: tuple[int, int]) -> None:
    begin, end = DAWN + window[0], DAWN + window[1]
    once = _taken(log).rows(begin, end)
    assert _taken([*log, *log]).rows(begin, end) == once
    # Told twice to the log (a retry after the duplicate window): a fact of its own each time. One examinee refused
    # twice was refused twice, so only what is measured is compared.
    repeated_rows = _taken(log, step=2).rows(begin, end)
    assert [(row.outages, row.outage_seconds, row.still_disconnected) for row in repeated_rows] == [
        (row.outages, row.outage_seconds, row.still_disconnected) for row in once
    ]


@given(logs("connection", most=14), windows, st.integers(0, 320))
def test_a_window_in_two_parts_sums_to_the_whole(log: Log, window: tuple[int, int], middle: int) -> None:
    begin, end = window
    boundary = min(max(middle, begin), end)
    outages = _taken(log)
    total = sum(row.outage_seconds for row in outages.rows(DAWN + begin, DAWN + end))
    parts = [*outages.rows(DAWN + begin, DAWN + boundary), *outages.rows(DAWN + boundary, DAWN + end)]
    assert sum(row.outage_seconds for row in parts) == pytest.approx(total)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))))
def test_a_union_covers_each_moment_once(parts: list[tuple[int, int]]) -> None:
    assert union_length(parts) == len({moment for first, last in parts for moment in range(first, last)})
