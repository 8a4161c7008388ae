"""Commands that people copy from our output begin as they have typed it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from actors.runtime.config.settings import load_settings
from cli.shared.invocation import own_command, with_data_dir


def test_a_command_is_named_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "my bin" / "examwire"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for started, path, expected in (
        (".venv/bin/examwire", "/usr/bin", ".venv/bin/examwire"),
        (str(script), "/usr/bin", f"'{script}'"),
        (str(script), f"{script.parent}:/usr/bin", "examwire"),
        ("/app/cli/main.py", "/usr/bin", f"{sys.executable} -m cli.main"),
    ):
        monkeypatch.setattr(sys, "argv", [started])
        monkeypatch.setenv("PATH", path)
        assert own_command() == expected


def test_only_another_data_directory_than_the_default_is_named() -> None:
    assert with_data_dir(load_settings()) == ""
    assert with_data_dir(load_settings(data_dir=Path("/data/hall a"))) == " --data-dir '/data/hall a'"
