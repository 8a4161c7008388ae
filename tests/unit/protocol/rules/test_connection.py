"""Connection loss and recovery (document 10), by scenario. Versions are the places in the log."""

from __future__ import annotations

import pytest

from protocol.close_codes import CloseCode
from protocol.messages.facts import ClientInfo, ConnectionFact
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ReplacedSocket,
)
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.effects import CloseSocket, SendSessionLost, SendSessionState, WatchReconnect
from tests.unit.support.connection_log import A, B, C, Log, refusal, shut_out, told_state
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    attempt,
    connected,
    disconnected,
    exhausted,
    finish,
    readmit,
    remove,
    restate,
)

# -- loss and recovery ------------------------------------------------------------------------------------


def test_a_first_connection_is_an_event_but_no_recovery() -> None:
    log = Log(connected(A, info=ClientInfo(ip_address="192.168.1.100", browser_info="Chrome 120.0")))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.socket_id, event.server_id, event.timestamp) == (A, "SOCK001", at(0))
    assert (event.recovered, event.outage_seconds, event.replaced) == (False, None, None)
    assert event.client_info == ClientInfo(ip_address="192.168.1.100", browser_info="Chrome 120.0")
    assert log.effects == (told_state(A, 1),)
    assert (log.state.live, log.state.recoveries) == (True, 0)
    view = log.state.view()
    assert (view.status, view.socket_id, view.since, view.version) == ("CONNECTED", A, at(0), 1)


def test_an_examinee_that_was_never_seen_is_shown_as_never() -> None:
    assert ConnectionState().view().status == "NEVER"
    assert not ConnectionState().live


@pytest.mark.parametrize("reason", ["SOCKET_CLOSED", "PING_TIMEOUT", "SLOW_CLIENT", "SERVER_STOPPED"])
def test_a_loss_is_published_with_its_reason_and_starts_the_reconnect_watch(reason: str) -> None:
    log = Log(connected(A), disconnected(A, 10, reason))
    event = log.event()
    assert isinstance(event, ExamineeDisconnected)
    assert (event.socket_id, event.server_id, event.reason, event.timestamp) == (A, "SOCK001", reason, at(10))
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 2),)
    assert (log.state.live, log.state.loss_version, log.state.since) == (False, 2, at(10))


def test_a_loss_without_a_reason_is_a_closed_socket() -> None:
    assert Log(connected(A), disconnected(A, 10, None)).state.reason == "SOCKET_CLOSED"


@pytest.mark.parametrize("reason", ["SERVER_LOST", "SERVER_RESTARTED"])
def test_a_loss_declared_by_others_is_reported_to_the_server(reason: str) -> None:
    log = Log(connected(A), disconnected(A, 10, reason))
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 2), SendSessionLost("SOCK001", A, 2))


def test_a_recovery_says_how_long_the_outage_was() -> None:
    log = Log(connected(A), disconnected(A, 10), connected(B, 12.5))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.recovered, event.outage_seconds, event.replaced) == (True, 2.5, None)
    assert (event.socket_id, event.server_id) == (B, "SOCK002")
    assert log.effects == (told_state(B, 3),)
    assert (log.state.recoveries, log.state.reason, log.state.attempt) == (1, None, 0)


def test_a_clock_that_runs_behind_makes_no_negative_outage() -> None:
    log = Log(connected(A), disconnected(A, 10), connected(B, 5))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert event.outage_seconds == 0


def test_recoveries_are_counted() -> None:
    log = Log(connected(A), disconnected(A, 1), connected(B, 2), disconnected(B, 3), connected(C, 4))
    assert log.state.recoveries == log.state.reconnect_view().count == 2


def test_the_end_of_a_socket_whose_beginning_is_not_in_the_log_is_a_loss() -> None:
    log = Log(disconnected(A, 10))
    (loss,) = log.events
    assert isinstance(loss, ExamineeDisconnected)
    assert (loss.socket_id, loss.server_id, loss.reason) == (A, "SOCK001", "SOCKET_CLOSED")
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 1),)
    recovered = Log(disconnected(A, 10), connected(B, 12))
    assert (recovered.state.recoveries, recovered.state.live) == (1, True)
    assert recovered.changes_nothing(disconnected(A, 13))


