"""The tool that changes our code and asks whether a test notices: `python -m tests.mutation`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = """
import sys
from pathlib import Path
from tests.mutation import __main__, room
__main__.ROOT = room.ROOT = Path.cwd()
__main__.ACCEPTED = Path("accepted.toml")
sys.exit(__main__.main())
"""
MODULE = '''"""When the hall is open, and what it costs."""
import logging
from enum import StrEnum

log = logging.getLogger("hall")
OPENS = 9


class Day(StrEnum):
    SUNDAY = "sunday"


def is_open(hour: int) -> bool:
    log.info("asked")
    return hour >= OPENS


def fee(hours: int, each: int = 2) -> int:
    return hours * each
'''
TESTS = """
from hall.hours import Day, fee, is_open, OPENS

def test_weak():
    assert is_open(10)
    assert not is_open(3)

def test_good():
    assert Day("sunday") is Day.SUNDAY
    assert fee(3) == 6
"""
ACCEPTED = """
[[mutant]]
path = "hall/hours.py"
function = ""
before = "9"
after = "10"
reason = "Nobody comes between 9 and 10."

[[mutant]]
path = "hall/hours.py"
function = "fee"
before = "2"
after = "3"
reason = "A test notices it: this entry is out of date."
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one room, whose tests notice some changes and miss two."""
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall" / "hours.py").write_text(MODULE)
    (tmp_path / "tests" / "unit" / "hall").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "hall" / "test_hours.py").write_text(TESTS)
    (tmp_path / "accepted.toml").write_text(ACCEPTED)
    return tmp_path


def mutate(repository: Path) -> subprocess.CompletedProcess[str]:
    """Run the tool in a repository."""
    environment = os.environ | {"PYTHONPATH": f"{repository}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", RUN, "hall/hours.py", "-j", "2"]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def files(repository: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in repository.rglob("*") if path.is_file()}


def test_changes_that_no_test_notices_are_printed_but_for_accepted_ones_and_no_file_is_changed(
    repository: Path,
) -> None:
    before = files(repository)
    result = mutate(repository)
    survivor, outdated, figures = result.stdout.splitlines()
    assert survivor == "hall/hours.py:15 is_open: hour >= OPENS  ->  hour > OPENS"
    assert outdated == "accepted.toml: no such mutant survives any more: hall/hours.py | fee | 2 | 3"
    assert "hall: 8 mutants, 6 killed (0 by a time limit), 1 accepted, 1 survived" in figures
    assert result.returncode == 1
    assert files(repository) == before


def test_a_test_that_fails_without_any_change_is_named(repository: Path) -> None:
    tests = repository / "tests" / "unit" / "hall" / "test_hours.py"
    tests.write_text(TESTS.replace("fee(3) == 6", "fee(3) == 7"))
    result = mutate(repository)
    assert "test_good fails without any mutant" in result.stderr
    assert result.returncode != 0
