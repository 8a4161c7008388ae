"""How far long work is: who does it reports to a callback, and a command draws a bar."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is. It is over when both are equal."""


def no_progress(what: str, done: int, total: int) -> None:
    """Ignore a report: nobody watches."""
