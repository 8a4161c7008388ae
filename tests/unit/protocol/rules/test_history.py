"""The place of a late, repeated or settled fact, by scenario; the properties are in test_history_properties.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.client.plan_view import PlanView
from protocol.errors import NewerRecord
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionFact, ConnectionStatusCode, MobileSyncCode, MobileSyncFact
from protocol.messages.plan_facts import PlanPolicy
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected
from protocol.records.histories import dump_history, load_history
from protocol.records.kinds import CONNECTION, MOBILE_SYNC
from protocol.rules.connection_state import ConnectionState, Outage
from protocol.rules.effects import WatchReconnect
from protocol.rules.history import MOST_UNFOLDED, History, Insertion, Outcome, compact, fold
from protocol.rules.history import insert as insert_fact
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState, RecordedHelp
from protocol.rules.plan_state import PlanState
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    attempt,
    connected,
    disconnected,
    enrol,
    exhausted,
    restate,
    timed_out,
    uploaded,
    wait,
)

A, B = "SOCK001-a", "SOCK002-b"
Story = History[ConnectionState, ConnectionFact]
Told = Insertion[ConnectionState, ConnectionFact]


def insert(history: Story, version: int, fact: ConnectionFact) -> Told:
    return insert_fact(history, CONNECTION.rule, version, fact, CONNECTION.visible_part)


def story(*placed: tuple[int, ConnectionFact]) -> tuple[Story, list[Told]]:
    """Facts inserted in the order given, and what came of each."""
    history, told = CONNECTION.empty(), []
    for version, fact in placed:
        told.append(insert(history, version, fact))
        history = told[-1].history
    return history, told


def view(*told: Told) -> tuple[str, str | None, bool]:
    """What a proctor sees after these."""
    seen = PlanView()
    for one in told:
        for event in one.events:
            seen.apply(event)
    row = seen.examinees[EXAMINEE]
    return row.status, row.socket_id, row.exhausted


def unused_rule(*_: object) -> Outcome[ConnectionState]:
    raise AssertionError("no fact needs to be applied again")


def test_an_empty_history_has_nothing() -> None:
    empty = CONNECTION.empty()
    assert (empty.base, empty.floor, empty.facts, empty.late) == (ConnectionState(), 0, (), ())
    assert (empty.newest_event, empty.restatement_due, empty.first_version, empty.head) == (0, False, 0, None)


def test_a_redelivered_fact_changes_nothing_and_returns_its_own_events_and_effects_again() -> None:
    history, (joined, lost) = story((10, connected(A)), (20, disconnected(A, 5)))
    again = insert(history, 20, disconnected(A, 5))
    assert (again.history, again.changed, again.late, again.restate) == (history, False, False, False)
    assert (again.events, again.effects) == (lost.events, lost.effects)
    first = insert(history, 10, connected(A))
    assert (first.events, first.effects) == (joined.events, joined.effects)
    assert first.state == lost.state, "its state is that of the record, not of its place"


def test_the_state_after_all_facts_is_kept_so_that_the_next_one_costs_one_transition() -> None:
    history, told = story((10, connected(A)), (20, disconnected(A, 5)))
    assert fold(history, unused_rule) == told[-1].state
    assert compact(history, unused_rule, 20).base == told[-1].state
    assert replace(history, head=None) == history, "what is computed makes no difference between histories"


def test_a_fact_at_or_below_the_floor_changes_nothing() -> None:
    history, _ = story((10, connected(A)), (20, disconnected(A, 5)))
    settled = compact(history, CONNECTION.rule, 25)
    assert settled.facts == ()
    for version, fact in ((10, connected(A)), (20, disconnected(A, 5)), (25, connected(B, 9))):
        done = insert(settled, version, fact)
        assert (done.history, done.events, done.effects, done.changed) == (settled, (), (), False)
        assert done.state == fold(history, CONNECTION.rule)


@pytest.mark.parametrize(("floor", "left"), [(0, [10, 20]), (9, [10, 20]), (10, [20]), (19, [20]), (20, []), (25, [])])
def test_the_facts_up_to_the_floor_are_folded_into_the_base(floor: int, left: list[int]) -> None:
    history, told = story((10, connected(A)), (20, disconnected(A, 5)))
    settled = compact(history, CONNECTION.rule, floor)
    assert [version for version, _ in settled.facts] == left
    assert settled.base == {0: told[1].state, 1: told[0].state, 2: ConnectionState()}[len(left)]
    assert settled.floor == (floor if len(left) < 2 else 0)
    assert fold(settled, CONNECTION.rule) == told[1].state
    assert compact(settled, CONNECTION.rule, floor) is settled


def test_a_floor_never_falls() -> None:
    history, _ = story((10, connected(A)), (20, disconnected(A, 5)))
    settled = compact(history, CONNECTION.rule, 15)
    assert compact(settled, CONNECTION.rule, 12) is settled


def test_a_history_knows_its_first_version_while_the_log_forgets() -> None:
    in_order, _ = story((20, connected(A)), (30, disconnected(A, 5)))
    assert in_order.first_version == 20
    assert insert(in_order, 10, connected(B)).history.first_version == 10
    assert insert(in_order, 25, connected(B)).history.first_version == 20
    settled = compact(in_order, CONNECTION.rule, 35)
    assert insert(settled, 40, connected(B, 9)).history.first_version == 20
    unknown = replace(in_order, first_version=0)  # a record of before first versions were kept
    assert insert(unknown, 40, connected(B, 9)).history.first_version == 0
    assert insert(unknown, 10, connected(B)).history.first_version == 0


def test_a_late_connection_changes_nothing_about_the_loss_after_it() -> None:
    history, (unheard, late) = story((20, disconnected(A, 5)), (10, connected(A)))
    assert [type(event) for event in unheard.events] == [ExamineeDisconnected], "told without its beginning"
    assert [type(event) for event in late.events] == [ExamineeConnected]
    assert unheard.effects == (WatchReconnect(PLAN, EXAMINEE, 20),)
    assert (late.late, late.restate) == (True, False)
    assert fold(history, CONNECTION.rule) == late.state
    assert view(unheard, late) == ("DISCONNECTED", A, False)


def test_what_only_the_record_holds_stays_marked_whatever_comes() -> None:
    history, _ = story((10, connected(A)), (20, disconnected(A, 5)))
    marked = replace(history, kept=25)
    grown = insert(marked, 30, connected(B, 9)).history
    for later in (grown, compact(grown, CONNECTION.rule, 40), insert(marked, 15, connected(B, 3)).history):
        assert later.kept == 25
        fields = CONNECTION.write(later, fold(later, CONNECTION.rule), 1)
        assert CONNECTION.read(fields["history"], floor=40).kept == 25


def test_a_late_loss_of_a_replaced_socket_turns_the_replacement_into_a_recovery() -> None:
    """The proctors saw a replacement where there was a loss and a recovery."""
    _, told = story((10, connected(A)), (30, connected(B, 9)), (20, disconnected(A, 5)))
    late = told[-1]
    loss, recovery = late.events
    assert isinstance(loss, ExamineeDisconnected)
    assert isinstance(recovery, ExamineeConnected)
    assert (recovery.recovered, recovery.outage_seconds, recovery.replaced) == (True, 4, None)
    assert late.effects == (WatchReconnect(PLAN, EXAMINEE, 20),), "what the others ask for was done"
    assert not late.restate, "who is connected where was right all the time"
    assert late.state.recoveries == 1


def test_a_late_recovery_that_undoes_a_published_loss_is_restated() -> None:
    history, told = story((10, connected(A)), (30, disconnected(A, 9)), (20, connected(B, 5)))
    assert told[-1].restate
    assert view(*told) == ("DISCONNECTED", A, False), "the clients have seen something newer"
    restated = insert(history, 40, restate(10))
    assert view(*told, restated) == ("CONNECTED", B, False)
    assert not restated.history.restatement_due


@pytest.mark.parametrize(
    "placed",
    [
        # The last fact changes nothing: what counts is the last one that does.
        [(10, connected(A)), (30, disconnected(A, 9)), (40, disconnected(A, 11)), (20, connected(B, 5))],
        # The event at 30 now has the name, but clients have seen that version without it.
        [(10, connected(A)), (30, disconnected(A, 9)), (20, enrol("Kim", 5))],
        # The late connection at 10 published the loss at 20.
        [(20, disconnected(A, 9)), (10, connected(A)), (15, connected(B, 5))],
    ],
    ids=["no change after", "same version", "published late"],
)
def test_an_event_that_clients_would_drop_as_old_is_restated(placed: list[tuple[int, ConnectionFact]]) -> None:
    _, told = story(*placed)
    assert told[-1].restate


def test_a_restatement_is_due_until_something_newer_publishes_the_truth() -> None:
    """The state manager may die before it has published the restatement: the redelivery asks for it again."""
    history, _ = story((10, connected(A)), (30, disconnected(A, 9)), (20, connected(B, 5)))
    assert insert(history, 20, connected(B, 5)).restate
    assert insert(history, 25, disconnected(A, 7)).restate, "a late fact that changes nothing"
    unheard = insert(history, 35, disconnected(A, 12)).history
    assert insert(unheard, 20, connected(B, 5)).restate, "a newer fact that changes nothing"
    told = insert(unheard, 40, disconnected(B, 20)).history
    assert not insert(told, 20, connected(B, 5)).restate


def test_an_untrue_event_is_corrected_also_when_another_fact_has_undone_it() -> None:
    """The loss published at 60 was at 40; the exhaustion at 50 is older than what the clients have seen."""
    placed: list[tuple[int, ConnectionFact]] = [
        (20, connected(A)),
        (60, disconnected(A, 50)),
        (40, disconnected(A, 30)),
        (50, exhausted(40, 40)),
    ]
    history, told = story(*placed)
    assert told[-1].restate
    assert view(*told, insert(history, 70, restate(60))) == ("DISCONNECTED", A, True)


def test_a_crash_after_a_late_fact_loses_no_event() -> None:
    """Connected at 10 (late, then a crash) and announced again at 12: the loss at 20 is still to be published."""
    history, (lost, crashed, reannounced) = story((20, disconnected(A, 9)), (10, connected(A)), (12, connected(A)))
    assert ExamineeDisconnected in [type(event) for event in lost.events]
    assert reannounced.events == ()
    redelivered = insert(history, 10, connected(A))
    assert redelivered.events == (*crashed.events, *lost.events)
    assert redelivered.effects[0] == crashed.effects[0]
    assert WatchReconnect(PLAN, EXAMINEE, 20) in redelivered.effects


def test_a_floor_keeps_the_late_facts_above_it_and_forgets_those_below() -> None:
    history, _ = story((5, disconnected(B)), (20, disconnected(A, 9)), (10, connected(A)), (3, disconnected(A)))
    settled = compact(history, CONNECTION.rule, 7)
    assert [version for version, _ in settled.facts] == [10, 20]
    assert settled.late == (10,)
    assert compact(history, CONNECTION.rule, 3).late == (10,)
    redelivered = insert(settled, 10, connected(A))
    assert [type(event) for event in redelivered.events] == [ExamineeConnected, ExamineeDisconnected]


def test_the_same_state_by_an_earlier_fact_is_restated_when_another_state_was_published_in_between() -> None:
    """Completed at 60 (crash, unpublished), waiting at 40 (published), the same picture at 30 (late)."""
    history: History[MobileSyncState, MobileSyncFact] = MOBILE_SYNC.empty()
    told: list[Insertion[MobileSyncState, MobileSyncFact]] = []
    placed: list[tuple[int, MobileSyncFact]] = [
        (10, wait()),
        (20, timed_out(10)),
        (60, uploaded("a", 60)),
        (40, wait(40)),
        (30, uploaded("a", 30)),
    ]
    for version, fact in placed:
        told.append(insert_fact(history, MOBILE_SYNC.rule, version, fact, MOBILE_SYNC.visible_part))
        history = told[-1].history
    assert told[-1].state.status is MobileSyncCode.COMPLETED
    assert insert_fact(history, MOBILE_SYNC.rule, 60, uploaded("a", 60), MOBILE_SYNC.visible_part).events == ()
    assert told[-1].restate


# -- what only a newer release understands ------------------------------------------------------------------


def of_newer(fact: ConnectionFact, mood: object) -> ConnectionFact:
    """A fact with a field that only a newer release knows."""
    return fact.model_validate({**fact.data(), "mood": mood})


def test_a_fact_with_unknown_fields_is_kept_with_what_came_after_it() -> None:
    history, _ = story((10, connected(A)), (20, of_newer(disconnected(A, 5), 1)), (30, attempt(20, 1)))
    settled = compact(history, CONNECTION.rule, 40)
    assert [version for version, _ in settled.facts] == [20, 30]
    assert (settled.floor, settled.base) == (19, story((10, connected(A)))[1][0].state)
    assert fold(settled, CONNECTION.rule) == history.head
    assert compact(settled, CONNECTION.rule, 50) == settled
    assert insert(settled, 15, connected(A)).changed is False
    late = insert(history, 25, of_newer(attempt(20, 1), 2)).history
    assert (late.unknown, late.has_unknown()) == (True, True)


def test_only_so_many_facts_are_kept_for_a_newer_release() -> None:
    facts = [(10 * number, of_newer(connected(f"{A}{number}"), number)) for number in range(1, MOST_UNFOLDED + 6)]
    history, _ = story(*facts)
    settled = compact(history, CONNECTION.rule, 10_000)
    assert settled.facts == tuple(facts[5:])
    assert settled.floor == facts[5][0] - 1
    assert fold(settled, CONNECTION.rule) == history.head


OUTAGES = (Outage(1.0, 1.0), Outage(2.0, 1.0, unknown_fields={"mood": 1}))


@pytest.mark.parametrize(
    "state",
    [
        ConnectionState(unknown_fields={"mood": 1}),
        ConnectionState(outages=OUTAGES),
        PlanState(policy=PlanPolicy.model_validate({"mood": 1})),
        NoticesState(help=RecordedHelp("h1", "2024-01-01T09:15:00Z", unknown_fields={"mood": 1})),
    ],
)
def test_nothing_is_folded_into_a_state_with_unknown_fields(state: ConnectionState) -> None:
    assert state.has_unknown() is True
    assert replace(state, unknown_fields=None) == state, "they make no difference to this release"
    facts = ((10, connected(A)), (20, disconnected(A, 5)))
    for history in (
        History(state, 0, facts, unknown=True),
        History(ConnectionState(), 0, facts, head=state, unknown=True),
    ):
        assert history.has_unknown()
        assert compact(history, CONNECTION.rule, 15) is history
    known = History(ConnectionState(), 0, facts)
    assert not known.has_unknown()
    assert len(compact(known, CONNECTION.rule, 15).facts) == 1


# -- the history in Redis ---------------------------------------------------------------------------------


def test_a_history_is_read_as_it_was_written() -> None:
    history, _ = story(
        (10, connected(A, client="c1", number=3)),
        (20, disconnected(A, 5)),
        (40, attempt(20, 1)),
        (60, disconnected(A, 50)),
        (30, connected(B, 7)),
    )
    for floor in (0, 15, 25, 100):
        settled = compact(history, CONNECTION.rule, floor)
        assert load_history(ConnectionState, dump_history(settled)) == settled


def test_a_record_of_an_earlier_release_is_read_without_its_retired_fields() -> None:
    stored = (
        '{"base":{"plan_id":"P001","examinee_id":"E001","status":"CONNECTED","socket_id":"SOCK001-a",'
        '"server_id":"SOCK001","incarnation":"i1","browser_info":"Chrome 120.0","version":10},"floor":10,'
        '"facts":[[20,"connection_status",{"planId":"P001","examineeId":"E001","timestamp":"2024-01-01T09:00:00.000Z",'
        '"socketId":"SOCK001-a","status":"DISCONNECTED"}]],"head":{"plan_id":"P001","examinee_id":"E001",'
        '"status":"DISCONNECTED","socket_id":"SOCK001-a","server_id":"SOCK001","incarnation":"i1",'
        '"browser_info":"Chrome 120.0","reason":"SOCKET_CLOSED","version":20},"newestTold":20,"first":10}'
    )
    history = load_history(ConnectionState, stored)
    assert (history.base.status, history.base.server_id) == (ConnectionStatusCode.CONNECTED, "SOCK001")
    assert fold(history, CONNECTION.rule).reason == "SOCKET_CLOSED"
    assert load_history(ConnectionState, stored, floor=20).base == history.head
    assert "incarnation" not in dump_history(history)
    assert "browser_info" not in dump_history(history)


def test_a_missing_record_has_an_empty_history() -> None:
    assert CONNECTION.read(None) == History(ConnectionState())


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "nope",
        "[]",
        '"x"',
        "7",
        "null",
        "{}",
        '{"base": [], "floor": 0, "facts": []}',
        '{"base": {}, "floor": Infinity, "facts": []}',
        '{"base": {}, "floor": null, "facts": []}',
        '{"base": {}, "floor": 0, "facts": 7}',
        '{"base": {}, "floor": 0, "facts": [1]}',
        '{"base": {}, "floor": 0, "facts": [[1, "connection_status", {}]]}',
        '{"base": {}, "floor": 0, "facts": [[1, "nope", {}]]}',
        '{"base": {}, "floor": 0, "facts": [[null, "restate", {}]]}',
        '{"base": {}, "floor": 0, "facts": [], "late": 7}',
        '{"base": {}, "floor": 0, "facts": [], "newestTold": []}',
        '{"base": {"status": 7}, "floor": 0, "facts": []}',
        '{"base": {}, "floor": 0, "facts": [], "format": "2"}',
        '{"base": {"outages": [{"ended": 1}]}, "floor": 0, "facts": []}',
    ],
)
def test_any_other_text_than_a_history_is_a_value_error(stored: str) -> None:
    """The state manager puts the facts of a damaged record aside; any other error would stop the whole batch."""
    with pytest.raises(ValueError, match=r".") as raised:
        load_history(ConnectionState, stored)
    assert not isinstance(raised.value, UnicodeError | NewerRecord)


def test_a_record_has_its_fields_its_revision_and_its_history() -> None:
    history, told = story((10, connected(A)))
    fields = CONNECTION.write(history, told[-1].state, 3)
    assert (fields["rev"], fields["version"], fields["connStatusCode"]) == ("3", "10", "CONNECTED")
    assert CONNECTION.read(fields["history"]) == history
    assert all(isinstance(value, str) for value in fields.values())
    assert "None" not in fields.values()


def test_facts_are_messages_of_the_log() -> None:
    history, _ = story((10, connected(A)))
    assert all(isinstance(fact, Message) for _, fact in history.facts)
