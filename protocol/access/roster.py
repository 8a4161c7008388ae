"""Read the roster of a plan: a CSV file of its examinees (`protocol.access.roster_file`).

The first line is a header (`protocol.access.roster_columns`). `examineeId` is required; `name` is what people read;
`startsAt`, `endsAt` and `extraMinutes` are times of an examinee that differ from the plan's. Every other column is a
label (`room`, `seat`). A file with any mistake is refused, and each mistake is reported with its line and column.
Invisible characters are removed from names and labels (`protocol.texts`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.access.roster_columns import (
    ENDS_AT,
    EXTRA_MINUTES,
    FIRST_NAME,
    ID,
    LAST_NAME,
    NAME,
    STARTS_AT,
    RosterColumns,
    read_header,
)
from protocol.access.roster_file import CURLY_QUOTES, SEPARATORS, InvalidRoster, decode, read_rows, separator_of
from protocol.errors import ExamwireError, InvalidField
from protocol.ids import check_id
from protocol.messages.plan_facts import check_times
from protocol.texts import clean_line, is_readable, unescape_cell
from protocol.times import YEAR_3000, format_time, parse_time

MAX_EXTRA_MINUTES = 7 * 24 * 60
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MINUTES = re.compile(r"[0-9]{1,5}([.][0-9]{1,3})?")
_LETTERS = "À-ɏА-яぁ-ゖァ-ヺ一-鿿가-힣"
_PLAIN = re.compile(f"[!-&(-~{_LETTERS}][ -~{_LETTERS}]{{0,99}}")
"""Text that `_read_text` would return as it is: it is long to look at every character of every cell."""
_ROW_INSIDE = re.compile(r"[\r\n]\s*[A-Za-z0-9_-]+[,;\t]")
_EAST_ASIAN = re.compile("[가-힣一-鿿]+")
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?E[+][0-9]+")


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """An examinee of the roster; `line` is the line of the file.

    `labels`: `None` when the file has no columns of labels; a label with an empty cell is absent. `starts_at` and
    `ends_at` (RFC 3339) and `extra_seconds` are `None` where the file says nothing.
    """

    examinee_id: str
    name: str | None
    line: int
    labels: Mapping[str, str] | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    extra_seconds: int | None = None

    @property
    def has_times(self) -> bool:
        """Whether the roster says anything about the times of this examinee."""
        return (self.starts_at, self.ends_at, self.extra_seconds) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Roster:
    """The examinees of a file in its order, and what its columns are."""

    columns: RosterColumns
    entries: list[RosterEntry]


def read_roster(content: bytes, moment: Callable[[str], float] = parse_time, *, encoding: str | None = None) -> Roster:
    """Return the roster in a file. Raises `InvalidRoster`.

    `moment` reads a cell of `startsAt` or `endsAt` and returns seconds since the epoch, or raises an error that says
    what is wrong: by default only RFC 3339 is read. `encoding`: of the file, by default UTF-8.

    >>> read_roster(b"examineeId,name,room\\nE001,Kim,A\\n").entries[0].labels
    {'room': 'A'}
    """
    text = decode(content, encoding)
    separator = separator_of(text)
    rows = read_rows(text, separator)
    line, header = next(rows, (1, [""]))
    reader = _RowReader(read_header(line, header), header, separator, moment)
    problems: list[str] = []
    entries: list[RosterEntry] = []
    first_lines: dict[str, int] = {}
    try:
        for line, row in rows:
            try:
                entry = reader.read(line, row)
                if (first_line := first_lines.setdefault(entry.examinee_id, line)) != line:
                    again = f"{entry.examinee_id} again, as on line {first_line}"
                    raise _BadRow(line, f", column {reader.title(ID)}: {again}")
            except _BadRow as bad:
                problems.append(str(bad))
            else:
                entries.append(entry)
    except InvalidRoster as unreadable:  # from this row on; the mistakes above it are said, too
        problems += unreadable.problems
    if not entries and not problems:
        problems.append("there is nobody in it: one line an examinee after the header")
    if problems:
        raise InvalidRoster(problems)
    return Roster(reader.columns, entries)


class _BadRow(Exception):
    """A row that is refused; the text names its line."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}{problem}")


