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
def test_a_byte_order_mark_blank_lines_and_spaces_are_ignored(newline: str) -> None:
    lines = ["examineeId,name,seat", "E001, Kim ,A1", "", " , ", "E002,,A2", "E003", ""]
    assert people(b"\xef\xbb\xbf" + newline.join(lines).encode()) == [("E001", "Kim"), ("E002", None), ("E003", None)]


def test_every_other_column_is_a_label_and_an_empty_cell_is_none() -> None:
    first, second, third = read_roster("examineeId,room,name,좌석,\nE001,A,Kim,12,\nE002,,Lee,\nE003,B\n".encode())
    assert (first.name, first.labels) == ("Kim", {"room": "A", "좌석": "12"})
    assert (second.name, second.labels) == ("Lee", {})
    assert (third.name, third.labels) == (None, {"room": "B"})
    (alone,) = read_roster(b"examineeId,name\nE001,Kim\n")
    assert alone.labels is None


def test_columns_of_times_are_times_and_no_labels() -> None:
    header = "examineeId,startsAt,endsAt,extraMinutes\n"
    rows = "E001,2026-12-01T09:00:00+09:00,2026-12-01T02:00:00Z,7.5\nE002,,,0\nE003,,,\n"
    first, second, third = read_roster((header + rows).encode())
    assert (first.starts_at, first.ends_at) == ("2026-12-01T00:00:00.000Z", "2026-12-01T02:00:00.000Z")
    assert (first.extra_seconds, first.labels, first.has_times) == (450, None, True)
    assert (second.extra_seconds, second.has_times, third.has_times) == (0, True, False)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("E001,tomorrow,,,", "line 2, column startsAt: 'tomorrow' is not a time such as 2026-12-01T09:00:00+09:00"),
        ("E001,2026-12-01T09:00:00,,,", "column startsAt: '2026-12-01T09:00:00' is not a time"),
        ("E001,9999-12-01T09:00:00Z,,,", "is not a time"),
        ("E001,2026-12-01T09:00:00Z,2026-12-01T09:00:00Z,,", "column endsAt: '2026-12-01T09:00:00Z' endsAt must be"),
        ("E001,,,-5,", "line 2, column extraMinutes: '-5' must be a number of minutes from 0 to 10080"),
        ("E001,,,10081,", "must be a number of minutes"),
        ("E001,,,15 min,", "must be a number of minutes"),
        ("E001,,,,A,lost", "line 2, column 6: 'lost' has no column in the header"),
        ("E001,,,," + "x" * 101, "column room: "),
        ("E001,,,,\u200b", "must have at least one visible character"),
    ],
)
def test_a_cell_that_would_be_lost_or_misread_is_refused_with_its_line(row: str, said: str) -> None:
    (only,) = problems(f"examineeId,startsAt,endsAt,extraMinutes,room\n{row}\n")
    assert said in only


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("examineeId,Name", "line 1: the column 'Name' is written name"),
        ("examineeId,STARTSAT", "line 1: the column 'STARTSAT' is written startsAt"),
        ("examineeId,room,room", "line 1: two columns are named 'room'"),
        ("examineeId,seat number", "'seat number' would be a label, whose name must begin with a letter"),
        ("examineeId,1st", "whose name must begin with a letter"),
        ("examineeId," + "x" * 33, "at most 32 letters"),
        ("examineeId,a,b,c,d,e,f,g,h,i", "9 columns are labels (a, b, c, d, e, f, g, h, i); at most 8"),
    ],
)
def test_a_header_that_no_label_can_have_is_refused(header: str, said: str) -> None:
    (only,) = problems(f"{header}\nE001\n")
    assert said in only


def test_a_cell_under_a_column_without_a_name_is_refused() -> None:
    (only,) = problems("examineeId,,name\nE001,A1,Kim\n")
    assert only == "line 2, column without a name: 'A1' would be lost: give the column a name in the header"


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
