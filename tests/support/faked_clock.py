"""Processes whose clock is wrong, by libfaketime (Debian's package `faketime`)."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest

needs_faketime = pytest.mark.skipif(shutil.which("faketime") is None, reason="there is no faketime")


def clock_ahead(seconds: float) -> dict[str, str]:
    """Variables for a process whose clock is so far ahead (behind, when negative); its monotonic clock is right."""
    return {"LD_PRELOAD": _library(), "FAKETIME": f"{seconds:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@functools.cache
def _library() -> str:
    """libfaketime as its own command preloads it, in the variant for programs with threads."""
    command = ["faketime", "-m", "-f", "+0s", "printenv", "LD_PRELOAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
