"""Code apart from where it leads, so that code which differs in nothing else need not be decoded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch.base import FixupKind, Use, reference_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch.base import Architecture, Reference

_DISTANCES = frozenset(
    {FixupKind.REL8, FixupKind.REL32, FixupKind.BRANCH26, FixupKind.BRANCH19, FixupKind.BRANCH14, FixupKind.LITERAL19, FixupKind.REL21}
)
"""Kinds whose field holds the distance to the target: unchanged when code and target move together."""


@dataclass(frozen=True, eq=False, slots=True)
class Outline:
    """A stretch of code with the fields of its outward references set apart; one is outward where its field changes as the stretch moves.

    Attributes:
        address: Of the stretch.
        code: Its bytes.
        references: All of them, by offset.
        outward: Indices of the outward ones.
        masked: The code with their fields zeroed.
        kept: The bits of the code (as a little-endian number) that belong to none of them.
        forms: Offset, kind and use of each outward one, those apart whose address nothing uses.
        used: Which of the outward ones (by place among them) stand in ``forms``; ``None``: all.
    """

    address: int
    code: bytes
    references: tuple[Reference, ...]
    outward: tuple[int, ...]
    masked: bytes
    kept: int
    forms: tuple[tuple[int, FixupKind, Use], ...]
    used: tuple[int, ...] | None

    @classmethod
    def of(cls, architecture: Architecture, code: bytes, address: int, references: tuple[Reference, ...]) -> Outline:
        """The outline of ``code`` at ``address``, which refers to ``references``."""
        end = address + len(code)
        outward = tuple(
            [
                index
                for index, (_, _, _, kind, _, target, _) in enumerate(references)
                if not address <= target < end or kind not in _DISTANCES
            ]
        )
        if not outward:
            return cls(address, code, references, outward, code, (1 << 8 * len(code)) - 1, (), None)
        fields = [references[index] for index in outward]
        forms = tuple([(offset, kind, use) for offset, _, _, kind, use, _, _ in fields if use is not Use.UNUSED])
        all_used = len(forms) == len(fields)
        used = None if all_used else tuple([place for place, one in enumerate(fields) if one.use is not Use.UNUSED])
        kept = int.from_bytes(architecture.mask(b"\xff" * len(code), fields), "little")
        masked = (int.from_bytes(code, "little") & kept).to_bytes(len(code), "little")
        return cls(address, code, references, outward, masked, kept, forms, used)

    def leads(self) -> tuple[int, ...]:
        """Where the outward ones lead in the stretch that this was made of."""
        return tuple([self.references[index].target for index in self.outward])

    def at(self, address: int, leads: Sequence[int]) -> tuple[Reference, ...]:
        """The references of code with this outline at ``address`` whose outward ones lead to ``leads``."""
        shift = address - self.address
        found = [
            reference_of((offset, size, field, kind, use, target + shift, addend))
            for offset, size, field, kind, use, target, addend in self.references
        ]
        for index, lead in zip(self.outward, leads, strict=True):
            offset, size, field, kind, use, _, addend = found[index]
            found[index] = reference_of((offset, size, field, kind, use, lead, addend))
        return tuple(found)

    def still_outward(self, leads: Sequence[int], address: int) -> bool:
        """Whether the distances that lead to ``leads`` from code at ``address`` lead out where they did: else this is not its outline."""
        end = address + len(self.masked)
        references = self.references
        inward = [index for index, lead in zip(self.outward, leads, strict=True) if address <= lead < end]
        return all(references[index].kind not in _DISTANCES for index in inward)


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
