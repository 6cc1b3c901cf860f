"""Code apart from where it leads, so that code which differs in nothing else need not be decoded again."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.base import FixupKind, Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.arch.base import Architecture, Row

_DISTANCES = frozenset(
    {FixupKind.REL8, FixupKind.REL32, FixupKind.BRANCH26, FixupKind.BRANCH19, FixupKind.BRANCH14, FixupKind.LITERAL19, FixupKind.REL21}
)
"""Kinds whose field holds the distance to the target: unchanged when code and target move together."""
_PAGE = FixupKind.PAGEBASE_REL21
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
        kept: The bits of the code (as a little-endian number) that belong to none of them.
        forms: Offset, kind and use of each outward one, those apart whose address nothing uses.
        used: Which of the outward ones (by place among them) stand in ``forms``; ``None``: all.
        wholes: Which of ``forms`` (by place) give a whole address, not its page alone; ``None``: all.
    """

    address: int
    code: bytes
    outward: tuple[Row, ...]
    inner: tuple[int, ...]
    masked: bytes
    kept: int
    forms: tuple[tuple[int, FixupKind, Use], ...]
    used: tuple[int, ...] | None
    wholes: tuple[int, ...] | None

    @classmethod
    def of(cls, architecture: Architecture, code: bytes, address: int, references: Sequence[Row]) -> Outline:
        """The outline of ``code`` at ``address``, which refers to ``references``."""
        size = len(code)
        end = address + size
        outward, inner = [], []
        for row in references:
            if address <= row[5] < end and row[3] in _DISTANCES:
                inner.append(row[5] - address)
            else:
                outward.append(row)
        if not outward:
            return cls(address, code, (), tuple(inner), code, (1 << 8 * size) - 1, (), None, None)
        forms = tuple([(offset, kind, use) for offset, _, _, kind, use, _, _ in outward if use is not Use.UNUSED])
        all_used = len(forms) == len(outward)
        used = None if all_used else tuple([place for place, row in enumerate(outward) if row[4] is not Use.UNUSED])
        kept = int.from_bytes(architecture.mask(b"\xff" * size, outward), "little")
        masked = (int.from_bytes(code, "little") & kept).to_bytes(size, "little")
        kinds = [row[3] for row in outward]
        wholes = tuple([place for place, form in enumerate(forms) if form[1] is not _PAGE]) if _PAGE in kinds else None
        return cls(address, code, tuple(outward), tuple(inner), masked, kept, forms, used, wholes)

    def leads(self) -> tuple[int, ...]:
        """Where the outward ones lead in the stretch that this was made of."""
        return tuple(map(_TARGET, self.outward))

    def still_outward(self, leads: Sequence[int], address: int) -> bool:
        """Whether the distances that lead to ``leads`` from code at ``address`` lead out where they did: else this is not its outline."""
        end = address + len(self.masked)
        return not any(address <= lead < end and row[3] in _DISTANCES for row, lead in zip(self.outward, leads, strict=True))


class Outlines:
    """Outlines to compare code with, found by size, kept bits and what those hold."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, dict[int, Outline]]] = {}

    def add(self, outline: Outline) -> None:
        """Take ``outline``, unless one that code cannot tell from it is there."""
        masked = int.from_bytes(outline.masked, "little")
        self._known.setdefault(len(outline.masked), {}).setdefault(outline.kept, {}).setdefault(masked, outline)

    def find(self, code: bytes) -> Outline | None:
        """An outline that ``code`` has."""
        alike = self._known.get(len(code))
        if alike is None:
            return None
        number = int.from_bytes(code, "little")
        return next((found for kept, outlines in alike.items() if (found := outlines.get(number & kept)) is not None), None)
