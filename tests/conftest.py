"""What holds for all tests."""

from __future__ import annotations

import compileall
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile our packages once.

    The tests start hundreds of `examwire` processes. Where Python is told to leave no compiled files, as it often is
    in a container, each of them would compile the same sources again: a quarter of what its start costs.
    """
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        for package in ("actors", "cli", "protocol"):
            compileall.compile_dir(ROOT / package, quiet=2)


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that runs in the test's process sets for the whole process: it logs errors only."""
    root = logging.getLogger()
    level = root.level
    for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    yield
    root.setLevel(level)
