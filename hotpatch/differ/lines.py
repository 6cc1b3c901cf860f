"""A function's instructions as columns: a release has hundreds of thousands of them, most of which are like others."""

from __future__ import annotations

from array import array
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

    __slots__ = ("_firsts", "_inner", "_links", "_offsets", "_sizes", "operations", "tokens")

    def __init__(self) -> None:
        """Begin with none."""
        self.tokens: list[Token] = []
        self.operations: list[str] = []
        self._offsets = array("I")
        self._sizes = bytearray()
        self._firsts: list[int] = []
        """Of each of the function's ranges: how many stand before it."""
        self._links: dict[int, tuple[tuple[int, ...], tuple[FixupKind, ...]]] = {}
        self._inner: dict[int, tuple[int, bool]] = {}

    def begin_part(self) -> None:
        """What is added from here on stands in the function's next range."""
        self._firsts.append(len(self.tokens))

    def add(self, offset: int, size: int, token: Token, operation: str) -> None:
        """Add the instruction at ``offset`` of the current range, which has no references unless the next calls say so."""
        self._offsets.append(offset)
        self._sizes.append(size)
        self.tokens.append(token)
        self.operations.append(operation)

    def link(self, links: tuple[int, ...], kinds: tuple[FixupKind, ...]) -> None:
        """Give the instruction that was added last its links and their kinds."""
        self._links[len(self.tokens) - 1] = links, kinds

    def lead_in(self, inner: int, *, takes: bool) -> None:
        """Say what the instruction that was added last refers to within its range."""
        self._inner[len(self.tokens) - 1] = inner, takes

    def shapes(self, start: int, end: int) -> list[Shape]:
        """Of those from one index to before another."""
        links = self._links
        return [(self.operations[place], *(links[place][1] if place in links else ())) for place in range(start, end)]

    def links_of(self, index: int) -> tuple[int, ...]:
        """The indices in the body of the links of one of them."""
        return self._links[index][0] if index in self._links else ()

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
        part = len(self._firsts) - 1
        while self._firsts[part] > place:
            part -= 1
        return self._line(part, place)

    def __iter__(self) -> Iterator[Line]:
        """All of them."""
        for part, (start, end) in enumerate(pairwise([*self._firsts, len(self)])):
            for place in range(start, end):
                yield self._line(part, place)

    def _line(self, part: int, place: int) -> Line:
        links, kinds = self._links.get(place, ((), ()))
        inner, takes = self._inner.get(place, (None, False))
        position = Position(part, self._offsets[place])
        return Line(position, self._sizes[place], self.tokens[place], self.operations[place], kinds, links, inner, takes)
