"""A roster is taken as a whole or refused with every mistake's line and column."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.access.roster import read_roster
from protocol.access.roster_file import MAX_BYTES, MAX_PROBLEMS, InvalidRoster


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(InvalidRoster) as refused:
        read_roster(text if isinstance(text, bytes) else text.encode())
    return refused.value.problems


def people(text: str | bytes, encoding: str | None = None) -> list[tuple[str, str | None]]:
    content = text if isinstance(text, bytes) else text.encode()
    return [(entry.examinee_id, entry.name) for entry in read_roster(content, encoding=encoding).entries]


def test_ids_and_names_are_read_in_their_order() -> None:
    assert people("examineeId,name\nE002,김하나\nE001,Lee\n") == [("E002", "김하나"), ("E001", "Lee")]


def test_a_file_of_ids_alone_is_a_roster() -> None:
    assert people("examineeId\nE001\nE002\n") == [("E001", None), ("E002", None)]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_byte_order_mark_blank_lines_and_spaces_are_ignored(newline: str, separator: str) -> None:
    lines = ["examineeId,name,seat", "E001, Kim ,A1", "", " , ", "E002,,A2", "E003", ""]
    text = newline.join(lines).replace(",", separator)
    assert people(b"\xef\xbb\xbf" + text.encode()) == [("E001", "Kim"), ("E002", None), ("E003", None)]


def test_every_other_column_is_a_label_and_an_empty_cell_is_none() -> None:
    content = "examineeId,room,name,좌석,\nE001,A,Kim,12,\nE002,,Lee,\nE003,B\n".encode()
    first, second, third = read_roster(content).entries
    assert (first.name, first.labels) == ("Kim", {"room": "A", "좌석": "12"})
    assert (second.name, second.labels) == ("Lee", {})
    assert (third.name, third.labels) == (None, {"room": "B"})
    (alone,) = read_roster(b"examineeId,name\nE001,Kim\n").entries
    assert alone.labels is None


def test_columns_of_times_are_times_and_no_labels() -> None:
    header = "examineeId,startsAt,Ends at,extra_minutes\n"
    rows = "E001,2026-12-01T09:00:00+09:00,2026-12-01T02:00:00Z,7.5\nE002,,,0\nE003,,,\n"
    first, second, third = read_roster((header + rows).encode()).entries
    assert (first.starts_at, first.ends_at) == ("2026-12-01T00:00:00.000Z", "2026-12-01T02:00:00.000Z")
    assert (first.extra_seconds, first.labels, first.has_times) == (450, None, True)
    assert (second.extra_seconds, second.has_times, third.has_times) == (0, True, False)
    for column, cell in (
        ("시작시간", "2026-12-01T09:00:00Z"),
        ("종료 시각", "2026-12-01T09:00:00Z"),
        ("추가시간(분)", "7"),
    ):
        (alone,) = read_roster(f"id,{column}\nE001,{cell}\n".encode()).entries
        assert alone.has_times


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
        ("E001,,,,A,", "line 2: 6 cells, the header has 5: put a text that holds a comma in quotes, or remove"),
        ("E001,,,," + "x" * 101, "column room: "),
        ("E001,,,,\u200b", "must have at least one visible character"),
        ("E001,,,,“A”", 'begins with a curly quote, which is none in CSV: use " instead of “'),
        ("1.23E+05,,,,", "_ -: a spreadsheet has rounded it"),
        ('E001,,,,"A\nE002,,,,B"', "line 2, column room: 'A\\nE002,,,,B' holds further lines: the quote that opens"),
    ],
)
def test_a_cell_that_would_be_lost_or_misread_is_refused_with_its_line(row: str, said: str) -> None:
    (only,) = problems(f"examineeId,startsAt,endsAt,extraMinutes,room\n{row}\n")
    assert said in only


def test_a_cell_under_a_column_without_a_name_is_refused() -> None:
    (only,) = problems("examineeId,,name\nE001,A1,Kim\n")
    assert only == "line 2, column without a name: 'A1' would be lost: give the column a name in the header"


def test_a_name_with_a_comma_stands_in_quotes() -> None:
    assert people('examineeId,name\nE001,"Kim, Hana"\n') == [("E001", "Kim, Hana")]
    assert people("examineeId;name;room\nE001;Kim, Hana;A\n") == [("E001", "Kim, Hana")]
    # The room is empty, and the name takes its place.
    assert problems("examineeId,name,room\nE001,Kim, Hana\nE002,Lee,A\n") == [
        'line 2: a name that holds a comma stands in quotes: "Kim, Hana"'
    ]
    for consistent in ("examineeId, name, room\nE001,Kim, A\n", "examineeId,name,room\nE001, Kim, A\n"):
        assert people(consistent) == [("E001", "Kim")]
    assert people("examineeId,name,room\nE001,Kim, \nE002,, A\n") == [("E001", "Kim"), ("E002", None)]


def test_the_first_and_the_last_name_are_one_name() -> None:
    assert people("id,First Name,LAST NAME\n1,Ada,Lovelace\n2,하나,김\n3,,Lee\n4,,\n") == [
        ("1", "Ada Lovelace"),
        ("2", "김하나"),
        ("3", "Lee"),
        ("4", None),
    ]
    assert people("학번,성,이름\n1,김,하나\n") == people("학번,성명\n1,김하나\n")


def test_texts_are_normal_also_those_that_are_read_quickly() -> None:
    """Precomposed characters are those that everybody else types and searches."""
    decomposed = unicodedata.normalize("NFD", "김하나 Zoë")
    assert people(f"examineeId,name\nE001,{decomposed}\n") == [("E001", "김하나 Zoë")]
    letters = [chr(code) for code in range(0x20, 0x10000) if chr(code) not in '",']
    readable = [letter for letter in letters if unicodedata.category(letter) not in ("Cc", "Cs")]
    names = people("examineeId,name\n" + "".join(f"E{ord(letter)},x{letter}x\n" for letter in readable))
    assert [name for _, name in names if name != unicodedata.normalize("NFC", name or "")] == []


def test_an_apostrophe_before_a_formula_is_that_of_our_own_files() -> None:
    assert people("examineeId,name\n'-E1,'=Kim\nE2,'t Hooft\n") == [("-E1", "=Kim"), ("E2", "'t Hooft")]


def test_invisible_characters_are_removed_from_ids_and_names() -> None:
    assert people("\u200bid,name\n\u200bE\u00ad1,\u202eKim\n") == [("E1", "Kim")]


def test_every_mistake_is_reported_with_its_line_and_column() -> None:
    text = "examineeId,name\nE001,Kim\nE 2,Lee\nE001,Park\n\nE003," + "x" * 101 + "\n,Choi\n"
    assert problems(text) == [
        "line 3, column examineeId: 'E 2' must be 1 to 64 of A-Z a-z 0-9 _ -",
        "line 4, column examineeId: E001 again, as on line 2",
        f"line 6, column name: {'x' * 80!r} must be at most 100 characters without control characters",
        "line 7, column examineeId: '' must be 1 to 64 of A-Z a-z 0-9 _ -",
    ]


def test_a_quote_that_is_not_closed_hides_no_mistake_above_it() -> None:
    text = 'examineeId,name\nE 1,Kim\nE002,"Lee\n'
    assert [problem.partition(":")[0] for problem in problems(text)] == ["line 2, column examineeId", "line 3"]


def test_line_numbers_count_the_lines_inside_quoted_cells() -> None:
    text = 'examineeId,name,note\nE001,Kim,"one\ntwo"\nE 2,Lee,\n'
    assert [problem.partition(",")[0] for problem in problems(text)] == ["line 4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("examineeId,name\nE001,“Kim, Hana”\n", "line 2: '“Kim' begins with a curly quote"),
        ('examineeId,name\nE001,"Kim\nHana"\n', "line 2, column name: 'Kim\\nHana' must be at most 100"),
        ("x" * (MAX_BYTES + 1), "16777217 bytes; a roster has at most 16777216"),
        ("", "line 1: the header is missing: a line such as examineeId,name,room"),
        ("examineeId,name\n", "there is nobody in it"),
        ('examineeId,name\nE001,Kim\nE002,"Lee\nE003,Park\n', "line 3: the quote that opens '\"Lee' is not closed"),
        ('examineeId,name\nE001,"Kim\nE002,"Lee"\n', "line 2: the quote that opens '\"Kim' is not closed"),
        ('examineeId,name,a\nE1,Kim,"\n,\n"\nE2,Lee,"x\n"""\nE3,Kim,"b\n', "line 7: the quote that opens '\"b' is"),
        ('examineeId,name,a\rE1,"Kim\rHana","b\r', "line 3: the quote that opens '\"b' is not closed"),
        ('examineeId,name\nE001,"Kim "Hana""\n', 'line 2: the quote that opens \'"Kim "Hana""\' is not closed'),
        ('"examineeId\nE001\n', "line 1: the quote that opens '\"examineeId' is not closed"),
        (f'examineeId,name\nE001,"{"x" * 140_000}\n', "line 2: the quote that opens"),
        (f"examineeId,name\nE001,{'x' * 140_000}\n", "line 2: a cell has more than 131072 characters"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(text: str, said: str) -> None:
    (only,) = problems(text)
    assert said in only


NAMES = "examineeId,name\r\nE001,김하나\r\nE002,뷁김하나은비\r\n"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-32", "utf-32"),
        ("cp949", "cp949"),
        ("cp949", "EUC-KR"),
        ("utf-16", "utf-16"),
        ("utf-16-be", "utf-16-be"),
        ("utf-16-le", "utf-16-le"),
    ],
)
def test_a_file_in_another_encoding_is_read_when_that_is_given(encoding: str, name: str) -> None:
    content = NAMES.encode(encoding)
    (only,) = problems(content)
    assert "not UTF-8; save it as CSV UTF-8, or give --encoding " + encoding in only
    assert people(content, name) == [("E001", "김하나"), ("E002", "뷁김하나은비")]


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (NAMES.encode(), "cp949", "the file is UTF-8, not CP949: leave out the encoding"),
        (NAMES.encode("cp949"), "ascii", "line 2: not ASCII; save it as CSV UTF-8"),
        (NAMES.encode("cp949"), "hex", "the encoding 'hex' is unknown; usual are utf-8, cp949 and utf-16"),
        (b"PK\x03\x04...", None, "this is a workbook of a spreadsheet: save it as CSV UTF-8"),
        (
            "id\n山田太郎".encode("shift-jis"),
            None,
            "line 2: not UTF-8; save it as CSV UTF-8, or give its encoding",
        ),
    ],
)
def test_a_file_that_is_no_text_of_its_encoding_is_refused(content: bytes, encoding: str | None, said: str) -> None:
    with pytest.raises(InvalidRoster) as refused:
        read_roster(content, encoding=encoding)
    (only,) = refused.value.problems
    assert only.startswith(said)


