"""The log in words: every fact says what was decided, and what was not."""

from __future__ import annotations

from hypothesis import given

from cli.plans.timeline import cells
from cli.shared.times import local_time
from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import TimelineEntry, status_at_time
from protocol.messages.facts import ExamineeFact
from protocol.records import kinds
from protocol.times import parse_time
from tests.unit.support import facts
from tests.unit.support.fact_logs import Log, in_order, logs
from tests.unit.support.facts import DAWN, at


def read(*logged: ExamineeFact) -> list[TimelineEntry]:
    """Facts that the log took in this order, one a second, with the versions 10, 20, 30, ..."""
    timeline = Timeline()
    entries = [timeline.add(LogEntry(10 * (n + 1), DAWN + n, fact)) for n, fact in enumerate(logged)]
    return [entry for entry in entries if entry is not None]


def test_an_entry_has_the_mobile_sync_status_beside_the_connection_status() -> None:
    entries = read(facts.wait(), facts.connected("SOCK001-a"))
    assert [(entry.status, entry.mobile_sync) for entry in entries] == [("NEVER", "WAITING"), ("CONNECTED", "WAITING")]


def test_an_examinee_is_complete_unless_the_first_facts_have_expired() -> None:
    timeline = Timeline(truncated=True)
    timeline.add(LogEntry(10, DAWN, facts.disconnected("SOCK001-a")))
    timeline.add(LogEntry(20, DAWN + 1, facts.attempt(10, 1, 1)))
    timeline.add(LogEntry(30, DAWN + 2, facts.connected("SOCK001-b").model_copy(update={"examinee_id": "E002"})))
    assert {name: (person.complete, person.first_logged) for name, person in timeline.examinees.items()} == {
        "E001": (False, DAWN),
        "E002": (True, DAWN + 2),
    }


@given(logs("connection"))
def test_the_timeline_ends_where_the_rules_end(log: Log) -> None:
    state, _ = in_order(kinds.CONNECTION, log)
    timeline = Timeline()
    for version, fact in log:
        assert isinstance(fact, ExamineeFact)
        assert timeline.add(LogEntry(version, DAWN, fact)) is not None
        assert timeline.add(LogEntry(version, DAWN, fact)) is None  # delivered again
    assert timeline.examinees["E001"].connection == state


@given(logs("connection"))
def test_a_fact_that_changes_the_status_is_never_listed_as_without_effect(log: Log) -> None:
    status: str | None = None
    for entry in _taken(log):
        if (entry.status if entry.status != "NEVER" else None) != status:
            assert entry.effect
        status = entry.status if entry.status != "NEVER" else None


@given(logs("mobile_sync"))
def test_the_mobile_sync_ends_where_the_rules_end(log: Log) -> None:
    state, _ = in_order(kinds.MOBILE_SYNC, log)
    entries = _taken(log)
    assert entries[-1].mobile_sync == state.view().status


def _taken(log: Log) -> list[TimelineEntry]:
    timeline = Timeline()
    entries = [timeline.add(LogEntry(version, DAWN, fact)) for version, fact in log if isinstance(fact, ExamineeFact)]
    return [entry for entry in entries if entry is not None]


# -- at a moment ------------------------------------------------------------------------------------------


def test_the_status_at_a_time_has_its_cause_and_the_next_entry() -> None:
    entries = read(
        facts.connected("SOCK001-a"),
        facts.disconnected("SOCK001-a", 1),
        facts.attempt(20, 1, 2),
        facts.disconnected("SOCK001-a", 3),
        facts.wait(4),
        facts.notice(second=5),
        facts.notice_confirmed(second=6),
        facts.connected("SOCK001-b", 7),
    )
    before = status_at_time(entries, DAWN - 0.001)
    assert (before.status, before.status_entry, before.next_entry) == ("NEVER", None, entries[0])
    assert status_at_time(entries, DAWN).status == "CONNECTED"
    status = status_at_time(entries, DAWN + 3.9)
    assert (status.status, status.status_entry, status.latest_entry) == ("DISCONNECTED", entries[1], entries[2])
    assert (status.mobile_sync, status.next_entry) == ("NONE", entries[4])
    for second, following in ((4, entries[5]), (5, entries[6]), (6, entries[7])):
        waiting = status_at_time(entries, DAWN + second)
        assert (waiting.status, waiting.mobile_sync, waiting.mobile_sync_entry) == (
            "DISCONNECTED",
            "WAITING",
            entries[4],
        )
        assert (waiting.latest_entry, waiting.next_entry) == (entries[2], following)
    now = status_at_time(entries, parse_time(at(3600)))
    assert (now.status, now.status_entry, now.next_entry) == ("CONNECTED", entries[7], None)


def test_a_replacement_is_the_cause_of_the_present_connection() -> None:
    entries = read(facts.connected("SOCK001-a"), facts.connected("SOCK001-b", 1))
    assert status_at_time(entries, DAWN + 1).status_entry == entries[1]


def test_a_table_shows_local_times_and_leaves_peoples_text_unchanged() -> None:
    entries = read(facts.wait(), facts.extend(60, 5), facts.notice(text="Until 2026-11-22T03:00:00Z."))
    waiting, extended, notice = (cells(entry)[2] for entry in entries)
    assert waiting == f"mobile sync: waiting for a picture until {local_time(at(120))}"
    assert str(extended).endswith(f"from {local_time(at(120))} to {local_time(at(180))}")
    assert notice == "notice by S001: Until 2026-11-22T03:00:00Z."
