r"""Text that people and their programs write: clean it when it arrives, escape it when it is shown.

Some characters are commands: control characters move a terminal's cursor, bidirectional overrides and isolates turn
the text after them around, a line break in a name forges a line, a lone surrogate cannot be encoded. Other characters
cannot be seen. `clean_line` and `clean_lines` remove them wherever text arrives; `required_lines` also refuses text
without a visible character. Characters that words need stay: joiners (emoji, Persian, Indic scripts),
the marks LRM, RLM and ALM, and line breaks and tabs in messages of several lines.

Example::

    clean_line("Kim\x1b[2J\nLee")  # "Kim[2J Lee"
    escape("Kim\x1b[2J")  # the same, with a backslash that a terminal prints
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

_CONTROLS = r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_BIDI = r"\u202a-\u202e\u2066-\u2069"
_INVISIBLE = r"\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0001"
_NONCHARACTERS = r"\ufdd0-\ufdef" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
_SURROGATES = r"\ud800-\udfff"
_OTHER_BREAKS = r"\r\x0b\x0c\x85\u2028\u2029"

_REMOVED = re.compile(f"[{_CONTROLS}{_BIDI}{_INVISIBLE}{_NONCHARACTERS}]")
_SURROGATE = re.compile(f"[{_SURROGATES}]")
_BREAK = re.compile(f"\r\n|[{_OTHER_BREAKS}]")
_ESCAPED = re.compile(f"[{_CONTROLS}{_BIDI}{_INVISIBLE}{_NONCHARACTERS}{_SURROGATES}{_OTHER_BREAKS}\n\t]")
_ESCAPED_IN_LINES = re.compile(f"[{_CONTROLS}{_BIDI}{_INVISIBLE}{_NONCHARACTERS}{_SURROGATES}{_OTHER_BREAKS}]")
_SHORT = {"\n": "\\n", "\t": "\\t"}
_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠]")
_BLANKS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and symbols that are drawn as nothing."""


def clean_lines(text: str) -> str:
    """Remove commands and invisible characters from text of several lines. Every line break becomes `\\n`."""
    return _REMOVED.sub("", _SURROGATE.sub("\ufffd", _BREAK.sub("\n", text)))


def clean_line(text: str) -> str:
    """Remove commands and invisible characters from text of one line. Line breaks and tabs become spaces."""
    return clean_lines(text).replace("\n", " ").replace("\t", " ")


def is_readable(text: str) -> bool:
    """Return whether text has a visible character: a letter, digit, sign or symbol, also of a new script."""
    return any(_is_visible(character) for character in text)


def required_lines(text: str) -> str:
    """Return `clean_lines(text)`. Raises `ValueError` when nothing in it can be read."""
    cleaned = clean_lines(text)
    if not is_readable(cleaned):
        raise ValueError("must have at least one visible character")
    return cleaned


def has_lone_surrogate(text: str) -> bool:
    """Return whether text holds half of a surrogate pair: JSON can express that, but it cannot be encoded as UTF-8."""
    return _SURROGATE.search(text) is not None


def check_token(text: str) -> str:
    """Return `text`, a token that programs compare (such as an actionId), unchanged.

    Raises `ValueError` when it holds a character that `clean_line` would remove or replace.
    """
    if clean_line(text) != text:
        raise ValueError("must not have control characters or invisible characters")
    return text


def escape(text: str, *, lines: bool = False) -> str:
    """Escape commands and invisible characters (`\\x1b`) of text for a terminal, a log or a table.

    `lines`: line breaks and tabs stay, for text that examwire itself put together from several lines.
    """
    return (_ESCAPED_IN_LINES if lines else _ESCAPED).sub(_escape_character, text)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file for people: RFC 4180, UTF-8 with the BOM without which Excel does not take it for UTF-8.

    Texts are escaped by `escape_cell`, also those of the header; `None` is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    for row in (header, *rows):
        writer.writerow([escape_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode("utf-8-sig")


def escape_cell(text: str) -> str:
    """Escape text for a cell of a CSV table, so that no spreadsheet takes it for a formula (OWASP, CSV injection).

    An id or a name may begin like a formula, also with a full-width sign; an apostrophe is put before it, and
    before an apostrophe that would look like that one.
    """
    escaped = escape(text)
    return f"'{escaped}" if _FORMULA.match(escaped) else escaped


def unescape_cell(text: str) -> str:
    """Return the text of a cell without the apostrophe that `escape_cell` has put before it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def escape_json(text: str) -> str:
    """Escape commands and invisible characters in JSON text as JSON does (`\\u001b`): its values stay the same."""
    return _ESCAPED_IN_LINES.sub(lambda match: _utf16_escapes(match[0]), text)


def _escape_character(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _utf16_escapes(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cn":  # not assigned in this Python's Unicode; tags and selectors are invisible
        return not 0xE0000 <= ord(character) <= 0xE0FFF
    return (category[0] in "LNPS" or category == "Co") and character not in _BLANKS


def person(by: str, name: str | None) -> str:
    """Return how people read who has decided something: `Kim Ha-neul (kim)`, or the id alone."""
    return f"{name} ({by})" if name else by
