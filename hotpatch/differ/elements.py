"""Live data that one image names in one place and the other in another, between others that stayed: other elements, not data that moved.

A function that reads ``table[6]`` where it read ``table[5]``, or another member of a structure, has the same body in both builds, and says
that what stood at the one place stands at the other. Where nothing came or went between two neighbours that moved alike, data can have
changed places with each other alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_FARTHEST = 4096
"""Bytes; how far the two neighbours begin from each other at most."""


def other_elements(base: View, fixed: View, pairs: Iterable[Pair]) -> frozenset[Pair]:
    """Those of ``pairs`` of live data that are said to have moved between two that did not, where none has come or gone."""
    known = dict(pairs)
    taken = frozenset(known.values())
    found: set[Pair] = set()
    for first in _followed_by_others(base, known):
        between = _enclosed(base, fixed, known, taken, first)
        found.update(_strays(base, fixed, between, _moved(first)))
    return frozenset(found)


def _followed_by_others(base: View, known: Mapping[int, int]) -> Iterator[Pair]:
    """Pairs behind which the next pair of the section moved otherwise."""
    for before, pair in pairwise(sorted(known.items())):
        if _moved(before) != _moved(pair) and base.section(before[0]) is base.section(pair[0]):
            yield before


def _moved(pair: Pair) -> int:
    return pair[1] - pair[0]


def _enclosed(base: View, fixed: View, known: Mapping[int, int], taken: frozenset[int], first: Pair) -> Sequence[Pair]:
    """The pairs behind ``first`` up to what moved as it did; none where either image refers to anything else in between."""
    section, moved = base.section(first[0]), _moved(first)
    starts, others = base.boundaries, fixed.boundaries
    between: list[Pair] = []
    for start in starts[bisect_right(starts, first[0]) : bisect_right(starts, first[0] + _FARTHEST)]:
        there = known.get(start, start + moved)
        if section is None or start >= section.range.end or (start not in known and (there in taken or not _is_in(others, there))):
            return ()
        if there == start + moved:
            inside = others[bisect_right(others, first[1]) : bisect_left(others, there)]
            places = {place for _, place in between}
            return between if places.issuperset(inside) and all(first[1] < place < there for place in places) else ()
        between.append((start, there))
    return ()


def _is_in(places: Sequence[int], place: int) -> bool:
    at = bisect_left(places, place)
    return at < len(places) and places[at] == place


def _strays(base: View, fixed: View, between: Sequence[Pair], moved: int) -> Iterator[Pair]:
    """Those that lie where none of the others did, and have left a place to which none of them came."""
    for pair in between:
        others = [other for other in between if other != pair]
        came = any(_covers(fixed, other[1], pair[0] + moved) for other in others)
        went = any(_covers(base, other[0], pair[1] - moved) for other in others)
        if not (came or went):
            yield pair


def _covers(view: View, start: int, place: int) -> bool:
    return start <= place < view.extent(start).end
