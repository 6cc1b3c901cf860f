"""Which constants of the fixed image the base has too."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from hotpatch.differ.matching import Evidence
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.twins import Twins
    from hotpatch.differ.votes import Pair

_KEY_BYTES = 4
_ALIGNMENT_LIMIT = 16


class Constants:
    """Finds equal constants: those that functions refer to in corresponding places, then by content alone."""

    def __init__(self, relation: Correspondence, twins: Twins) -> None:
        """Search under ``relation``."""
        self._relation, self._twins = relation, twins
        self.found: dict[int, tuple[int, int, Evidence]] = {}
        """Fixed start → base start, size in bytes, evidence."""

    def run(self) -> Mapping[int, tuple[int, int, Evidence]]:
        """All matches; they may overlap on the base side, and on the fixed side where symbols and extents disagree."""
        for pair in dict.fromkeys(chain(self._twins.targets, self._aligned_targets())):
            self._take_constants(*pair)
        twins = {new.function.entry for _, new in self._twins.bodies}
        self._search([entry for entry in self._relation.fixed.functions if entry not in twins])
        return self.found

    def _aligned_targets(self) -> Iterator[Pair]:
        """What instructions of changed functions that align refer to."""
        for functions in self._twins.unlike:
            for old, new in self._twins.alignments.links(functions):
                yield old.target, new.target

    def _take_constants(self, base: int, fixed: int) -> None:
        """Record what corresponding instructions refer to, if both are constants."""
        size = self._relation.equal_plain(base, fixed)
        if size is not None:
            self.found.setdefault(fixed, (base, size, Evidence.VOTES))
        elif self._relation.base.place(base).kind is PlaceKind.CONSTANT is self._relation.fixed.place(fixed).kind:
            self._take(base, fixed, Evidence.VOTES)

    def _take(self, base: int, fixed: int, evidence: Evidence) -> bool:
        """Record a pair if it corresponds."""
        if not self._relation.same(base, fixed):
            return False
        sizes = self._relation.constant_size(base, fixed)
        if sizes is None or not sizes[2]:
            return False
        there, here = self._relation.base.symbol(base), self._relation.fixed.symbol(fixed)
        if there is not None and here is not None and there.name == here.name:
            evidence = Evidence.NAME
        self.found.setdefault(sizes[1], (sizes[0], sizes[2], evidence))
        return True

    # by content --------------------------------------------------------------------------------------------------------------------------

    def _search(self, entries: Sequence[int]) -> None:
        """Look for the constants of functions that travel, and for what those point at."""
        view = self._relation.fixed
        waiting = [target for entry in entries for target in view.body(entry).targets]
        seen: set[int] = set()
        while waiting:
            target = waiting.pop()
            if target in seen or view.place(target).kind is not PlaceKind.CONSTANT:
                continue
            seen.add(target)
            symbol = view.symbol(target)
            extent = view.extent(target)
            start, size = (symbol.rva, symbol.size or 0) if symbol else (extent.start, extent.size)
            if start in self.found or any(
                self._take(base + target - start, target, Evidence.CONTENT) for base in self._candidates(start, size)
            ):
                continue
            waiting += [view.pointer(start + offset) for offset in view.pointers(start, start + size)]

    def _candidates(self, start: int, size: int) -> list[int]:
        """Starts of base constants that begin with the same bytes and are aligned as well."""
        symbol = self._relation.fixed.symbol(start)
        named = [] if symbol is None else self._by_name.get(symbol.name, [])
        alignment = min(start & -start, _ALIGNMENT_LIMIT)
        alike = self._by_content.get(self._relation.fixed.bare(start, min(size, _KEY_BYTES)), [])
        return [*named, *(base for base in alike if base % alignment == 0)]

    @cached_property
    def _by_name(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for datum in self._relation.base.image.data_symbols:
            found[datum.name].append(datum.rva)
        return found

    @cached_property
    def _by_content(self) -> Mapping[bytes, list[int]]:
        view = self._relation.base
        found: dict[bytes, list[int]] = defaultdict(list)
        for start in view.boundaries:
            if view.place(start).kind is PlaceKind.CONSTANT:
                for size in range(1, min(view.extent(start).size, _KEY_BYTES) + 1):
                    found[view.bare(start, size)].append(start)
        return found
