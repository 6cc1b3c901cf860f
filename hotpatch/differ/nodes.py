"""A function's blocks as the alignment of blocks sees them: what each line says, at several strengths, and where control goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.align import common_length
from hotpatch.differ.blocks import Exit, Way

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

CONTENT, TOKEN, SHAPE = range(3)
"""Strengths: the same instruction that refers to the same things; the same but for what it refers to; at least the same operation."""


class Node(NamedTuple):
    """A block.

    Attributes:
        first: Number of its first line in the function.
        levels: For each strength, what each of its lines says.
        exits: Where it leads.
    """

    first: int
    levels: tuple[tuple[Hashable, ...], tuple[Hashable, ...], tuple[Hashable, ...]]
    exits: tuple[Exit, ...]

    @property
    def size(self) -> int:
        """In lines."""
        return len(self.levels[CONTENT])

    @property
    def end(self) -> int:
        """Number of the line behind it."""
        return self.first + self.size

    def piece(self, start: int, end: int, exits: tuple[Exit, ...]) -> Node:
        """Its lines from ``start`` to ``end`` as a block of its own."""
        content, token, shape = self.levels
        return Node(self.first + start, (content[start:end], token[start:end], shape[start:end]), exits)


@dataclass(frozen=True)
class Graph:
    """The blocks of one function in their order; the first holds the entry."""

    nodes: Sequence[Node]

    @cached_property
    def before(self) -> Sequence[Sequence[tuple[Way, int, int]]]:
        """Of each block: those that lead to it, with the way and number of the exit by which."""
        found: list[list[tuple[Way, int, int]]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for way, number, target in node.exits:
                found[target].append((way, number, index))
        return found

    @cached_property
    def exits(self) -> Sequence[Mapping[tuple[Way, int], int]]:
        """Of each block: where it leads, by way and number."""
        return [{(way, number): target for way, number, target in node.exits} for node in self.nodes]

    def cut(self, places: Mapping[int, int]) -> tuple[Graph, Mapping[int, int]]:
        """With some blocks (by index) cut in two before a line of theirs, and the new index of each block that was (of its first piece)."""
        moved, shift = {}, 0
        for index in range(len(self.nodes)):
            moved[index] = index + shift
            shift += index in places
        made: list[Node] = []
        for index, node in enumerate(self.nodes):
            exits = tuple(Exit(way, number, moved[target]) for way, number, target in node.exits)
            at = places.get(index)
            if at is None:
                made.append(node.piece(0, node.size, exits))
            else:
                made += [node.piece(0, at, (Exit(Way.NEXT, 0, moved[index] + 1),)), node.piece(at, node.size, exits)]
        return Graph(made), moved


def colours(base: Graph, fixed: Graph, level: int, depth: int) -> tuple[Sequence[int], Sequence[int]]:
    """A number for each block of either; equal for blocks that say the same, as do those up to ``depth`` steps around them."""
    numbers: dict[Hashable, int] = {}
    found = [[numbers.setdefault(node.levels[level], len(numbers)) for node in graph.nodes] for graph in (base, fixed)]
    for _ in range(depth):
        further: dict[Hashable, int] = {}
        found = [
            [further.setdefault(_around(graph, index, known), len(further)) for index in range(len(known))]
            for graph, known in zip((base, fixed), found, strict=True)
        ]
    return found[0], found[1]


def _around(graph: Graph, index: int, known: Sequence[int]) -> Hashable:
    ahead = tuple((way, number, known[target]) for way, number, target in graph.nodes[index].exits)
    return known[index], ahead, tuple(sorted((way, number, known[source]) for way, number, source in graph.before[index]))


def likeness(base: Node, fixed: Node, least: float) -> float:
    """From 0 to 1: how many lines align, as the mean of two strengths; 0 where it cannot reach ``least``."""
    total = base.size + fixed.size
    if 2 * (Counter(base.levels[SHAPE]) & Counter(fixed.levels[SHAPE])).total() < least * total:
        return 0.0
    found = sum(common_length(base.levels[level], fixed.levels[level]) for level in (TOKEN, SHAPE)) / total
    return found if found >= least else 0.0
