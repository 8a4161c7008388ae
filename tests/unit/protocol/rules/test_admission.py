"""Who may be there: the roster, removal and readmission, by scenario. Versions are the places in the log."""

from __future__ import annotations

import pytest

from protocol.client.plan_view import PlanView
from protocol.close_codes import CLOSE_RULES, CloseCode, may_reconnect
from protocol.log.entries import LogEntry
from protocol.log.outages import Outages, sum_rows
from protocol.log.timeline_entry import EntryKind
from protocol.messages.facts import ConnectionFact, ExamineeFact
from protocol.messages.frames import PlanSnapshot
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
)
from protocol.messages.views import HelpView
from protocol.records.kinds import CONNECTION
from protocol.records.snapshot_rows import MOBILE_SYNC_FIELDS, PROGRESS_FIELDS, examinee_row
from protocol.rules.effects import CloseSocket
from tests.unit.protocol.log.test_timeline import read
from tests.unit.support.connection_log import A, B, Log, refusal, shut_out
from tests.unit.support.facts import (
    DAWN,
    EXAMINEE,
    at,
    attempt,
    connected,
    disconnected,
    enrol,
    exhausted,
    extend,
    notice,
    notice_confirmed,
    readmit,
    remove,
    restate,
    sent_away,
    timed_out,
    uploaded,
    wait,
)

# -- the roster -------------------------------------------------------------------------------------------


def test_an_enrolment_is_published_with_the_status_never() -> None:
    log = Log(enrol("Kim", by="registry"))
    event = log.event()
    assert isinstance(event, ExamineeEnrolled)
    assert (event.name, event.by, event.connection.status, event.removed) == ("Kim", "registry", "NEVER", False)
    assert (log.state.status, log.state.enrolled, log.effects) == (None, True, ())


@pytest.mark.parametrize("again", ["Kim", None])
def test_enrolling_again_changes_nothing(again: str | None) -> None:
    assert Log(enrol("Kim")).changes_nothing(enrol(again, 9))


def test_another_name_is_taken_over() -> None:
    log = Log(enrol(None), enrol("Kim"), enrol("Lee"))
    assert (log.event().name, log.state.name) == ("Lee", "Lee")  # type: ignore[union-attr]


def test_labels_are_replaced_as_a_whole_and_stay_when_the_roster_has_none() -> None:
    log = Log(enrol("Kim", labels={"room": "A", "seat": "12"}))
    assert log.event().labels == {"room": "A", "seat": "12"}  # type: ignore[union-attr]
    assert log.changes_nothing(enrol("Kim", 1, labels={"seat": "12", "room": "A"}))
    assert log.changes_nothing(enrol(None, 2))
    log = Log(enrol("Kim", labels={"room": "A", "seat": "12"}), connected(A), enrol("Kim", labels={"room": "B"}))
    assert log.event().labels == {"room": "B"}  # type: ignore[union-attr]
    assert Log(enrol("Kim", labels={"room": "A"}), enrol("Kim", 1, labels={})).state.labels == {}


def test_an_enrolment_after_the_connection_publishes_the_present_state() -> None:
    log = Log(connected(A), disconnected(A, 10), attempt(2, 1, 11), enrol("Kim", 20))
    event = log.event()
    assert isinstance(event, ExamineeEnrolled)
    assert (event.connection.status, event.connection.reason) == ("DISCONNECTED", "SOCKET_CLOSED")
    assert (event.reconnect.attempt, event.reconnect.max_attempts) == (1, 3)
    assert (log.state.loss_version, log.state.since) == (2, at(10)), "the outage goes on"


def test_every_event_of_a_connection_names_who_it_is() -> None:
    log = Log(enrol("Kim", labels={"room": "A"}))
    story: list[tuple[ConnectionFact, type[object]]] = [
        (connected(A), ExamineeConnected),
        (disconnected(A, 10), ExamineeDisconnected),
        (attempt(3, 1, 11), ExamineeReconnecting),
        (exhausted(3, 60), ExamineeReconnectExhausted),
        (readmit(70), ExamineeReadmitted),
        (connected(B, 80), ExamineeConnected),
        (restate(85), ExamineeConnected),
        (remove(90), ExamineeRemoved),
    ]
    for fact, kind in story:
        event = log.add(fact).event()
        assert isinstance(event, kind)
        assert (event.name, event.labels) == ("Kim", {"room": "A"})  # type: ignore[union-attr]


# -- removal ----------------------------------------------------------------------------------------------


