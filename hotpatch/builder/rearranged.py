"""Live data without names that changed places among their neighbours: what shows that they are what they seem.

Linkers and compilers of another version put the same data in another order. Where nothing came or went between two neighbours that moved
alike, what lies between them is the same, and its content or its uses tell which is which.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind
from hotpatch.builder.ownership import FARTHEST
from hotpatch.differ.alignments import Alignments
from hotpatch.differ.follow import every_way, ways_from_named
from hotpatch.differ.parts import POINTER_SIZE, PlaceKind
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from hotpatch.builder.novelty import Novelty
    from hotpatch.differ import DatumMatch, ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function


class Rearranged:
    """Judges nameless live data by what lies around them and by who uses them."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, novelty: Novelty) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base, self._novelty = diff, fixed, base, novelty
        self._alignments = Alignments(base, fixed)
        self._live = [match for match in diff.data if match.writable]
        self._starts = [match.fixed for match in self._live]
        self._parts: dict[int, tuple[Range, Range] | None] = {}
        self._reordered: dict[tuple[int, int], bool] = {}

    # other places ------------------------------------------------------------------------------------------------------------------------

    def is_reordered(self, rva: int, base: int) -> bool:
        """Whether the datum at ``rva``, which aligned instructions match with ``base``, has but changed places with others around it.

        Its neighbours on both sides, near or far, moved by as much, nothing new lies between them, the functions that use it are those that
        used the base's, and either its content tells it from all else there, or it is used at the same instructions and at no others.
        """
        known = self._reordered.get((rva, base))
        if known is None:
            known = self._reordered[rva, base] = self._is_reordered(rva, base)
        return known

    def _is_reordered(self, rva: int, base: int) -> bool:
        if rva not in self._parts:
            self._parts[rva] = self._between(rva)
        parts = self._parts[rva]
        if parts is None or base not in parts[1] or not self._same_functions(base, rva) or not self._changed_places(rva, base, *parts):
            return False
        return self._told_by_content(rva, base, *parts) or self._used_alike(base, rva)

    def _changed_places(self, rva: int, base: int, fixed_part: Range, base_part: Range) -> bool:
        """Whether others have come where each of the two would lie if nothing had changed places.

        Else it may be a part of what is before it that code named by another number before: an element, say, that is read instead of the
        one that was.
        """
        moved = fixed_part.start - base_part.start
        inside = self._live[bisect_left(self._starts, fixed_part.start) : bisect_left(self._starts, fixed_part.end)]
        others = [match for match in inside if match.fixed != rva]
        came = any(match.fixed <= base + moved < match.fixed + match.size for match in others)
        return base + moved == rva or (came and any(match.base <= rva - moved < match.base + match.size for match in others))

    def is_told_by_use(self, rva: int, base: int, rivals: Collection[int]) -> bool:
        """Whether everything that used the base's datum at ``base`` uses the one at ``rva`` now, and it alone, at the same instructions.

        And none of it uses any of ``rivals``, or reaches one of them from other data. That alone could be a new datum that took over an
        old one's instructions, while others go on with the old one; so the rivals must be read and written in units of other sizes, too.
        """
        if not self._same_functions(base, rva) or not self._used_alike(base, rva):
            return False
        if not all(self._is_of_another_size(rva, base, rival) for rival in rivals):
            return False
        if not self._pointed[self._fixed].isdisjoint(rivals):
            return False
        there, here = self._uses[self._base][base], self._uses[self._fixed][rva]
        if not self._reaching(self._base, {base}) <= set(there) or not self._reaching(self._fixed, {rva}) <= set(here):
            return False
        return self._reaching(self._fixed, rivals).isdisjoint(here)

    def is_told_by_pointers(self, rva: int, base: int) -> bool:
        """Whether both begin with the same numbers and pointers to the same things, as nothing else in their sections does."""
        sites = self._fixed.pointers(rva, self._fixed.extent(rva).end)
        if not sites:
            return False
        there = [start for start in _starts_of_pointers(self._base, base, sites[0]) if self._alike(start, rva)]
        here = [start for start in _starts_of_pointers(self._fixed, rva, sites[0]) if self._alike(base, start)]
        return (there, here) == ([base], [rva])

    def _between(self, rva: int) -> tuple[Range, Range] | None:
        """What lies between the nearest neighbours of ``rva`` that moved alike and hold the same data between them: fixed, base."""
        own = bisect_left(self._starts, rva)
        if own == len(self._starts) or self._starts[own] != rva:
            return None
        for before, after in self._around(own):
            one, other = self._live[before], self._live[after]
            parts = Range(Rva(one.fixed + one.size), other.fixed), Range(Rva(one.base + one.size), other.base)
            if self._holds_the_same(self._live[before + 1 : after], *parts):
                return parts
        return None

    def _around(self, own: int) -> list[tuple[int, int]]:
        """Live data before and behind the one numbered ``own``, in both images, that are near it and moved alike; nearest first."""
        at, section = self._live[own], self._fixed.section(self._starts[own])
        first, last = bisect_left(self._starts, at.fixed - FARTHEST), bisect_right(self._starts, at.fixed + FARTHEST)
        behind: dict[int, list[int]] = defaultdict(list)
        for number in range(own + 1, last):
            match = self._live[number]
            if match.base > at.base and self._fixed.section(match.fixed) is section:
                behind[match.base - match.fixed].append(number)
        pairs = []
        for number in range(first, own):
            match = self._live[number]
            if match.base + match.size <= at.base and self._fixed.section(match.fixed) is section:
                pairs += [(number, other) for other in behind.get(match.base - match.fixed, ())]
        return sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))

    def _holds_the_same(self, inside: list[DatumMatch], fixed: Range, base: Range) -> bool:
        """Whether the data ``inside`` are all that are referred to in ``fixed``, and what the base has of them is what is matched there."""
        if not all(base.start <= match.base < base.end for match in inside):
            return False
        first, last = (bisect_left(self._by_base, (place, 0)) for place in base)
        if not all(fixed.start <= place < fixed.end for _, place in self._by_base[first:last]):
            return False
        starts = self._fixed.boundaries
        here = starts[bisect_left(starts, fixed.start) : bisect_left(starts, fixed.end)]
        ends = {match.fixed + match.size for match in inside}
        return all(start in ends or start == fixed.start or self._diff.base_datum(Rva(start)) is not None for start in here)

    @cached_property
    def _by_base(self) -> list[tuple[int, int]]:
        """Where live data lie in the base and in the fixed image, sorted."""
        return sorted((match.base, match.fixed) for match in self._live)

    def _told_by_content(self, rva: int, base: int, fixed_part: Range, base_part: Range) -> bool:
        """Whether these two begin with the same, not with zeros, and nothing else in either part does."""
        size = min(self._fixed.extent(rva).size, self._base.extent(base).size)
        if not any(self._fixed.image.read(Rva(rva), size)):
            return False
        there = [start for start in _inside(self._base, base_part) if self._alike(start, rva)]
        here = [start for start in _inside(self._fixed, fixed_part) if self._alike(base, start)]
        return (there, here) == ([base], [rva])

    def _alike(self, base: int, fixed: int) -> bool:
        size = min(self._fixed.extent(fixed).size, self._base.extent(base).size)
        return self._novelty.same_content(base, fixed, size)

    # uses --------------------------------------------------------------------------------------------------------------------------------

    def _same_functions(self, base: int, fixed: int) -> bool:
        """Whether code alone refers to both, and functions that refer to one are those that refer to the other."""
        if base in self._pointed[self._base] or fixed in self._pointed[self._fixed]:
            return False
        there, here = self._uses[self._base].get(base, {}), self._uses[self._fixed].get(fixed, {})
        return bool(here) and {self._partners.get(entry) for entry in there} == set(here)

    def _reaching(self, view: View, places: Collection[int]) -> set[int]:
        """The functions that name one of ``places``, or reach it from other data at a distance that code tells."""
        return {entry for place in places for entry in (*view.users.get(place, ()), *self._reached[view].get(place, ()))}

    @cached_property
    def _reached(self) -> Mapping[View, Mapping[int, Sequence[int]]]:
        """Places → the functions, by entry, that reach them from live data that they name."""
        return {view: _reached_in(view) for view in (self._base, self._fixed)}

    def _is_of_another_size(self, rva: int, base: int, rival: int) -> bool:
        """Whether code reads and writes at ``rva`` as many bytes at a time as at ``base``, and never as many at ``rival``."""
        there, here, other = self._widths[self._base].get(base), *(self._widths[self._fixed].get(place) for place in (rva, rival))
        return there is not None and other is not None and there == here and there.isdisjoint(other)

    @cached_property
    def _widths(self) -> Mapping[View, Mapping[int, frozenset[int]]]:
        """Places → how many bytes at a time code reads or writes there, of what is longer than a word each word by itself."""
        return {view: _widths_in(view) for view in (self._base, self._fixed)}

    def _used_alike(self, base: int, fixed: int) -> bool:
        """Whether every instruction that refers to one aligns with one that refers to the other."""
        there, here = self._uses[self._base][base], self._uses[self._fixed][fixed]
        for old, count in there.items():
            new = self._partners[old]
            links = self._alignments.links((old, new))
            places = {
                ((b.part, b.offset), (f.part, f.offset))
                for b, f in links
                if (b.target, f.target) == (base, fixed) and b.kind is f.kind and _whole(b.kind)
            }
            if not len(places) == count == here[new]:
                return False
        return True

    @cached_property
    def _partners(self) -> Mapping[int, int]:
        return {row.base.entry: row.fixed.entry for row in self._diff.functions if row.base and row.fixed}

    @cached_property
    def _pointed(self) -> Mapping[View, frozenset[int]]:
        return {view: frozenset(map(int, view.image.pointers.values())) for view in (self._base, self._fixed)}

    @cached_property
    def _uses(self) -> Mapping[View, Mapping[int, Mapping[int, int]]]:
        """Live data → how often each function, by entry, refers to it."""
        return {view: _uses_of(view) for view in (self._base, self._fixed)}