def test_a_byte_order_mark_is_allowed_with_its_encoding() -> None:
    for encoding in ("utf-8", "utf-8-sig", "UTF8"):
        assert people(NAMES.encode("utf-8-sig"), encoding)[0] == ("E001", "김하나")


def test_a_long_invalid_id_is_truncated_in_the_error() -> None:
    (only,) = problems("examineeId\n" + "x" * 5000)
    assert len(only) < 200


def test_a_thousand_mistakes_are_counted_and_the_first_are_shown() -> None:
    with pytest.raises(InvalidRoster) as refused:
        read_roster(("examineeId\n" + "not an id\n" * 1000).encode())
    assert len(refused.value.problems) == 1000
    assert str(refused.value).count("\n") == MAX_PROBLEMS
    assert str(refused.value).endswith("and 980 more")


@given(st.binary(max_size=200) | st.text(st.sampled_from('E1," \n\r;“'), max_size=40).map(str.encode))
def test_any_bytes_are_a_roster_or_are_refused_with_a_line(content: bytes) -> None:
    roster = b"examineeId,name\n" + content
    refused: InvalidRoster | None = None
    entries = []
    try:
        entries = read_roster(roster).entries
    except InvalidRoster as error:
        refused = error
    assert bool(entries) is (refused is None)
    assert len({entry.examinee_id for entry in entries}) == len(entries)
