"""Who is away too often is unstable; and in what a new connection is not like the one before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.base import Message
from protocol.messages.facts import ClientInfo, ConnectionFact, ConnectionStatusCode, FinishReason, UnstableRule
from protocol.messages.proctor_events import ConnectionEvent, ExamineeConnected, ExamineeUnstable
from protocol.rules import connection
from protocol.rules.connection_state import MOST_OUTAGES, ConnectionState, Outage
from protocol.rules.effects import ScheduleStable
from protocol.rules.history import Outcome
from protocol.times import parse_time
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, EXAMINEE, PLAN, at

A, B = "SOCK001-a", "SOCK002-b"
RULE = UnstableRule(share=0.2, window_seconds=100)


def after(*following: ConnectionFact, state: ConnectionState | None = None) -> Outcome[ConnectionState]:
    """The outcome of the last of these facts."""
    outcome = Outcome(state or ConnectionState())
    for number, fact in enumerate(following, start=1):
        outcome = connection.apply(outcome.state, number * 10, fact)
    return outcome


def back(second: float, rule: UnstableRule = RULE) -> ConnectionFact:
    return facts.connected(A, second, unstable_rule=rule)


def event_of(outcome: Outcome[ConnectionState]) -> Message:
    (event,) = outcome.events
    return event


# -- unstable --------------------------------------------------------------------------------------------


def test_an_examinee_who_comes_back_for_a_second_each_time_becomes_unstable() -> None:
    moves = [back(0)]
    for second in range(10, 40, 10):
        moves += [facts.disconnected(A, second), back(second + 9)]
    outcome = after(*moves[:-1])
    assert not outcome.state.unstable, "18 s so far"
    event = event_of(after(*moves))
    assert isinstance(event, ExamineeConnected)
    assert event.unstable
    assert after(*moves).state.away_share == 0.27


def test_an_attempt_makes_the_examinee_unstable_while_they_are_away() -> None:
    lost = [back(0), facts.disconnected(A, 10)]
    calm, unstable = (after(*lost, facts.attempt(20, 2, second)) for second in (30, 31))
    assert (calm.state.unstable, unstable.state.unstable) == (False, True)
    (event,) = unstable.events
    assert isinstance(event, ConnectionEvent)
    assert event.unstable


def test_staying_connected_ends_it_at_the_scheduled_time() -> None:
    moves = [back(0), facts.disconnected(A, 10), back(40)]
    unstable = after(*moves)
    schedule = next(effect for effect in unstable.effects if isinstance(effect, ScheduleStable))
    assert schedule == ScheduleStable(PLAN, EXAMINEE, at(120), 30), "10 of 30 s away have left the window"
    stable = after(*moves, facts.unstable_timeout(30, 120))
    event = event_of(stable)
    assert isinstance(event, ExamineeUnstable)
    assert (event.unstable, event.share, event.window_seconds) == (False, 0.2, 100)
    assert event.reconnect.unstable is None
    assert not stable.state.unstable


@pytest.mark.parametrize("connected_version", [10, 30])
def test_the_timer_of_a_connection_that_is_lost_again_changes_nothing(connected_version: int) -> None:
    moves = [back(0), facts.disconnected(A, 10), back(40), facts.disconnected(A, 50)]
    assert after(*moves).state.unstable
    outcome = after(*moves, facts.unstable_timeout(connected_version, 120))
    assert (outcome.state, outcome.events) == (after(*moves).state, ())


def test_the_time_before_the_exam_and_that_of_a_migration_or_a_server_that_was_alive_do_not_count() -> None:
    waiting = UnstableRule(share=0.2, window_seconds=100, starts_at=at(60))
    assert after(back(0, waiting), facts.disconnected(A, 10), back(70, waiting)).state.outages == (
        Outage(DAWN + 70, 10.0),
    )
    assert after(back(0), facts.sent_away(A, 10), back(60)).state.outages == ()
    announced = facts.connected(A, 60, again=True, unstable_rule=RULE)
    assert after(back(0), facts.disconnected(A, 10, "SERVER_LOST"), announced).state.outages == ()


def test_who_is_finished_or_removed_is_not_unstable_and_starts_afresh() -> None:
    moves = [back(0), facts.disconnected(A, 10), back(60)]
    assert after(*moves).state.unstable
    for ended in (facts.finish(61, reason=FinishReason.HANDED_IN), facts.remove(61)):
        state = after(*moves, ended).state
        assert (state.unstable, state.away_share, state.outages) == (False, None, ())


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=60))
def test_the_share_is_that_of_the_window_and_the_end_is_the_first_moment_that_is_stable(
    moves: list[tuple[int, int]],
) -> None:
    """Compared with a count of seconds, except where old outages were put together: then nothing is forgotten."""
    state, second = after(back(0)).state, 0
    away = set()
    for online, lost in moves:
        second += online
        gone = after(facts.disconnected(A, second), state=state).state
        away |= set(range(second, second + lost))
        second += lost
        state = after(back(second), state=gone).state
        assert len(state.outages) <= MOST_OUTAGES
    counted = len(away & set(range(second - 100, second))) / 100
    share = state.share_away(DAWN + second)
    assert share >= counted - 1e-9
    if len(moves) <= MOST_OUTAGES:
        assert share == pytest.approx(counted)
    if state.unstable:
        moment = parse_time(state.stable_at())
        assert moment > DAWN + second
        assert not state.assessed(moment).unstable
        assert state.assessed(moment - 1).unstable


# -- who is it -------------------------------------------------------------------------------------------

HOME = ClientInfo(ip_address="10.0.0.1", browser_info="Firefox", user_agent="Firefox/1")


def test_a_takeover_from_another_place_is_flagged_until_a_proctor_acts() -> None:
    first = facts.connected(A, 0, client="c1", info=HOME)
    other = ClientInfo(ip_address="10.0.0.2", browser_info="Firefox", user_agent="curl/8")
    outcome = after(first, facts.connected(B, 5, client="c2", info=other))
    event = event_of(outcome)
    assert isinstance(event, ExamineeConnected)
    assert event.replaced is not None
    assert event.replaced.differs == event.differs == event.flags == ["address", "browser", "device"]
    assert outcome.state.view().flags == event.flags

    same_again = facts.connected(A, 9, client="c2", number=1, info=other)
    kept = after(first, facts.connected(B, 5, client="c2", info=other), facts.disconnected(B, 6), same_again)
    event = event_of(kept)
    assert isinstance(event, ExamineeConnected)
    assert (event.differs, event.flags) == (None, ["address", "browser", "device"])

    for decision in (facts.remove(10), facts.finish(10)):
        assert connection.apply(kept.state, 99, decision).state.flags == ()
    handed_in = facts.finish(10, reason=FinishReason.HANDED_IN)
    assert connection.apply(kept.state, 99, handed_in).state.flags == kept.state.flags


def test_a_recovery_from_another_address_is_flagged_and_what_is_unknown_is_not() -> None:
    lost = [facts.connected(A, 0, client="c1", info=HOME), facts.disconnected(A, 5)]
    moved = after(*lost, facts.connected(B, 8, client="c1", info=replace_address("10.0.0.9")))
    assert moved.state.flags == ("address",)
    unknown = after(*lost, facts.connected(B, 8))
    assert unknown.state.flags == ()
    assert unknown.state.status is ConnectionStatusCode.CONNECTED
    assert after(facts.connected(A, 0, client="c1", info=HOME)).state.flags == (), "the first one"


def replace_address(address: str) -> ClientInfo:
    return HOME.model_copy(update={"ip_address": address})


def test_the_close_code_of_the_last_end_is_shown_until_the_examinee_is_back() -> None:
    gone = after(back(0), facts.disconnected(A, 5, "CLIENT_CLOSED", code=1001))
    assert gone.state.view().close_code == 1001
    assert replace(gone.state, status=ConnectionStatusCode.CONNECTED).view().close_code is None
