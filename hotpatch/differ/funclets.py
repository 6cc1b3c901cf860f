"""Blocks that exception data leads to and that are functions of their own: which function each belongs to, and which are each other.

Microsoft's compiler makes a procedure of a few instructions of each ``catch`` and of what unwinding calls. Many look alike, so that nothing
but the function to which one belongs tells which it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.gaps import in_order
from hotpatch.image.funclets import BlockRole, blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.differ.likeness import Likeness
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair
    from hotpatch.image.funclets import Block

_LIMIT = 10_000
"""Pairs of blocks of two functions that are compared at most."""


class Funclets:
    """Those of two images, of which ``matching`` tells what is known so far."""

    def __init__(self, base: View, fixed: View, matching: Matching, likeness: Likeness) -> None:
        """Compare those of ``base`` with those of ``fixed``."""
        self._views = base, fixed
        self._matching = matching
        self._likeness = likeness
        self._blocks = _blocks_of(base), _blocks_of(fixed)
        self._parents = _parents_of(self._blocks[0]), _parents_of(self._blocks[1])
        self._are_there = all(self._blocks)

    def may_pair(self, base: int, fixed: int) -> bool:
        """Whether the two can be the same function as far as exception data tell: blocks can be, if their functions are the same.

        Where the data of one image could not be read, they tell nothing.
        """
        there, here = self._parents[0].get(base), self._parents[1].get(fixed)
        if (there is None and here is None) or not self._are_there:
            return True
        if there is None or here is None:
            return False
        return any(self._matching.forward.get(parent) in here for parent in there)

    def pairs(self, base: int, fixed: int) -> list[Pair]:
        """Which blocks of two functions, by their entries, are each other: of each role in their order, those that are most alike."""
        old, new = self._blocks[0].get(base, ()), self._blocks[1].get(fixed, ())
        found: list[Pair] = []
        for role in BlockRole if old and new else ():
            there, here = [block.entry for block in old if block.role is role], [block.entry for block in new if block.role is role]
            found += self._aligned(there, here)
        return found

    def _aligned(self, there: Sequence[int], here: Sequence[int]) -> list[Pair]:
        if len(there) == len(here) and all(self._is_like(*pair) for pair in zip(there, here, strict=True)):
            return list(zip(there, here, strict=True))
        if len(there) * len(here) > _LIMIT:
            return []
        return in_order(there, here, {(old, new): self._score(old, new) for old in there for new in here})

    def _is_like(self, base: int, fixed: int) -> bool:
        return self._views[0].bodies[base].is_like(self._views[1].bodies[fixed])

    def _score(self, base: int, fixed: int) -> float:
        """From 1 to 3, so that of two ways the one with more pairs is better."""
        if not self._is_like(base, fixed):
            return 1 + self._likeness.affinity(base, fixed)
        targets = zip(self._views[0].bodies[base].whole_targets, self._views[1].bodies[fixed].whole_targets, strict=True)
        known = [self._matching.forward[old] == new for old, new in targets if old in self._matching.forward]
        return 2 + sum(known) / len(known) if known else 2.5


def _blocks_of(view: View) -> Mapping[int, tuple[Block, ...]]:
    """The blocks of each function, by its entry, that are functions themselves. A ``catch`` has the data of the function that it is of."""
    image = view.image
    known = image.kept(blocks)
    found: dict[int, tuple[Block, ...]] = {}
    for entry in image.unwind_entries if known else ():
        rows = known.get(entry.handler_data, ()) if entry.handler_data is not None else ()
        home = image.function_at(entry.range.start) if rows else None
        if home is None or any(row.entry == home.entry for row in rows):
            continue
        own = found.get(home.entry, ())
        found[home.entry] = (*own, *(row for row in rows if row.entry in view.functions and row not in own))
    return {home: rows for home, rows in found.items() if rows}


def _parents_of(families: Mapping[int, tuple[Block, ...]]) -> Mapping[int, frozenset[int]]:
    """The functions that each block belongs to, by its entry: several where linkers fold blocks together."""
    found: dict[int, set[int]] = {}
    for home, rows in families.items():
        for row in rows:
            if row.role is not BlockRole.DESTRUCTOR:
                found.setdefault(row.entry, set()).add(home)
    return {entry: frozenset(homes) for entry, homes in found.items()}
