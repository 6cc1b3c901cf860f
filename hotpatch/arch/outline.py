"""Code apart from where it leads, so that code which differs in nothing else need not be decoded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch.base import FixupKind, reference_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.arch.base import Architecture, Reference

_DISTANCES = frozenset(
    {FixupKind.REL8, FixupKind.REL32, FixupKind.BRANCH26, FixupKind.BRANCH19, FixupKind.BRANCH14, FixupKind.LITERAL19, FixupKind.REL21}
)
"""Kinds whose field holds the distance to the target: unchanged when code and target move together."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A stretch of code with the fields of its outward references set apart; one is outward where its field changes as the stretch moves.

    Attributes:
        address: Of the stretch.
        code: Its bytes.
        references: All of them, by offset.
        outward: Indices of the outward ones.
        masked: The code with their fields zeroed.
        kept: The bits of the code (as a little-endian number) that belong to none of them.
    """

    address: int
    code: bytes
    references: tuple[Reference, ...]
    outward: tuple[int, ...]
    masked: bytes
    kept: int

    @classmethod
    def of(cls, architecture: Architecture, code: bytes, address: int, references: tuple[Reference, ...]) -> Outline:
        """The outline of ``code`` at ``address``, which refers to ``references``."""
        end = address + len(code)
        outward = tuple(
            [
                index
                for index, reference in enumerate(references)
                if not address <= reference.target < end or reference.kind not in _DISTANCES
            ]
        )
        fields = [references[index] for index in outward]
        kept = int.from_bytes(architecture.mask(b"\xff" * len(code), fields), "little")
        masked = (int.from_bytes(code, "little") & kept).to_bytes(len(code), "little") if outward else code
        return cls(address, code, references, outward, masked, kept)

    def outward_of(self, references: Sequence[Reference]) -> Iterator[Reference]:
        """The outward ones of the ``references`` of code with this outline."""
        return map(references.__getitem__, self.outward)

    def at(self, address: int) -> list[Reference]:
        """The references of code with this outline at ``address``; those that are not outward are right, the others are to be replaced."""
        shift = address - self.address
        if not shift:
            return list(self.references)
        return [
            reference_of((offset, size, field, kind, use, target + shift, addend))
            for offset, size, field, kind, use, target, addend in self.references
        ]

    def still_outward(self, references: Sequence[Reference], address: int) -> bool:
        """Whether the distances among ``references``, of code at ``address``, lead out where they did: else this is not its outline."""
        end = address + len(self.masked)
        inward = [index for index in self.outward if address <= references[index].target < end]
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
