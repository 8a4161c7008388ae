"""Output of the CLI: tables, JSON and exit codes. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.shared.streams import can_write_everything
from cli.shared.times import is_wire_time, local_time
from protocol.errors import (
    BrokerUnavailable,
    ConfigurationError,
    ExamwireError,
    NoResponders,
    ProtocolError,
    RoleSuperseded,
    StateUnavailable,
)
from protocol.texts import escape, escape_json

if TYPE_CHECKING:  # rich is imported when something is drawn: `examwire token` draws nothing
    from rich.console import RenderableType
    from rich.text import Text

    from cli.shared.fitted_table import FittedTable, TableConsole

T = TypeVar("T")


class ExitCode(IntEnum):
    """Exit codes. Scripts depend on them, so a number never changes its meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DEGRADED = 5
    SUPERSEDED = 6
    """Another process runs with the same serverId: supervisors must not start this one again."""


class NotFound(ExamwireError):
    """The requested object does not exist; the text names it."""


class Format(StrEnum):
    """Values of `-o`: a table for people, one with more columns, JSON for programs."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Its cells are ids, states, times or numbers, which are shown whole or not at all.

    `crop`: the cells are texts that may end with "…"; `-o wide` wraps them. `wrap`: texts that are always wrapped.
    `wide`: shown with `-o wide` only. `keep`: not dropped when the terminal is too narrow for all columns.
    """

    name: str
    crop: bool = False
    wrap: bool = False
    wide: bool = False
    keep: bool = False


Columns = Sequence[str | Column]