def test_the_end_of_an_unknown_socket_is_no_loss_of_somebody_removed_or_finished() -> None:
    for fact in (remove(), finish()):
        assert Log(fact).changes_nothing(disconnected(A))


def test_of_two_sockets_announced_again_the_one_opened_later_stays() -> None:
    """The log has lost both CONNECTED: their servers announce them in any order."""
    older, newer = (
        connected(A, 20, client="laptop", again=True, opened=3),
        connected(B, 20, client="tablet", again=True, opened=9),
    )
    for first, second in ((older, newer), (newer, older)):
        log = Log(first, second)
        assert log.state.socket_id == B
        assert CloseSocket("SOCK001", A, CloseCode.REPLACED, 2) in log.effects
    assert Log(connected(B, 9), older).state.socket_id == B
    assert Log(connected(B, 9), connected(A, 20, again=True)).state.socket_id == B  # of a server of an earlier release


def test_a_second_loss_of_the_same_socket_changes_nothing() -> None:
    log = Log(connected(A), disconnected(A, 10, "SOCKET_CLOSED"))
    assert log.changes_nothing(disconnected(A, 11, "SERVER_LOST"))
    assert log.state.reason == "SOCKET_CLOSED"


# -- fencing ----------------------------------------------------------------------------------------------


def test_a_newer_connection_replaces_the_older_and_the_proctors_see_it() -> None:
    log = Log(connected(A), connected(B, 5))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert event.replaced == ReplacedSocket(socket_id=A, server_id="SOCK001")
    assert not event.recovered
    assert log.effects == (told_state(B, 2), refusal(A, CloseCode.REPLACED, 2))
    assert (log.state.socket_id, log.state.recoveries) == (B, 0)


def test_a_late_disconnect_of_a_replaced_socket_changes_nothing() -> None:
    log = Log(connected(A), connected(B, 5))
    assert log.changes_nothing(disconnected(A, 6))
    assert log.state.live


def test_a_late_disconnect_of_an_earlier_socket_changes_nothing_after_the_recovery() -> None:
    log = Log(connected(A), disconnected(A, 1), connected(B, 2))
    assert log.changes_nothing(disconnected(A, 3, "SERVER_LOST"))
    assert log.state.live


def test_a_lower_connection_number_of_the_same_client_never_replaces_a_live_connection() -> None:
    log = Log(connected(B, client="c1", number=5))
    before = log.state
    log.add(connected(A, 5, client="c1", number=4))
    assert log.state == before
    assert log.events == ()
    assert log.effects == (refusal(A, CloseCode.REPLACED, 2),)
    assert log.changes_nothing(disconnected(A, 6))


@pytest.mark.parametrize("number", [5, 6])
def test_the_same_or_a_higher_connection_number_replaces(number: int) -> None:
    assert Log(connected(A, client="c1", number=5), connected(B, client="c1", number=number)).state.socket_id == B


def test_numbers_of_different_clients_do_not_compare() -> None:
    assert Log(connected(A, client="c1", number=5), connected(B, client="c2", number=0)).state.socket_id == B
    assert Log(connected(A, number=5), connected(B, number=0)).state.socket_id == B


def test_a_lower_connection_number_recovers_a_lost_examinee() -> None:
    """Nothing is live that it could push aside; a page that was loaded anew may count from the start."""
    log = Log(connected(A, client="c1", number=5), disconnected(A, 1), connected(B, 2, client="c1", number=1))
    assert (log.state.socket_id, log.state.live) == (B, True)


def test_a_connection_that_its_server_announces_again_only_gets_its_state_again() -> None:
    log = Log(connected(A, client="c1", number=5))
    before = log.state
    log.add(connected(A, 5, client="c1", number=5))
    assert log.state == before
    assert log.events == ()
    assert log.effects == (told_state(A, 2),)


def test_a_server_that_was_declared_lost_by_mistake_announces_its_connection_and_it_recovers() -> None:
    log = Log(connected(A), disconnected(A, 10, "SERVER_LOST"), connected(A, 11))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert event.recovered
    assert log.state.live


def test_a_replaced_socket_that_is_announced_again_is_closed() -> None:
    """A server that was cut off announces all it holds; the client has long moved on."""
    log = Log(connected(A, client="c1", number=1), connected(B, client="c1", number=2))
    log.add(connected(A, client="c1", number=1))
    assert log.state.socket_id == B
    assert log.effects == (refusal(A, CloseCode.REPLACED, 3),)


