"""The output of a running simulation: a live table of the examinees as a proctor sees them, or plain lines."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.shared.output import Column, Columns, say, state_cell, table, text
from cli.simulate.examinee import SimulatedExaminee
from cli.simulate.proctor import SimulatedProctor
from protocol.client.exam_clock import ExamMoment, ExamPhase
from protocol.client.plan_view import ExamineeView
from protocol.messages.base import Message
from protocol.messages.facts import MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import PlanSnapshot
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeFinished,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
    ExamineeResumed,
    ExamineeUnstable,
    HelpClosed,
    HelpRequested,
    HelpTaken,
    MobileSyncCompleted,
    PlanStateEvent,
)
from protocol.texts import escape

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

LOG_LINES = 12  # on a high terminal, otherwise a third of it
OTHER_LINES = 5  # heading, head and rule of the table, columns that do not fit, summary
EVERY_SECONDS = 0.25


def describe(message: Message) -> str | None:
    """Describe an event in words; `None` for messages that are not about one examinee."""
    match message:
        case ExamineeConnected(replaced=replaced, recovered=recovered, outage_seconds=seconds):
            extra = ""
            if replaced is not None:
                extra = f", replacing its connection on {replaced.server_id}"
            elif message.migrated:
                extra = " after a drain"
            elif recovered:
                extra = f" again, after {seconds:.1f} s" if seconds is not None else " again"
            return f"connected on {message.server_id}{extra}" + (" (restated)" if message.restated else "")
        case ExamineeMigrating():
            return f"migrating from {message.server_id}, which is drained" + (" (restated)" if message.restated else "")
        case ExamineeDisconnected():
            return f"disconnected from {message.server_id}: {message.reason}" + (
                " (restated)" if message.restated else ""
            )
        case ExamineeReconnecting():
            return f"reconnecting, attempt {message.attempt} of {message.max_attempts}"
        case ExamineeReconnectExhausted():
            return f"used up all {message.max_attempts} attempts; a proctor must readmit"
        case ExamineeUnstable():
            return "is stable again"
        case ExamineeReadmitted():
            return f"readmitted by {message.by}"
        case ExamineeRemoved():
            return f"removed by {message.by}" + (f": {message.reason}" if message.reason else "")
        case ExamineeFinished():
            return {"HANDED_IN": "has handed in", "PLAN_ENDED": "is finished: the exam has ended"}.get(
                message.reason, f"is finished, by {message.by}"
            )
        case ExamineeResumed():
            return f"resumed by {message.by}"
        case ExamineeEnrolled():
            return "on the roster" + (f" as {message.name}" if message.name else "")
        case Notice():
            return f"is sent a message by {message.by}: {message.text}"
        case NoticeConfirmed():
            return f"has confirmed a message of {message.by}" if message.by else "has confirmed a message to several"
        case HelpRequested(help=help_request):
            return "asks for help" + (f": {help_request.text}" if help_request and help_request.text else "")
        case HelpTaken():
            return f"is being helped by {message.by}"
        case HelpClosed():
            return f"needs no more help, says {message.by}"
        case MobileSyncCompleted():
            return f"mobile sync completed: {message.image_url}"
        case MobileSyncStatus():
            until = f" until {message.deadline[11:19]}" if message.deadline and message.status == "WAITING" else ""
            if message.by:
                what = "another picture asked for" if message.capture_id else "extended"
                until += f", {what} by {message.by}"
            return f"mobile sync {message.status}{until}" + (f": {message.reason}" if message.reason else "")
        case _:
            return None


def phase_text(moment: ExamMoment) -> str:
    """Return the phase of the exam in words, with the time left."""
    clock = "" if moment.seconds is None else f"{int(moment.seconds) // 60}:{int(moment.seconds) % 60:02}"
    match moment.phase:
        case ExamPhase.BEFORE:
            return f"waiting room, the exam starts in {clock}" if clock else "waiting room"
        case ExamPhase.RUNNING:
            return f"the exam runs, {clock} left" if clock else "the exam runs"
        case ExamPhase.GRACE:
            return f"time is up, {clock} to hand in"
        case ExamPhase.OVER:
            return "the exam is over"
        case ExamPhase.UNKNOWN:
            return ""


class LiveView:
    """Shows a running simulation. `live`: a table on stdout, redrawn in place; else one line for each event on stderr.

    Example::

        view = LiveView(live=sys.stdout.isatty())
        view.note("the simulation begins")
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._began = time.monotonic()
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._last: dict[str, str] = {}

    def event(self, message: Message) -> None:
        """Show an event of the first proctor."""
        if isinstance(message, PlanSnapshot):
            self.note(f"a snapshot of {len(message.examinees)} examinees" + (" (resync)" if message.resync else ""))
            return
        if isinstance(message, PlanStateEvent):
            self.note(
                f"the plan is {message.status}" + (f", until {message.ends_at[11:19]}" if message.ends_at else "")
            )
            return
        description = describe(message)
        if description is not None:
            examinee_id = str(getattr(message, "examinee_id", ""))
            self._last[examinee_id] = description
            self.note(f"{examinee_id} {description}")

    def note(self, text: str) -> None:
        """Show a line of text."""
        line = f"{time.monotonic() - self._began:7.1f} s  {text}"
        self._log.append(line)
        if not self.live:
            say(line, err=True)

    async def draw(self, title: str, examinees: Sequence[SimulatedExaminee], proctor: SimulatedProctor) -> None:
        """Redraw the table until cancelled."""
        if not self.live:
            return
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with Live(console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self._drawn(title, examinees, proctor, console.height), refresh=True)
                    await asyncio.sleep(EVERY_SECONDS)
            finally:
                live.update(self._drawn(title, examinees, proctor, console.height), refresh=True)

    def _drawn(
        self, title: str, examinees: Sequence[SimulatedExaminee], proctor: SimulatedProctor, height: int
    ) -> RenderableType:
        from rich.console import Group

        log_lines = min(LOG_LINES, height // 3)
        room = max(3, height - log_lines - OTHER_LINES)
        # If not all fit, show those first who are away or in an action.
        shown = sorted(examinees, key=lambda examinee: (examinee.present and not examinee.doing, examinee.examinee_id))[
            :room
        ]
        rows = []
        for examinee in sorted(shown, key=lambda examinee: examinee.examinee_id):
            row = proctor.view.examinees.get(examinee.examinee_id) or ExamineeView(examinee.examinee_id)
            rows.append(
                (
                    examinee.examinee_id,
                    state_cell(row.status),
                    _attempt(row),
                    state_cell(None if row.mobile_sync == "NONE" else row.mobile_sync),
                    row.server_id if row.connected else None,
                    text(examinee.doing, "italic"),
                    self._last.get(examinee.examinee_id),
                )
            )
        columns: Columns = [
            *("examinee", Column("status", keep=True), "attempt", "mobile sync", "server"),
            *(Column("does", crop=True, keep=True), Column("last event", crop=True, keep=True)),
        ]
        phase = phase_text(proctor.client.exam)
        heading = _cut(escape(f"{title}: {phase}" if phase else title))
        connected = len(proctor.view.connected())
        finished = sum(row.status == "FINISHED" for row in proctor.view.examinees.values())
        hidden_text = f" ({len(examinees) - len(shown)} more not shown)" if len(shown) < len(examinees) else ""
        summary = (
            f"{proctor.name} sees {connected} of {len(proctor.view.examinees)} connected, {finished} finished"
            f"{hidden_text}; Ctrl-C ends"
        )
        log = "\n".join(map(escape, list(self._log)[-log_lines:]))
        return Group(heading, table(columns, rows), _cut(log, "dim"), _cut(escape(summary)))


def _attempt(row: ExamineeView) -> Text | None:
    if row.exhausted:
        return text("used up", "red")
    if row.connected or not row.attempt:
        return None
    return text(f"{row.attempt} of {row.max_attempts}", "yellow")


def _cut(content: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(content, style, overflow="ellipsis", no_wrap=True)
