"""Which basic block of a function is which of the other version's: by what they say, by flow, by order."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.differ.align import align, align_in_turn
from hotpatch.differ.block_cuts import cuts
from hotpatch.differ.nodes import CONTENT, SHAPE, TOKEN, Graph, Node, colours, likeness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_DEPTH = 2
"""Steps around a block that are looked at for whether it is the only one of its kind."""
_LEAST_LINES = 2
"""Shorter blocks are alike by chance, unless what is around them is too."""
_LEAST = 0.4
"""Likeness of blocks that are paired though they differ."""
_MOST_COMPARED = 200_000
"""Lines that may be gone through to compare the blocks between two matched ones each with each."""
_ROUNDS = 32
"""Of pairing by flow and by order in turn; each but the last finds something."""
_CUTTING_ROUNDS = 8


@dataclass(frozen=True)
class BlockPairs:
    """The alignment of two functions' blocks.

    Attributes:
        base: The base's blocks in their order; some are cut where the other version has a boundary.
        fixed: The fixed image's.
        pairs: Which are one another, by the base's order; no block is in two.
        moved: Those of ``base`` that stand elsewhere among the others in the fixed image.
        by_shape: How many blocks stood between two matched ones where they were too many to be compared each with each, so that only those
            of the same operations could match; 0 where there was no such place.
    """

    base: tuple[Node, ...]
    fixed: tuple[Node, ...]
    pairs: tuple[tuple[int, int], ...]
    moved: frozenset[int]
    by_shape: int


def pair_blocks(base: Sequence[Node], fixed: Sequence[Node]) -> BlockPairs:
    """Align two functions' blocks. Time grows nearly linearly: only blocks in small gaps between matched ones are compared each with each.

    Which side is called base makes no difference.
    """
    if _key(fixed) < _key(base):
        found = _pair(fixed, base)
        pairs = tuple(sorted((b, f) for f, b in found.pairs))
        moved = frozenset(b for b, f in pairs if f in found.moved)
        return BlockPairs(found.fixed, found.base, pairs, moved, found.by_shape)
    return _pair(base, fixed)


def pair_lines(base: Node, fixed: Node) -> tuple[tuple[int, int], ...]:
    """Which line (counted from the block's first) of a block is which of the other's: the same ones, and at least the same operations.

    Which side is called base makes no difference.
    """
    if _key([fixed]) < _key([base]):
        return tuple((b, f) for f, b in align_in_turn(fixed.levels, base.levels))
    return align_in_turn(base.levels, fixed.levels)


def _key(nodes: Sequence[Node]) -> tuple[int, str, str]:
    """What orders any two functions, by what changes least with the side that is called base."""
    rows = [(node.levels[TOKEN:], node.exits) for node in nodes]
    return sum(node.size for node in nodes), repr(rows), repr([node.levels[CONTENT] for node in nodes])


def _pair(base: Sequence[Node], fixed: Sequence[Node]) -> BlockPairs:
    matcher = _Matcher(Graph(base), Graph(fixed))
    matcher.match()
    for _ in range(_CUTTING_ROUNDS):
        if not matcher.cut():
            break
        matcher.match()
    pairs = tuple(sorted(matcher.forward.items()))
    stay = heaviest_rise([(f, matcher.base.nodes[b].size) for b, f in pairs])
    moved = frozenset(b for number, (b, _) in enumerate(pairs) if number not in stay)
    return BlockPairs(tuple(matcher.base.nodes), tuple(matcher.fixed.nodes), pairs, moved, matcher.by_shape)


class _Matcher:
    """Pairs so far, and the steps that find more."""

    def __init__(self, base: Graph, fixed: Graph) -> None:
        self.base, self.fixed = base, fixed
        self.forward: dict[int, int] = {}
        self.backward: dict[int, int] = {}
        self.by_shape = 0
        self._colours: tuple[Sequence[int], Sequence[int]] | None = None
        """What says that two blocks are the same now; ``None``: likeness does."""
        self._likenesses: dict[tuple[int, int], float] = {}

    def match(self) -> None:
        """Pair what can be, the strongest evidence first."""
        self.by_shape = 0
        for level in (CONTENT, TOKEN):
            for depth in range(_DEPTH, -1, -1):
                self._colours = colours(self.base, self.fixed, level, depth)
                self._pair_unique(*self._colours, least=1 if depth else _LEAST_LINES)
            self._settle()
        self._colours = None
        self._settle()

    def cut(self) -> bool:
        """Cut blocks where the other version has a boundary; whether there was any to cut."""
        there = cuts(self.base, self.fixed, self.forward, self.backward)
        here = {} if there else cuts(self.fixed, self.base, self.backward, self.forward)
        if not there and not here:
            return False
        self.base, old = self.base.cut({index: cut.at for index, cut in there.items()})
        self.fixed, new = self.fixed.cut({index: cut.at for index, cut in here.items()})
        pairs = [(old[b], new[f]) for b, f in self.forward.items() if b not in there and f not in here]
        pairs += [(old[index] + step, new[part]) for index, cut in there.items() for step, part in enumerate(cut.parts)]
        pairs += [(old[part], new[index] + step) for index, cut in here.items() for step, part in enumerate(cut.parts)]
        self.forward, self.backward, self._likenesses = {}, {}, {}
        for b, f in pairs:
            self._join(b, f)
        return True

    def _join(self, b: int, f: int) -> None:
        self.forward[b], self.backward[f] = f, b

    def _is_open(self, b: int, f: int) -> bool:
        return b not in self.forward and f not in self.backward

    def _alike(self, b: int, f: int) -> float:
        found = self._likenesses.get((b, f))
        if found is None:
            found = self._likenesses[b, f] = likeness(self.base.nodes[b], self.fixed.nodes[f], _LEAST)
        return found

    def _same(self, b: int, f: int) -> bool:
        """Whether two blocks at corresponding places are one."""
        if self._colours is None:
            return self._alike(b, f) > 0.0
        return self._colours[0][b] == self._colours[1][f]

    def _pair_unique(self, there: Sequence[int], here: Sequence[int], least: int) -> None:
        """Pair blocks that are the only ones of their colour among the open ones."""
        old = [b for b in range(len(there)) if b not in self.forward]
        new = [f for f in range(len(here)) if f not in self.backward]
        counts = Counter(there[b] for b in old), Counter(here[f] for f in new)
        where = {here[f]: f for f in new if counts[1][here[f]] == 1}
        for b in old:
            f = where.get(there[b])
            if f is not None and counts[0][there[b]] == 1 and self.base.nodes[b].size >= least:
                self._join(b, f)

    def _settle(self) -> None:
        """Pair neighbours by flow that are the same, and what stands between matched blocks, until there is no more."""
        if self.base.nodes and self.fixed.nodes and self._is_open(0, 0) and self._same(0, 0):
            self._join(0, 0)
        for _ in range(_ROUNDS):
            known = len(self.forward)
            self._spread()
            self._fill()
            if known == len(self.forward):
                break

    def _spread(self) -> None:
        """From matched blocks to those that they lead to and that lead to them in the same way."""
        ahead = deque(sorted(self.forward.items()))
        while ahead:
            for pair in self._neighbours(*ahead.popleft()):
                if self._is_open(*pair) and self._same(*pair):
                    self._join(*pair)
                    ahead.append(pair)

    def _neighbours(self, b: int, f: int) -> Iterator[tuple[int, int]]:
        exits = self.fixed.exits[f]
        yield from ((target, exits[way]) for way, target in self.base.exits[b].items() if way in exits)
        there = [(row[:2], row[2]) for row in self.base.before[b] if row[2] not in self.forward]
        here = [(row[:2], row[2]) for row in self.fixed.before[f] if row[2] not in self.backward]
        counts = Counter(way for way, _ in there), Counter(way for way, _ in here)
        where = dict(here)
        yield from ((source, where[way]) for way, source in there if counts[0][way] == counts[1][way] == 1)

    def _fill(self) -> None:
        """Pair open blocks behind one that is matched, or before one, with those at the same place of the other side, in order."""
        sides = len(self.base.nodes), len(self.fixed.nodes)
        for b, f in ((-1, -1), *sorted(self.forward.items()), sides):
            for step in (1, -1):
                old, new = _run(b, step, self.forward, sides[0]), _run(f, step, self.backward, sides[1])
                for pair in self._in_order(old, new) if old and new else ():
                    self._join(*pair)

    def _in_order(self, old: Sequence[int], new: Sequence[int]) -> Sequence[tuple[int, int]]:
        if self._colours is not None:
            there, here = self._colours
            return [(old[i], new[j]) for i, j in align([there[b] for b in old], [here[f] for f in new])]
        if sum(self.base.nodes[b].size for b in old) * len(new) <= _MOST_COMPARED:
            return _best(old, new, self._alike)
        self.by_shape = max(self.by_shape, len(old), len(new))
        shapes = ([graph.nodes[index].levels[SHAPE] for index in run] for graph, run in ((self.base, old), (self.fixed, new)))
        return [(old[i], new[j]) for i, j in align(*shapes)]


def _run(start: int, step: int, matched: Mapping[int, int], size: int) -> list[int]:
    """Open blocks that follow each other from ``start``, in their order."""
    found = []
    at = start + step
    while 0 <= at < size and at not in matched:
        found.append(at)
        at += step
    return found[::step]


def _best(old: Sequence[int], new: Sequence[int], score: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Rising pairs whose scores add up to most, exactly."""
    scores = [[score(b, f) for f in new] for b in old]
    rows = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in range(len(old) - 1, -1, -1):
        for j in range(len(new) - 1, -1, -1):
            rows[i][j] = max(rows[i + 1][j], rows[i][j + 1], rows[i + 1][j + 1] + scores[i][j])
    found = []
    i = j = 0
    while i < len(old) and j < len(new):
        if scores[i][j] and rows[i][j] == rows[i + 1][j + 1] + scores[i][j]:
            found.append((old[i], new[j]))
            i, j = i + 1, j + 1
        elif rows[i][j] == rows[i + 1][j]:
            i += 1
        else:
            j += 1
    return found


def heaviest_rise(items: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Indices of the items (value, weight; values differ, weights are above 0) that rise in value and weigh most together."""
    values: list[int] = []
    best: list[tuple[int, int]] = []
    """Of each of ``values``: the most that items up to it weigh, which rises with it, and the index of the last of them."""
    previous: list[int] = []
    for index, (value, weight) in enumerate(items):
        at = bisect_left(values, value)
        total, last = best[at - 1] if at else (0, -1)
        previous.append(last)
        total += weight
        end = at
        while end < len(best) and best[end][0] <= total:
            end += 1
        values[at:end], best[at:end] = [value], [(total, index)]
    chain = set()
    at = best[-1][1] if best else -1
    while at >= 0:
        chain.add(at)
        at = previous[at]
    return frozenset(chain)
