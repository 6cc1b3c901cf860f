"""A function's instructions as columns: a release has hundreds of thousands of them, most of which are like others."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, overload

from hotpatch.differ.parts import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch import FixupKind

Token = bytes | str | tuple[object, ...]
"""Equal for instructions that do the same but for where their references lead: bytes without them, with their kinds where it has any; the
text of a branch within its range without its target."""
Shape = tuple[object, ...]
"""An operation and what kinds of reference it has."""

_LINKS, _LEADS_IN, _TAKES = 1, 2, 4
"""Marks of an instruction: it has links, refers to something within its range, takes the address of that or reads it."""


class Line(NamedTuple):
    """An instruction of a function.

    Attributes:
        position: Of its first byte.
        size: In bytes.
        token: See :data:`Token`.
        operation: What it does, operands apart.
        kinds: Of its links.
        links: Their indices in the body.
        inner: What it refers to within its own range, by distance.
        takes_inner: Whether it reads that or takes its address, rather than branching there.
    """

    position: Position
    size: int
    token: Token
    operation: str
    kinds: tuple[FixupKind, ...]
    links: tuple[int, ...] = ()
    inner: int | None = None
    takes_inner: bool = False

    @property
    def shape(self) -> Shape:
        """See :data:`Shape`."""
        return (self.operation, *self.kinds)


class Lines(Sequence[Line]):
    """The instructions of a function by position."""

    __slots__ = ("_firsts", "_inner", "_kinds", "_leading", "_linking", "_links", "_marks", "_offsets", "_sizes", "operations", "tokens")

    def __init__(self) -> None:
        """Begin with none."""
        self.tokens: list[Token] = []
        self.operations: list[str] = []
        self._offsets = array("I")
        self._sizes = bytearray()
        self._marks = bytearray()
        """What else is known of each: any of ``_LINKS``, ``_LEADS_IN`` and ``_TAKES``."""
        self._firsts: list[int] = []
        """Of each of the function's ranges: how many stand before it."""
        self._linking, self._links = array("I"), array("I")
        """Those that have links, and the first link of each."""
        self._kinds: list[tuple[FixupKind, ...]] = []
        """Of the links of each of these."""
        self._leading, self._inner = array("I"), array("I")
        """Those that refer to something within their range, and to what."""

    def begin_part(self) -> None:
        """What is added from here on stands in the function's next range."""
        self._firsts.append(len(self.tokens))

    def add(self, offset: int, size: int, token: Token, operation: str) -> None:
        """Add the instruction at ``offset`` of the current range, which has no references unless the next calls say so."""
        self._offsets.append(offset)
        self._sizes.append(size)
        self._marks.append(0)
        self.tokens.append(token)
        self.operations.append(operation)

    def link(self, first: int, kinds: tuple[FixupKind, ...]) -> None:
        """Give the instruction that was added last its links, from ``first`` on, by their kinds."""
        self._linking.append(len(self.tokens) - 1)
        self._links.append(first)
        self._kinds.append(kinds)
        self._marks[-1] |= _LINKS

    def lead_in(self, inner: int, *, takes: bool) -> None:
        """Say what the instruction that was added last refers to within its range."""
        self._leading.append(len(self.tokens) - 1)
        self._inner.append(inner)
        self._marks[-1] |= _LEADS_IN | (_TAKES if takes else 0)

    def end(self) -> None:
        """There are no more."""
        self.tokens, self.operations = self.tokens[:], self.operations[:]  # a list that grew has room for more

    def shapes(self, start: int, end: int) -> list[Shape]:
        """Of those from one index to before another."""
        found: list[Shape] = [(operation,) for operation in self.operations[start:end]]
        for at in range(bisect_left(self._linking, start), bisect_left(self._linking, end)):
            found[self._linking[at] - start] += self._kinds[at]
        return found

    def links_of(self, index: int) -> Sequence[int]:
        """The indices in the body of the links of one of them."""
        if not self._marks[index] & _LINKS:
            return ()
        at = bisect_left(self._linking, index)
        return range(self._links[at], self._links[at] + len(self._kinds[at]))

    def index_at(self, position: Position) -> int | None:
        """Which of them begins there."""
        part, offset = position
        start, end = [*self._firsts, len(self)][part : part + 2]
        at = bisect_left(self._offsets, offset, start, end)
        return at if at < end and self._offsets[at] == offset else None

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        """One of them, or several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index if index >= 0 else index + len(self)
        if not 0 <= place < len(self):
            raise IndexError(index)
        return self._line(bisect_right(self._firsts, place) - 1, place)

    def __iter__(self) -> Iterator[Line]:
        """All of them."""
        for part, (start, end) in enumerate(pairwise([*self._firsts, len(self)])):
            for place in range(start, end):
                yield self._line(part, place)

    def _line(self, part: int, place: int) -> Line:
        marks = self._marks[place]
        kinds = self._kinds[bisect_left(self._linking, place)] if marks & _LINKS else ()
        inner = self._inner[bisect_left(self._leading, place)] if marks & _LEADS_IN else None
        return Line(
            Position(part, self._offsets[place]),
            self._sizes[place],
            self.tokens[place],
            self.operations[place],
            kinds,
            tuple(self.links_of(place)),
            inner,
            marks & _TAKES != 0,
        )
