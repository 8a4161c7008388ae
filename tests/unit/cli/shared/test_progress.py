"""The bar that shows how far long work is."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.telemetry.progress import no_progress
from cli.shared import progress
from cli.shared.live_actors import connected
from cli.shared.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bar_on(screen: io.StringIO, times: list[float]) -> ProgressBar:
    console = Console(file=screen, force_terminal=True, width=80)
    return ProgressBar(console, clock=lambda: times[0])


def test_a_bar_comes_after_half_a_second_and_leaves_nothing_behind() -> None:
    screen, now = io.StringIO(), [100.0]
    with bar_on(screen, now) as bar:
        bar.report("reading STATUS", 1, 1000)
        now[0] = 100.4
        bar.report("reading STATUS", 200, 1000)
        assert screen.getvalue() == ""
        now[0] = 101.0
        bar.report("reading STATUS", 500, 1000)
        assert "reading STATUS" in screen.getvalue()
        assert "50%" in screen.getvalue()
        screen.truncate(screen.seek(0))
        bar.report("reading STATUS", 1000, 1000)
        assert screen.getvalue().endswith("\x1b[2K")  # the line is empty again
        assert "\x1b[?25h" in screen.getvalue()  # and the cursor is back


def test_each_kind_of_work_has_half_a_second_of_its_own() -> None:
    screen, now = io.StringIO(), [100.0]
    with bar_on(screen, now) as bar:
        for step in range(10):
            now[0] += 0.4
            bar.report(f"reading stream {step}", 1, 3)
    assert screen.getvalue() == ""


def test_work_that_is_given_up_leaves_no_bar() -> None:
    screen, now = io.StringIO(), [100.0]
    with bar_on(screen, now) as bar:
        bar.report("reading STATUS", 1, 1000)
        now[0] = 101.0
        bar.report("reading STATUS", 500, 1000)
    assert screen.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(("stderr", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_a_pipe_and_a_terminal_that_cannot_redraw_get_nothing(
    stderr: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("cli.shared.progress.AFTER_SECONDS", 0.0)
    with ProgressBar() as bar:
        bar.report("reading STATUS", 1, 1000)
    assert stderr.getvalue() == ""


async def test_a_command_draws_what_its_connection_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeBus:
        progress = no_progress

        async def close(self) -> None:
            pass

    async def connect(*_: object, **__: object) -> FakeBus:
        return FakeBus()

    screen = io.StringIO()
    monkeypatch.setattr(Bus, "connect", connect)
    monkeypatch.setattr(progress, "_stderr_console", lambda: Console(file=screen, force_terminal=True, width=80))
    monkeypatch.setattr(progress, "AFTER_SECONDS", 0.0)
    async with connected(Settings(), "plans timeline") as bus:
        bus.progress("reading STATUS", 1, 2)
        assert "50%" in screen.getvalue()
