"""A roster is taken as a whole or refused with every mistake's line and column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.access.roster import MAX_PROBLEMS, InvalidRoster, read_roster


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(InvalidRoster) as refused:
        read_roster(text if isinstance(text, bytes) else text.encode())
    return refused.value.problems


def people(text: str | bytes) -> list[tuple[str, str | None]]:
    entries = read_roster(text if isinstance(text, bytes) else text.encode())
    return [(entry.examinee_id, entry.name) for entry in entries]


def test_ids_and_names_are_read_in_their_order() -> None:
    assert people("examineeId,name\nE002,김하나\nE001,Lee\n") == [("E002", "김하나"), ("E001", "Lee")]


def test_a_file_of_ids_alone_is_a_roster() -> None:
    assert people("examineeId\nE001\nE002\n") == [("E001", None), ("E002", None)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_blank_lines_spaces_and_other_columns_are_ignored(newline: str) -> None:
    lines = ["examineeId,name,seat", "E001, Kim ,A1", "", " , ", "E002,,A2", "E003", ""]
    assert people(b"\xef\xbb\xbf" + newline.join(lines).encode()) == [("E001", "Kim"), ("E002", None), ("E003", None)]


def test_a_second_column_that_is_no_name_is_ignored() -> None:
    assert people("examineeId,seat\nE001,A1\n") == [("E001", None)]


def test_a_quoted_name_may_hold_a_comma() -> None:
    assert people('examineeId,name\nE001,"Kim, Hana"\n') == [("E001", "Kim, Hana")]


def test_every_mistake_is_reported_with_its_line_and_column() -> None:
    text = "examineeId,name\nE001,Kim\nE 2,Lee\nE001,Park\n\nE003," + "x" * 101 + "\n,Choi\n"
    assert problems(text) == [
        "line 3, column examineeId: 'E 2' must be 1 to 64 of A-Z a-z 0-9 _ -",
        "line 4, column examineeId: E001 again, as on line 2",
        f"line 6, column name: {'x' * 80!r} must be at most 100 characters without control characters",
        "line 7, column examineeId: '' must be 1 to 64 of A-Z a-z 0-9 _ -",
    ]


def test_line_numbers_count_the_lines_inside_quoted_cells() -> None:
    text = 'examineeId,name,note\nE001,Kim,"one\ntwo"\nE 2,Lee,\n'
    assert [problem.partition(",")[0] for problem in problems(text)] == ["line 4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the header begins with examineeId, which is missing"),
        ("E001,Kim\n", "line 1: the header begins with examineeId, not 'E001'"),
        ("examineeId;name\nE001;Kim\n", "the columns are separated by commas"),
        ("examineeId,name\n", "there is nobody in it"),
        ('examineeId,name\nE001,"Kim\n', "not CSV"),
        ('examineeId,name\nE001,"Kim"x\n', "line 2: not CSV"),
        (b"examineeId,name\nE001,Kim\n" + "E002,김".encode("cp949"), "line 3: not UTF-8"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(text: str | bytes, said: str) -> None:
    (only,) = problems(text)
    assert said in only


def test_a_long_invalid_id_is_truncated_in_the_error() -> None:
    (only,) = problems("examineeId\n" + "x" * 5000)
    assert len(only) < 200


def test_a_thousand_mistakes_are_counted_and_the_first_are_shown() -> None:
    with pytest.raises(InvalidRoster) as refused:
        read_roster(("examineeId\n" + "not an id\n" * 1000).encode())
    assert len(refused.value.problems) == 1000
    assert str(refused.value).count("\n") == MAX_PROBLEMS
    assert str(refused.value).endswith("and 980 more")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_roster_or_are_refused_with_a_line(content: bytes) -> None:
    roster = b"examineeId,name\n" + content
    refused: InvalidRoster | None = None
    entries = []
    try:
        entries = read_roster(roster)
    except InvalidRoster as error:
        refused = error
    assert bool(entries) is (refused is None)
    assert len({entry.examinee_id for entry in entries}) == len(entries)