class _RowReader:
    """Makes entries from the rows of a file with these columns."""

    def __init__(
        self, columns: RosterColumns, header: list[str], separator: str, moment: Callable[[str], float]
    ) -> None:
        self.columns = columns
        self._separator = separator
        self._moment = moment
        self._width = len(columns.titles)
        self._nameless = [place for place, title in enumerate(columns.titles) if not title]
        self._labels = list(columns.labels.items())
        self._times = any(meaning in columns.places for meaning in (STARTS_AT, ENDS_AT, EXTRA_MINUTES))
        # A space that follows the separator tells that a name was torn apart, unless the header is written so, too.
        after_name = columns.places.get(NAME, self._width) + 1
        torn = after_name < self._width and not header[after_name].startswith(" ")
        self._after_name = after_name if torn else None

    def title(self, meaning: str) -> str:
        """Return the title of a column, as the file has it."""
        return self.columns.titles[self.columns.places[meaning]]

    def read(self, line: int, row: list[str]) -> RosterEntry:
        if len(row) != self._width:
            row = self._padded(line, row)
        for place in self._nameless:
            if row[place].strip():
                problem = "would be lost: give the column a name in the header"
                raise self._bad(line, row, place, problem, "without a name")
        examinee_id = row[self.columns.places[ID]].strip()
        try:
            if not examinee_id.isalnum():
                examinee_id = unescape_cell(clean_line(examinee_id))
            check_id(ID, examinee_id)
        except InvalidField as error:
            rounded = ": a spreadsheet has rounded it" if _ROUNDED.fullmatch(examinee_id) else ""
            raise self._bad(line, row, self.columns.places[ID], error.detail + rounded) from None
        if self._after_name is not None:
            self._check_torn(line, row, self._after_name)
        labels = None
        if self._labels:
            labels = {label: text for label, place in self._labels if (text := self._text(line, row, place))}
        name = self._name(line, row)
        if not self._times:
            return RosterEntry(examinee_id, name, line, labels)
        starts_at, ends_at = self._time(line, row, STARTS_AT), self._time(line, row, ENDS_AT)
        try:
            check_times(starts_at, ends_at)
        except ValueError as error:
            raise self._bad(line, row, self.columns.places[ENDS_AT], str(error)) from None
        return RosterEntry(examinee_id, name, line, labels, starts_at, ends_at, self._minutes(line, row))

    def _bad(self, line: int, row: list[str], place: int, problem: str, title: str | None = None) -> _BadRow:
        cell = row[place].strip()
        if cell.startswith(CURLY_QUOTES):
            problem = f'begins with a curly quote, which is none in CSV: use " instead of {cell[0]}'
        elif _ROW_INSIDE.search(cell):
            problem = "holds further lines: the quote that opens it is not closed at the end of the cell"
        return _BadRow(line, f", column {title or self.columns.titles[place][:80]}: {cell[:80]!r} {problem}")

    def _padded(self, line: int, row: list[str]) -> list[str]:
        if len(row) < self._width:
            return row + [""] * (self._width - len(row))
        for cell in row:
            if cell.strip().startswith(CURLY_QUOTES):
                raise _BadRow(line, f': {cell.strip()[:80]!r} begins with a curly quote, which is none in CSV: use "')
        surplus = "" if row[-1].strip() else ", or remove what separates an empty cell at the end"
        raise _BadRow(
            line,
            f": {len(row)} cells, the header has {self._width}: put a text that holds "
            f"{SEPARATORS[self._separator]} in quotes{surplus}",
        )

    def _check_torn(self, line: int, row: list[str], place: int) -> None:
        name, following = row[place - 1], row[place]
        if following.startswith(" ") and following.strip() and name.strip() and not name.startswith(" "):
            whole = f'"{name}{self._separator}{following}"'
            raise _BadRow(line, f": a name that holds {SEPARATORS[self._separator]} stands in quotes: {whole[:80]}")

    def _name(self, line: int, row: list[str]) -> str | None:
        places = self.columns.places
        if NAME in places:
            return self._text(line, row, places[NAME]) or None
        first, last = (
            self._text(line, row, places[part]) if part in places else "" for part in (FIRST_NAME, LAST_NAME)
        )
        if _EAST_ASIAN.fullmatch(first + last):
            return last + first
        return f"{first} {last}".strip() or None

    def _text(self, line: int, row: list[str], place: int) -> str:
        cell = row[place].strip()
        if not cell or _PLAIN.fullmatch(cell):
            return cell
        if cell.startswith(CURLY_QUOTES) or _ROW_INSIDE.search(cell):
            raise self._bad(line, row, place, "")
        cell = unescape_cell(cell)
        cleaned = unicodedata.normalize("NFC", clean_line(cell)).strip()
        # A line break in a label becomes a space; a name has none.
        is_label = place in self.columns.labels.values()
        if _CONTROL.search(re.sub(r"\s", " ", cell) if is_label else cell) or len(cleaned) > 100:
            raise self._bad(line, row, place, "must be at most 100 characters without control characters")
        if not is_readable(cleaned):
            raise self._bad(line, row, place, "must have at least one visible character")
        return cleaned

    def _time(self, line: int, row: list[str], meaning: str) -> str | None:
        place = self.columns.places.get(meaning)
        cell = row[place].strip() if place is not None else ""
        if place is None or not cell:
            return None
        try:
            seconds = self._moment(cell)
        except (ValueError, OverflowError, ExamwireError):
            seconds = -1.0
        if not 0 <= seconds < YEAR_3000:
            raise self._bad(line, row, place, "is not a time such as 2026-12-01T09:00:00+09:00")
        return format_time(seconds)

    def _minutes(self, line: int, row: list[str]) -> int | None:
        place = self.columns.places.get(EXTRA_MINUTES)
        cell = row[place].strip() if place is not None else ""
        if place is None or not cell:
            return None
        if not _MINUTES.fullmatch(cell) or float(cell) > MAX_EXTRA_MINUTES:
            raise self._bad(line, row, place, f"must be a number of minutes from 0 to {MAX_EXTRA_MINUTES}")
        return round(float(cell) * 60)