def test_a_socket_that_is_announced_again_never_replaces_whoever_is_connected_since() -> None:
    """The examinee has moved to another device; the server of the old one had lost the word to close it."""
    log = Log(connected(A, client="c1"), connected(B, 5, client="c2"))
    before = log.state
    log.add(connected(A, 9, client="c1", again=True))
    assert log.state == before
    assert log.events == ()
    assert log.effects == (refusal(A, CloseCode.REPLACED, 3),)


def test_a_socket_that_is_announced_again_after_a_loss_is_back() -> None:
    log = Log(connected(A), disconnected(A, 10, "SERVER_LOST"), connected(A, 11, again=True))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert event.recovered


def test_the_server_of_a_socket_is_said_or_follows_from_its_id() -> None:
    said = connected("whatever").model_copy(update={"server_id": "SOCK009"})
    assert server_id_of(said) == "SOCK009"
    assert server_id_of(connected("SOCK-01-f00")) == "SOCK-01"
    assert server_id_of(connected("SOCK001")) == "SOCK001"


# -- attempts ---------------------------------------------------------------------------------------------


def test_each_step_of_the_ladder_is_published() -> None:
    log = Log(connected(A), disconnected(A, 10))
    for number in (1, 2, 3):
        log.add(attempt(2, number, 10 + number))
        event = log.event()
        assert isinstance(event, ExamineeReconnecting)
        assert (event.attempt, event.max_attempts) == (number, 3)
        assert event.next_attempt_at == (at(15 + number) if number < 3 else None)
        assert log.effects == ()
        view = log.state.reconnect_view()
        assert (view.attempt, view.max_attempts, view.exhausted) == (number, 3, False)
        assert log.state.since == at(10), "the outage began when it began"


def test_a_repeated_attempt_changes_nothing() -> None:
    log = Log(connected(A), disconnected(A, 10), attempt(2, 2))
    assert log.changes_nothing(attempt(2, 2))
    assert log.changes_nothing(attempt(2, 1))


def test_an_attempt_after_another_loss_changes_nothing() -> None:
    log = Log(connected(A), disconnected(A, 1), connected(B, 2), disconnected(B, 3))
    assert log.changes_nothing(attempt(2, 1))
    log.add(attempt(4, 1))
    assert isinstance(log.event(), ExamineeReconnecting)


def test_an_attempt_after_the_recovery_changes_nothing() -> None:
    log = Log(connected(A), disconnected(A, 1), connected(B, 2))
    assert log.changes_nothing(attempt(2, 1))
    assert log.changes_nothing(exhausted(2))


def test_each_loss_begins_a_ladder_of_its_own() -> None:
    log = Log(connected(A), disconnected(A, 1), attempt(2, 1), attempt(2, 2), connected(B, 2))
    assert log.state.reconnect_view().attempt == 0
    log.add(disconnected(B, 3))
    assert (log.state.attempt, log.state.next_attempt_at) == (0, None)
    log.add(attempt(6, 1))
    event = log.event()
    assert isinstance(event, ExamineeReconnecting)
    assert event.attempt == 1


# -- exhaustion, refusal, readmission ---------------------------------------------------------------------


def test_the_end_of_all_attempts_is_published_and_recorded() -> None:
    log = shut_out()
    event = log.event()
    assert isinstance(event, ExamineeReconnectExhausted)
    assert (event.reason, event.attempt, event.max_attempts) == ("RECONNECT_LIMIT_EXCEEDED", 3, 3)
    assert (log.state.exhausted, log.state.reason) == (True, "RECONNECT_LIMIT_EXCEEDED")
    assert log.state.reconnect_view().exhausted
    assert log.changes_nothing(exhausted(2, 61))
    assert log.changes_nothing(attempt(2, 4))


def test_a_recovery_after_that_is_refused() -> None:
    log = shut_out()
    before = log.state
    log.add(connected(B, 70))
    assert log.state == before
    assert log.events == ()
    assert log.effects == (refusal(B, CloseCode.RECONNECT_LIMIT_EXCEEDED, 7),)
    assert log.changes_nothing(disconnected(B, 71))


