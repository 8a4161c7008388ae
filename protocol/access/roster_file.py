"""Read the rows of a CSV file that a person has written: its encoding, its separator, and where each row begins.

RFC 4180; the columns are separated by commas, semicolons or tabs, whichever the header has most of.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator

from protocol.errors import ExamwireError

MAX_BYTES = 16 * 1024 * 1024
MAX_PROBLEMS = 20
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
CURLY_QUOTES = ("“", "”", "„", "‟", "＂")
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""The byte order marks with which an encoding begins; the longest first."""
_OTHER_FORMATS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How Excel's own files begin, the new and the old ones."""
_SUPERSETS = {"euc-kr": "cp949", "euc_kr": "cp949", "ks_c_5601-1987": "cp949"}
"""Excel and browsers write CP949 under these names, too."""


class InvalidRoster(ExamwireError):
    """The file is not a valid roster; `problems` lists the mistakes, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        shown = problems[:MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.problems = problems


def decode(content: bytes, encoding: str | None = None) -> str:
    """Return the text of a file without its byte order mark; UTF-8 unless an encoding is given.

    Raises `InvalidRoster`, also for UTF-8 that is called something else: it would be read as other characters.
    """
    if len(content) > MAX_BYTES:
        raise InvalidRoster([f"{len(content)} bytes; a roster has at most {MAX_BYTES}"])
    if content.startswith(_OTHER_FORMATS):
        raise InvalidRoster(["this is a workbook of a spreadsheet: save it as CSV UTF-8"])
    name = (encoding or "utf-8").lower()
    try:
        codec = codecs.lookup(_SUPERSETS.get(name, name)).name
        if codec not in ("utf-8", "utf-8-sig") and _is_utf8(content):
            raise InvalidRoster([f"the file is UTF-8, not {name.upper()}: leave out the encoding"])
        text = content.decode(codec)
    except LookupError:
        raise InvalidRoster([f"the encoding {name!r} is unknown; usual are utf-8, cp949 and utf-16"]) from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content.count(b"\n", 0, start) + 1
        hint = _encoding_hint(content) if encoding is None else ""
        raise InvalidRoster([f"line {line}: not {name.upper()}; save it as CSV UTF-8{hint}"]) from None
    if encoding is None and _is_wide(content):
        raise InvalidRoster([f"line 1: not UTF-8; save it as CSV UTF-8{_encoding_hint(content)}"])
    return text.removeprefix("\ufeff")


def _is_utf8(content: bytes) -> bool:
    """Return whether a file can only be UTF-8: it has other characters than those of ASCII, and no mistake."""
    try:
        return not content.decode().isascii()
    except UnicodeDecodeError:
        return False


def _is_wide(content: bytes) -> bool:
    """Return whether a file looks like UTF-16: every second byte of an ASCII character is 0."""
    return content[:1000].count(0) > len(content[:1000]) / 8


def _encoding_hint(content: bytes) -> str:
    """Return the option that reads the file."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding is None and _is_wide(content):
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    if encoding is None and _is_korean(content):
        encoding = "cp949"
    return f", or give --encoding {encoding}" if encoding is not None else ", or give its encoding with --encoding"


def _is_korean(content: bytes) -> bool:
    """Return whether a file read as CP949 is Korean: other encodings are rare syllables, hanja and signs then."""
    try:
        text = content.decode("cp949")
    except UnicodeDecodeError:
        return False
    usual_syllables = re.findall(rb"[\xb0-\xc8][\xa1-\xfe]", content)
    return len(usual_syllables) > len(re.findall(r"[^\x00-\x7f]", text)) * 0.8


def separator_of(text: str) -> str:
    """Return what separates the columns of the header."""
    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def read_rows(text: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the line on which it begins. Raises `InvalidRoster`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    line = 1
    try:
        for row in reader:
            if row and (row[0].strip() or any(cell.strip() for cell in row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error:
        raise InvalidRoster([_why_unreadable(text, separator, line)]) from None


def _why_unreadable(text: str, separator: str, first_line: int) -> str:
    """Say what is wrong in the row that begins on `first_line`: its length, or a quote and where that opens."""
    lines = io.StringIO(text, newline="")
    for _ in range(first_line - 1):
        next(lines)
    row = lines.read()
    end = rf"(?:{re.escape(separator)}|(?=[\r\n]|\Z))"
    cell = re.compile(rf'"[^"]*(?:""[^"]*)*"{end}|[^"{separator}\r\n][^{separator}\r\n]*{end}|{re.escape(separator)}')
    place = 0
    while (match := cell.match(row, place)) is not None:
        place = match.end()
    if row[place : place + 1] != '"':
        return f"line {first_line}: a cell has more than {csv.field_size_limit()} characters"
    line = first_line + len(re.findall(r"\r\n|\r|\n", row[:place]))
    shown = re.split(r"[\r\n]", row[place : place + 40])[0]
    return (
        f"line {line}: the quote that opens {shown!r} is not closed at the end of the cell; "
        'a quote inside a cell is written twice: ""'
    )
