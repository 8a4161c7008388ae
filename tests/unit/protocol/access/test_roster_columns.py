"""What the columns of a roster are, by a header that people have written; no column is left out without a word."""

from __future__ import annotations

import unicodedata

import pytest

from protocol.access.roster_columns import read_header
from protocol.access.roster_file import InvalidRoster


def described(header: str) -> dict[str, str]:
    return read_header(1, header.split(",")).described()


@pytest.mark.parametrize(
    "title",
    [
        *("examineeId", "EXAMINEEID", "Examinee ID", "examinee_id", "ID", "ＩＤ", "Candidate No.", "student number"),
        *("수험번호", "수험 번호", unicodedata.normalize("NFD", "수험번호"), "응시번호", "학번", "수험생 ID"),
    ],
)
def test_the_id_is_found_by_its_name_in_any_place(title: str) -> None:
    columns = read_header(1, ["room", "", title])
    assert (columns.places, columns.labels) == ({"examineeId": 2}, {"room": 0})


@pytest.mark.parametrize("title", ["name", "NAME", "Full name", "Name ", "성명", "이름", "성 명", "응시자명"])
def test_the_name_is_found_by_its_name(title: str) -> None:
    assert read_header(1, ["id", title]).places == {"examineeId": 0, "name": 1}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        # What is named as we name it has the meaning, and the others are labels.
        ("학번,examineeId,성명,name", ["label 학번", "examineeId", "label 성명", "name"]),
        ("id,full name,surname", ["examineeId", "name", "label surname"]),
        ("id,Name,Surname", ["examineeId", "firstName", "lastName"]),
        ("id,성,이름", ["examineeId", "lastName", "firstName"]),
        # This one is ours, from an archive: its `name` is the whole name.
        ("examineeId,name,surname", ["examineeId", "name", "label surname"]),
        ("id,full name,first name,surname", ["examineeId", "name", "label first_name", "label surname"]),
        ("id,Seat No.,E-mail,고사장(호실)", ["examineeId", "label Seat_No", "label E-mail", "label 고사장_호실"]),
        ("수험번호*,성명(한글),성명_영문", ["examineeId", "name", "label 성명_영문"]),
        ("수험번호,성명,성명(영문)", ["examineeId", "name", "label 성명_영문"]),
        ("수험번호,시작 시각,종료 시각,추가시간(분)", ["examineeId", "startsAt", "endsAt", "extraMinutes"]),
    ],
)
def test_every_column_has_a_meaning_or_is_a_label(header: str, columns: list[str]) -> None:
    assert list(described(header).values()) == columns
    assert list(described(header)) == header.split(",")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("E001,Kim", "line 1: no column is the id of the examinees: the header must name one examineeId (or id, "),
        ("examineeId,room,room", "line 1: two columns are named 'room'"),
        ("examineeId,room,Room", "line 1: two columns are named 'room' and 'Room'"),
        ("id,ID", "line 1: two columns are named 'id' and 'ID'"),
        (
            "학번,수험번호,성명",
            "'학번' and '수험번호' may each be the id of the examinees: name one",
        ),
        ("id,성명(한글),성명(영문)", "'성명(한글)' and '성명(영문)' may each be the name: name one of them name"),
        ("“id”,“name”", 'line 1: the header has curly quotes, which are none in CSV: use "'),
        ("2026 명단,", "line 1: no column is the id of the examinees"),
        ("id,이름,성명", "'이름' and '성명' may each be the name: name one of them name"),
        ("examineeId,seat no,seat_no.", "two columns are named 'seat no' and 'seat_no.'"),
        ("examineeId,seat(no),seat/no", "'seat(no)' and 'seat/no' would both be the label seat_no"),
        ("examineeId,1st", "'1st' would be a label, whose name must begin with a letter"),
        ("examineeId," + "x" * 33, "at most 32 letters"),
        ("examineeId,a,b,c,d,e,f,g,h,i", "9 columns are labels (a, b, c, d, e, f, g, h, i); at most 8"),
    ],
)
def test_a_header_that_can_be_misunderstood_is_refused(header: str, said: str) -> None:
    with pytest.raises(InvalidRoster) as refused:
        described(header)
    (only,) = refused.value.problems
    assert said in only
