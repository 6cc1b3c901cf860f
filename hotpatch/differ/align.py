"""The longest common subsequence of two token sequences, fast where they are nearly equal."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

_TABLE_LIMIT = 200_000_000
"""Cells (bits) of the exact table; beyond it, the longest-block heuristic of :mod:`difflib` is near enough."""


def align(base: Sequence[Hashable], fixed: Sequence[Hashable]) -> tuple[tuple[int, int], ...]:
    """Pairs of indices of equal tokens, rising on both sides.

    Common ends pair first; then tokens that occur once on either side anchor what lies between them; what remains is solved exactly where
    it is small. The result is deterministic.
    """
    return tuple(_align(base, fixed, 0, len(base), 0, len(fixed)))


def align_in_turn(base: Sequence[Sequence[Hashable]], fixed: Sequence[Sequence[Hashable]]) -> tuple[tuple[int, int], ...]:
    """The same by several strengths, each as long as the sequence, the strongest first.

    Each pairs what the ones before left between pairs.
    """
    found: tuple[tuple[int, int], ...] = ()
    for there, here in zip(base, fixed, strict=True):
        pairs: list[tuple[int, int]] = []
        b0 = f0 = 0
        for b, f in (*found, (len(there), len(here))):
            if b0 < b and f0 < f:
                pairs += _align(there, here, b0, b, f0, f)
            if b < len(there):
                pairs.append((b, f))
            b0, f0 = b + 1, f + 1
        found = tuple(pairs)
    return found


def common_length(base: Sequence[Hashable], fixed: Sequence[Hashable]) -> int:
    """How many pairs the longest alignment has, exactly: no pairs, so no table, and large functions of few different tokens cost little."""
    (row,) = deque(_rows(base, fixed), 1)
    return len(fixed) - row.bit_count()


def _rows(base: Iterable[Hashable], fixed: Sequence[Hashable]) -> Iterator[int]:
    """A number for no token of ``base``, then one more for each further token.

    A bit of it, one for each token of ``fixed``, is clear where that token makes the longest common subsequence of what came so far longer
    (H. Hyyrö, "Bit-Parallel LCS-Length Computation Revisited", 2004).
    """
    row = full = (1 << len(fixed)) - 1
    places: dict[Hashable, int] = {}
    for place, token in enumerate(fixed):
        places[token] = places.get(token, 0) | 1 << place
    yield row
    for token in base:
        common = row & places.get(token, 0)
        row = (row + common | row - common) & full
        yield row


def _align(base: Sequence[Hashable], fixed: Sequence[Hashable], b0: int, b1: int, f0: int, f1: int) -> Iterator[tuple[int, int]]:
    while b0 < b1 and f0 < f1 and base[b0] == fixed[f0]:
        yield b0, f0
        b0 += 1
        f0 += 1
    tail = 0
    while b0 < b1 - tail and f0 < f1 - tail and base[b1 - tail - 1] == fixed[f1 - tail - 1]:
        tail += 1
    b1 -= tail
    f1 -= tail
    if b0 < b1 and f0 < f1:
        anchors = _anchors(base, fixed, b0, b1, f0, f1)
        if anchors:
            for b, f in anchors:
                yield from _align(base, fixed, b0, b, f0, f)
                yield b, f
                b0, f0 = b + 1, f + 1
            yield from _align(base, fixed, b0, b1, f0, f1)
        elif (b1 - b0) * (f1 - f0) <= _TABLE_LIMIT:
            yield from _exact(base, fixed, b0, b1, f0, f1)
        else:
            for block in SequenceMatcher(None, base[b0:b1], fixed[f0:f1], autojunk=False).get_matching_blocks():
                for step in range(block.size):
                    yield b0 + block.a + step, f0 + block.b + step
    for step in range(tail):
        yield b1 + step, f1 + step


def _anchors(base: Sequence[Hashable], fixed: Sequence[Hashable], b0: int, b1: int, f0: int, f1: int) -> list[tuple[int, int]]:
    """The longest rising run of tokens that are unique on both sides (patience diff)."""
    in_base, in_fixed = Counter(base[b0:b1]), Counter(fixed[f0:f1])
    where = {fixed[f]: f for f in range(f0, f1) if in_fixed[fixed[f]] == 1}
    pairs = [(b, where[base[b]]) for b in range(b0, b1) if in_base[base[b]] == 1 and base[b] in where]
    ends: list[int] = []
    best: list[int] = []
    previous: list[int] = []
    for number, (_, f) in enumerate(pairs):
        at = bisect_left(ends, f)
        if at == len(ends):
            ends.append(f)
            best.append(number)
        else:
            ends[at] = f
            best[at] = number
        previous.append(best[at - 1] if at else -1)
    chain: list[tuple[int, int]] = []
    number = best[-1] if best else -1
    while number >= 0:
        chain.append(pairs[number])
        number = previous[number]
    return chain[::-1]


def _exact(base: Sequence[Hashable], fixed: Sequence[Hashable], b0: int, b1: int, f0: int, f1: int) -> Iterator[tuple[int, int]]:
    """Exact, by a table whose rows are integers, from the ends on; ties prefer the earlier base token."""
    rows = list(_rows(base[b0:b1][::-1], fixed[f0:f1][::-1]))

    def length(b: int, f: int) -> int:
        """Of the longest common subsequence from there on."""
        left = f1 - f
        return left - (rows[b1 - b] & (1 << left) - 1).bit_count()

    b, f = b0, f0
    while b < b1 and f < f1:
        if base[b] == fixed[f]:
            yield b, f
            b += 1
            f += 1
        elif length(b, f + 1) > length(b + 1, f):
            f += 1
        else:
            b += 1
