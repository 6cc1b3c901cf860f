"""Functions that one image has once and the other several times: linkers fold functions together that are the same in all they refer to."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.copies import are_copies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.differ.funclets import Funclets
    from hotpatch.differ.live import Stretch
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.names import Names
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Folds:
    """Extra pairs of a matching, as far as names and exception data do not speak against them."""

    def __init__(self, base: View, fixed: View, matching: Matching, names: Names, funclets: Funclets) -> None:
        """Of ``matching``, which matches functions of ``base`` and ``fixed``."""
        self._base, self._fixed, self._matching = base, fixed, matching
        self._names, self._funclets = names, funclets

    def add_same(self, pairs: Iterable[Pair]) -> None:
        """Of functions that stand for each other where all else is the same, pair what nothing has matched.

        Both have the same body; whether they refer to the same is seen when all is matched. Or the fixed image has copies of what the
        base's one became.
        """
        forward, backward = self._matching.forward, self._matching.backward
        for base, fixed in pairs:
            is_extra = (base in forward) != (fixed in backward)
            if is_extra and (self._have_same_body(base, fixed) or self._is_copy(base, fixed)) and self._may_pair(base, fixed):
                self._matching.folded.add((base, fixed))
                self._matching.nameless.add((base, fixed))

    def add_merged(self, pairs: Iterable[Pair]) -> None:
        """Pair functions of the base that nothing has matched with what has certainly taken their place, where that is matched already.

        What was fixed became the same as another function, with which the linker folded it.
        """
        for base, fixed in pairs:
            if base not in self._matching.forward and fixed in self._matching.backward and self._may_pair(base, fixed):
                self._matching.folded.add((base, fixed))

    def add_pointed(self, stretches: Iterable[Stretch]) -> None:
        """Where live data that correspond lead to a matched function, and to a copy of its partner that nothing matched, pair these."""
        for stretch in stretches:
            self.add_same(pair for pair in self._pointed(stretch) if self._is_copy(*pair))

    def first_copies(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Of what is said to be each other and is not matched: where that is one function and copies, it and the first copy."""
        partners: dict[int, list[int]] = defaultdict(list)
        owners: dict[int, set[int]] = defaultdict(set)
        for base, fixed in pairs:
            if base not in self._matching.forward and fixed not in self._matching.backward:
                partners[base].append(fixed)
                owners[fixed].add(base)
        for base, found in partners.items():
            first = found[0]
            if len(found) > 1 and all(owners[other] == {base} and are_copies(self._fixed, first, other) for other in found):
                yield base, first

    def _pointed(self, stretch: Stretch) -> Iterator[Pair]:
        pointers = self._fixed.image.pointers
        for site in self._base.pointers(stretch.base, stretch.base + stretch.size):
            target = pointers.get(Rva(stretch.fixed + site))
            if target is not None and target in self._fixed.functions:
                yield self._base.pointer(stretch.base + site), target

    def _have_same_body(self, base: int, fixed: int) -> bool:
        return self._base.bodies[base].is_like(self._fixed.bodies[fixed])

    def _is_copy(self, base: int, fixed: int) -> bool:
        """Whether the fixed image's function is the same as the one that the base's became."""
        partner = self._matching.forward.get(base)
        return partner is not None and are_copies(self._fixed, partner, fixed)

    def _may_pair(self, base: int, fixed: int) -> bool:
        return self._names.allow(base, fixed) and self._funclets.may_pair(base, fixed)
