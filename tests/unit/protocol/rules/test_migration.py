"""A server that is drained sends its clients elsewhere: migrating, arrived, or lost on the way. By scenario."""

from __future__ import annotations

import pytest

from protocol.client.plan_view import PlanView
from protocol.close_codes import CloseCode
from protocol.errors import ProtocolError
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC, ConnectionFact
from protocol.messages.frames import SERVER_FRAMES, ExamineeRow, Migrate
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
)
from protocol.records.kinds import CONNECTION
from protocol.records.snapshot_rows import MOBILE_SYNC_FIELDS, NOTICES_FIELDS, PROGRESS_FIELDS, examinee_row
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import CloseSocket, SendSessionState, WatchReconnect
from protocol.rules.history import insert
from tests.unit.support.connection_log import A, B, C, Log
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    attempt,
    connected,
    disconnected,
    exhausted,
    readmit,
    restate,
    sent_away,
)


def on_the_way() -> Log:
    return Log(connected(A), sent_away(A, 10))


# -- leaving and arriving ---------------------------------------------------------------------------------


def test_an_examinee_of_a_draining_server_is_migrating_and_awaited() -> None:
    log = on_the_way()
    event = log.event()
    assert isinstance(event, ExamineeMigrating)
    assert (event.socket_id, event.server_id, event.timestamp) == (A, "SOCK001", at(10))
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 2),)
    assert (log.state.live, log.state.loss_version, log.state.reason) == (False, 2, "SERVER_DRAINING")
    assert log.state.view().status == "MIGRATING"
    assert log.seen == ("MIGRATING", "SERVER_DRAINING", 0)


def test_a_migrated_examinee_has_not_recovered() -> None:
    log = on_the_way().add(connected(B, 10.4))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.migrated, event.recovered, event.outage_seconds, event.replaced) == (True, False, 0.4, None)
    assert log.effects == (SendSessionState(PLAN, EXAMINEE, "SOCK002", B, 3),)
    assert (log.state.live, log.state.recoveries, log.state.reason) == (True, 0, None)
    assert log.seen == ("CONNECTED", None, 0)


def test_an_ordinary_connection_is_not_marked_as_migrated() -> None:
    log = Log(connected(A))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert "migrated" not in event.data()
    log.add(disconnected(A, 1)).add(connected(B, 2))
    recovered = log.event()
    assert isinstance(recovered, ExamineeConnected)
    assert (recovered.recovered, recovered.migrated) == (True, None)


def test_one_migration_after_another_counts_no_recovery() -> None:
    log = on_the_way().add(connected(B, 11)).add(sent_away(B, 20)).add(connected(C, 21))
    assert log.state.recoveries == log.state.reconnect_view().count == 0
    assert log.view.events == {"examinee_connected": 3, "examinee_migrating": 2}


def test_a_server_that_is_stopped_without_a_drain_loses_its_clients() -> None:
    event = Log(connected(A), disconnected(A, 10, "SERVER_STOPPED")).event()
    assert isinstance(event, ExamineeDisconnected)
    assert event.reason == "SERVER_STOPPED"


def test_a_kick_is_a_loss() -> None:
    event = Log(connected(A), disconnected(A, 10, "KICKED")).event()
    assert isinstance(event, ExamineeDisconnected)
    assert event.reason == "KICKED"


def test_the_stop_of_a_drained_server_does_not_change_a_migration() -> None:
    log = on_the_way()
    for reason in ("SERVER_STOPPED", "SERVER_LOST", "SERVER_DRAINING"):
        before = log.state
        log.add(disconnected(A, 11, reason))
        assert (log.state, log.events, log.effects) == (before, (), ())


def test_a_migration_of_a_replaced_socket_changes_nothing() -> None:
    log = Log(connected(A), connected(B, 5)).add(sent_away(A, 6))
    assert (log.state.live, log.events, log.effects) == (True, (), ())


def test_any_connection_ends_a_migration_whatever_its_number() -> None:
    """Nothing is live that it could push aside."""
    log = Log(connected(A, client="c1", number=5), sent_away(A, 1)).add(connected(B, 2, client="c1", number=1))
    assert (log.state.socket_id, log.state.live) == (B, True)


def test_a_connection_of_a_server_that_announces_it_again_is_back() -> None:
    log = on_the_way().add(connected(A, 11))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert event.migrated


# -- failed migrations ------------------------------------------------------------------------------------


def test_the_first_attempt_during_a_migration_is_recorded_but_not_published() -> None:
    log = on_the_way().add(attempt(2, 1, 11))
    assert (log.events, log.effects) == ((), ())
    assert log.state.view().status == "MIGRATING"
    assert (log.state.attempt, log.state.max_attempts, log.state.next_attempt_at) == (1, 3, at(16))
    log.add(connected(B, 12))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.migrated, log.state.attempt, log.state.recoveries) == (True, 0, 0)


