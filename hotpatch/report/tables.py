"""Tables and addresses, as every text for people shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.style import StyleType

_WIDEST = 1 << 16
"""Columns that no table needs."""
INDENT = (0, 0, 0, 4)
_LEAST_FOLDED = 24
"""Columns that a cell which may fold keeps, however narrow the terminal is."""


class Rows(Table):
    """A table without lines. Its cells stay whole, however narrow the terminal; only those of the columns that may fold give way."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row, and give every column that may not fold the width of its longest cell."""
        super().add_row(*cells, style=style, end_section=end_section)
        for column, cell in zip(self.columns, cells, strict=False):
            if column.no_wrap:
                lines = [*str(column.header).split("\n"), *str(cell or "").split("\n")]
                column.min_width = max(column.min_width or 0, *map(cell_len, lines))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, wider than the terminal rather than without what has no room."""
        least = Measurement.get(console, options.update(width=_WIDEST), self).minimum
        yield from super().__rich_console__(console, options.update(width=max(options.max_width, least)))


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = (), least: int = _LEAST_FOLDED) -> Rows:
    """A table of ``columns``: those in ``right`` are numbers, those in ``fold`` may fold to ``least`` columns, others keep their width."""
    made = Rows(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        folds = column in fold
        made.add_column(
            column,
            no_wrap=not folds,
            min_width=least if folds else None,
            overflow="fold" if folds else "crop",
            justify="right" if column in right else "left",
        )
    return made


def hexadecimal(value: int | None) -> str:
    """An address, or a dash."""
    return "-" if value is None else f"0x{value:x}"


class Noted:
    """A table whose last column is notes; where the terminal is too narrow for that, each row's notes stand below it."""

    def __init__(self, *columns: str, right: Sequence[str], notes: str = "notes") -> None:
        """``columns`` as :func:`table` takes them, and one called ``notes``."""
        self.whole = table(*columns, notes, right=right, fold=(notes,))
        self.narrow = table(*columns, right=right)
        self.notes: list[str] = []
        self._called = notes

    def add_row(self, *cells: RenderableType, notes: str) -> None:
        """A row with its notes, or none."""
        self.whole.add_row(*cells, notes)
        self.narrow.add_row(*cells)
        self.notes.append(notes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The one or the other, by how wide it is."""
        wide = options.update(width=_WIDEST)
        self.whole.columns[-1].min_width = min(_LEAST_FOLDED, max(map(cell_len, (self._called, *self.notes))))
        if Measurement.get(console, wide, self.whole).minimum <= options.max_width:
            yield self.whole
            return
        width = Measurement.get(console, wide, self.narrow).minimum
        lines = console.render_lines(self.narrow, options.update(width=width), pad=False)
        for line, notes in zip(lines, ["", *self.notes], strict=True):
            yield from line
            yield Segment.line()
            if notes:
                yield Padding(Text(notes), INDENT)
