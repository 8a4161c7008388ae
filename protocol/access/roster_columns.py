"""Find out what the columns of a roster are, by the names in its header: English or Korean, in any case.

Only what has a meaning of its own is looked for; every other column is a label. No column is left out: where the
header can be understood in two ways, it is refused.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from protocol.access.roster_file import CURLY_QUOTES, InvalidRoster
from protocol.messages.base import MAX_LABELS, check_label_name
from protocol.texts import clean_line, unescape_cell

ID, NAME, STARTS_AT, ENDS_AT, EXTRA_MINUTES = "examineeId", "name", "startsAt", "endsAt", "extraMinutes"
FIRST_NAME, LAST_NAME = "firstName", "lastName"
_OTHER_WORDS = {
    ID: (
        *("id", "examinee", "examineeNumber", "candidate", "candidateId", "candidateNumber", "studentId"),
        *(
            "studentNumber",
            "registrationNumber",
            "examNumber",
            "수험번호",
            "수험자번호",
            "수험생번호",
            "응시번호",
            "응시자번호",
        ),
        *("접수번호", "학번", "학생번호", "아이디"),
        *("수험자ID", "수험생ID", "응시자ID", "학생ID"),
    ),
    NAME: (
        *("fullName", "examineeName", "candidateName", "studentName", "이름", "성명", "성함"),
        *("수험자명", "수험생명", "응시자명", "학생명", "수험자이름", "수험생이름", "응시자이름", "학생이름"),
        *("수험자성명", "수험생성명", "응시자성명", "학생성명"),
    ),
    FIRST_NAME: ("givenName", "forename"),
    LAST_NAME: ("surname", "familyName", "성", "성씨"),
    STARTS_AT: ("시작시각", "시작시간"),
    ENDS_AT: ("종료시각", "종료시간"),
    EXTRA_MINUTES: ("추가시간(분)",),
}
_IN_WORDS = {
    ID: "the id of the examinees",
    NAME: "the name",
    FIRST_NAME: "the first name",
    LAST_NAME: "the last name",
    STARTS_AT: "the start",
    ENDS_AT: "the end",
    EXTRA_MINUTES: "the extra minutes",
}
_GIVEN = ("name", "이름")
"""Words for the whole name, or for the first name when another column has the last name."""


@dataclass(frozen=True, slots=True)
class RosterColumns:
    """What is in which column, counted from 0. `titles`: the header as the file has it.

    `places`: the column of each meaning (`ID`, `NAME`, ...); `labels`: the columns of the labels, by their names.
    """

    titles: tuple[str, ...]
    places: dict[str, int]
    labels: dict[str, int]

    def described(self) -> dict[str, str]:
        """Return what every column is, by its title: `{"수험번호": "examineeId", "Seat No.": "label Seat_No"}`."""
        meanings = {place: meaning for meaning, place in self.places.items()}
        meanings |= {place: f"label {label}" for label, place in self.labels.items()}
        return {self.titles[place]: meanings[place] for place in sorted(meanings)}


def read_header(line: int, row: list[str]) -> RosterColumns:
    """Return the columns that a header names. Raises `InvalidRoster`."""
    titles = tuple(unicodedata.normalize("NFC", clean_line(unescape_cell(cell.strip()))).strip() for cell in row)
    problems: list[str] = []
    candidates: dict[str, list[_Candidate]] = {}
    seen: dict[str, str] = {}
    others: list[int] = []
    for place, title in enumerate(titles):
        if not title:
            continue
        key = _key(title)
        if key in seen:
            also = "" if seen[key] == title else f" and {title[:80]!r}"
            problems.append(f"line {line}: two columns are named {seen[key][:80]!r}{also}")
            continue
        seen[key] = title
        if (candidate := _candidate(place, title)) is None:
            others.append(place)
        else:
            candidates.setdefault(candidate.meaning, []).append(candidate)
    if ID not in candidates:
        raise InvalidRoster([_without_id(line, titles)])
    places: dict[str, int] = {}
    for meaning, several in candidates.items():
        best = [candidate for candidate in several if candidate.doubt == min(each.doubt for each in several)]
        if len(best) > 1:
            named = " and ".join(repr(titles[candidate.place]) for candidate in best)
            problems.append(f"line {line}: {named} may each be {_IN_WORDS[meaning]}: name one of them {meaning}")
        places[meaning] = best[0].place
        others += [candidate.place for candidate in several if candidate is not best[0]]
    others += _settle_names(titles, places)
    if not problems:
        problems, labels = _labels(line, titles, sorted(others))
    if problems:
        raise InvalidRoster(problems)
    return RosterColumns(titles, places, labels)


class _Candidate(NamedTuple):
    """A column that may have a meaning of its own.

    `doubt`: 0 when it is named as we name it, 1 for another word, 2 for a word with something behind it: `성명(한글)`.
    """

    place: int
    meaning: str
    doubt: int


def _candidate(place: int, title: str) -> _Candidate | None:
    key = _key(title)
    if (meaning := _MEANINGS.get(key)) is not None:
        return _Candidate(place, meaning, 0 if key == meaning.lower() else 1)
    unqualified = _key(re.sub(r"\(.*\)|[*:]", "", unicodedata.normalize("NFKC", title)))
    meaning = _MEANINGS.get(unqualified)
    return _Candidate(place, meaning, 2) if meaning is not None else None


def _key(title: str) -> str:
    """Return what two titles have in common that differ in case, spaces, `_`, `-`, `.` or width only."""
    key = re.sub(r"[\s_.\-]", "", unicodedata.normalize("NFKC", title)).casefold()
    return re.sub(r"(?<=[a-z])(?:no|#)$", "number", key)


_MEANINGS = {_key(word): meaning for meaning, words in _OTHER_WORDS.items() for word in (meaning, *words)}


def _settle_names(titles: tuple[str, ...], places: dict[str, int]) -> list[int]:
    """Decide between a whole name and its parts; return the columns that become labels."""
    name = places.get(NAME)
    if name is None:
        return []
    parts = [meaning for meaning in (FIRST_NAME, LAST_NAME) if meaning in places]
    given = _key(titles[name]) in _GIVEN and titles[places.get(ID, name)] != ID
    if parts == [LAST_NAME] and given:
        places[FIRST_NAME] = places.pop(NAME)
        return []
    return [places.pop(meaning) for meaning in parts]


def _without_id(line: int, titles: tuple[str, ...]) -> str:
    if any(title.startswith(CURLY_QUOTES) for title in titles):
        return f'line {line}: the header has curly quotes, which are none in CSV: use "'
    if not any(titles):
        return f"line {line}: the header is missing: a line such as {ID},{NAME},room"
    first = ", ".join(repr(title[:40]) for title in titles[:8] if title)
    return (
        f"line {line}: no column is {_IN_WORDS[ID]}: the header must name one {ID} "
        f"(or id, student number, 수험번호, 응시번호, 학번), and has {first}"
    )


def _labels(line: int, titles: tuple[str, ...], places: list[int]) -> tuple[list[str], dict[str, int]]:
    """Return what is wrong with the names of the labels, and the labels."""
    problems: list[str] = []
    labels: dict[str, int] = {}
    for place in places:
        # Spaces and signs of a title become `_`: `Seat No.` is the label `Seat_No`.
        label = re.sub(r"[^\w-]+", "_", titles[place]).strip("_-")
        try:
            check_label_name(label)
        except ValueError as error:
            problems.append(f"line {line}: the column {titles[place][:80]!r} would be a label, whose name {error}")
            continue
        if label in labels:
            problems.append(
                f"line {line}: {titles[labels[label]]!r} and {titles[place]!r} would both be the label {label}"
            )
        labels[label] = place
    if len(labels) > MAX_LABELS:
        shown = ", ".join([*labels][:20])
        problems.append(f"line {line}: {len(labels)} columns are labels ({shown}); at most {MAX_LABELS}")
    return problems, labels
