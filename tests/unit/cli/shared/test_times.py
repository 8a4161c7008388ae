"""Moments as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cli.shared.times import duration_text, local_time, parse_time_option, with_local_times, zone_name
from protocol.errors import ConfigurationError

SEOUL = timezone(timedelta(hours=9), "KST")
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=SEOUL)  # 03:00 UTC


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("09:15", "2026-11-22T09:15:00+09:00"),
        ("9:15", "2026-11-22T09:15:00+09:00"),
        ("09:15:30.5", "2026-11-22T09:15:30.500+09:00"),
        ("09:15Z", "2026-11-22T09:15:00+00:00"),
        ("09:15+02:00", "2026-11-22T09:15:00+02:00"),
        ("2026-11-21 09:15", "2026-11-21T09:15:00+09:00"),
        ("2026-11-21T09:15:00Z", "2026-11-21T09:15:00+00:00"),
        ("2026-11-21", "2026-11-21T00:00:00+09:00"),
        ("-10m", "2026-11-22T11:50:00+09:00"),
        ("-1h30m", "2026-11-22T10:30:00+09:00"),
        ("-2d", "2026-11-20T12:00:00+09:00"),
        (" now ", "2026-11-22T12:00:00+09:00"),
    ],
)
def test_a_time_without_date_and_zone_is_today_in_the_local_zone(text: str, meant: str) -> None:
    assert parse_time_option(text, "--at", now=NOON) == datetime.fromisoformat(meant).timestamp()


def test_today_is_the_day_in_the_given_zone() -> None:
    early = datetime(2026, 11, 22, 3, 0, tzinfo=SEOUL)  # the 21st in UTC
    assert parse_time_option("09:15Z", "--at", now=early) == datetime(2026, 11, 21, 9, 15, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["", "-", "teatime", "25:00", "09:60", "9", "2026-13-01", "-10", "-10x", "1e9"])
def test_an_invalid_time_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--since"):
        parse_time_option(text, "--since", now=NOON)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2026-11-22T03:00:00.250Z", "12:00:00"),
        ("2026-11-21T14:59:59.999Z", "2026-11-21 23:59:59"),
        ("2026-11-21T15:00:00.000Z", "00:00:00"),
        (NOON.timestamp() + 43200, "2026-11-23 00:00:00"),
        (None, ""),
        ("", ""),
    ],
)
def test_a_time_has_its_date_only_when_it_is_not_today_in_the_local_zone(
    moment: float | str | None, shown: str
) -> None:
    assert local_time(moment, now=NOON) == shown


def test_a_sentence_has_its_times_as_the_columns_have_them() -> None:
    sentence = "extended by T001 from 2026-11-22T03:00:00Z to 2026-11-22T23:00:00.250Z"
    assert with_local_times(sentence, now=NOON) == "extended by T001 from 12:00:00 to 2026-11-23 08:00:00"
    assert with_local_times("lost: PING_TIMEOUT on SOCK001") == "lost: PING_TIMEOUT on SOCK001"


def test_the_zone_of_the_times_is_named() -> None:
    assert "(UTC" in zone_name(NOON.timestamp())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (4.25, "4.2 s"),
        (-1, "0.0 s"),
        (124, "2 min 4 s"),
        (120, "2 min"),
        (3700, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words
