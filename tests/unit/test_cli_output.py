"""What the CLI draws of things that others wrote."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.output import printable, table

COMMANDS_TO_A_TERMINAL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r\x00\x7f"


def test_a_table_lets_nobody_command_the_terminal() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(table(["what"], [[f"notice by kim: {COMMANDS_TO_A_TERMINAL}"]]))
    written = drawn.getvalue()
    assert not [one for one in COMMANDS_TO_A_TERMINAL if one in written and one.isprintable() is False]
    assert r"\x1b[2J\x1b]0;owned\x07 \x9b31m \x0d\x00\x7f" in written


@pytest.mark.parametrize("text", ["자리를 지켜 주십시오.\n두 번째 줄", "a\tb", "👩‍🚀 [bold]"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
