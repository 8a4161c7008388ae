"""What holds for all tests."""

from __future__ import annotations

import compileall
import sys
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
