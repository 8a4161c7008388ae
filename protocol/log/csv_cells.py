"""Cells of tables for spreadsheets."""

from __future__ import annotations

from protocol.texts import escape

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def spreadsheet_text(text: str) -> str:
    """Text that no spreadsheet computes, though an id or a name may begin as a formula does (OWASP, CSV injection).

    What would command a terminal, or cannot be seen, is written as an escape.
    """
    return escape(f"'{text}" if text.startswith(_FORMULA) else text)
