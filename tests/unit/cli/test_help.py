"""The help of every command, as a terminal of 80 columns shows it: two of them stay empty."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each group and command: `("plans",)`, `("plans", "ls")`."""
    yield path
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from _commands(command.get_command(None, name), (*path, name))


def _help(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="examwire", terminal_width=78)
    assert result.exit_code == 0, result.output
    return result.stdout


def _examples(text: str) -> list[str]:
    """Return the lines of the paragraphs that begin with "Example:" or "Examples:"."""
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.lstrip().startswith("Example")]
    lines = [line.strip() for paragraph in paragraphs for line in paragraph.splitlines()]
    return [line.removeprefix("Example: ") for line in lines if line != "Examples:"]


COMMANDS = list(_commands(get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_each_example_is_a_whole_line_with_flags_that_exist(words: tuple[str, ...]) -> None:
    text = _help(*words)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    cut_off = [line for line in text.partition("Commands:")[2].splitlines() if line.endswith("...")]
    assert cut_off == []
    for example in _examples(text):
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "examwire", f"an example is broken into two lines, or two stand in one: {example}"
        _help(*arguments)


def _run(*words: str, **variables: str) -> Any:
    return CliRunner().invoke(app, list(words), prog_name="examwire", env=variables, terminal_width=78)


def test_short_ways_to_ask_are_known() -> None:
    assert _run("--version").stdout == _run("version").stdout != ""
    assert _run("plans", "ls", "-h").stdout == _help("plans", "ls")
    assert _run("plans", "list", "-h").stdout.splitlines()[2:] == _help("plans", "ls").splitlines()[2:]
    assert _run("sessions", "list", "-h").exit_code == 0
    assert _run("config", "list", "-h").exit_code == 2


@pytest.mark.parametrize(
    ("words", "meant"), [(["plan", "ls"], "'plans'"), (["plans", "finsh"], "'finish'"), (["plans", "lst"], "'ls'")]
)
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(words: list[str], meant: str) -> None:
    result = _run(*words)
    assert result.exit_code == 2
    assert f"Did you mean {meant}?" in result.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [("examwire pl", ["plans"]), ("examwire sessions ", ["ls", "kick"]), ("examwire plans ls --wa", ["--watch"])],
)
def test_a_shell_completes_groups_commands_and_flags(line: str, expected: list[str]) -> None:
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_EXAMWIRE_COMPLETE": "complete_bash"}
    assert _run(**variables).stdout.split() == expected
