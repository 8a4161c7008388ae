"""Cells of CSV tables that people open in a spreadsheet."""

from __future__ import annotations

from protocol.texts import escape

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def spreadsheet_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula (OWASP, CSV injection), as an id or name may begin like one.

    Control and invisible characters are escaped.
    """
    return escape(f"'{text}" if text.startswith(_FORMULA) else text)
