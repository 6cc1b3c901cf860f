"""Short functions that nothing leads to: what a compiler leaves of a frame whose exception data name destructors instead of blocks, say.

Such are alike in their dozens, and no reference tells which is which. Linkers keep them in the order of the functions that they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.gaps import gaps, in_order
from hotpatch.image.funclets import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hotpatch.differ.likeness import Likeness
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

TELLING_SIZE = 24
"""Bytes of code from which on a body that is unique in both images is evidence by itself; a shorter one may be a coincidence."""
_LIMIT = 40_000
"""Pairs of functions between two matched neighbours that are compared at most."""


class Idle:
    """Those of two images, by entry."""

    def __init__(self, base: View, fixed: View, likeness: Likeness) -> None:
        """Of ``base`` and ``fixed``."""
        self._views = base, fixed
        self._likeness = likeness
        self._base, self._fixed = _idle(base), _idle(fixed)

    def __bool__(self) -> bool:
        """Whether both images have any."""
        return bool(self._base and self._fixed)

    def has(self, base: int, fixed: int) -> bool:
        """Whether one of the two is among them."""
        return base in self._base or fixed in self._fixed

    def in_place(self, matching: Matching, agree: Callable[[Pair], bool]) -> Iterator[Pair]:
        """Which are each other where nothing else stands between two matched neighbours: in their order, those that are most alike.

        More than :data:`_LIMIT` pairs between two neighbours are not compared.

        Args:
            matching: What is known.
            agree: Whether two lead to the same.
        """
        for there, here in gaps(*self._views, matching):
            if len(there) * len(here) <= _LIMIT and self._base.issuperset(there) and self._fixed.issuperset(here):
                yield from in_order(there, here, dict(self._scores(there, here, agree)))

    def _scores(self, there: Sequence[int], here: Sequence[int], agree: Callable[[Pair], bool]) -> Iterator[tuple[Pair, float]]:
        """Where something came or went, two that differ are each other only if they lead to the same."""
        as_many = len(there) == len(here)
        for pair in [(old, new) for old in there for new in here]:
            agreed = agree(pair)
            if self._views[0].bodies[pair[0]].is_like(self._views[1].bodies[pair[1]]):
                yield pair, 3 if agreed else 2
            elif as_many or agreed:
                yield pair, 1 + self._likeness.affinity(*pair)


def _idle(view: View) -> frozenset[int]:
    image = view.image
    led = set(view.referenced)
    led.update(block.entry for rows in image.kept(blocks).values() for block in rows)
    led.update(export.rva for export in image.exports if export.rva is not None)
    led.update(entry.handler for entry in image.unwind_entries if entry.handler is not None)
    led.update(image.guard_functions)
    return frozenset(
        entry
        for entry, function in view.functions.items()
        if function.size < TELLING_SIZE and entry not in led and entry != image.entry_point
    )
