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
MAX_COMPLAINTS = 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class BadRoster(ExamwireError):
    """The file is no roster; `complaints` say why, each with its line."""

    def __init__(self, complaints: list[str]) -> None:
        shown = complaints[:MAX_COMPLAINTS]
        if len(complaints) > len(shown):
            shown.append(f"and {len(complaints) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class Entry:
    """One examinee of the roster; `line` of the file."""

    examinee_id: str
    name: str | None
    line: int


def read_roster(content: bytes) -> list[Entry]:
    """The entries in their order. Raises `BadRoster`."""
    if len(content) > MAX_BYTES:
        raise BadRoster([f"{len(content)} bytes; a roster has at most {MAX_BYTES}"])
    complaints: list[str] = []
    entries: list[Entry] = []
    lines = _rows(_decoded(content))
    has_name = _header(lines)
    seen: dict[str, int] = {}
    for line, row in lines:
        examinee_id = row[0].strip()
        try:
            check_id("examineeId", examinee_id)
        except InvalidField as error:
            complaints.append(f"line {line}, column examineeId: {examinee_id[:80]!r} {error.detail}")
            continue
        if examinee_id in seen:
            complaints.append(f"line {line}, column examineeId: {examinee_id} again, as on line {seen[examinee_id]}")
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
            complaints.append(f"line {line}, column name: {name[:80]!r} {wrong}")
            continue
        entries.append(Entry(examinee_id, cleaned or None, line))
    if not entries and not complaints:
        complaints.append("there is nobody in it: one line an examinee after the header")
    if complaints:
        raise BadRoster(complaints)
    return entries


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadRoster([f"line {line}: not UTF-8; save it as CSV UTF-8"]) from None


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadRoster([f"line {reader.line_num or line}: not CSV: {error}"]) from None
        if any(cell.strip() for cell in row):
            yield line, row


def _header(lines: Iterator[tuple[int, list[str]]]) -> bool:
    """Whether the second column holds names."""
    line, row = next(lines, (1, [""]))
    first = row[0].strip()
    if first != "examineeId":
        hint = "; the columns are separated by commas" if first.startswith("examineeId") else ""
        found = f"not {first[:80]!r}" if first else "which is missing"
        raise BadRoster([f"line {line}: the header begins with examineeId, {found}{hint}"])
    return len(row) > 1 and row[1].strip() == "name"
