"""People's words: taken in without what commands or hides, shown with escapes for what is left."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.texts import (
    check_token,
    clean_line,
    clean_lines,
    csv_table,
    escape,
    escape_json,
    has_lone_surrogate,
    is_readable,
    required_lines,
    unescape_cell,
)

ANYTHING = st.text(st.characters(blacklist_categories=()))  # lone surrogates as well
NASTY = st.text(
    st.sampled_from("a한\x00\x07\x1b\x7f\x85\x9b\n\r\t\v\f\u2028\u2029\u202e\u2066\u2069\u200b\u200d\ufeff\ud800\ue000")
)
TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LEGITIMATE = [
    "자리를 지켜 주십시오.",
    "두 줄로\n쓴 글\n\n- 하나\t둘",
    "👩‍👩‍👧 👨🏽‍🚀 🏳️‍🌈 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️",
    "مرحبا بكم\u200f! (\u200eA1\u200e)",
    "می‌خواهم",
    "हिन्दी क्‍ष",
    "Zoë Ångström",
    "Zoe\u0308",
    "ᄒ\u1161ᆫ",
    "深い 𠮷野家",
    "—  «»  \u00a0 · ½",
]


def harmful(text: str) -> list[str]:
    return [
        letter
        for letter in text
        if (unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter not in "\n\t") or letter in TURNING
    ]


@pytest.mark.parametrize("text", LEGITIMATE)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert clean_lines(text) == required_lines(text) == text
    assert clean_line(text) == text.replace("\n", " ").replace("\t", " ")
    assert escape(text, lines=True) == text
    assert escape_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


@given(ANYTHING | NASTY)
def test_cleaned_text_has_no_commands_and_cleaning_again_changes_nothing(text: str) -> None:
    for clean in (clean_line, clean_lines):
        cleaned = clean(text)
        assert harmful(cleaned) == []
        assert clean(cleaned) == cleaned
        cleaned.encode()
    assert "\n" not in clean_line(text)
    assert "\t" not in clean_line(text)


@given(ANYTHING | NASTY)
def test_escaped_text_has_no_commands_and_no_line_breaks(text: str) -> None:
    escaped = escape(text)
    assert harmful(escaped) == []
    assert not {"\n", "\t"} & set(escaped)
    assert len(escaped.splitlines()) <= 1
    escaped.encode()
    several = escape(text, lines=True)
    assert harmful(several) == []
    assert several.count("\n") == text.count("\n")
    if not harmful(text) and escape(text) == text:
        assert several == text


@given(st.recursive(st.text() | NASTY | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(NASTY, inner)))
def test_escaped_json_has_the_same_value(value: object) -> None:
    for indent in (None, 2):
        written = escape_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert json.loads(written) == value
        assert harmful(written) == []
        written.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\t ",
        "\u200b",
        "\u200b\u200d\u2060\ufeff",
        "\u202e\u202c",
        "\x00\x07",
        "\u3164\u115f",
        "\u00ad",
        "\u0301",
    ],
)
def test_text_without_a_visible_character_is_refused(text: str) -> None:
    assert not is_readable(clean_lines(text))
    with pytest.raises(ValueError, match="visible character"):
        required_lines(text)


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("a\r\nb\rc\u2028d\x85e", "a b c d e", "a\nb\nc\nd\ne"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m", "[31mred[0m"),
        ("file\u202egpj.exe", "filegpj.exe", "filegpj.exe"),
        ("\u2068김\u2069", "김", "김"),
        ("half \ud83d", "half \ufffd", "half \ufffd"),
        ("a\x00b\ufeffc\ufffe", "abc", "abc"),
        ("Kim\u00adMin", "KimMin", "KimMin"),
    ],
)
def test_invisible_characters_are_removed(text: str, line: str, lines: str) -> None:
    assert (clean_line(text), clean_lines(text)) == (line, lines)


def test_a_token_is_returned_unchanged_or_refused() -> None:
    assert check_token("a1b2-한 글") == "a1b2-한 글"
    for text in ("a\nb", "a\x00", "\u202ea", "\u200b", "\ud800"):
        with pytest.raises(ValueError, match="must not have"):
            check_token(text)


def test_a_lone_surrogate_is_detected() -> None:
    assert has_lone_surrogate("a\ud800")
    assert not has_lone_surrogate("a\U0001f600")


# -- tables for spreadsheets ------------------------------------------------------------------------------

CSV_CELLS = json.loads((Path(__file__).parents[2] / "support" / "csv_cells.json").read_text(encoding="utf-8"))
"""Pairs of a text and its cell in a CSV file. The pages write their tables by the same rules."""


def test_a_table_is_for_spreadsheets_and_none_of_its_cells_is_a_formula() -> None:
    for text, cell in CSV_CELLS:
        assert csv_table((text, "a"), [(1.5, None), (-2, text)]).decode() == (
            f"\ufeff{cell},a\r\n1.5,\r\n-2,{cell}\r\n"
        )


@given(ANYTHING | NASTY | st.text(st.sampled_from(" '=+-@＝\ta")))
def test_the_text_of_a_cell_can_be_read_again(text: str) -> None:
    ((cell, _),) = csv.reader(io.StringIO(csv_table((text, ""), ()).decode("utf-8-sig"), newline=""))
    assert not cell.strip().startswith(("=", "+", "-", "@", "＝"))
    assert unescape_cell(cell) == escape(text)
