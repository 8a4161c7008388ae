"""What people and programs get from the CLI: tables, JSON, exit codes, logs. Data on stdout, the rest on stderr."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

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
    """What a command ends with; scripts act on it, so a number never changes its meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DEGRADED = 5
    SUPERSEDED = 6
    """Another process runs as the same server: supervisors must not start this one again."""


class NotFound(ExamwireError):
    """What was asked for does not exist; the text names it."""


class Format(StrEnum):
    """`-o`: for people or for programs."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("-o", "--output", help="A table for people, json for programs.")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Show it again whenever it changes, until Ctrl-C.")]


def exit_code_of(error: ExamwireError) -> ExitCode:
    """The exit code that an error ends a command with."""
    match error:
        case NotFound():
            return ExitCode.NOT_FOUND
        case RoleSuperseded():
            return ExitCode.SUPERSEDED
        case BrokerUnavailable() | StateUnavailable() | NoResponders():
            return ExitCode.UNREACHABLE
        case ConfigurationError() | ProtocolError():  # a ProtocolError here is about an id on the command line
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED


def print_json(value: Any, *, lines: bool = False) -> None:
    """JSON on stdout, at once; `lines`: one value a line, for streams of them."""
    print(escape_json(json.dumps(value, ensure_ascii=False, indent=None if lines else 2)), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table; `None` shows as nothing. Cells are text, never markup: they hold what others wrote."""
    from rich import box
    from rich.table import Table

    above = text(title) if title is not None else None
    drawn = Table(*columns, title=above, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in drawn.columns:
        column.overflow = "fold"
    for row in rows:
        drawn.add_row(*(text("" if cell is None else cell) for cell in row))
    return drawn


def printable(text: str, *, lines: bool = True) -> str:
    """What others wrote, for a terminal: what it would obey, and what cannot be seen, as escapes.

    Without `lines` line breaks, too: nobody forges a line.
    """
    return escape(text, lines=lines)


def text(value: object, style: str = "", *, lines: bool = False) -> Text:
    """What rich draws as it is, never markup, with escapes for what a terminal would obey. `lines`: as of `say`."""
    from rich.text import Text

    return Text(printable(str(value), lines=lines), style)


def paragraph(lines: Iterable[str]) -> Text:
    """Lines of text for rich."""
    return text("\n".join(map(escape, lines)), lines=True)


def say(line: str, *, err: bool = False, lines: bool = False) -> None:
    """One line on stdout or stderr, whoever wrote what is in it; with `lines`, several that we have put together."""
    typer.echo(printable(line, lines=lines), err=err)


def cell(value: object) -> object:
    """What a field shows in a table: lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def console() -> Console:
    """stdout for rich. A pipe has no width that a table would have to fit into."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=1000, soft_wrap=True)


def show(value: Any, drawn: Callable[[], RenderableType], output: Format) -> None:
    """Print `value` as JSON, or what `drawn` makes of it."""
    if output is Format.JSON:
        print_json(value)
    else:
        console().print(drawn())


async def watch(
    fetch: Callable[[], Awaitable[T]],
    to_json: Callable[[T], Any],
    draw: Callable[[T], RenderableType],
    output: Format,
    every: float = 0.5,
) -> None:
    """Fetch every `every` seconds and show what has changed. Never returns.

    One JSON value a line, or a table: in place on a terminal, one after the other in a pipe.
    """
    known: Any = None
    with ExitStack() as open_views:
        display: Callable[[T], None] | None = None
        while True:
            fetched = await fetch()
            current = to_json(fetched)
            if current != known:
                if display is None:  # only now: an error of the first fetch is not to be drawn over
                    display = _display(to_json, draw, output, open_views)
                display(fetched)
                known = current
            await asyncio.sleep(every)


def _display(
    to_json: Callable[[T], Any], draw: Callable[[T], RenderableType], output: Format, open_views: ExitStack
) -> Callable[[T], None]:
    if output is Format.JSON:
        return lambda fetched: print_json(to_json(fetched), lines=True)
    target = console()
    if not target.is_terminal:
        return lambda fetched: target.print(draw(fetched))

    from rich.live import Live

    live = open_views.enter_context(Live(console=target, auto_refresh=False))
    return lambda fetched: live.update(draw(fetched), refresh=True)


def run_until_interrupted(work: Awaitable[None]) -> None:
    """Run a command's coroutine. Ctrl-C is how a watch ends, so it is no failure."""

    async def main() -> None:
        await work

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        return
