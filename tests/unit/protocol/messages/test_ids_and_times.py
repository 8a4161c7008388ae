from __future__ import annotations

from datetime import UTC, datetime

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidField
from protocol.ids import Id, ServerId, SocketId, check_id, check_server_id
from protocol.times import Timestamp, format_time, parse_time

BAD_IDS = ["", "a.b", "*", ">", "a:b", "a/b", "..", "a b", " a", "a\n", "\x00", "é", "시험", "١", "a\u200b"]
BAD_IDS.append("a" * 65)


@pytest.mark.parametrize("good", ["P001", "a", "A_b-C", "0", "-", "_", "a" * 64])
def test_an_id_is_1_to_64_of_letters_digits_underscore_and_hyphen(good: str) -> None:
    assert check_id("planId", good) == good
    assert pydantic.TypeAdapter(Id).validate_python(good) == good


@pytest.mark.parametrize("bad", BAD_IDS)
def test_text_with_special_characters_of_subjects_keys_or_paths_is_not_an_id(bad: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_id("planId", bad)
    assert refused.value.field == "planId"
    for adapter in (pydantic.TypeAdapter(Id), pydantic.TypeAdapter(ServerId)):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(bad)


@given(st.text(max_size=80))
def test_the_model_and_check_id_accept_the_same_ids(text: str) -> None:
    try:
        pydantic.TypeAdapter(Id).validate_python(text)
    except pydantic.ValidationError:
        with pytest.raises(InvalidField):
            check_id("planId", text)
    else:
        assert check_id("planId", text) == text


def test_plan_is_not_a_valid_server_id() -> None:
    assert check_id("planId", "plan") == "plan"
    with pytest.raises(InvalidField, match="reserved"):
        check_server_id("plan")
    with pytest.raises(pydantic.ValidationError, match="reserved"):
        pydantic.TypeAdapter(ServerId).validate_python("plan")
    assert check_server_id("PLAN") == "PLAN"
    with pytest.raises(InvalidField):
        check_server_id("a.b")


def test_a_socket_id_has_room_for_its_server_and_a_unique_part() -> None:
    adapter = pydantic.TypeAdapter(SocketId)
    assert adapter.validate_python("S" * 64 + "-" + "u" * 31)
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python("S" * 97)


# -- times ------------------------------------------------------------------------------------------------


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert format_time(1_704_100_500.0) == "2024-01-01T09:15:00.000Z"
    assert format_time(1_704_100_500.1239) == "2024-01-01T09:15:00.123Z"


@given(st.floats(-1e9, 4e9) | st.integers(0, 2**32).map(lambda second: second + 0.9999995) | st.integers(-9, 2**32))
def test_a_time_is_written_as_datetime_writes_it(seconds: float) -> None:
    whole = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    assert format_time(seconds) == whole.removesuffix("+00:00") + "Z"


@given(st.integers(0, 4_102_444_800_000), st.integers(0, 4_102_444_800_000))
def test_written_times_can_be_read_and_sort_as_text(one: int, other: int) -> None:
    first, second = format_time(one / 1000), format_time(other / 1000)
    assert parse_time(first) == pytest.approx(one / 1000, abs=0.0011)
    assert (first <= second) == (parse_time(first) <= parse_time(second))
    assert pydantic.TypeAdapter(Timestamp).validate_python(first) == first


def test_the_documents_time_and_an_offset_are_read() -> None:
    assert parse_time("2024-01-01T09:15:00Z") == 1_704_100_500.0
    assert parse_time("2024-01-01T18:15:00+09:00") == 1_704_100_500.0
    assert parse_time("2024-01-01T09:15:00.123456789Z") == 1_704_100_500.123456


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "2024-01-01",
        "2024-01-01T09:15:00",
        "2024-01-01 09:15:00Z",
        "2024-01-01T09:15Z",
        "2024-01-01T09:15:00Z\n",
        "2024-13-01T09:15:00Z",
        "2024-02-30T09:15:00Z",
        "2024-01-01T24:15:00Z",
        "2024-01-01T09:61:00Z",
        "2024-01-01T09:15:00+99:99",
        "٢٠٢٤-01-01T09:15:00Z",
        "0000-01-01T00:00:00Z",
        "now",
    ],
)
def test_an_impossible_time_is_refused(bad: str) -> None:
    """What gets in is computed with later: a bad time in a record would spoil every later fact of the examinee."""
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(Timestamp).validate_python(bad)


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        parse_time("2024-01-01T09:15:00")
