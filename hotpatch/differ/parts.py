"""What the comparison takes a function apart into: its code, its references, its instructions, and the places that these lead to."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.arch import Columns, FixupKind, JumpTable, Use
    from hotpatch.image import Function, Import

POINTER_SIZE = 8
"""Bytes."""


class Position(NamedTuple):
    """A place in a function: which of its ranges, and how many bytes into it."""

    part: int
    offset: int


ENTRY = Position(0, 0)


class PlaceKind(StrEnum):
    """What lies at an address."""

    FUNCTION = "function"
    IMPORT = "import"
    WRITABLE = "writable"
    CONSTANT = "constant"
    TABLE = "table"
    NOTHING = "nothing"


class Place(NamedTuple):
    """What lies at an address.

    Attributes:
        function: That holds it; for ``TABLE`` the one that jumps through it.
        position: In that function.
        slot: The import that is bound there.
        table: The jump table that starts there.
    """

    kind: PlaceKind
    function: Function | None = None
    position: Position = ENTRY
    slot: Import | None = None
    table: JumpTable | None = None


NOTHING, WRITABLE, CONSTANT = Place(PlaceKind.NOTHING), Place(PlaceKind.WRITABLE), Place(PlaceKind.CONSTANT)


class Link(NamedTuple):
    """A reference of a function, apart from distances within one range."""

    part: int
    offset: int
    kind: FixupKind
    use: Use
    target: int


link_of: Callable[[tuple[int, int, FixupKind, Use, int]], Link] = partial(tuple.__new__, Link)
"""``Link._make`` without a Python frame, where thousands are made."""


class Body(NamedTuple):
    """A function's code and its references, apart.

    Attributes:
        code: Of each range.
        masked: The same with the field of every link and every jump table that lies in it zeroed; equal for functions that
            differ at most in where they lead.
        forms: Of each range, where its links stand in it and how they are encoded, by offset.
        targets: Of all links, in that order.
        whole_targets: Of those links that give a whole address, not its page alone.
        tables: Where the jump tables begin that lie in the ranges, which code may refer to by distances within its range alone.
    """

    function: Function
    code: tuple[bytes, ...]
    masked: tuple[bytes, ...]
    forms: tuple[Columns, ...]
    targets: tuple[int, ...]
    whole_targets: tuple[int, ...]
    tables: tuple[int, ...] = ()

    def is_like(self, other: Body) -> bool:
        """Whether the two do the same, in the same bytes, but for where they lead, by their jump tables too."""
        return self.masked == other.masked and self.forms == other.forms

    def links(self) -> tuple[Link, ...]:
        """What was zeroed, by range and offset."""
        rows = (
            (part, offset, kind, use)
            for part, (offsets, encodings) in enumerate(self.forms)
            for offset, (_, _, kind, use, _) in zip(offsets, encodings, strict=True)
        )
        return tuple([link_of((*row, target)) for row, target in zip(rows, self.targets, strict=True)])

    def link(self, place: int) -> Link:
        """One of :meth:`links`."""
        target, part = self.targets[place], 0
        offsets, encodings = self.forms[part]
        while place >= len(offsets):
            place -= len(offsets)
            part += 1
            offsets, encodings = self.forms[part]
        _, _, kind, use, _ = encodings[place]
        return link_of((part, offsets[place], kind, use, target))


def position_in(function: Function, rva: int) -> Position:
    """Where in ``function`` the address lies.

    Raises:
        ValueError: It does not lie in the function.
    """
    for part, stretch in enumerate(function.ranges):
        if stretch.start <= rva < stretch.end:
            return Position(part, rva - stretch.start)
    raise ValueError(f"0x{rva:x} is not in {function.label}")