def _inside(view: View, part: Range) -> list[int]:
    """Where anything in ``part`` may begin."""
    return list(view.boundaries[bisect_left(view.boundaries, part.start) : bisect_left(view.boundaries, part.end)])


def _starts_of_pointers(view: View, near: int, before: int) -> list[int]:
    """What lies ``before`` bytes before each pointer in the section of ``near``."""
    section = view.section(near)
    return [site - before for site in view.image.relocations if section is not None and site in section.range]


def _whole(kind: FixupKind) -> bool:
    return kind is not FixupKind.PAGEBASE_REL21


def _reached_in(view: View) -> Mapping[int, Sequence[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for function in _naming_live(view):
        for place in {at for at, _ in ways_from_named(view.image, function)}:
            found[place].append(function.entry)
    return found


def _widths_in(view: View) -> Mapping[int, frozenset[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for function in _naming_live(view):
        for way in every_way(view.image, function):
            for word in range(0, way.width, POINTER_SIZE):
                found[way.place + word].add(min(way.width, POINTER_SIZE))
    return {place: frozenset(widths) for place, widths in found.items()}


def _naming_live(view: View) -> Iterator[Function]:
    """The functions that name live data."""
    for function in view.image.functions:
        if any(view.writable(target) for target in view.body(function.entry).whole_targets):
            yield function


def _uses_of(view: View) -> Mapping[int, Mapping[int, int]]:
    found: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for entry in view.functions:
        for link in view.body(entry).links():
            if _whole(link.kind) and view.place(link.target).kind is PlaceKind.WRITABLE:
                found[link.target][entry] += 1
    return found
