"""A command whose output cannot be written says so in a line, or ends silently when nobody reads it any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = "cannot be written: No space left on device"
ROOT = Path(__file__).parents[4]


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with `examwire` as it is in this tree."""
    line = f'examwire() {{ "{sys.executable}" -m cli.main "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", ["spec asyncapi", "spec --help"])
def test_a_full_disk_is_said_in_one_line(command: str) -> None:
    result = shell(f"examwire {command} > /dev/full")
    assert result.returncode == 1
    assert result.stderr == f"examwire: the output {FULL}\n"


@pytest.mark.parametrize("command", ["spec asyncapi", "spec --help"])
def test_a_reader_that_has_seen_enough_is_no_failure(command: str) -> None:
    result = shell(f"examwire {command} | true; echo ${{PIPESTATUS[0]}}")
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_closed_streams_are_like_dev_null_and_a_full_stderr_leaves_the_exit_code() -> None:
    result = shell("examwire version <&- >&- 2>&-; echo $?; examwire nonsense 2> /dev/full; echo $?")
    assert (result.stdout, result.stderr) == ("0\n2\n", "")
    ask = "from cli.shared.streams import *; import typer; prepare_streams(); typer.confirm('Sure?')"
    asked = shell(f'"{sys.executable}" -c "{ask}" <&-')
    assert asked.stderr.splitlines()[-1].endswith("Abort")


def test_an_argument_of_another_encoding_is_refused_and_not_stored_with_other_characters() -> None:
    result = shell(r"examwire token proctor P001 kim --name $'\xb1\xe8'", PYTHONUTF8="1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == r"examwire: '\udcb1\udce8' is not utf-8: set the locale of this terminal (LC_ALL)" + "\n"


PRINT = """
import typer
from cli.shared.output import Format, print_json, say, show, table
from cli.shared.streams import prepare_streams
prepare_streams()
name = "\\uae40 \\U0001f600"
say(name)
show(None, lambda: table(["name"], [[name]]), Format.TABLE)
print_json({"name": name}, lines=True)
typer.echo(b"as bytes")
"""


@pytest.mark.parametrize(("encoding", "korean"), [("ascii", b"\\uae40"), ("cp949", "김".encode("cp949"))])
def test_what_an_encoding_does_not_have_is_escaped(encoding: str, korean: bytes) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    output = subprocess.run([sys.executable, "-c", PRINT], cwd=ROOT, env=environment, capture_output=True, check=True)
    lines = output.stdout.splitlines()
    name = korean + b" \\U0001f600"
    assert lines[0] == name
    assert lines[2].strip(b"-") == b""
    assert lines[3].strip() == name
    assert lines[4] == b'{"name": "\\uae40 \\ud83d\\ude00"}'  # JSON has escapes of its own
