"""Code apart from where it leads, so that code which differs in nothing else need not be decoded again."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import FixupKind, Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.arch.base import Architecture
    from hotpatch.arch.model import Row

_DISTANCES = frozenset(
    {FixupKind.REL8, FixupKind.REL32, FixupKind.BRANCH26, FixupKind.BRANCH19, FixupKind.BRANCH14, FixupKind.LITERAL19, FixupKind.REL21}
)
"""Kinds whose field holds the distance to the target: unchanged when code and target move together."""
_PAGE, _UNUSED = FixupKind.PAGEBASE_REL21, Use.UNUSED
_TARGET = itemgetter(5)


def is_inward(row: Row, start: int, end: int) -> bool:
    """Whether the field of a reference in the code from ``start`` to ``end`` stays as it is when all of that moves."""
    return start <= row[5] < end and row[3] in _DISTANCES


def pieces_between(code: bytes, address: int, holes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """The pieces of ``code`` at ``address`` outside of ``holes`` (start and end addresses, sorted): where each begins, and its bytes."""
    start = address
    end = address + len(code)
    for hole, after in (*holes, (end, end)):
        if hole > start:
            yield start, code[start - address : hole - address]
        start = max(start, min(after, end))


class Outline(NamedTuple):
    """A stretch of code with the fields of its outward references set apart; one is outward where its field changes as the stretch moves.

    Attributes:
        address: Of the stretch.
        code: Its bytes.
        outward: The outward references, by offset.
        inner: Where the others lead, by distance from ``address``.
        masked: The code with the fields of the outward ones zeroed.
        forms: Offset, kind and use of each outward one, those apart whose address nothing uses.
        used: Which of the outward ones (by place among them) stand in ``forms``; ``None``: all.
        wholes: Which of ``forms`` (by place) give a whole address, not its page alone; ``None``: all.
    """

    address: int
    code: bytes
    outward: tuple[Row, ...]
    inner: tuple[int, ...]
    masked: bytes
    forms: tuple[tuple[int, FixupKind, Use], ...]
    used: tuple[int, ...] | None
    wholes: tuple[int, ...] | None

    @classmethod
    def of(cls, architecture: Architecture, code: bytes, address: int, references: Sequence[Row]) -> Outline:
        """The outline of ``code`` at ``address``, which refers to ``references``."""
        end = address + len(code)
        outward, inner = [], []
        for row in references:
            if address <= row[5] < end and row[3] in _DISTANCES:
                inner.append(row[5] - address)
            else:
                outward.append(row)
        if not outward:
            return cls(address, code, (), tuple(inner), code, (), None, None)
        forms = tuple([(offset, kind, use) for offset, _, _, kind, use, _, _ in outward if use is not _UNUSED])
        all_used = len(forms) == len(outward)
        used = None if all_used else tuple([place for place, row in enumerate(outward) if row[4] is not _UNUSED])
        masked = architecture.mask(code, outward)
        kinds = [row[3] for row in outward]
        wholes = tuple([place for place, form in enumerate(forms) if form[1] is not _PAGE]) if _PAGE in kinds else None
        return cls(address, code, tuple(outward), tuple(inner), masked, forms, used, wholes)

    def leads(self) -> tuple[int, ...]:
        """Where the outward ones lead in the stretch that this was made of."""
        return tuple(map(_TARGET, self.outward))


_Alike = dict[int, dict[int, Outline]]
"""Outlines of one size by the bits that belong to no outward field, and by what those hold; both as little-endian numbers."""


class Outlines:
    """Outlines to compare code with, found by their place, and by size and what stands outside of the outward fields."""

    def __init__(self, architecture: Architecture, outlines: Iterable[Outline] = ()) -> None:
        """Begin with ``outlines``, of what stands at their addresses."""
        self._architecture = architecture
        self._by_place: dict[tuple[int, int], Outline] = {}
        self._shift = 0
        """How far code stands behind its outline, as that which was found last does."""
        self._untold: dict[int, list[Outline]] = {}
        """By size, those that came since code of that size was not where it was expected."""
        self._alike: dict[int, _Alike] = {}
        """By size, the others."""
        for outline in outlines:
            self.add(outline, outline.address)

    def add(self, outline: Outline, address: int) -> None:
        """Take the outline of what stands at ``address``: of that it was made, or was found to be one, too."""
        size = len(outline.code)
        self._by_place[address, size] = outline
        if address == outline.address:
            self._untold.setdefault(size, []).append(outline)

    def find(self, code: bytes, address: int) -> Outline | None:
        """An outline that ``code`` at ``address`` has.

        Of several that it cannot tell from each other, that of the expected place, or the first.
        """
        expected = self._by_place.get((address - self._shift, len(code)))
        if expected is not None and self._architecture.mask(code, expected.outward) == expected.masked:
            return expected
        found = self._look_for(code)
        if found is not None:
            self._shift = address - found.address
        return found

    def _look_for(self, code: bytes) -> Outline | None:
        size = len(code)
        if size in self._untold:
            self._tell_apart(size)
        number = int.from_bytes(code, "little")
        alike = self._alike.get(size, {})
        return next((found for kept, outlines in alike.items() if (found := outlines.get(number & kept)) is not None), None)

    def _tell_apart(self, size: int) -> None:
        alike = self._alike.setdefault(size, {})
        for outline in self._untold.pop(size):
            kept = int.from_bytes(self._architecture.mask(b"\xff" * size, outline.outward), "little")
            alike.setdefault(kept, {}).setdefault(int.from_bytes(outline.masked, "little"), outline)