def test_an_examinee_that_stayed_connected_is_not_shut_out_when_its_server_is_back() -> None:
    """Its server was called lost, and nobody could count but the ladder: the socket was open all the time."""
    log = shut_out().add(connected(A, 70, again=True))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.recovered, event.recovered_from) == (True, "RECONNECT_LIMIT_EXCEEDED")
    assert log.effects == (told_state(A, 7),)
    assert (log.state.live, log.state.exhausted) == (True, False)


def test_any_other_socket_that_is_announced_again_is_refused_like_a_new_one() -> None:
    log = shut_out()
    log.add(connected(B, 70, again=True))
    assert log.effects == (refusal(B, CloseCode.RECONNECT_LIMIT_EXCEEDED, 7),)
    assert log.state.exhausted


def test_a_readmitted_examinee_may_come_back() -> None:
    log = shut_out().add(readmit(80, by="S007"))
    event = log.event()
    assert isinstance(event, ExamineeReadmitted)
    assert event.by == "S007"
    assert (log.state.exhausted, log.state.live) == (False, False)
    assert log.state.reconnect_view().attempt == 0
    log.add(connected(B, 90))
    recovered = log.event()
    assert isinstance(recovered, ExamineeConnected)
    assert (recovered.recovered, recovered.outage_seconds) == (True, 80)


def test_a_readmitted_examinee_is_not_shut_out_again_by_the_same_outage() -> None:
    """The advisory of the old ladder may be delivered twice, long after the broker has forgotten the message id."""
    log = shut_out().add(readmit(80))
    assert log.changes_nothing(exhausted(2, 81))
    assert log.changes_nothing(attempt(2, 5, 82))
    assert not log.state.exhausted


@pytest.mark.parametrize("facts", [(), (connected(A),), (connected(A), disconnected(A, 1))])
def test_readmitting_an_examinee_that_is_not_shut_out_changes_nothing(facts: tuple[ConnectionFact, ...]) -> None:
    assert Log(*facts).changes_nothing(readmit(80))


def test_a_loss_after_the_readmission_begins_a_new_ladder() -> None:
    log = shut_out().add(readmit(80)).add(connected(B, 90)).add(disconnected(B, 100))
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 9),)
    log.add(attempt(9, 1))
    assert isinstance(log.event(), ExamineeReconnecting)


# -- restatements -----------------------------------------------------------------------------------------


def test_a_restatement_publishes_a_live_connection() -> None:
    log = Log(connected(A, 3), restate(50))
    event = log.event()
    assert isinstance(event, ExamineeConnected)
    assert (event.socket_id, event.timestamp, event.restated, event.recovered) == (A, at(3), True, False)
    # If the connection was a dead letter, the examinee still waits to hear that it stands.
    assert log.effects == (SendSessionState(PLAN, EXAMINEE, "SOCK001", A, 2),)


def test_a_restatement_publishes_a_loss_and_its_ladder_continues() -> None:
    log = Log(connected(A), disconnected(A, 10, "PING_TIMEOUT"), attempt(2, 1), restate(50))
    event = log.event()
    assert isinstance(event, ExamineeDisconnected)
    assert (event.reason, event.timestamp, event.restated) == ("PING_TIMEOUT", at(10), True)
    assert log.effects == (), "it is being waited for"
    log.add(attempt(2, 2))
    assert isinstance(log.event(), ExamineeReconnecting)


def test_a_restatement_of_a_loss_without_an_attempt_starts_the_reconnect_watch() -> None:
    """It may have been a dead letter, of which nothing followed; the watch of another one is the same message."""
    log = Log(connected(A), disconnected(A, 10), restate(50))
    assert log.effects == (WatchReconnect(PLAN, EXAMINEE, 2),)


def test_a_restatement_of_a_readmission_starts_no_reconnect_watch() -> None:
    assert shut_out().add(readmit()).add(restate(99)).effects == ()


def test_a_restatement_publishes_that_an_examinee_is_shut_out() -> None:
    event = shut_out().add(restate(99)).event()
    assert isinstance(event, ExamineeDisconnected)
    assert event.reason == "RECONNECT_LIMIT_EXCEEDED"


def test_a_restatement_of_an_empty_record_publishes_nothing() -> None:
    assert Log().changes_nothing(restate())
