"""What is known of live (writable) data that two images have: how far they correspond, and what contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.differ.correspond import Ranges

if TYPE_CHECKING:
    from hotpatch.differ.matching import Evidence
    from hotpatch.differ.votes import Site, Tie


@dataclass(frozen=True, slots=True)
class Stretch:
    """Live data that correspond: ``fixed + i`` ↔ ``base + i`` for ``0 ≤ i < size`` (RVAs, bytes)."""

    fixed: int
    base: int
    size: int
    evidence: Evidence
    name: str | None


@dataclass(frozen=True, slots=True)
class Dispute:
    """Live data about which the evidence contradicts itself, with who says what."""

    tie: Tie
    sites: tuple[tuple[Site, ...], ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """Functions of the same body that agree that a part of a named datum has moved inside of it."""

    name: str
    base: int
    fixed: int
    sites: tuple[Site, ...]


@dataclass(frozen=True, slots=True)
class LiveData:
    """What is known of live data."""

    stretches: tuple[Stretch, ...]
    disputes: tuple[Dispute, ...]
    shifts: tuple[Shift, ...]

    def ranges(self) -> Ranges:
        """The lookup."""
        return Ranges([(stretch.fixed, stretch.base, stretch.size) for stretch in self.stretches])
