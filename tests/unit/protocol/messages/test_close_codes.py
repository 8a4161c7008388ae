from __future__ import annotations

import pytest

from protocol.close_codes import CLOSE_RULES, CloseCode, may_reconnect


def test_every_code_has_exactly_one_rule_and_one_name() -> None:
    assert set(CLOSE_RULES) == set(CloseCode)
    assert len({code.value for code in CloseCode}) == len(CloseCode.__members__)
    for code, rule in CLOSE_RULES.items():
        assert (rule.code, rule.name) == (code, CloseCode(code).name)
        assert rule.rule.endswith(".")


@pytest.mark.parametrize("code", list(CloseCode))
def test_a_code_of_ours_is_in_one_range_and_the_range_says_the_rule(code: CloseCode) -> None:
    ranges = [1000 <= code <= 1015, 4000 <= code <= 4499, 4500 <= code <= 4999]
    assert ranges.count(True) == 1
    if code >= 4000:
        assert may_reconnect(code) is CLOSE_RULES[code].reconnect is (code < 4500)


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.INTERNAL_ERROR])
def test_a_server_that_goes_away_wants_its_clients_elsewhere(code: CloseCode) -> None:
    assert may_reconnect(code)


@pytest.mark.parametrize(
    "code",
    [
        CloseCode.NORMAL,
        CloseCode.REPLACED,
        CloseCode.INVALID_TOKEN,
        CloseCode.RECONNECT_LIMIT_EXCEEDED,
        CloseCode.FORBIDDEN,
    ],
)
def test_a_client_that_is_not_wanted_stays_away(code: CloseCode) -> None:
    assert not may_reconnect(code)


def test_codes_of_a_newer_server_follow_their_range() -> None:
    assert may_reconnect(4499)
    assert not may_reconnect(4500)
    assert not may_reconnect(4999)


@pytest.mark.parametrize("code", [None, 1006])
def test_a_connection_that_broke_is_tried_again(code: int | None) -> None:
    assert may_reconnect(code)
