"""The roster of a plan as a CSV file (RFC 4180, UTF-8 with or without a BOM): who may come.

The first line is a header: `examineeId`, then `name` if there are names, then whatever else the file has, which is
ignored. Everything that is wrong is said with its line and column; a file with one mistake is no roster. Of names, what
cannot be seen is taken out (`protocol.texts`).
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
    """The file is no roster; `problems` say why, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        shown = problems[:MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One examinee of the roster; `line` of the file."""

    examinee_id: str
    name: str | None
    line: int


def read_roster(content: bytes) -> list[RosterEntry]:
    """Return the entries in their order. Raises `InvalidRoster`."""
    if len(content) > MAX_BYTES:
        raise InvalidRoster([f"{len(content)} bytes; a roster has at most {MAX_BYTES}"])
    problems: list[str] = []
    entries: list[RosterEntry] = []
    lines = _read_rows(_decode(content))
    has_name = _read_header(lines)
    seen: dict[str, int] = {}
    for line, row in lines:
        examinee_id = row[0].strip()
        try:
            check_id("examineeId", examinee_id)
        except InvalidField as error:
            problems.append(f"line {line}, column examineeId: {examinee_id[:80]!r} {error.detail}")
            continue
        if examinee_id in seen:
            problems.append(f"line {line}, column examineeId: {examinee_id} again, as on line {seen[examinee_id]}")
            continue
        seen[examinee_id] = line
        name = row[1].strip() if has_name and len(row) > 1 else ""
        cleaned = clean_line(name).strip()
        wrong = None
        if _CONTROL.search(name) or len(cleaned) > 100:
            wrong = "must be at most 100 characters without control characters"
        elif name and not is_readable(cleaned):
            wrong = "must have something that can be read"
        if wrong is not None:
            problems.append(f"line {line}, column name: {name[:80]!r} {wrong}")
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


def _read_header(lines: Iterator[tuple[int, list[str]]]) -> bool:
    """Whether the second column holds names."""
    line, row = next(lines, (1, [""]))
    first = row[0].strip()
    if first != "examineeId":
        hint = "; the columns are separated by commas" if first.startswith("examineeId") else ""
        found = f"not {first[:80]!r}" if first else "which is missing"
        raise InvalidRoster([f"line {line}: the header begins with examineeId, {found}{hint}"])
    return len(row) > 1 and row[1].strip() == "name"
