"""People's words: what of them is taken in, and how what is left is shown on a terminal.

Some characters are no words but commands: control characters move a terminal's cursor, bidirectional overrides and
isolates turn the text around that follows, a line break in a name forges a line, a lone surrogate cannot be sent at
all. Others cannot be seen. They are taken out at each door (`clean_line`, `clean_lines`), and a text of which nothing
can be read is refused (`is_readable`). What words need stays: joiners (emoji, Persian, Indic scripts), the marks LRM,
RLM and ALM, line breaks and tabs in messages of several lines.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROLS = r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_TURNING = r"\u202a-\u202e\u2066-\u2069"
_UNSEEN = r"\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0001"
_NO_CHARACTERS = r"\ufdd0-\ufdef" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
_SURROGATES = r"\ud800-\udfff"
_OTHER_BREAKS = r"\r\x0b\x0c\x85\u2028\u2029"

_TAKEN_OUT = re.compile(f"[{_CONTROLS}{_TURNING}{_UNSEEN}{_NO_CHARACTERS}]")
_SURROGATE = re.compile(f"[{_SURROGATES}]")
_BREAK = re.compile(f"\r\n|[{_OTHER_BREAKS}]")
_ESCAPED = re.compile(f"[{_CONTROLS}{_TURNING}{_UNSEEN}{_NO_CHARACTERS}{_SURROGATES}{_OTHER_BREAKS}\n\t]")
_ESCAPED_IN_LINES = re.compile(f"[{_CONTROLS}{_TURNING}{_UNSEEN}{_NO_CHARACTERS}{_SURROGATES}{_OTHER_BREAKS}]")
_SHORT = {"\n": "\\n", "\t": "\\t"}
_BLANKS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and symbols that show nothing."""


def clean_lines(text: str) -> str:
    """Words of one or more lines, as they are taken in: every line break is `\\n`, tabs stay."""
    return _TAKEN_OUT.sub("", _SURROGATE.sub("\ufffd", _BREAK.sub("\n", text)))


def clean_line(text: str) -> str:
    """Words of one line, as they are taken in: line breaks and tabs become spaces."""
    return clean_lines(text).replace("\n", " ").replace("\t", " ")


def is_readable(text: str) -> bool:
    """Whether there is anything to see: a letter, digit, sign or symbol, also of a script that is newer than we are."""
    return any(_shows(one) for one in text)


def readable_lines(text: str) -> str:
    """`clean_lines` for what must say something. Raises `ValueError`."""
    return _something(clean_lines(text))


def readable_line(text: str) -> str:
    """`clean_line` for what must say something. Raises `ValueError`."""
    return _something(clean_line(text))


def has_lone_surrogate(text: str) -> bool:
    """Whether there is half a character in it: JSON can say it, and nothing can send it."""
    return _SURROGATE.search(text) is not None


def plain_token(text: str) -> str:
    """What programs make and compare, such as an actionId: unchanged, or `ValueError` for what would be taken out."""
    if clean_line(text) != text:
        raise ValueError("must not have control characters, or others that cannot be seen")
    return text


def escaped(text: str, *, lines: bool = False) -> str:
    """What others wrote, for a terminal, a log or a table: what commands or cannot be seen as an escape (`\\x1b`).

    `lines`: line breaks stay, for what we have put together from several lines ourselves.
    """
    return (_ESCAPED_IN_LINES if lines else _ESCAPED).sub(_escape, text)


def escaped_in_json(text: str) -> str:
    """JSON whose strings hold such characters, with the escapes of JSON: the same values, harmless on a terminal."""
    return _ESCAPED_IN_LINES.sub(lambda found: _utf16_escapes(found[0]), text)


def _escape(found: re.Match[str]) -> str:
    one = found[0]
    code = ord(one)
    short = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(one, short)


def _utf16_escapes(one: str) -> str:
    units = one.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _something(text: str) -> str:
    if not is_readable(text):
        raise ValueError("must have something that can be read")
    return text


def _shows(one: str) -> bool:
    category = unicodedata.category(one)
    if category == "Cn":
        return not 0xE0000 <= ord(one) <= 0xE0FFF
    return (category[0] in "LNPS" or category == "Co") and one not in _BLANKS
