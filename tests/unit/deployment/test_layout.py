"""What the layout of the repository promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nats

from cli.local.engines import nats_server_binary

ROOT = Path(__file__).parents[3]


def test_the_folder_nats_holds_no_python_for_it_would_join_the_package_of_nats_py() -> None:
    assert list((ROOT / "nats").rglob("*.py")) == []
    assert nats.__file__ is not None
    assert Path(nats.__file__).is_file()
    assert ROOT not in Path(nats.__file__).parents or ".venv" in nats.__file__


def test_the_broker_accepts_its_configuration() -> None:
    command = [str(nats_server_binary()), "-t", "-c", "single.conf"]
    done = subprocess.run(command, cwd=ROOT / "nats", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- test command -->\n```\n(.+?)\n```\n<!-- end -->", readme, re.DOTALL)
    assert found is not None
    assert "pytest" in found[1]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
