"""What the CLI draws of things that others wrote."""

from __future__ import annotations

import ast
import io
import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.shared.fitted_table import CroppedView, TableConsole
from cli.shared.output import Column, paragraph, print_json, printable, say, table, text

COMMANDS_TO_A_TERMINAL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r\x00\x7f"


def test_a_table_lets_nobody_command_the_terminal() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(table(["what"], [[f"notice by kim: {COMMANDS_TO_A_TERMINAL}"]]))
    written = drawn.getvalue()
    assert not [letter for letter in COMMANDS_TO_A_TERMINAL if letter in written and letter.isprintable() is False]
    assert r"\x1b[2J\x1b]0;owned\x07 \x9b31m \x0d\x00\x7f" in written


@pytest.mark.parametrize("written", ["자리를 지켜 주십시오.\n두 번째 줄", "a\tb", "👩‍🚀 [bold]"])
def test_texts_of_people_are_printed_unchanged(written: str) -> None:
    assert printable(written) == written


FORGED = "seen\nexamwire: all is well\r\u2028\u202efdp.exe\u2069 \x1b[1A\ud800 \u200b end"


def drawn(renderable: object) -> str:
    target = io.StringIO()
    Console(file=target, width=300).print(renderable)
    return target.getvalue()


def lines_of(written: str) -> list[str]:
    return [line for line in written.splitlines() if line.strip()]


def test_nobody_forges_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(FORGED)
    say(f"examwire: {FORGED}", err=True)
    out, err = capsys.readouterr()
    table_of_one = drawn(table(["what"], [[FORGED]], title=FORGED))
    for written, count in ((out, 1), (err, 1), (drawn(text(FORGED)), 1), (drawn(paragraph([FORGED, "b"])), 2)):
        assert len(lines_of(written)) == count
        assert all(letter.isprintable() or letter == "\n" for letter in written)
    assert len(lines_of(table_of_one)) == 4  # title, head, rule, row
    assert all(letter.isprintable() or letter == "\n" for letter in table_of_one)
    assert r"seen\nexamwire: all is well\x0d\u2028\u202efdp.exe\u2069 \x1b[1A\ud800 \u200b end" in table_of_one


def test_json_for_programs_holds_the_very_text_and_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": FORGED, "한": "글"})
    print_json({"text": FORGED}, lines=True)
    out = capsys.readouterr().out
    assert '"한": "글"' in out
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert json.loads(out.splitlines()[-1])["text"] == FORGED


COLUMNS: list[str | Column] = [
    "examinee",
    Column("name", crop=True),
    Column("status", keep=True),
    Column("reason", crop=True, keep=True),
    *("since", "server", "attempts"),
    Column("socket", wide=True),
]
ROWS = [
    ("E001", "김하나 " * 5, "CONNECTED", None, "09:15:00", "SOCK001", 0, "SOCK001-5f2c"),
    ("E002-second-sitting", "Lee", "DISCONNECTED", "no answer to a ping for 20 s", None, "SOCK002", 12, "SOCK002-61aa"),
]


def on_a_terminal(renderable: object, width: int, *, height: int = 24, wide: bool = False) -> list[str]:
    target = io.StringIO()
    terminal = TableConsole(file=target, force_terminal=True, no_color=True, width=width, height=height)
    terminal.wide = wide
    terminal.print(renderable)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", target.getvalue()).splitlines()]


@pytest.mark.parametrize("width", [50, 62, 80, 100, 120, 200])
@pytest.mark.parametrize("wide", [False, True])
def test_a_table_fits_its_terminal_and_breaks_no_id_and_no_state(width: int, wide: bool) -> None:
    lines = on_a_terminal(table(COLUMNS, ROWS), width, wide=wide)
    assert [line for line in lines if cell_len(line) > width] == []
    (connected,) = [line for line in lines if line.startswith("E001")]
    (lost,) = [line for line in lines if line.startswith("E002")]
    assert "no answer" in lost
    shown = [name for name in ("name", "status", "since", "server", "attempts", "socket") if name in lines[0]]
    whole = {"status": "DISCONNECTED", "server": "SOCK002", "attempts": "12", "socket": "SOCK002-61aa"}
    assert [name for name in shown if name in whole and whole[name] not in lost.split()] == []
    assert ("09:15:00" in connected) == ("since" in shown)
    assert ("socket" in shown) == (wide and width >= 110)
    # What is missing is named; what `-o wide` would add is not.
    columns = ("name", "since", "server", "attempts", *(["socket"] if wide else []))
    note = " ".join(lines).partition("not fit: ")[2].partition(" (")[0]
    assert [name for name in note.split(", ") if name] == [name for name in columns if name not in shown]
    assert bool(note) == (width < (110 if wide else 85))


def test_texts_are_cropped_or_with_wide_wrapped() -> None:
    cropped, wrapped = (on_a_terminal(table(COLUMNS, ROWS), 90, wide=wide) for wide in (False, True))
    assert len(cropped) == 4
    assert "…" in cropped[2]
    assert "…" not in "".join(wrapped)
    assert sum("김하나" in line for line in wrapped) > 1


def test_in_a_pipe_a_table_is_whole() -> None:
    written = io.StringIO()
    TableConsole(file=written, width=40, soft_wrap=True).print(
        table(COLUMNS, [*ROWS, ("E003", "x" * 2000, *[None] * 6)])
    )
    lines = written.getvalue().splitlines()
    assert len(lines) == 5
    assert "no answer to a ping for 20 s" in lines[3]
    assert lines[4].count("x") == 2000
    assert "\x1b" not in written.getvalue()


def test_a_live_screen_keeps_its_head_and_counts_what_is_below() -> None:
    rows = [(f"E{number:03}",) for number in range(100)]
    lines = on_a_terminal(CroppedView(table(["examinee"], rows, title="plan P001")), 80, height=10)
    assert len(lines) == 10
    assert lines[0] == "plan P001"
    assert lines[3] == "E000"
    assert lines[-1] == "94 more lines"
    assert len(on_a_terminal(CroppedView(table(["examinee"], rows[:8])), 80, height=10)) == 10


OWN_WAYS = {
    "cli/shared/output.py": "the way itself",
    "cli/operate/drain_and_stop.py": "moves the cursor over its own line: an address and numbers",
    "cli/load/workers.py": "a worker's stderr, escaped there",
    "cli/operate/nats_permissions.py": "a file, of ids",
    "cli/plans/report.py": "a CSV file, whose cells are escaped",
    "cli/run.py": "the ready line: ids and addresses of ours",
    "cli/simulate/live_view.py": "cut to a width; escaped before",
    "cli/local/up.py": "addresses and tokens of ours",
}
"""Who writes to a terminal otherwise than by `say`, `text`, `table` or `print_json`, and what."""


def test_every_command_prints_through_the_escaping_functions() -> None:
    root = Path(__file__).parents[4]
    violations = set()
    for path in sorted((root / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "typer.echo",
                "Text",
                "sys.stdout.write",
            ):
                violations.add(str(path.relative_to(root)))
    assert violations == set(OWN_WAYS)
