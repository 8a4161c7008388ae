"""Read the roster of a plan: a CSV file of its examinees (RFC 4180, UTF-8 with or without a BOM).

The first line is a header: `examineeId`, then `name` when the file has names; other columns are ignored. A file with
any mistake is refused, and each mistake is reported with its line and column. Invisible characters are removed from
names (`protocol.texts`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import ExamwireError, InvalidField
from protocol.ids import check_id
from protocol.texts import clean_line, is_readable

MAX_BYTES = 16 * 1024 * 1024
MAX_PROBLEMS = 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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
    """An examinee of the roster; `line` is the line of the file."""

    examinee_id: str
    name: str | None
    line: int


def read_roster(content: bytes) -> list[RosterEntry]:
    """Return the entries of a roster in the order of the file. Raises `InvalidRoster`.

    >>> read_roster(b"examineeId,name\\nE001,Kim\\n")
    [RosterEntry(examinee_id='E001', name='Kim', line=2)]
    """
    if len(content) > MAX_BYTES:
        raise InvalidRoster([f"{len(content)} bytes; a roster has at most {MAX_BYTES}"])
    problems: list[str] = []
    entries: list[RosterEntry] = []
    rows = _read_rows(_decode(content))
    has_name = _read_header(rows)
    first_lines: dict[str, int] = {}
    for line, row in rows:
        examinee_id = row[0].strip()
        try:
            check_id("examineeId", examinee_id)
        except InvalidField as error:
            problems.append(f"line {line}, column examineeId: {examinee_id[:80]!r} {error.detail}")
            continue
        if examinee_id in first_lines:
            first_line = first_lines[examinee_id]
            problems.append(f"line {line}, column examineeId: {examinee_id} again, as on line {first_line}")
            continue
        first_lines[examinee_id] = line
        name = row[1].strip() if has_name and len(row) > 1 else ""
        cleaned = clean_line(name).strip()
        problem = None
        if _CONTROL.search(name) or len(cleaned) > 100:
            problem = "must be at most 100 characters without control characters"
        elif name and not is_readable(cleaned):
            problem = "must have at least one visible character"
        if problem is not None:
            problems.append(f"line {line}, column name: {name[:80]!r} {problem}")
            continue
        entries.append(RosterEntry(examinee_id, cleaned or None, line))
    if not entries and not problems:
        problems.append("there is nobody in it: one line an examinee after the header")
    if problems:
        raise InvalidRoster(problems)
    return entries


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


def _read_header(rows: Iterator[tuple[int, list[str]]]) -> bool:
    """Read the header; return whether the second column holds names. Raises `InvalidRoster`."""
    line, row = next(rows, (1, [""]))
    first = row[0].strip()
    if first != "examineeId":
        hint = "; the columns are separated by commas" if first.startswith("examineeId") else ""
        actual = f"not {first[:80]!r}" if first else "which is missing"
        raise InvalidRoster([f"line {line}: the header begins with examineeId, {actual}{hint}"])
    return len(row) > 1 and row[1].strip() == "name"
