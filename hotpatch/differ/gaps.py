"""What no evidence has matched yet, between neighbours that are matched to neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


def in_order(there: Sequence[int], here: Sequence[int], scores: Mapping[Pair, float]) -> list[Pair]:
    """The pairs, each further down on both sides than the one before, whose scores add up to most."""
    rows: list[list[float]] = [[0.0] * (len(here) + 1)]
    for old in there:
        row = [0.0]
        for index, new in enumerate(here):
            row.append(max(row[-1], rows[-1][index + 1], rows[-1][index] + scores.get((old, new), 0.0)))
        rows.append(row)
    found: list[Pair] = []
    old_index, new_index = len(there), len(here)
    while old_index and new_index:
        total = rows[old_index][new_index]
        if total == rows[old_index - 1][new_index]:
            old_index -= 1
        elif total == rows[old_index][new_index - 1]:
            new_index -= 1
        else:
            old_index, new_index = old_index - 1, new_index - 1
            found.append((there[old_index], here[new_index]))
    return found[::-1]


def gaps(base: View, fixed: View, matching: Matching) -> Iterator[tuple[list[int], list[int]]]:
    """Open functions between neighbours that are matched to neighbours."""
    order = {entry: number for number, entry in enumerate(fixed.functions)}
    fixed_entries = list(fixed.functions)
    gap: list[int] = []
    left = -1
    for entry in (*base.functions, None):
        partner = None if entry is None else matching.forward.get(entry)
        if entry is not None and partner is None:
            gap.append(entry)
            continue
        right = len(fixed_entries) if partner is None else order[partner]
        if gap and left < right:
            between = fixed_entries[left + 1 : right]
            if between and not any(candidate in matching.backward for candidate in between):
                yield gap, between
        gap, left = [], right
