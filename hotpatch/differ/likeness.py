"""How alike two functions are."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from hotpatch.differ.align import align

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


def affinity(base: View, fixed: View, base_entry: int, fixed_entry: int) -> float:
    """From 0 to 1: the mean of how many whole instructions and how many operations align; registers may have been given out anew."""
    there, here = base.lines(base_entry), fixed.lines(fixed_entry)
    count = len(there) + len(here)
    if not count:
        return 0.0
    whole = align([line.token for line in there], [line.token for line in here])
    operations = align([line.operation for line in there], [line.operation for line in here])
    return (len(whole) + len(operations)) / count


def best_partners(base: View, fixed: View, base_entries: Sequence[int], fixed_entries: Sequence[int]) -> list[Pair]:
    """Pairs of functions that are each other's best by far, found through the uncommon instructions that they share."""
    if not base_entries or not fixed_entries:
        return []
    having: dict[object, list[int]] = defaultdict(list)
    for entry in fixed_entries:
        for token in {line.token for line in fixed.lines(entry)}:
            having[token].append(entry)
    scored: list[tuple[float, int, int]] = []
    for entry in base_entries:
        if len(base.lines(entry)) < _LEAST_LINES:
            continue
        shared: Counter[int] = Counter()
        for token in {line.token for line in base.lines(entry)}:
            if len(having[token]) <= _RARE:
                shared.update(having[token])
        candidates = sorted(shared, key=lambda candidate: (-shared[candidate], candidate))[:_CANDIDATES]
        scored += [(affinity(base, fixed, entry, candidate), entry, candidate) for candidate in candidates]
    best: list[Pair] = []
    for score, old, new in sorted(scored, key=lambda row: (-row[0], *row[1:])):
        rivals = [other for other, b, f in scored if (b == old) != (f == new)]
        if score >= _LEAST_AFFINITY and len(fixed.lines(new)) >= _LEAST_LINES and all(other <= score - _MARGIN for other in rivals):
            best.append((old, new))
    return best
