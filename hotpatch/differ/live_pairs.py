"""Pairs of live data by where they begin, and how far each of them reaches."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from hotpatch.differ.live import Stretch
from hotpatch.differ.uses import parts_behind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.differ.matching import Evidence
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class LivePairs:
    """Live data of two images that are each other, one to one, by their RVAs.

    Attributes:
        forward: Base start → fixed start.
        taken: The fixed starts.
        starts: The base starts, sorted.
        reckoned: Of these, data of their own though only one image names them.
    """

    def __init__(self, base: View, fixed: View, named: Iterable[int]) -> None:
        """None yet, of ``base`` and ``fixed``; ``named``: where the base's live data with a name begin."""
        self._base, self._fixed = base, fixed
        self._named = sorted(named)
        self._evidence: dict[int, Evidence] = {}
        self.forward: dict[int, int] = {}
        self.taken: set[int] = set()
        self.starts: list[int] = []
        self.reckoned: set[int] = set()

    def add(self, base: int, fixed: int, evidence: Evidence) -> None:
        """Pair two data, unless one of them is paired."""
        if base not in self.forward and fixed not in self.taken:
            self.forward[base] = fixed
            self.taken.add(fixed)
            insort(self.starts, base)
            self._evidence[base] = evidence

    def near(self, base: int, distance: int) -> list[int]:
        """The base starts no farther than ``distance`` bytes from ``base``, sorted."""
        return self.starts[bisect_left(self.starts, base - distance) : bisect_right(self.starts, base + distance)]

    def neighbours(self, base: int) -> list[int]:
        """The base starts next to ``base`` on both sides, as far as there are any."""
        below, above = bisect_left(self.starts, base), bisect_right(self.starts, base)
        return self.starts[max(below - 1, 0) : below] + self.starts[above : above + 1]

    def stretches(self) -> tuple[Stretch, ...]:
        """How far each pair reaches; never overlapping on the fixed side."""
        anchors = sorted((fixed, base) for base, fixed in self.forward.items())
        found: list[Stretch] = []
        for number, (fixed, base) in enumerate(anchors):
            if found and fixed < found[-1].fixed + found[-1].size:
                last = found[-1]
                if base - last.base == fixed - last.fixed and base not in self.reckoned:
                    continue
                found[-1] = Stretch(last.fixed, last.base, fixed - last.fixed, last.evidence, last.name)
            following = anchors[number + 1] if number + 1 < len(anchors) else None
            symbol = self._base.symbol(base)
            name = symbol.name if symbol is not None and symbol.rva == base else None
            found.append(Stretch(fixed, base, self._size(base, fixed, following), self._evidence[base], name))
        return tuple(found)

    def _size(self, base: int, fixed: int, following: Pair | None) -> int:
        there, here = self._base.symbol(base), self._fixed.symbol(fixed)
        if there is not None and here is not None and there.rva == base and here.rva == fixed:
            return min(there.size or 0, here.size or 0)
        size = min(self._base.extent(base).size, self._fixed.extent(fixed).size, self._room(base))
        if following is not None and not (there or here):
            gap = following[0] - fixed
            if gap > size and following[1] - base == gap and self._is_one(base, fixed, gap):
                return gap
        return size

    def _is_one(self, base: int, fixed: int, size: int) -> bool:
        """Whether ``size`` bytes are the same datum in both images, although something leads into their middle."""
        if self._has_others(base, size) or self._base.bare(base, size) != self._fixed.bare(fixed, size):
            return False
        return not (self._fixed.writable(fixed) and self._has_unproven_parts(base, fixed, size))

    def _room(self, base: int) -> int:
        """Bytes up to where the base has a datum next of which code only reckons the address."""
        return min((start for start in self.reckoned if start > base), default=self._base.image.size_of_image) - base

    def _has_others(self, base: int, size: int) -> bool:
        """Whether data of the base that lie elsewhere in the fixed image, or have a name, begin behind ``base`` within ``size`` bytes."""
        at = bisect_right(self.starts, base)
        paired = at < len(self.starts) and self.starts[at] < base + size
        named = bisect_right(self._named, base)
        return paired or (named < len(self._named) and self._named[named] < base + size)

    def _has_unproven_parts(self, base: int, fixed: int, size: int) -> bool:
        """Whether something leads into live data that nothing shows to be there in the base too: no reference, or zeros alone.

        Another datum may stand in the place of a lost one, and the zeros that live data mostly start with are alike.
        """
        parts = parts_behind(self._fixed, fixed, size)
        if not parts <= parts_behind(self._base, base, size):
            return True
        return not all(any(self._fixed.bare(fixed + at, self._fixed.extent(fixed + at).size)) for at in parts)