def test_a_removal_closes_the_connection_and_names_the_proctor() -> None:
    log = Log(connected(A), remove(10, by="S007", action="a1", reason="phone under the desk"))
    event = log.event()
    assert isinstance(event, ExamineeRemoved)
    assert (event.by, event.action_id, event.reason, event.status) == (
        "S007", "a1", "phone under the desk", "DISCONNECTED",
    )  # fmt: skip
    assert log.effects == (CloseSocket("SOCK001", A, CloseCode.REMOVED, 2),)
    assert (log.state.live, log.state.reason, log.state.since) == (False, "REMOVED", at(10))
    assert log.changes_nothing(disconnected(A, 11, "REMOVED")), "the end of that socket is no loss, nobody waits"


def test_the_close_code_of_a_removal_forbids_reconnecting() -> None:
    assert int(CloseCode.REMOVED) == 4508
    assert not may_reconnect(CloseCode.REMOVED)
    assert CLOSE_RULES[4508].name == "REMOVED"


@pytest.mark.parametrize(
    "before",
    [
        (connected(A),),
        (connected(A), disconnected(A, 5)),
        (connected(A), disconnected(A, 5), attempt(2, 1, 6)),
        (connected(A), sent_away(A, 5)),
        (enrol("Kim"),),
        (),
    ],
)
def test_a_removed_examinee_is_refused_and_not_awaited(before: tuple[ConnectionFact, ...]) -> None:
    log = Log(*before, remove(10))
    assert log.state.removed
    for late in (attempt(2, 2, 11), exhausted(2, 12), attempt(log.version, 1, 13), exhausted(log.version, 14)):
        assert log.changes_nothing(late)
    state = log.state
    log.add(connected(B, 20))
    assert log.state == state
    assert log.events == ()
    assert log.effects == (refusal(B, CloseCode.REMOVED, log.version),)


def test_a_shut_out_examinee_that_is_removed_is_refused_as_removed() -> None:
    log = shut_out().add(remove(70)).add(connected(B, 80))
    assert log.effects == (refusal(B, CloseCode.REMOVED, 8),)


def test_removing_again_changes_nothing_whoever_does_it() -> None:
    log = Log(connected(A), remove(10, by="S001", action="a1"))
    assert log.changes_nothing(remove(11, by="S002", action="a2"))
    assert log.state.removed_by == "S001"


def test_a_readmission_undoes_a_removal() -> None:
    log = Log(connected(A), remove(10), readmit(20, by="S007", action="a2"))
    event = log.event()
    assert isinstance(event, ExamineeReadmitted)
    assert (event.by, event.action_id, event.status) == ("S007", "a2", "DISCONNECTED")
    assert (log.state.removed, log.state.reason, log.state.since) == (False, "READMITTED", at(20))
    recovered = log.add(connected(B, 25)).event()
    assert isinstance(recovered, ExamineeConnected)
    assert recovered.outage_seconds == 5, "the removal itself was no outage"


def test_a_removal_and_readmission_before_any_connection_leave_the_status_never() -> None:
    log = Log(enrol("Kim"), remove(10))
    removed = log.event()
    assert isinstance(removed, ExamineeRemoved)
    assert (removed.status, log.state.view().status) == ("NEVER", "NEVER")
    readmitted = log.add(readmit(20)).event()
    assert isinstance(readmitted, ExamineeReadmitted)
    assert readmitted.status == "NEVER"
    first = log.add(connected(A, 30)).event()
    assert isinstance(first, ExamineeConnected)
    assert not first.recovered


def test_a_repeated_action_has_no_second_effect_also_after_other_actions() -> None:
    """A page that lost its connection repeats what it does not know to have arrived."""
    log = Log(connected(A), remove(10, action="a1"), readmit(20, action="a2"), connected(B, 30))
    assert log.changes_nothing(remove(40, action="a1"))
    log.add(remove(50, action="a3"))
    assert log.state.removed
    assert log.changes_nothing(readmit(60, action="a2"))
    assert log.add(readmit(70, action="a4")).state.removed is False


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ((connected(A), remove(10)), ExamineeRemoved),
        ((enrol("Kim"), remove(10)), ExamineeRemoved),
        ((enrol("Kim"),), ExamineeEnrolled),
        ((enrol("Kim"), remove(10), readmit(20)), ExamineeEnrolled),
        ((connected(A), remove(10), readmit(20)), ExamineeDisconnected),
    ],
)
def test_a_restatement_publishes_a_proctors_decision(facts: tuple[ConnectionFact, ...], kind: type[object]) -> None:
    log = Log(*facts, restate(50))
    event = log.event()
    assert isinstance(event, kind)
    assert event.restated  # type: ignore[union-attr]
    view = PlanView()
    view.apply(event)
    seen = view.examinees[EXAMINEE]
    assert (seen.status, seen.removed) == (log.state.view().status, log.state.removed)


