"""Live data without names that are the last ones left where all others between two neighbours have but changed places.

Compilers of another version lay the same variables out in another order. Where neighbours on both sides moved by as much, and what is used
between them in one image is what is used between them in the other, but for one datum in each, that one is the same in both.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_NEAREST = 8
"""Matched data on either side that are looked at for two that have moved by as much."""


class LastOnes:
    """Judges data of two images that nothing has matched, by the pairs that are known (base start → fixed start)."""

    def __init__(self, base: View, fixed: View, matching: Matching, users: Mapping[View, Mapping[int, Set[int]]]) -> None:
        """Of ``base`` and ``fixed``, whose functions are matched; ``users``: live data → the functions that refer to them."""
        self._base, self._fixed, self._matching, self._users = base, fixed, matching, users

    def is_last(self, base: int, fixed: int, pairs: Mapping[int, int]) -> bool:
        """Whether the two are the last ones left: of one size, the same bytes and not zeros alone, used by the same functions.

        Not where pointers in data lead to them, or they hold some.
        """
        size = self._base.extent(base).size
        content = self._base.bare(base, size)
        if size != self._fixed.extent(fixed).size or not any(content) or content != self._fixed.bare(fixed, size):
            return False
        if any(at in view.pointed or view.pointers(at, at + size) for view, at in ((self._base, base), (self._fixed, fixed))):
            return False
        there, here = self._users[self._base].get(base, frozenset()), self._users[self._fixed].get(fixed, frozenset())
        if not here or {self._matching.forward.get(entry) for entry in there} != here:
            return False
        return any(self._leave_only(base, fixed, pairs, *around) for around in self._around(base, pairs))

    def _around(self, base: int, pairs: Mapping[int, int]) -> Iterator[Pair]:
        """Matched data in front of ``base`` and behind it, in its section, that have moved by as much."""
        section, starts = self._base.section(base), sorted(pairs)
        at = bisect_left(starts, base)
        before, behind = starts[max(at - _NEAREST, 0) : at], starts[at : at + _NEAREST]
        for low, high in ((low, high) for low in before[::-1] for high in behind):
            if self._base.section(low) is section is self._base.section(high) and pairs[low] - low == pairs[high] - high:
                yield low, high

    def _leave_only(self, base: int, fixed: int, pairs: Mapping[int, int], low: int, high: int) -> bool:
        """Whether between the data at ``low`` and ``high`` all else that is used is matched, and nothing else holds what these two do."""
        there, here = self._used(self._base, low, high), self._used(self._fixed, pairs[low], pairs[high])
        if (
            base not in there
            or fixed not in here
            or not self._is_alone(self._base, base, there)
            or not self._is_alone(self._fixed, fixed, here)
        ):
            return False
        return {pairs.get(start) for start in there if start != base} == {start for start in here if start != fixed}

    @staticmethod
    def _is_alone(view: View, at: int, starts: Iterable[int]) -> bool:
        """Whether no other datum of that size at ``starts`` holds the same: one of them could have been taken for another."""
        size = view.extent(at).size
        return [start for start in starts if view.extent(start).size == size and view.bare(start, size) == view.bare(at, size)] == [at]

    def _used(self, view: View, low: int, high: int) -> Sequence[int]:
        boundaries = view.boundaries
        inside = boundaries[bisect_left(boundaries, low + 1) : bisect_left(boundaries, high)]
        return [start for start in inside if start in self._users[view]]
