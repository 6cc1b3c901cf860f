"""Both versions of one function side by side, as text of any width."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from hotpatch.differ import switch
from hotpatch.report.excerpt import by_shape_note, left_out, stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions

    from hotpatch.differ import Listing, ListingBlock, ListingExit

_MARK = {"same": " ", "changed": "|", "added": ">", "removed": "<"}
_STYLE = {"same": "", "changed": "yellow", "added": "green", "removed": "red"}
_BETWEEN = 3
"""Columns between the two sides, the mark in the middle."""
_INDENT, _FOLDED = "  ", "      "
"""Before an instruction; before the rest of one that is too long for its side."""


class SideBySide:
    """A listing in two columns, as wide as their text where there is room, else folded; blocks that differ and one around each."""

    def __init__(self, listing: Listing, titles: tuple[str, str], *, verdict: str = "changed", everything: bool = False) -> None:
        """Show ``listing`` under what the function is called on either side, a ``verdict`` other than changed; with ``everything`` all."""
        said = "" if verdict == "changed" else f" ({verdict})"
        self._rows = list(_rows(listing, (f"{titles[0]} in the base", f"{titles[1]} in the fixed image{said}"), everything=everything))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Lines of at most the console's width."""
        left, right = self._widths(options.max_width)
        for row in self._rows:
            yield from row.lines(left, right)

    def _widths(self, width: int) -> tuple[int, int]:
        sides = [row for row in self._rows if isinstance(row, _Sides)]
        left = max((cell_len(row.left) for row in sides), default=0)
        right = max((cell_len(row.right) for row in sides), default=0)
        room = max(2, width - _BETWEEN)
        if left + right > room:
            left = min(left, max(room // 2, room - right))
            right = min(right, room - left)
        return left, right


class _Sides:
    """One row: what stands on either side, and how the two relate."""

    def __init__(self, left: str, right: str, kind: str = "same", style: str | None = None) -> None:
        self.left, self.right, self.kind = left, right, kind
        self.style = _STYLE[kind] if style is None else style

    def lines(self, left: int, right: int) -> Iterator[Text]:
        """Folded to the widths of the two sides."""
        for number, (one, two) in enumerate(zip_longest(_folded(self.left, left), _folded(self.right, right), fillvalue="")):
            mark = _MARK[self.kind] if not number else " "
            yield Text(f"{one}{' ' * (left - cell_len(one))} {mark} {two}".rstrip(), style=self.style, no_wrap=True, overflow="ignore")


class _Note:
    """One row that belongs to neither side."""

    def __init__(self, text: str) -> None:
        self.text = text

    def lines(self, _left: int, _right: int) -> Iterator[Text]:
        """It, folded by whoever prints it."""
        yield Text(self.text, style="dim")


def _rows(listing: Listing, titles: tuple[str, str], *, everything: bool) -> Iterator[_Sides | _Note]:
    yield _Sides(*titles, style="bold")
    successors = _standing_next(listing.blocks)
    for shown, blocks in stretches(listing.blocks, everything=everything):
        if not shown:
            yield _Note(f"… {left_out(blocks)}")
            continue
        for block in blocks:
            yield from _block(block, *successors[block.label])
    if listing.by_shape:
        yield _Note(by_shape_note(listing.by_shape))


def _standing_next(blocks: Sequence[ListingBlock]) -> dict[str, tuple[str | None, str | None]]:
    """Of each block: the one of the base, and the one of the fixed image, that is shown next."""
    found: dict[str, tuple[str | None, str | None]] = {}
    base = fixed = None
    for block in reversed(blocks):
        found[block.label] = (base, fixed)
        base = block.label if block.kind != "added" else base
        fixed = block.label if block.kind != "removed" else fixed
    return found


def _block(block: ListingBlock, base_next: str | None, fixed_next: str | None) -> Iterator[_Sides]:
    said = "moved" if block.moved and block.kind == "same" else f"{block.kind}{', moved' * block.moved}"
    heads = [f"{block.label}: 0x{rva:x}" if rva is not None else "" for rva in (block.base_rva, block.fixed_rva)]
    at = 0 if block.kind == "removed" else 1
    if block.differs:
        heads[at] += f"  {said}"
    elif block.padding:
        heads[at] += "  padding"
    yield _Sides(heads[0], heads[1], style=f"bold {'cyan' if block.moved and block.kind == 'same' else _STYLE[block.kind]}".strip())
    for line in block.lines:
        left, right = (f"{_INDENT}{text}" if text is not None else "" for text in (line.base, line.fixed))
        yield _Sides(left, right, line.kind)
    left, right = (" ".join(switch(exits)) for exits in (block.base_exits, block.fixed_exits))
    if left != right and block.kind == "changed":
        yield _Sides(f"{_INDENT}(switch: {left})", f"{_INDENT}(switch: {right})", "changed")
    left, right = _goes_on(block.base_exits, base_next), _goes_on(block.fixed_exits, fixed_next)
    if left or right:
        yield _Sides(left, right, style="dim")


def _goes_on(exits: Sequence[ListingExit], following: str | None) -> str:
    """Where control runs on, if not to what is shown next."""
    behind = next((item.label for item in exits if item.way == "next"), None)
    return f"{_INDENT}(goes on in {behind})" if behind is not None and behind != following else ""


def _folded(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    indent = _FOLDED if width > 3 * len(_FOLDED) else ""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True) or [""]