@pytest.mark.parametrize("first", [(), (attempt(2, 1, 11),)])
def test_a_migration_longer_than_the_first_step_is_a_loss_since_its_beginning(first: tuple[ConnectionFact]) -> None:
    log = on_the_way()
    for fact in (*first, attempt(2, 2, 15)):
        log.add(fact)
    event = log.event()
    assert isinstance(event, ExamineeDisconnected)
    assert (event.reason, event.timestamp, event.socket_id, event.server_id) == (
        "SERVER_DRAINING",
        at(10),
        A,
        "SOCK001",
    )
    assert (event.attempt, event.max_attempts) == (2, 3)
    assert log.effects == (), "the watch goes on with the same outage"
    assert log.state.view().status == "DISCONNECTED"
    assert log.seen == ("DISCONNECTED", "SERVER_DRAINING", 2)


def test_the_ladder_of_a_failed_migration_continues_and_ends_in_a_recovery() -> None:
    log = on_the_way().add(attempt(2, 1, 11)).add(attempt(2, 2, 15)).add(attempt(2, 3, 20))
    assert isinstance(log.event(), ExamineeReconnecting)
    log.add(connected(B, 21))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.recovered, event.migrated, event.outage_seconds) == (True, None, 11)
    assert log.state.recoveries == 1


@pytest.mark.parametrize("tried", [0, 1, 2, 3])
def test_a_migration_that_never_ends_is_shut_out_after_the_last_attempt(tried: int) -> None:
    """With a limit of one attempt nothing is told in between; what came before is not needed to be right."""
    log = on_the_way()
    for number in range(1, tried + 1):
        log.add(attempt(2, number, 10 + number))
    log.add(exhausted(2, 60))
    assert isinstance(log.event(), ExamineeReconnectExhausted)
    assert log.state.view().status == "DISCONNECTED"
    assert log.seen[:2] == ("DISCONNECTED", "RECONNECT_LIMIT_EXCEEDED")
    log.add(connected(B, 61))
    assert log.effects == (CloseSocket("SOCK002", B, CloseCode.RECONNECT_LIMIT_EXCEEDED, log.version),)
    assert isinstance(log.add(readmit(70)).event(), ExamineeReadmitted)
    assert log.add(connected(B, 71)).state.live


def test_attempts_of_an_earlier_outage_do_not_affect_a_migration() -> None:
    log = Log(connected(A), disconnected(A, 1), connected(B, 2), sent_away(B, 3))
    for fact in (attempt(2, 2, 6), exhausted(2, 7), attempt(4, 1, 4), attempt(4, 1, 4)):
        log.add(fact)
        assert log.events == ()
    assert log.state.view().status == "MIGRATING"


# -- late facts and restatements --------------------------------------------------------------------------


def test_a_restatement_publishes_a_migration_with_its_begin() -> None:
    event = on_the_way().add(restate(50)).event()
    assert isinstance(event, ExamineeMigrating)
    assert (event.timestamp, event.restated, event.socket_id) == (at(10), True, A)


def test_a_restatement_publishes_a_failed_migration_as_a_loss() -> None:
    event = on_the_way().add(attempt(2, 2, 15)).add(restate(50)).event()
    assert isinstance(event, ExamineeDisconnected)
    assert (event.timestamp, event.reason, event.restated) == (at(10), "SERVER_DRAINING", True)


def test_a_migration_that_arrives_late_is_published_and_undoes_nothing() -> None:
    """The server's word comes after that of the new server, by another state manager."""
    history = CONNECTION.empty()
    view = PlanView()
    for version, fact in ((10, connected(A)), (30, connected(B, 9)), (20, sent_away(A, 5))):
        insertion = insert(history, CONNECTION.rule, version, fact, CONNECTION.visible_part)
        history = insertion.history
        for event in insertion.events:
            view.apply(event)
    assert [type(event) for event in insertion.events] == [ExamineeMigrating, ExamineeConnected]
    assert not insertion.restate
    assert insertion.state.recoveries == 0
    assert view.examinees[EXAMINEE].status == "CONNECTED"


# -- on the wire and in Redis -----------------------------------------------------------------------------


def test_a_socket_is_never_migrating_on_the_wire() -> None:
    said = encode(sent_away(A)).replace(b'"DISCONNECTED"', b'"MIGRATING"')
    with pytest.raises(ProtocolError, match=r"data\.status"):
        STATUS_CODEC.decode_one(said)


def row_of(state: ConnectionState) -> ExamineeRow:
    fields = CONNECTION.fields(state)
    nothing = [None] * len(MOBILE_SYNC_FIELDS), [None] * len(NOTICES_FIELDS)
    return examinee_row(EXAMINEE, [fields.get(name) for name in PROGRESS_FIELDS], *nothing)


def test_a_snapshot_shows_a_migrating_examinee() -> None:
    state = on_the_way().state
    fields = CONNECTION.fields(state)
    assert (fields["connStatusCode"], fields["liveSocketId"], fields["reason"]) == ("MIGRATING", "", "SERVER_DRAINING")
    row = row_of(state)
    assert (row.status, row.connection.status, row.connection.reason) == ("MIGRATING", "MIGRATING", "SERVER_DRAINING")
    assert ExamineeRow.model_validate_json(row.model_dump_json(by_alias=True)) == row


def test_the_frame_that_sends_a_client_away_is_one_of_the_protocol() -> None:
    frame = Migrate(endpoints=["ws://b/v1/connect"])
    assert SERVER_FRAMES.decode_one(encode(frame)) == frame
