"""How alike two functions are."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from hotpatch.differ.align import common_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_RARE = 8
"""A token that more functions than this have says little."""
_CANDIDATES = 4
_LEAST_LINES = 6
_LEAST_AFFINITY = 0.6
_MARGIN = 0.05


class Likeness:
    """Compares functions of two images; remembers."""

    def __init__(self, base: View, fixed: View) -> None:
        """Compare functions of ``base`` with functions of ``fixed``."""
        self._views = base, fixed
        self._known: dict[Pair, float] = {}
        self._operations: tuple[dict[int, Counter[str]], dict[int, Counter[str]]] = ({}, {})

    def affinity(self, base: int, fixed: int, least: float = 0.0) -> float:
        """From 0 to 1: the mean of how many whole instructions and how many operations align; registers may have been given out anew.

        0 where it cannot reach ``least``.
        """
        if self._bound(base, fixed) < least:
            return 0.0
        known = self._known.get((base, fixed))
        if known is None:
            there, here = self._views[0].lines(base), self._views[1].lines(fixed)
            whole = common_length(there.tokens, here.tokens)
            operations = common_length(there.operations, here.operations)
            known = self._known[base, fixed] = (whole + operations) / max(1, len(there) + len(here))
        return known if known >= least else 0.0

    def _bound(self, base: int, fixed: int) -> float:
        """No affinity can be greater: operations in common, whatever their order."""
        there, here = self._counts(0, base), self._counts(1, fixed)
        return 2 * (there & here).total() / max(1, there.total() + here.total())

    def _counts(self, side: int, entry: int) -> Counter[str]:
        counts = self._operations[side].get(entry)
        if counts is None:
            counts = self._operations[side][entry] = Counter(self._views[side].lines(entry).operations)
        return counts

    def best_partners(self, base_entries: Sequence[int], fixed_entries: Sequence[int]) -> list[Pair]:
        """Pairs of functions that are each other's best by far, found through the uncommon instructions that they share."""
        base, fixed = self._views
        having: dict[object, list[int]] = defaultdict(list)
        for entry in fixed_entries if base_entries else ():
            if len(fixed.lines(entry)) >= _LEAST_LINES:
                for token in set(fixed.lines(entry).tokens):
                    having[token].append(entry)
        scores: dict[Pair, float] = {}
        for entry in base_entries if having else ():
            if len(base.lines(entry)) < _LEAST_LINES:
                continue
            shared: Counter[int] = Counter()
            for token in set(base.lines(entry).tokens) & having.keys():
                if len(having[token]) <= _RARE:
                    shared.update(having[token])
            for candidate in sorted(shared, key=lambda candidate: (-shared[candidate], candidate))[:_CANDIDATES]:
                scores[entry, candidate] = self.affinity(entry, candidate, _LEAST_AFFINITY - _MARGIN)
        rivals: dict[tuple[int, int], list[Pair]] = defaultdict(list)
        for pair in scores:
            for place in enumerate(pair):
                rivals[place].append(pair)

        def best_rival(pair: Pair) -> float:
            """The best score of a pair that shares one of its functions with ``pair``."""
            return max((scores[other] for place in enumerate(pair) for other in rivals[place] if other != pair), default=0.0)

        good = [pair for pair in sorted(scores) if scores[pair] >= _LEAST_AFFINITY]
        return [pair for pair in good if scores[pair] >= best_rival(pair) + _MARGIN]
