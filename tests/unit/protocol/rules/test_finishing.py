"""The end of the exam for one examinee: what a socket does after it is no loss, until somebody resumes them."""

from __future__ import annotations

import pytest

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionFact, ConnectionStatusCode, FinishReason
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeFinished, ExamineeResumed
from protocol.records.kinds import CONNECTION
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import CloseSocket, SendSessionLost, SendSessionState, WatchReconnect
from tests.unit.support.facts import (
    at,
    attempt,
    connected,
    disconnected,
    enrol,
    exhausted,
    finish,
    readmit,
    remove,
    restate,
    resume,
)
from tests.unit.support.scenario import Scenario


def exam(*facts: ConnectionFact) -> Scenario[ConnectionState, ConnectionFact]:
    return Scenario(CONNECTION, facts)


HANDED_IN, PLAN_ENDED = FinishReason.HANDED_IN, FinishReason.PLAN_ENDED


def test_whoever_hands_in_is_finished_stays_connected_and_is_told() -> None:
    scenario = exam(enrol("Kim"), connected("SOCK001-a"), finish(5, "E001", reason=HANDED_IN, action="f1"))
    event = scenario.event()
    assert isinstance(event, ExamineeFinished)
    assert (event.by, event.reason, event.timestamp, event.action_id) == ("E001", HANDED_IN, at(5), "f1")
    assert (*scenario.effects,) == (SendSessionState("P001", "E001", "SOCK001", "SOCK001-a", 3),)
    assert scenario.state.live
    view = scenario.state.view()
    assert (view.status, view.reason, view.since, view.finished_by) == ("FINISHED", "HANDED_IN", at(5), "E001")
    assert scenario.view.examinees["E001"].status == "FINISHED"


def test_the_end_of_the_plan_closes_the_socket() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5, "plan", reason=PLAN_ENDED))
    assert (*scenario.effects,) == (CloseSocket("SOCK001", "SOCK001-a", CloseCode.EXAM_OVER, 2),)


@pytest.mark.parametrize("reason", ["SOCKET_CLOSED", "PING_TIMEOUT", "SERVER_DRAINING"])
def test_after_it_the_end_of_a_socket_is_told_to_nobody_and_starts_no_ladder(reason: str) -> None:
    scenario = exam(connected("SOCK001-a"), finish(5), disconnected("SOCK001-a", 9, reason))
    assert (scenario.events, scenario.effects) == ((), ())
    assert scenario.state.shown_status is ConnectionStatusCode.FINISHED
    for late in (attempt(3, 1, 10), exhausted(3, 60)):
        assert scenario.changes_nothing(late)


def test_a_finished_socket_whose_server_seemed_lost_is_still_asked_about() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5), disconnected("SOCK001-a", 9, "SERVER_LOST"))
    assert scenario.events == ()
    assert (*scenario.effects,) == (SendSessionLost("SOCK001", "SOCK001-a", 3),)


def test_a_finished_examinee_may_connect_again_and_stays_finished() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5, "T1"), disconnected("SOCK001-a", 9), connected("SOCK002-b", 600))
    assert scenario.events == ()
    assert (*scenario.effects,) == (SendSessionState("P001", "E001", "SOCK002", "SOCK002-b", 4),)
    assert (scenario.state.finished_by, scenario.state.recoveries) == ("T1", 0)
    scenario.add(connected("SOCK001-c", 700))
    assert CloseSocket("SOCK002", "SOCK002-b", CloseCode.REPLACED, 5) in scenario.effects
    assert scenario.events == ()


def test_whoever_is_finished_while_lost_is_lost_no_longer() -> None:
    scenario = exam(connected("SOCK001-a"), disconnected("SOCK001-a", 3), attempt(2, 1, 4), finish(5))
    assert isinstance(scenario.event(), ExamineeFinished)
    assert (scenario.state.attempt, scenario.state.next_attempt_at) == (0, None)
    assert scenario.changes_nothing(attempt(2, 2, 10))
    assert scenario.changes_nothing(exhausted(2, 60))


def test_whoever_was_shut_out_may_connect_once_finished() -> None:
    scenario = exam(connected("SOCK001-a"), disconnected("SOCK001-a", 3), exhausted(2, 60), finish(70))
    assert not scenario.state.exhausted
    scenario.add(connected("SOCK001-b", 80))
    assert not any(isinstance(effect, CloseSocket) for effect in scenario.effects)


def test_an_examinee_who_never_came_can_be_finished() -> None:
    scenario = exam(enrol("Kim"), finish(5))
    assert isinstance(scenario.event(), ExamineeFinished)
    assert (*scenario.effects,) == ()
    assert scenario.add(resume(6)).state.view().status == "NEVER"


@pytest.mark.parametrize("again", [finish(9), finish(9, reason=HANDED_IN), finish(9, "plan", reason=PLAN_ENDED)])
def test_a_second_finish_changes_nothing(again: ConnectionFact) -> None:
    assert exam(connected("SOCK001-a"), finish(5)).changes_nothing(again)


def test_a_removed_examinee_is_not_finished_and_a_removal_ends_the_finish() -> None:
    assert exam(connected("SOCK001-a"), remove(3)).changes_nothing(finish(5))
    scenario = exam(connected("SOCK001-a"), finish(5), remove(6))
    assert scenario.state.finished is None
    assert scenario.add(readmit(7)).state.view().status == "DISCONNECTED"


def test_resuming_a_connected_examinee_tells_them_and_losses_count_again() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5), resume(9, "T1", "r1"))
    event = scenario.event()
    assert isinstance(event, ExamineeResumed)
    assert (event.by, event.action_id, event.connection.status) == ("T1", "r1", "CONNECTED")
    assert (*scenario.effects,) == (SendSessionState("P001", "E001", "SOCK001", "SOCK001-a", 3),)
    assert scenario.view.examinees["E001"].status == "CONNECTED"
    scenario.add(disconnected("SOCK001-a", 20))
    assert isinstance(scenario.event(), ExamineeDisconnected)
    assert (*scenario.effects,) == (WatchReconnect("P001", "E001", 4),)


def test_resuming_an_examinee_who_has_left_counts_no_attempts() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5), disconnected("SOCK001-a", 7), resume(9))
    event = scenario.event()
    assert isinstance(event, ExamineeResumed)
    assert (event.connection.status, event.connection.reason) == ("DISCONNECTED", "RESUMED")
    assert (*scenario.effects,) == ()
    assert scenario.changes_nothing(attempt(3, 1, 10))
    assert scenario.add(restate(11)).effects == ()
    scenario.add(connected("SOCK001-b", 20))
    connected_again = scenario.event()
    assert isinstance(connected_again, ExamineeConnected)
    assert (connected_again.recovered, connected_again.outage_seconds) == (True, 11.0)


def test_resuming_whoever_is_not_finished_changes_nothing() -> None:
    assert exam(connected("SOCK001-a")).changes_nothing(resume(5))
    assert exam(connected("SOCK001-a"), finish(5), resume(6, action="r1"), finish(7)).changes_nothing(
        resume(8, action="r1")
    )


def test_a_restatement_tells_the_finish_again() -> None:
    scenario = exam(connected("SOCK001-a"), finish(5, "T1"), disconnected("SOCK001-a", 7), restate(9))
    event = scenario.event()
    assert isinstance(event, ExamineeFinished)
    assert (event.restated, event.by, event.timestamp) == (True, "T1", at(5))
    assert (*scenario.effects,) == ()
