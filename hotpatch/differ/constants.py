"""Which constants of the fixed image the base has too."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.differ.correlate import aligned_links
from hotpatch.differ.matching import Evidence
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.votes import Pair

_KEY_BYTES = 4
_ALIGNMENT_LIMIT = 16


class Constants:
    """Finds equal constants: those that functions refer to in corresponding places, then by content alone."""

    def __init__(self, relation: Correspondence, matching: Matching) -> None:
        """Search under ``relation``."""
        self._relation, self._matching = relation, matching
        self._seen: set[Pair] = set(matching.forward.items())
        """Pairs that need not be looked at any more, those of functions among them."""
        self.found: dict[int, tuple[int, int, Evidence]] = {}
        """Fixed start → base start, size in bytes, evidence."""

    def run(self) -> Mapping[int, tuple[int, int, Evidence]]:
        """All matches; they may overlap on the base side, and on the fixed side where symbols and extents disagree."""
        for pair in sorted(self._matching.forward.items()):
            for old, new in self._referred(*pair):
                self._take(old, new, Evidence.VOTES)
        partnerless = [entry for entry in self._relation.fixed.functions if entry not in self._matching.backward]
        changed = [fixed for base, fixed in self._matching.forward.items() if not self._same_body(base, fixed)]
        self._search(sorted({*partnerless, *changed}))
        return self.found

    def _same_body(self, base: int, fixed: int) -> bool:
        return self._relation.base.body(base).masked == self._relation.fixed.body(fixed).masked

    def _referred(self, base: int, fixed: int) -> Iterator[Pair]:
        """Constants that two functions refer to in corresponding instructions."""
        views = self._relation.base, self._relation.fixed
        if self._same_body(base, fixed):
            pairs: Iterable[Pair] = zip(views[0].body(base).targets, views[1].body(fixed).targets, strict=False)
        else:
            pairs = [(old.target, new.target) for old, new in aligned_links(*views, base, fixed)]
        seen = self._seen
        for pair in [pair for pair in pairs if pair not in seen]:
            seen.add(pair)
            if views[0].place(pair[0]).kind is PlaceKind.CONSTANT is views[1].place(pair[1]).kind:
                yield pair

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

    def _search(self, entries: list[int]) -> None:
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