def test_a_row_of_the_snapshot_matches_the_events() -> None:
    log = Log(enrol("Kim"))
    watching, late = PlanView(), PlanView()
    watching.apply(log.event())
    for fact in (connected(A), disconnected(A, 5), attempt(3, 1, 6), remove(10)):
        watching.apply(log.add(fact).event())
    fields = CONNECTION.fields(log.state)
    progress = [fields.get(name) for name in PROGRESS_FIELDS]
    row = examinee_row(
        EXAMINEE,
        progress,
        [None] * len(MOBILE_SYNC_FIELDS),
        ['["a1"]', "2", '["p1"]', '{"requestId": "h1", "since": "2024-01-01T09:15:00.000Z"}', "7"],
    )
    assert (row.name, row.removed, row.status) == ("Kim", True, "DISCONNECTED")
    assert row.notices is not None
    assert (row.notices.unconfirmed, row.notices.sent, row.notices.version) == (["a1"], 2, 7)
    assert row.notices.confirmed_plan_notices == ["p1"]
    assert row.notices.help == HelpView(request_id="h1", since=at(0))
    late.apply(PlanSnapshot(plan_id="P001", examinees=[row]))
    assert late.examinees[EXAMINEE].help == row.notices.help
    for view in (watching, late):
        seen = view.examinees[EXAMINEE]
        assert (seen.name, seen.removed, seen.reason, seen.attempt, seen.version) == ("Kim", True, "REMOVED", 0, 5)


# -- in the timeline and in the report --------------------------------------------------------------------


def test_the_timeline_says_who_did_what() -> None:
    told = read(
        enrol("Kim", by="registry"),
        connected(A, 1),
        notice("n1", "Please look up.", 2, by="proctor-1"),
        notice("n1", "Please look up.", 3, by="proctor-1"),
        notice_confirmed("n1", 4),
        wait(5),
        extend(60, 6, by="proctor-2", action="x1"),
        remove(7, by="proctor-1", action="r1", reason="talking"),
        connected(B, 8),
        readmit(9, by="proctor-2"),
    )
    assert [entry.what for entry in told] == [
        EntryKind.ENROLLED,
        EntryKind.JOINED,
        EntryKind.NOTICE,
        EntryKind.NO_EFFECT,
        EntryKind.NOTICE_CONFIRMED,
        EntryKind.SYNC_WAITING,
        EntryKind.SYNC_EXTENDED,
        EntryKind.REMOVED,
        EntryKind.REFUSED,
        EntryKind.READMITTED,
    ]
    assert [one.text for one in told] == [
        "enrolled by registry as Kim",
        "joined on SOCK001",
        "notice by proctor-1: Please look up.",
        "notice by proctor-1 again: no effect",
        "notice by proctor-1 confirmed: Please look up.",
        f"mobile sync: waiting for a picture until {at(125)}",
        f"mobile sync extended by proctor-2 from {at(125)} to {at(185)}",
        "removed by proctor-1: talking",
        "came back on SOCK002, and was refused: removed by proctor-1",
        "readmitted by proctor-2 after the removal",
    ]
    assert [one.by for one in told if one.by] == [
        "registry", "proctor-1", "proctor-1", "proctor-1", "proctor-2", "proctor-1", "proctor-2",
    ]  # fmt: skip
    assert (told[7].action_id, told[7].reason, told[7].status) == ("r1", "talking", "DISCONNECTED")


def test_actions_without_effect_are_listed_as_without_effect() -> None:
    told = read(
        enrol("Kim"),
        enrol("Kim"),
        readmit(1),
        remove(2),
        remove(3),
        extend(60, 4),
        uploaded("a", 5),
        extend(60, 6),
        notice_confirmed("n9", 7),
        timed_out(10, 8),
    )
    assert [one.effect for one in told] == [True, False, False, True, False, False, True, False, True, False]


def outages_of(*told: ExamineeFact) -> Outages:
    outages = Outages()
    for number, fact in enumerate(told):
        outages.add(LogEntry(10 * (number + 1), DAWN + number, fact))
    return outages


def test_the_report_counts_removals_and_compensates_no_time_of_them() -> None:
    outages = outages_of(
        enrol("Kim"), connected(A), disconnected(A, 10), remove(30), readmit(100), connected(B, 104.5), remove(200)
    )
    (row,) = outages.rows(DAWN, DAWN + 1000)
    assert (row.removals, row.readmissions, row.outages) == (2, 1, 2)
    assert row.outage_seconds == 24.5, "20 s until the removal, 4.5 s after the readmission"
    assert not row.still_disconnected
    assert sum_rows([row]).removals == 2
