"""Output of the CLI: tables, JSON and exit codes. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

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
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

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
    """Values of `-o`: a table for people, JSON for programs."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("-o", "--output", help="Print a table for people, or json for programs.")]
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
    print(escape_json(json.dumps(value, ensure_ascii=False, indent=None if lines else 2)), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """Return a table; `None` is an empty cell. Cells are plain text, never markup, as they may hold foreign text."""
    from rich import box
    from rich.table import Table

    title_text = text(title) if title is not None else None
    result = Table(*columns, title=title_text, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in result.columns:
        column.overflow = "fold"
    for row in rows:
        result.add_row(*(text("" if cell is None else cell) for cell in row))
    return result


def with_heading(heading: str | None, below: RenderableType) -> RenderableType:
    """Return what is drawn with a line of text above it, if there is one."""
    from rich.console import Group

    return below if heading is None else Group(text(heading), below)


def without_empty(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> tuple[list[str], list[list[object]]]:
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


def paragraph(lines: Iterable[str]) -> Text:
    """Join lines to a text for rich."""
    return text("\n".join(map(escape, lines)), lines=True)


def say(line: str, *, err: bool = False, lines: bool = False) -> None:
    """Print an escaped line on stdout or stderr; `lines`: keep the line breaks of a text of our own."""
    typer.echo(printable(line, lines=lines), err=err)


def cell(value: object) -> object:
    """Return a field's value for a table: lists and objects become JSON, times local."""
    if isinstance(value, str):
        return local_time(value) if is_wire_time(value) else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def console() -> Console:
    """Return a rich console for stdout. In a pipe, tables are not fitted to a width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=1000, soft_wrap=True)


def show(value: Any, draw: Callable[[], RenderableType], output: Format) -> None:
    """Print `value` as JSON, or the result of `draw`."""
    if output is Format.JSON:
        print_json(value)
    else:
        console().print(draw())


async def watch(
    fetch: Callable[[], Awaitable[T]],
    to_json: Callable[[T], Any],
    draw: Callable[[T], RenderableType],
    output: Format,
    every: float = 0.5,
) -> None:
    """Fetch every `every` seconds and show each change. Never returns.

    JSON: one value a line. Table: redrawn in place on a terminal, one after the other in a pipe.
    """
    shown: Any = None
    with ExitStack() as open_views:
        display: Callable[[T], None] | None = None
        while True:
            value = await fetch()
            as_json = to_json(value)
            if as_json != shown:
                if display is None:  # after the first fetch, so that its error is not drawn over
                    display = _display(to_json, draw, output, open_views)
                display(value)
                shown = as_json
            await asyncio.sleep(every)


def _display(
    to_json: Callable[[T], Any], draw: Callable[[T], RenderableType], output: Format, open_views: ExitStack
) -> Callable[[T], None]:
    if output is Format.JSON:
        return lambda value: print_json(to_json(value), lines=True)
    target = console()
    if not target.is_terminal:
        return lambda value: target.print(draw(value))

    from rich.live import Live

    live = open_views.enter_context(Live(console=target, auto_refresh=False))
    return lambda value: live.update(draw(value), refresh=True)


def run_until_interrupted(work: Awaitable[None]) -> None:
    """Run a command's coroutine. Ctrl-C ends it without an error."""

    async def main() -> None:
        await work

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        return
