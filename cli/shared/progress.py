"""Draw how far long work is: a bar on a terminal's stderr, nothing in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.runtime.telemetry.progress import Progress, no_progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

AFTER_SECONDS = 0.5
REDRAW_SECONDS = 0.1


class ProgressBar:
    """Draws reports of progress as a bar: work that is over within `AFTER_SECONDS` has none, and none is left behind.

    Example::

        with ProgressBar() as bar:
            for number, row in enumerate(rows):
                bar.report("reading the roster", number, len(rows))
                ...

    `console`: where to draw it, by default stderr if that is a terminal. `clock`: seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console if console is not None else _stderr_console()
        self._clock = clock
        self._what: str | None = None
        self._began = self._drawn = 0.0
        self._bar: Bar | None = None
        self.report: Progress = self._report if self._console is not None else no_progress
        """Report what is being done, how much of it is done, and how much there is."""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _report(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if what != self._what:
            self._remove()
            self._what, self._began, self._drawn = what, now, 0.0
        if done >= total:
            self._remove()
            self._what = None
        elif now - self._began >= AFTER_SECONDS and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(what, done, total)

    def _draw(self, what: str, done: int, total: int) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Bar(
                *columns,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                get_time=self._clock,
            )
            self._bar.add_task(escape(what), total=None)
            self._bar.tasks[0].start_time = self._began
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, refresh=True)

    def _remove(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _stderr_console() -> Console | None:
    """Return a console for stderr; `None` when it is no terminal that can redraw a line."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_interactive else None
