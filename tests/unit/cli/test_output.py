"""What the CLI draws of things that others wrote."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cli.shared.output import paragraph, print_json, printable, say, table, text

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


OWN_WAYS = {
    "cli/shared/output.py": "the way itself",
    "cli/operate/drain_and_stop.py": "moves the cursor over its own line: an address and numbers",
    "cli/load/workers.py": "a worker's stderr, escaped there",
    "cli/nats.py": "a file, of ids",
    "cli/plans/report.py": "a CSV file, whose cells are escaped",
    "cli/run.py": "the ready line: ids and addresses of ours",
    "cli/simulate/live_view.py": "cut to a width; escaped before",
    "cli/local/up.py": "addresses and tokens of ours",
}
"""Who writes to a terminal otherwise than by `say`, `text`, `table` or `print_json`, and what."""


def test_every_command_prints_through_the_escaping_functions() -> None:
    root = Path(__file__).parents[3]
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
