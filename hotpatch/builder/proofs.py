"""Where the base has nameless live data of images that both have symbols: what functions that did not change show.

Compilers that merge variables name the first of them at most, so that neither names nor the order of data tell what lies behind it, and
changed code may mean another datum than the base's version did. A function with the same body in both images that reads or writes it
means the same. Without one, the same functions must use both, and both must lie in the same place among others that lie between the
same neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.ownership import FARTHEST, Usage
from hotpatch.differ.matching import Evidence
from hotpatch.differ.reached import reached_alike
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.builder.reached import Reached, Users
    from hotpatch.builder.unchanged import Unchanged
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View

_UNSURE = frozenset({Evidence.ALIGNMENT, Evidence.ORDER})
"""Evidence for data that tells nothing by itself of what lies beside them."""


class Proofs:
    """Asks the functions that did not change; each is followed when something near what it names is first asked about."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, unchanged: Unchanged, there: Reached, here: Reached) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``; ``there`` and ``here``: what functions of either reach."""
        self._diff, self._fixed, self._base, self._there, self._here = diff, fixed, base, there, here
        self._unchanged = unchanged
        self._is_asked = diff.fixed.has_symbols and diff.base.has_symbols
        self._followed: set[int] = set()
        self._accessed: dict[tuple[int, bool], set[int]] = defaultdict(set)
        """Where unchanged functions read or write in the fixed image, with or without an index on top → the same in the base."""

    def is_needed(self, fixed: int) -> bool:
        """Whether live data lie at ``fixed`` that lost their name; what the headers tell of needs none."""
        if not self._is_asked or not self._fixed.writable(fixed) or self._fixed.symbol(fixed) is not None:
            return False
        return Rva(fixed) not in self._fixed.image.imports_by_slot and fixed not in self._fixed.special_data.values()

    def objection(self, fixed: int, base: int, *, indexed: bool = False) -> str | None:
        """Why the live datum at ``fixed`` may be another than the base's at ``base``; ``None`` where it has a name or is certain.

        ``indexed``: it is gone over by an index, or its address alone is made, so that code which goes over it by an index tells of it.
        """
        if not self.is_needed(fixed):
            return None
        shown = self._shown(fixed, indexed=indexed)
        if shown == {base}:
            return None
        if not shown:
            return None if self._is_framed(fixed, base) else "no function that did not change uses both"
        return f"a function that did not change has 0x{min(shown - {base}):x} there"

    def _is_framed(self, fixed: int, base: int) -> bool:
        """Whether the same functions use both, between surely matched data that have moved as far as the two lie apart.

        All else that code names or reaches between these has moved so, too.
        """
        users = self._here.users(fixed)
        if not users or users != self._there.users(base):
            return False
        frame = self._frame(fixed, base - fixed)
        if frame is None or frame.size > FARTHEST:
            return False
        if not self._is_aligned(fixed, base, users):
            return False
        sides = (self._fixed, self._here, 0), (self._base, self._there, base - fixed)
        here, there = ({place - by for place in _known(view, reached, frame.start + by, frame.end + by)} for view, reached, by in sides)
        return here == there

    def _frame(self, fixed: int, moved: int) -> Range | None:
        """From the surely matched data before ``fixed`` to those behind, or the section's edges; ``None`` unless both ``moved`` so."""
        here, there = self._fixed.section(fixed), self._base.section(fixed + moved)
        if here is None or there is None:
            return None
        at = bisect_right(self._sure, (fixed, self._fixed.image.size_of_image))
        near = [(one, other) for one, other in self._sure[max(at - 1, 0) : at + 1] if one in here.range]
        low = next((edge for edge in near if edge[0] <= fixed), (here.range.start, there.range.start))
        high = next((edge for edge in near if edge[0] > fixed), (here.range.end, there.range.end))
        return Range(Rva(low[0]), Rva(high[0])) if all(other - one == moved for one, other in (low, high)) else None

    def _is_aligned(self, fixed: int, base: int, users: Users) -> bool:
        """Whether corresponding instructions of ``users`` name or reach the two, and none of them one of the two and something else."""
        match = match_at_or_before(self._diff, Rva(fixed))
        named = match is not None and (match.fixed, match.base) == (fixed, base)
        rows = [self._diff.functions[number] for number in sorted(users)]
        pairs = {pair for row in rows if row.base and row.fixed for pair in self._aligned(row.base.entry, row.fixed.entry)}
        touching = {pair for pair in pairs if pair[0] == base or pair[1] == fixed}
        return touching <= {(base, fixed)} and (named or bool(touching))

    def _aligned(self, base: int, fixed: int) -> tuple[tuple[int, int], ...]:
        alike = reached_alike(self._base, self._fixed, (base, fixed), indexed=True)
        return (*alike.accessed, *alike.made)

    @cached_property
    def _sure(self) -> Sequence[tuple[int, int]]:
        """Where the live data begin that more than changed code matches, in the fixed image and in the base."""
        return sorted((match.fixed, match.base) for match in self._diff.data if match.writable and match.matched_by not in _UNSURE)

    def _shown(self, fixed: int, *, indexed: bool) -> set[int]:
        """Every place of the base at which unchanged functions read or write as they do at ``fixed``; ``indexed``: by an index, too."""
        for stretch in range((fixed - FARTHEST) // FARTHEST, (fixed + FARTHEST) // FARTHEST + 1):
            for number in self._by_stretch.pop(stretch, ()):
                self._follow(number)
        return self._accessed[fixed, False] | (self._accessed[fixed, True] if indexed else set())

    def _follow(self, number: int) -> None:
        """Note where an unchanged function reads and writes in both images; where it only makes an address, something may end."""
        if number in self._followed:
            return
        self._followed.add(number)
        body, reached = self._unchanged.reached(number)
        if body is None:
            return
        direct = Usage(self._diff.fixed, body.sites).accessed
        named: dict[int, set[int]] = defaultdict(set)
        for there, here in self._unchanged.named[number]:
            named[here].add(there)
            if here in direct:
                self._accessed[here, False].add(there)
        for site, items in reached.items():
            for item in [item for item in items if item.width]:
                self._accessed[item.start, item.indexed].update(there + item.start - site.target for there in named[site.target])

    @cached_property
    def _by_stretch(self) -> dict[int, Sequence[int]]:
        """The unchanged functions that name something in a stretch of :data:`FARTHEST` bytes, by its number, until they were followed."""
        found: dict[int, dict[int, None]] = defaultdict(dict)
        for number, pairs in enumerate(self._unchanged.named):
            for _, here in pairs:
                found[here // FARTHEST][number] = None
        return {stretch: (*numbers,) for stretch, numbers in found.items()}


def _known(view: View, reached: Reached, low: int, high: int) -> Iterator[int]:
    """What is named or reached from ``low`` to before ``high``."""
    yield from view.boundaries[bisect_left(view.boundaries, low) : bisect_left(view.boundaries, high)]
    yield from reached.between(low, high)