OutputOption = Annotated[
    Format, typer.Option("-o", "--output", help="Print a table, a wide one with more columns, or json for programs.")
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Refresh at each change, until Ctrl-C.")]


def exit_code_of(error: ExamwireError) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case NotFound():
            return ExitCode.NOT_FOUND
        case RoleSuperseded():
            return ExitCode.SUPERSEDED
        case BrokerUnavailable() | StateUnavailable() | NoResponders():
            return ExitCode.UNREACHABLE
        case ConfigurationError() | ProtocolError():  # a ProtocolError is about an id on the command line
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED


def print_json(value: Any, *, lines: bool = False) -> None:
    """Print JSON on stdout and flush; `lines`: on one line, for streams of values."""
    ascii_only = not can_write_everything(sys.stdout)
    print(escape_json(json.dumps(value, ensure_ascii=ascii_only, indent=None if lines else 2)), flush=True)


def table(columns: Columns, rows: Iterable[Sequence[object]], *, title: str | None = None) -> FittedTable:
    """Return a table that fits its terminal. `None` is an empty cell; a name is a `Column` that is shown whole.

    Cells are plain text, never markup, as they may hold foreign text; a `Text` brings its style.

    Example::

        table(["examinee", Column("reason", crop=True), Column("socket", wide=True)], rows, title="plan P001")
    """
    from cli.shared.fitted_table import FittedTable

    declared = [Column(column) if isinstance(column, str) else column for column in columns]
    return FittedTable(declared, list(rows), title)


def with_heading(heading: str | None, below: RenderableType) -> RenderableType:
    """Return what is drawn with a line of text above it, if there is one."""
    from rich.console import Group

    return below if heading is None else Group(text(heading), below)


def without_empty(columns: Columns, rows: Sequence[Sequence[object]]) -> tuple[list[str | Column], list[list[object]]]:
    """Return a table's columns and rows without the columns that are empty in every row: they take space only."""
    shown = [number for number in range(len(columns)) if not rows or any(row[number] is not None for row in rows)]
    return [columns[number] for number in shown], [[row[number] for number in shown] for row in rows]


def printable(text: str, *, lines: bool = True) -> str:
    """Escape control characters and invisible characters in foreign text, so that a terminal does not obey them.

    Without `lines`, line breaks are escaped, too, so that no text can forge a line of output.
    """
    return escape(text, lines=lines)


def text(value: object, style: str = "", *, lines: bool = False) -> Text:
    """Return text for rich, without markup and with escapes. `lines`: keep line breaks."""
    from rich.text import Text

    return Text(printable(str(value), lines=lines), style)


_STATE_STYLES = {
    **dict.fromkeys(("CONNECTED", "COMPLETED", "running", "ok"), "green"),
    **dict.fromkeys(("MIGRATING", "draining"), "cyan"),
    **dict.fromkeys(("FINISHED", "CLOSED"), "blue"),
    **dict.fromkeys(("TIMED_OUT", "starting", "warning"), "yellow"),
    **dict.fromkeys(("DISCONNECTED", "FAILED", "REMOVED", "shut out", "silent", "missing", "NOBODY", "failed"), "red"),
}


def state_cell(value: str | None) -> Text | None:
    """Return a state for a table, in the colour that it has in every command; `None` is an empty cell."""
    return text(value, _STATE_STYLES.get(value, "")) if value is not None else None


def paragraph(lines: Iterable[str]) -> Text:
    """Join lines to a text for rich."""
    return text("\n".join(map(escape, lines)), lines=True)


def say(line: str, *, err: bool = False, lines: bool = False) -> None:
    """Print an escaped line on stdout or stderr; `lines`: keep the line breaks of a text of our own."""
    # Not by click's echo, which writes UTF-8 where the encoding is ASCII.
    print(printable(line, lines=lines), file=sys.stderr if err else sys.stdout, flush=True)


def say_cropped(line: str, output: Format) -> None:
    """Print a line of a live screen: a terminal shows it on one line, unless the output is wide."""
    if output is not Format.WIDE and sys.stdout.isatty():
        from cli.shared.fitted_table import crop

        line = crop(printable(line, lines=False), shutil.get_terminal_size().columns)
    say(line)


def cell(value: object) -> object:
    """Return a field's value for a table: lists and objects become JSON, times local."""
    if isinstance(value, str):
        return local_time(value) if is_wire_time(value) else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def console(output: Format = Format.TABLE) -> TableConsole:
    """Return a rich console for stdout. In a pipe, tables are not fitted to a width."""
    from cli.shared.fitted_table import TableConsole

    # rich asks only a file that it was given for its encoding.
    in_pipe = not sys.stdout.isatty()
    target = TableConsole(file=sys.stdout, width=1000 if in_pipe else None, soft_wrap=in_pipe)
    target.wide = output is Format.WIDE
    return target


def show(value: Any, draw: Callable[[], RenderableType], output: Format) -> None:
    """Print `value` as JSON, or the result of `draw`."""
    if output is Format.JSON:
        print_json(value)
    else:
        console(output).print(draw())


async def watch(
    fetch: Callable[[], Awaitable[T]],
    to_json: Callable[[T], Any],
    draw: Callable[[T], RenderableType],
    output: Format,
    every: float = 0.5,
) -> None:
    """Fetch every `every` seconds and show each change. Never returns.

    JSON: one value a line. Table: redrawn in place on a terminal, cropped to its height, so what needs attention
    comes first in what `draw` returns; one table after the other in a pipe.
    """
    shown: Any = None
    with ExitStack() as open_views:
        display: Callable[[T], None] | None = None
        while True:
            value = await fetch()
            current = (to_json(value), shutil.get_terminal_size())
            if current != shown:
                if display is None:  # after the first fetch, so that its error is not drawn over
                    display = _display(to_json, draw, output, open_views)
                display(value)
                shown = current
            await asyncio.sleep(every)


def _display(
    to_json: Callable[[T], Any], draw: Callable[[T], RenderableType], output: Format, open_views: ExitStack
) -> Callable[[T], None]:
    if output is Format.JSON:
        return lambda value: print_json(to_json(value), lines=True)
    target = console(output)
    if not target.is_terminal:
        return lambda value: target.print(draw(value))

    from rich.live import Live

    from cli.shared.fitted_table import CroppedView

    live = open_views.enter_context(Live(console=target, auto_refresh=False))
    return lambda value: live.update(CroppedView(draw(value)), refresh=True)


def run_until_interrupted(work: Awaitable[None]) -> None:
    """Run a command's coroutine. Ctrl-C ends it without an error."""

    async def main() -> None:
        await work

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        return
