"""Read the roster of a plan: a CSV file of its examinees (RFC 4180, UTF-8 with or without a BOM).

The first line is a header that begins with `examineeId`. `name` is what people read; `startsAt`, `endsAt` and
`extraMinutes` are times of an examinee that differ from the plan's. Every other column is a label (`room`, `seat`). A
file with any mistake is refused, and each mistake is reported with its line and column. Invisible characters are
removed from names and labels (`protocol.texts`).
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from protocol.errors import ExamwireError, InvalidField
from protocol.ids import check_id
from protocol.messages.base import MAX_LABELS, check_label_name
from protocol.messages.plan_facts import check_times
from protocol.texts import clean_line, is_readable, unescape_cell
from protocol.times import YEAR_3000, format_time, parse_time

MAX_BYTES = 16 * 1024 * 1024
MAX_PROBLEMS = 20
MAX_EXTRA_MINUTES = 7 * 24 * 60
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MINUTES = re.compile(r"[0-9]{1,5}([.][0-9]{1,3})?")

ID, NAME, STARTS_AT, ENDS_AT, EXTRA_MINUTES = "examineeId", "name", "startsAt", "endsAt", "extraMinutes"
COLUMNS = (ID, NAME, STARTS_AT, ENDS_AT, EXTRA_MINUTES)
"""The columns with a meaning of their own; every other one is a label."""


class InvalidRoster(ExamwireError):
    """The file is not a valid roster; `problems` lists the mistakes, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        shown = problems[:MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.problems = problems


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


def read_roster(content: bytes, moment: Callable[[str], float] = parse_time) -> list[RosterEntry]:
    """Return the entries of a roster in the order of the file. Raises `InvalidRoster`.

    `moment` reads a cell of `startsAt` or `endsAt` and returns seconds since the epoch, or raises an error that says
    what is wrong: by default only RFC 3339 is read.

    >>> read_roster(b"examineeId,name,room\\nE001,Kim,A\\n")[0].labels
    {'room': 'A'}
    """
    if len(content) > MAX_BYTES:
        raise InvalidRoster([f"{len(content)} bytes; a roster has at most {MAX_BYTES}"])
    problems: list[str] = []
    entries: list[RosterEntry] = []
    rows = _read_rows(_decode(content))
    columns = _read_header(rows)
    first_lines: dict[str, int] = {}
    for line, row in rows:
        try:
            entry = _read_entry(columns, line, row, moment)
        except _BadCell as bad:
            problems.append(str(bad))
            continue
        if entry.examinee_id in first_lines:
            first_line = first_lines[entry.examinee_id]
            problems.append(f"line {line}, column {ID}: {entry.examinee_id} again, as on line {first_line}")
            continue
        first_lines[entry.examinee_id] = line
        entries.append(entry)
    if not entries and not problems:
        problems.append("there is nobody in it: one line an examinee after the header")
    if problems:
        raise InvalidRoster(problems)
    return entries


class _BadCell(Exception):
    """A cell that is refused; the text names its line and column."""

    def __init__(self, line: int, column: str, cell: str, problem: str) -> None:
        super().__init__(f"line {line}, column {column}: {cell[:80]!r} {problem}")


def _read_entry(columns: list[str], line: int, row: list[str], moment: Callable[[str], float]) -> RosterEntry:
    extra = [cell for cell in row[len(columns) :] if cell.strip()]
    if extra:
        raise _BadCell(line, str(len(columns) + 1), extra[0], "has no column in the header")
    cells = {column: unescape_cell(cell.strip()) for column, cell in zip(columns, row, strict=False)}
    examinee_id = cells.get(ID, "")
    try:
        check_id(ID, examinee_id)
    except InvalidField as error:
        raise _BadCell(line, ID, examinee_id, error.detail) from None
    nameless = [cell.strip() for column, cell in zip(columns, row, strict=False) if not column and cell.strip()]
    if nameless:
        raise _BadCell(line, "without a name", nameless[0], "would be lost: give the column a name in the header")
    texts = {
        column: _read_text(line, column, cells.get(column, ""))
        for column in columns[1:]
        if column and column not in COLUMNS[2:]
    }
    labels = {column: text for column, text in texts.items() if column != NAME and text}
    starts_at = _read_moment(line, STARTS_AT, cells.get(STARTS_AT, ""), moment)
    ends_at = _read_moment(line, ENDS_AT, cells.get(ENDS_AT, ""), moment)
    try:
        check_times(starts_at, ends_at)
    except ValueError as error:
        raise _BadCell(line, ENDS_AT, cells[ENDS_AT], str(error)) from None
    return RosterEntry(
        examinee_id,
        texts.get(NAME) or None,
        line,
        labels if any(column not in COLUMNS for column in columns if column) else None,
        starts_at,
        ends_at,
        _read_minutes(line, cells.get(EXTRA_MINUTES, "")),
    )


def _read_text(line: int, column: str, cell: str) -> str:
    cleaned = unicodedata.normalize("NFC", clean_line(cell)).strip()
    # A line break in a label becomes a space; a name has none.
    if _CONTROL.search(cell if column == NAME else re.sub(r"\s", " ", cell)) or len(cleaned) > 100:
        raise _BadCell(line, column, cell, "must be at most 100 characters without control characters")
    if cell and not is_readable(cleaned):
        raise _BadCell(line, column, cell, "must have at least one visible character")
    return cleaned


def _read_moment(line: int, column: str, cell: str, moment: Callable[[str], float]) -> str | None:
    if not cell:
        return None
    try:
        seconds = moment(cell)
    except (ValueError, OverflowError, ExamwireError):
        seconds = -1.0
    if not 0 <= seconds < YEAR_3000:
        raise _BadCell(line, column, cell, "is not a time such as 2026-12-01T09:00:00+09:00")
    return format_time(seconds)


def _read_minutes(line: int, cell: str) -> int | None:
    if not cell:
        return None
    if not _MINUTES.fullmatch(cell) or float(cell) > MAX_EXTRA_MINUTES:
        raise _BadCell(line, EXTRA_MINUTES, cell, f"must be a number of minutes from 0 to {MAX_EXTRA_MINUTES}")
    return round(float(cell) * 60)


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidRoster([f"line {line}: not UTF-8; save it as CSV UTF-8"]) from None


def _read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidRoster([f"line {reader.line_num or line}: not CSV: {error}"]) from None
        if any(cell.strip() for cell in row):
            yield line, row


def _read_header(rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """Read the header and return the names of the columns, `""` for one without a name. Raises `InvalidRoster`."""
    line, row = next(rows, (1, [""]))
    columns = [unicodedata.normalize("NFC", cell.strip()) for cell in row]
    first = columns[0]
    if first != ID:
        hint = "; the columns are separated by commas" if first.startswith(ID) else ""
        actual = f"not {first[:80]!r}" if first else "which is missing"
        raise InvalidRoster([f"line {line}: the header begins with {ID}, {actual}{hint}"])
    problems = []
    labels = []
    meant = {column.lower(): column for column in COLUMNS}
    for place, column in enumerate(columns):
        if not column:
            continue
        if column in columns[:place]:
            problems.append(f"line {line}: two columns are named {column[:80]!r}")
        elif column not in COLUMNS:
            labels.append(column)
            if (known := meant.get(column.lower())) is not None:
                problems.append(f"line {line}: the column {column!r} is written {known}")
                continue
            try:
                check_label_name(column)
            except ValueError as error:
                problems.append(f"line {line}: the column {column[:80]!r} would be a label, whose name {error}")
    if len(labels) > MAX_LABELS:
        problems.append(f"line {line}: {len(labels)} columns are labels ({', '.join(labels)}); at most {MAX_LABELS}")
    if problems:
        raise InvalidRoster(problems)
    return columns
