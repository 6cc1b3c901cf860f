"""Code apart from where it leads, so that code which differs in nothing else need not be decoded again."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import ENCODINGS, FixupKind, Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.arch.base import Architecture
    from hotpatch.arch.model import Columns, Row

_DISTANCES = frozenset(
    {FixupKind.REL8, FixupKind.REL32, FixupKind.BRANCH26, FixupKind.BRANCH19, FixupKind.BRANCH14, FixupKind.LITERAL19, FixupKind.REL21}
)
"""Kinds whose field holds the distance to the target: unchanged when code and target move together."""
_PAGE, _UNUSED = FixupKind.PAGEBASE_REL21, Use.UNUSED
_NONE: Columns = array("I"), ()


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
        leads: Where each of them leads.
        inner: Where the others lead, by distance from ``address``.
        masked: The code with the fields of the outward ones zeroed.
        forms: The outward ones, those apart whose address nothing uses.
        used: Which of the outward ones (by place among them) stand in ``forms``; ``None``: all.
        wholes: Which of ``forms`` (by place) give a whole address, not its page alone; ``None``: all.
    """

    address: int
    code: bytes
    outward: Columns
    leads: tuple[int, ...]
    inner: tuple[int, ...]
    masked: bytes
    forms: Columns
    used: tuple[int, ...] | None
    wholes: tuple[int, ...] | None

    @classmethod
    def of(cls, architecture: Architecture, code: bytes, address: int, references: Sequence[Row]) -> Outline:
        """The outline of ``code`` at ``address``, which refers to ``references``."""
        end = address + len(code)
        places, found, leads, inner = [], [], [], []
        share = ENCODINGS.setdefault
        for offset, size, field, kind, use, target, addend in references:
            if address <= target < end and kind in _DISTANCES:
                inner.append(target - address)
                continue
            encoding = size, field - offset, kind, use, addend
            found.append(share(encoding, encoding))
            places.append(offset)
            leads.append(target)
        if not places:
            return cls(address, code, _NONE, (), tuple(inner), code, _NONE, None, None)
        columns = array("I", places), tuple(found)
        masked = architecture.blank(code, columns)
        offsets, encodings = columns
        used = wholes = None
        if _PAGE in [encoding[2] for encoding in encodings]:
            used = tuple([place for place, encoding in enumerate(encodings) if encoding[3] is not _UNUSED])
            if len(used) == len(leads):
                used = None
            else:
                offsets, encodings = array("I", [offsets[place] for place in used]), tuple([encodings[place] for place in used])
            wholes = tuple([place for place, encoding in enumerate(encodings) if encoding[2] is not _PAGE])
        forms = columns if used is None else (offsets, encodings)
        return cls(address, code, columns, tuple(leads), tuple(inner), masked, forms, used, wholes)


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
        if expected is not None and self._architecture.blank(code, expected.outward) == expected.masked:
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
            kept = int.from_bytes(self._architecture.blank(b"\xff" * size, outline.outward), "little")
            alike.setdefault(kept, {}).setdefault(int.from_bytes(outline.masked, "little"), outline)
