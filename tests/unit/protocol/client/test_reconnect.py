"""The rules by which a client comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.client.reconnect import (
    DEFAULT_POLICY,
    MAX_POSTPONED,
    MIGRATE_SPREAD_SECONDS,
    SILENT_INTERVALS,
    STABLE_SECONDS,
    ConnectionFailure,
    GiveUp,
    GiveUpReason,
    Lost,
    ReconnectState,
    Refused,
    Unreachable,
    Wait,
    after_migrate,
    after_welcome,
    connect_url,
    next_step,
    retry_after_seconds,
)
from protocol.close_codes import CLOSE_RULES, CloseCode, may_reconnect
from protocol.messages.frames import ReconnectPolicy

A, B, C = (f"ws://server-{name}:8001/v1/connect" for name in "abc")
LONG = 60.0

NO_ATTEMPTS = (CloseCode.MIGRATE, CloseCode.TRY_AGAIN_LATER)
LOSSES = [None, 1006, *(code for code in CLOSE_RULES if may_reconnect(code) and code not in NO_ATTEMPTS)]
draws = st.floats(-1, 1, exclude_max=True)
policies = st.builds(  # by their names: hypothesis would add the aliases of the signature
    lambda most, steps, jitter: ReconnectPolicy(max_attempts=most, backoff_seconds=steps, jitter=jitter),
    st.integers(1, 8),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=8),
    st.floats(0, 1),
)
passing = st.one_of(
    st.builds(Lost, st.sampled_from(LOSSES), st.floats(0, 1e4)),
    st.builds(Refused, st.integers(500, 599).filter(lambda status: status != 503)),
    st.just(Unreachable()),
)


def policy(**changes: object) -> ReconnectPolicy:
    return ReconnectPolicy(max_attempts=3, backoff_seconds=[5, 10, 20], jitter=0.3).model_copy(update=changes)


def at(url: str = A, endpoints: tuple[str, ...] = (A, B, C), **changes: object) -> ReconnectState:
    return after_welcome(url, list(endpoints), policy(**changes))


def ladder(state: ReconnectState, *events: ConnectionFailure, draw: float = 0.0) -> list[Wait]:
    """The waits after `events`, one after another."""
    waits = []
    for event in events:
        state, step = next_step(state, event, draw)
        assert isinstance(step, Wait)
        waits.append(step)
    return waits


@given(st.integers(4500, 4999), policies, draws, st.floats(0, 1e4))
def test_a_code_from_4500_on_is_never_followed_by_another_try(
    code: int, policy: ReconnectPolicy, draw: float, lasted: float
) -> None:
    _, step = next_step(after_welcome(A, [A, B], policy), Lost(code, lasted), draw)
    assert step == GiveUp(GiveUpReason.CLOSE_CODE, code=code)


@pytest.mark.parametrize("code", sorted(CLOSE_RULES))
def test_every_close_code_is_obeyed_as_the_table_says(code: int) -> None:
    _, step = next_step(at(), Lost(code, LONG), 0.0)
    assert isinstance(step, Wait) is CLOSE_RULES[code].reconnect


@given(policies, st.lists(passing, min_size=1, max_size=30), st.data())
def test_no_more_tries_than_the_policy_allows(
    policy: ReconnectPolicy, events: list[ConnectionFailure], data: st.DataObject
) -> None:
    state, steps = after_welcome(A, [A, B], policy), []
    for event in events:
        state, step = next_step(state, event, data.draw(draws))
        steps.append(step)
    tries = [step for step in steps if isinstance(step, Wait)]
    assert [step.attempt for step in tries] == list(range(1, min(len(events), policy.max_attempts) + 1))
    for step in steps[policy.max_attempts :]:
        assert isinstance(step, GiveUp)
        assert step.reason is GiveUpReason.ATTEMPTS_USED_UP


@given(policies, passing, draws, st.integers(0, 7))
def test_a_wait_stays_within_the_jitter_of_its_step(
    policy: ReconnectPolicy, event: ConnectionFailure, draw: float, attempt: int
) -> None:
    state = ReconnectState(A, policy=policy, attempt=min(attempt, policy.max_attempts - 1))
    _, step = next_step(state, event, draw)
    assert isinstance(step, Wait)
    largest = max(policy.backoff_seconds)
    assert 0 <= step.seconds <= largest * (1 + policy.jitter)
    if step.attempt > 1:
        nominal = policy.backoff_seconds[min(step.attempt - 2, len(policy.backoff_seconds) - 1)]
        assert nominal * (1 - policy.jitter) <= step.seconds <= nominal * (1 + policy.jitter)


@given(policies, st.lists(draws, min_size=8, max_size=8))
def test_all_tries_begin_before_the_server_counts_the_last_attempt_as_over(
    policy: ReconnectPolicy, draw: list[float]
) -> None:
    # The reconnect watch refuses sum(ladder) seconds after the loss; half the jitter is luck, so compare without it.
    policy = policy.model_copy(update={"jitter": 0.0, "backoff_seconds": sorted(policy.backoff_seconds)})
    state, seconds = after_welcome(A, [A], policy), 0.0
    event: ConnectionFailure = Lost(None, LONG)
    for k in range(policy.max_attempts):
        state, step = next_step(state, event, draw[k])
        assert isinstance(step, Wait)
        seconds, event = seconds + step.seconds, Unreachable()
    steps = policy.backoff_seconds
    limit = sum(steps[min(k, len(steps) - 1)] for k in range(policy.max_attempts))
    assert seconds < limit


def test_the_first_try_after_a_loss_is_quick_spread_and_on_the_same_server() -> None:
    waits = [ladder(at(), Lost(None, LONG), draw=draw)[0] for draw in (-1.0, 0.0, 1.0)]
    assert [wait.seconds for wait in waits] == pytest.approx([0.0, 0.75, 1.5])
    assert {wait.url for wait in waits} == {A}


def test_further_tries_go_through_the_endpoints_in_turn() -> None:
    down = Unreachable()
    waits = ladder(at(B, max_attempts=5), Lost(None, LONG), down, down, down, down)
    assert [wait.url for wait in waits] == [B, A, C, B, A]
    assert [wait.seconds for wait in waits] == [0.75, 5, 10, 20, 20]


@pytest.mark.parametrize("code", [1001, 1012, 4002, 4004])
def test_a_server_that_sends_its_clients_away_is_not_tried_first(code: int) -> None:
    assert ladder(at(), Lost(code, LONG))[0].url == B


def test_a_server_that_is_the_only_one_is_tried_again_even_when_it_went_away() -> None:
    assert ladder(at(endpoints=(A,)), Lost(1012, LONG))[0].url == A


def test_a_connection_is_stable_from_one_second_on() -> None:
    assert STABLE_SECONDS == 1.0
    assert ladder(at(), Lost(None, 1.0))[0].seconds == 0.75
    assert ladder(at(), Lost(None, 0.999))[0].seconds == 5
    assert ladder(at(), Lost(None))[0].seconds == 5, "lost before its welcome"


@pytest.mark.parametrize(("draw", "seconds"), [(-1.0, 3.5), (0.0, 5.0), (1.0, 6.5)])
def test_a_step_is_spread_by_the_jitter_on_both_sides(draw: float, seconds: float) -> None:
    assert ladder(at(), Unreachable(), draw=draw)[0].seconds == pytest.approx(seconds)


@pytest.mark.parametrize("code", [1001, 1011, 4003, 4007, 4009])
def test_a_code_that_asks_for_the_backoff_gets_it(code: int) -> None:
    assert ladder(at(), Lost(code, LONG))[0].seconds == 5


def test_a_welcome_resets_the_attempts_and_sets_the_policy() -> None:
    state, _ = next_step(at(), Lost(None, LONG), 0.0)
    state, _ = next_step(state, Unreachable(), 0.0)
    assert state.attempt == 2
    second_state = after_welcome(B, [A, B], policy(max_attempts=9))
    assert (second_state.attempt, second_state.ring, second_state.policy.max_attempts) == (0, (B, A), 9)


def test_a_policy_without_steps_is_no_leave_to_hammer_the_server() -> None:
    assert ladder(at(backoff_seconds=[]), Unreachable(), Unreachable())[1].seconds == 5


@given(policies, st.floats(0, 1e4), draws)
def test_retry_after_is_never_undercut_and_uses_up_no_attempt(
    policy: ReconnectPolicy, seconds: float, draw: float
) -> None:
    before = after_welcome(A, [A, B], policy)
    state, step = next_step(before, Refused(503, seconds), draw)
    assert isinstance(step, Wait)
    assert seconds <= step.seconds <= seconds + policy.jitter * max(seconds, 1.0)
    assert (state.attempt, step.url) == (before.attempt, B)


def test_clients_with_a_retry_after_of_zero_are_spread() -> None:
    assert ladder(at(), Refused(503, 0.0), draw=1.0)[0].seconds == pytest.approx(0.3)


def test_a_503_without_retry_after_waits_the_first_step() -> None:
    assert ladder(at(), Refused(503), draw=-1.0)[0].seconds == 5


def test_a_client_gives_up_after_too_many_postponements() -> None:
    state, step = at(), None
    for _ in range(MAX_POSTPONED):
        state, step = next_step(state, Refused(503, 1.0), 0.0)
        assert isinstance(step, Wait)
    assert next_step(state, Refused(503, 1.0), 0.0)[1] == GiveUp(GiveUpReason.ALWAYS_BUSY, status=503)


def test_an_attempt_between_two_postponements_starts_their_count_again() -> None:
    state = at(max_attempts=9)
    later: list[ConnectionFailure] = [Refused(429, 1.0)] * MAX_POSTPONED
    for failure in (*later, Unreachable(), *later):
        state, step = next_step(state, failure, 0.0)
        assert isinstance(step, Wait)
    assert MAX_POSTPONED == 100
    assert next_step(state, Refused(429, 1.0), 0.0)[1] == GiveUp(GiveUpReason.ALWAYS_BUSY, status=429)


def test_a_postponed_attempt_keeps_its_number() -> None:
    waits = ladder(at(), Refused(503, 1.0), Unreachable(), Unreachable(), Refused(503, 1.0), Unreachable())
    assert [wait.attempt for wait in waits] == [1, 1, 2, 2, 3]
    assert {wait.max_attempts for wait in waits} == {3}


@pytest.mark.parametrize(
    ("failure", "code"),
    [(Lost(1006, LONG), 1006), (Lost(None, LONG), None), (Refused(500), None), (Unreachable(), None)],
)
def test_used_up_attempts_say_the_close_code_of_the_last_one(failure: ConnectionFailure, code: int | None) -> None:
    state = ReconnectState(A, policy=policy(), attempt=3)
    assert next_step(state, failure, 0.0) == (state, GiveUp(GiveUpReason.ATTEMPTS_USED_UP, code=code))


@pytest.mark.parametrize("lasted", [0.0, LONG])
def test_a_postponement_by_close_code_uses_up_no_attempt(lasted: float) -> None:
    state = at()
    for number in range(MAX_POSTPONED):
        state, step = next_step(state, Lost(1013, lasted), 0.0)
        assert isinstance(step, Wait)
        assert step.url == (A, B, C)[(number + 1) % 3]
        assert 5 <= step.seconds <= 6.5
        assert state.attempt == 0
    assert next_step(state, Lost(1013), 0.0)[1] == GiveUp(GiveUpReason.ALWAYS_BUSY, code=1013)


# -- sent away by a server that is drained -----------------------------------------------------------------

MOVE = Lost(CloseCode.MIGRATE, LONG)


@given(policies, draws, st.floats(0, 1e4))
def test_a_migrated_client_goes_to_the_first_endpoint_at_once(
    policy: ReconnectPolicy, draw: float, lasted: float
) -> None:
    state, step = next_step(
        after_migrate(after_welcome(A, [A, B, C], policy), [C, B]), Lost(CloseCode.MIGRATE, lasted), draw
    )
    assert isinstance(step, Wait)
    assert step.url == C
    assert 0 <= step.seconds <= MIGRATE_SPREAD_SECONDS
    assert state.attempt == 0, "which is no attempt"


def test_a_client_that_knows_only_the_close_code_goes_to_another_server_too() -> None:
    assert ladder(at(), MOVE)[0].url == B


def test_the_frame_counts_however_the_connection_ends() -> None:
    """The server may die between the frame and the close."""
    wait = ladder(after_migrate(at(), [C]), Lost(None, LONG))[0]
    assert wait.url == C
    assert wait.seconds == pytest.approx(0.1)


def test_a_frame_without_endpoints_leaves_those_that_are_known() -> None:
    assert ladder(after_migrate(at(), []), MOVE)[0].url == B
    assert ladder(after_migrate(at(endpoints=()), []), MOVE)[0].url == A, "there is no other"


def test_the_endpoints_of_the_frame_are_tried_in_turn_and_the_drained_server_last() -> None:
    down = Unreachable()
    waits = ladder(after_migrate(at(max_attempts=5), [C, B]), MOVE, down, down, down, down)
    assert [wait.url for wait in waits] == [C, B, A, C, B]
    assert [wait.attempt for wait in waits] == [1, 1, 2, 3, 4]
    # Attempt 1 is as quick as after any loss: within the first step, nobody has been told of one.
    assert [wait.seconds for wait in waits] == pytest.approx([0.1, 0.75, 5, 10, 20])


def test_a_migrated_client_that_is_postponed_waits_and_continues() -> None:
    waits = ladder(after_migrate(at(), [B, C]), MOVE, Refused(503, 1.0), Unreachable())
    assert [wait.url for wait in waits] == [B, C, A]
    assert waits[1].seconds >= 1.0


def test_being_sent_on_before_any_welcome_is_slow_and_ends() -> None:
    state, step = at(), None
    seconds = []
    for _ in range(MAX_POSTPONED):
        state, step = next_step(state, Lost(CloseCode.MIGRATE), 0.0)
        assert isinstance(step, Wait)
        seconds.append(step.seconds)
    assert seconds[:3] == [pytest.approx(0.1), 5, 5]
    assert next_step(state, MOVE, 0.0)[1] == GiveUp(GiveUpReason.ALWAYS_BUSY, code=CloseCode.MIGRATE)


def test_clients_that_are_sent_away_together_spread_over_a_moment() -> None:
    assert [ladder(at(), MOVE, draw=draw)[0].seconds for draw in (-1.0, 0.0, 1.0)] == pytest.approx([0.0, 0.1, 0.2])


def test_a_client_that_is_sent_on_goes_from_one_server_to_the_next() -> None:
    waits = ladder(at(), MOVE, MOVE, MOVE, MOVE)
    assert [wait.url for wait in waits] == [B, C, A, B]


@pytest.mark.parametrize("failure", [Unreachable(), Lost(None)])
def test_the_first_attempt_after_a_migration_is_as_quick_as_after_a_loss(failure: ConnectionFailure) -> None:
    for state in (at(), after_migrate(at(), [B, C])):
        moved, retried = ladder(state, MOVE, failure)
        assert [moved.seconds, retried.seconds] == pytest.approx([0.1, 0.75])
        assert (moved.attempt, retried.attempt) == (1, 1)


def test_a_loss_after_an_attempt_is_the_next_attempt_although_the_client_was_sent_away() -> None:
    waits = ladder(after_migrate(at(), [B, C]), MOVE, Unreachable(), Lost(None))
    assert [wait.attempt for wait in waits] == [1, 1, 2]
    assert [wait.url for wait in waits] == [B, C, A]
    frame_then_refused = ladder(after_migrate(at(), [B, C]), Unreachable(), Lost(None))
    assert [wait.attempt for wait in frame_then_refused] == [1, 2]


def test_a_client_migrated_after_an_attempt_waits_the_first_step() -> None:
    assert ladder(at(), Unreachable(), MOVE)[1].seconds == 5


def test_a_loss_after_an_attempt_goes_on_to_the_next_server() -> None:
    assert [wait.url for wait in ladder(at(), Unreachable(), Lost(None, LONG))] == [B, C]


def test_the_welcome_of_the_new_server_ends_the_migration() -> None:
    state, _ = next_step(after_migrate(at(), [B]), MOVE, 0.0)
    arrived = after_welcome(B, [B, C], state.policy)
    assert (arrived.migrating, arrived.ring) == (False, (B, C))
    assert ladder(arrived, Lost(None, LONG))[0].url == B


@pytest.mark.parametrize("status", [500, 502, 599])
def test_an_error_of_a_server_is_an_attempt(status: int) -> None:
    assert ladder(at(), Refused(status))[0].attempt == 1


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 426, 499])
def test_an_http_status_that_will_not_change_ends_it(status: int) -> None:
    assert next_step(at(), Refused(status), 0.0)[1] == GiveUp(GiveUpReason.HTTP_STATUS, status=status)


def test_a_first_try_that_never_got_a_welcome_goes_on_by_the_default_policy() -> None:
    assert ladder(ReconnectState(A), Unreachable(), Unreachable())[0].seconds == 5


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("ws://h:1", "ws://h:1/v1/connect"),
        ("ws://h:1/", "ws://h:1/v1/connect"),
        ("wss://exam.tuna/", "wss://exam.tuna/v1/connect"),
        ("wss://h/v1/connect", "wss://h/v1/connect"),
        ("wss://h/exam/v1/connect", "wss://h/exam/v1/connect"),
    ],
)
def test_an_address_without_a_path_gets_the_one_of_the_protocol(given: str, url: str) -> None:
    assert connect_url(given) == url


def test_the_ring_names_no_server_twice() -> None:
    state = after_welcome(A, ["ws://server-a:8001", A, B, "ws://server-b:8001/"], policy())
    assert state.ring == (A, B)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("\u00b2", None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, now=10.0) == seconds


def test_the_codes_with_a_rule_of_their_own_may_be_reconnected_after() -> None:
    # Otherwise their rule would never be reached.
    for code in (
        *(CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.SERVER_ISOLATED, CloseCode.NOT_READY),
        *(CloseCode.MIGRATE, CloseCode.KICKED),
    ):
        assert may_reconnect(code)


def test_the_numbers_that_other_clients_copy() -> None:
    assert SILENT_INTERVALS == 2.5
    assert (DEFAULT_POLICY.max_attempts, DEFAULT_POLICY.jitter) == (5, 0.3)
    assert DEFAULT_POLICY.backoff_seconds == [5, 10, 20, 40, 60]
    assert list(GiveUpReason) == ["CLOSE_CODE", "HTTP_STATUS", "ATTEMPTS_USED_UP", "ALWAYS_BUSY"]


def test_where_used_up_attempts_refuse_nobody_the_client_goes_on_with_the_last_step() -> None:
    waits = ladder(at(shut_out=False), Lost(1006, LONG), *[Unreachable()] * 6)
    assert [wait.attempt for wait in waits] == [1, 2, 3, 3, 3, 3, 3]
    assert [wait.seconds for wait in waits[1:]] == [5, 10, 20, 20, 20, 20]
    assert [wait.url for wait in waits[2:6]] == [C, A, B, C]
