"""A table that fits its terminal: columns are cropped, wrapped or dropped, and an id or a state is never broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from cli.shared.output import Column, printable, text

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

GAP = "  "
NARROWEST = 12  # cells of a cropped or wrapped column, unless its texts are shorter
LONGEST_WORD = 40  # a longer word may be broken where a column is wrapped


class TableConsole(Console):
    """A console that also says whether tables show their `wide` columns."""

    wide = False


class FittedTable:
    """A table for the width of the console it is printed on. In a pipe all columns are shown whole.

    Too little room is made up for in this order: `crop` and `wrap` columns become narrower, then columns are dropped
    from the right, except for the first one and those to be kept, and a line below names them.

    Example::

        console.print(FittedTable([Column("examinee"), Column("reason", crop=True)], [["E001", "no answer"]], None))
    """

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[object]], title: str | None) -> None:
        self.columns = columns
        self.title = title
        self._numbers = [_is_numeric([row[number] for row in rows]) for number in range(len(columns))]
        self._rows = [[_cell(cell) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = isinstance(console, TableConsole) and console.wide
        room = options.max_width if console.is_terminal else None
        wanted = [number for number, column in enumerate(self.columns) if wide or not column.wide]
        widths = self._natural_widths(wanted)
        shown = self._fitting(wanted, widths, room)
        if room is not None:
            self._narrow(shown, widths, room)
        if self.title is not None:
            yield text(self.title)
        yield from self._line([(self.columns[number].name, None) for number in shown], shown, widths, Style(bold=True))
        rule = "-" if options.ascii_only else "─"
        yield Segment(rule * (sum(widths[number] for number in shown) + len(GAP) * (len(shown) - 1)))
        yield Segment.line()
        for row in self._rows:
            yield from self._row(console, [row[number] for number in shown], shown, widths, wrap=wide)
        dropped = [self.columns[number].name for number in wanted if number not in shown]
        if dropped:
            what = "1 column does" if len(dropped) == 1 else f"{len(dropped)} columns do"
            yield text(f"{what} not fit: {', '.join(dropped)} (all: | less -S)", "dim")

    # -- widths ----------------------------------------------------------------------------------------------

    def _natural_widths(self, wanted: Sequence[int]) -> dict[int, int]:
        return {
            number: max(width_of(self.columns[number].name), *(width_of(row[number][0]) for row in self._rows), 0)
            for number in wanted
        }

    def _least(self, number: int, natural: int) -> int:
        """Return the least width at which a column is still shown."""
        column = self.columns[number]
        if not (column.crop or column.wrap):
            return natural
        least = max(NARROWEST, width_of(column.name))
        if column.wrap:
            words = (width_of(word) for row in self._rows for word in row[number][0].split())
            least = max(least, min(LONGEST_WORD, max(words, default=0)))
        return min(natural, least)

    def _fitting(self, wanted: Sequence[int], widths: dict[int, int], room: int | None) -> list[int]:
        """Return the columns that are shown: all, or without the rightmost that are not kept."""
        shown = list(wanted)
        if room is None:
            return shown
        least = {number: self._least(number, widths[number]) for number in wanted}
        droppable = [number for number in wanted[1:] if not self.columns[number].keep]
        while droppable and sum(least[number] for number in shown) + len(GAP) * (len(shown) - 1) > room:
            shown.remove(droppable.pop())
        return shown

    def _narrow(self, shown: Sequence[int], widths: dict[int, int], room: int) -> None:
        """Give the room that is left by the other columns to `crop` and `wrap` columns; short ones need less."""
        flexible = [number for number in shown if self.columns[number].crop or self.columns[number].wrap]
        rest = room - len(GAP) * (len(shown) - 1) - sum(widths[number] for number in shown if number not in flexible)
        least = {number: self._least(number, widths[number]) for number in flexible}
        flexible.sort(key=lambda number: widths[number] - least[number])
        rest -= sum(least.values())
        for position, number in enumerate(flexible):
            share = max(0, rest) // (len(flexible) - position)
            widths[number] = min(widths[number], least[number] + share)
            rest -= widths[number] - least[number]

    # -- lines -----------------------------------------------------------------------------------------------

    def _row(
        self,
        console: Console,
        cells: Sequence[tuple[str, Style | None]],
        shown: Sequence[int],
        widths: dict[int, int],
        *,
        wrap: bool,
    ) -> RenderResult:
        too_long = [number for number, cell in zip(shown, cells, strict=True) if width_of(cell[0]) > widths[number]]
        if not any(self.columns[number].wrap or wrap for number in too_long):
            yield from self._line(cells, shown, widths)
            return
        parts = [
            [line.plain.rstrip() for line in text(content).wrap(console, widths[number])]
            if number in too_long and (self.columns[number].wrap or wrap)
            else [content]
            for number, (content, _) in zip(shown, cells, strict=True)
        ]
        for number in range(max(map(len, parts))):
            line = [
                (part[number] if number < len(part) else "", style)
                for part, (_, style) in zip(parts, cells, strict=True)
            ]
            yield from self._line(line, shown, widths)

    def _line(
        self,
        cells: Sequence[tuple[str, Style | None]],
        shown: Sequence[int],
        widths: dict[int, int],
        style: Style | None = None,
    ) -> RenderResult:
        pieces: list[Segment] = []
        for position, (number, (content, cell_style)) in enumerate(zip(shown, cells, strict=True)):
            width, length = widths[number], width_of(content)
            if length > width:
                content = crop(content, width)
                length = width_of(content)
            last = position == len(shown) - 1
            if self._numbers[number]:
                pieces.append(Segment(" " * (width - length)))
            pieces.append(Segment(content, cell_style or style))
            if not last:
                pieces.append(Segment(" " * (0 if self._numbers[number] else width - length) + GAP))
        yield from Segment.simplify(pieces)
        yield Segment.line()


def width_of(content: str) -> int:
    """Return how many cells of a terminal a text takes; ASCII is not looked up, for long tables are made of it."""
    return len(content) if content.isascii() else cell_len(content)


def crop(content: str, width: int) -> str:
    """Return a text of at most `width` cells; a longer one ends with "…"."""
    return content if width_of(content) <= width else set_cell_size(content, width - 1).rstrip() + "…"


class CroppedView:
    """What a live screen draws, cropped to the terminal's height; the last line counts what is below."""

    def __init__(self, drawn: RenderableType) -> None:
        self.drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.drawn, options, pad=False)
        below = len(lines) - console.height
        if below > 0:
            lines = lines[: console.height - 1]
        for line in lines:
            yield from line
            yield Segment.line()
        if below > 0:
            yield from console.render(text(f"{below + 1} more lines", "dim"))


def _cell(value: object) -> tuple[str, Style | None]:
    if isinstance(value, Text):
        return value.plain, Style.parse(value.style) if isinstance(value.style, str) else value.style
    return ("" if value is None else printable(str(value), lines=False)), None


def _is_numeric(values: Sequence[object]) -> bool:
    """Return whether a column holds numbers only: they are aligned on the right."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
