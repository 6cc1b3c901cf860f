"""What functions of the same body reach at constant distances from live data that they name, and whether that is the same in both images.

Compilers that merge globals give several data one address. Where these change places, code that did not change reaches others.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import WHOLE_KINDS, Use
from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.matching import Evidence
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.differ.live import Stretch
    from hotpatch.differ.parts import Body, Link
    from hotpatch.differ.twins import Twins
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

FARTHEST = 4096
"""Bytes; how far code is taken to go from data that it names to others."""
_LONGEST = 16
"""Bytes that no instruction is longer than."""
_PROOF = frozenset({Evidence.HEADERS, Evidence.VOTES})


class Distant(NamedTuple):
    """An instruction of two functions of the same body that reaches another datum in each: its RVAs, and what it reaches."""

    instructions: Pair
    places: Pair


class Known:
    """Live data that are the same for certain: whole where names say so, else only where they begin.

    Without names, functions of the same body say so that read or write right there: an address that is only taken may be an end.
    """

    def __init__(self, base: View, fixed: View, stretches: Sequence[Stretch] = (), twins: Twins | None = None) -> None:
        """Judge by ``stretches`` of live data that correspond, and by ``twins``."""
        self._base, self._fixed, self._stretches, self._twins = base, fixed, stretches, twins

    @cached_property
    def is_disturbed(self) -> bool:
        """Whether any of all that corresponds, be it certain or not, moved otherwise than what is next to it, no farther than code goes."""
        rows = [(item.fixed, item.base) for item in self._stretches]
        sides = sorted((fixed, base - fixed) for fixed, base in rows), sorted((base, base - fixed) for fixed, base in rows)
        return any(
            moved != another and following - at <= FARTHEST for side in sides for (at, moved), (following, another) in pairwise(side)
        )

    def is_near_another(self, base: int, fixed: int) -> bool:
        """Whether anything near either address moved otherwise."""
        near = ((side, bisect_left(side, (at - FARTHEST,)), at) for side, at in ((self._by_fixed, fixed), (self._by_base, base)))
        moved = base - fixed
        for side, first, at in near:
            sign = 1 if side is self._by_fixed else -1
            for start, other, _ in side[first : bisect_right(side, (at + FARTHEST,))]:
                if other - start != sign * moved:
                    return True
        return False

    def are_others(self, base: int, fixed: int) -> bool:
        """Whether the two are known to be different data."""
        there, here = _partner(self._by_fixed, fixed), _partner(self._by_base, base)
        return (there is not None and there != base) or (here is not None and here != fixed)

    @cached_property
    def _by_fixed(self) -> tuple[tuple[int, int, int], ...]:
        found = ((item.fixed, item.base, size) for item in self._stretches if (size := self._certain_size(item)))
        return tuple(sorted(found))

    @cached_property
    def _by_base(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(sorted((base, fixed, size) for fixed, base, size in self._by_fixed))

    def _certain_size(self, item: Stretch) -> int:
        if item.evidence is Evidence.NAME:
            return item.size if item.name is not None else 0
        return int(item.evidence in _PROOF and (item.evidence is Evidence.HEADERS or (item.base, item.fixed) in self._accessed))

    @cached_property
    def _accessed(self) -> frozenset[Pair]:
        """What functions of the same body read or write right where they name it."""
        wanted = {(item.base, item.fixed) for item in self._stretches if item.evidence is Evidence.VOTES}
        bodies = self._twins.bodies if self._twins is not None else ()
        return frozenset(
            pair
            for old, new in bodies
            for place, pair in enumerate(zip(old.targets, new.targets, strict=True))
            if pair in wanted and _names_live(self._fixed, new.link(place)) and accesses(self._fixed, new, new.link(place))
        )


def distant(known: Known, base: View, fixed: View, old: Body, new: Body) -> Distant | None:
    """The first instruction of two functions of the same body that reads or writes another datum in each, at the same distance.

    Only where its register certainly holds that address, without an index.
    """
    if not known.is_disturbed:
        return None
    links = [(one, other) for one, other in zip(old.links(), new.links(), strict=True) if _names_live(fixed, other)]
    if not any(known.is_near_another(one.target, other.target) for one, other in links):
        return None
    named = {address_of(new, other): (one.target, other.target) for one, other in links}
    for at, anchor, distance in _certain(fixed, new, named):
        pair = named[anchor][0] + distance, named[anchor][1] + distance
        if known.are_others(*pair):
            return Distant((in_base(old, new, at), at), pair)
    return None


def _certain(view: View, body: Body, naming: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Instructions that read or write at a certain distance from what one of ``naming`` takes: address, that one's, distance; sorted."""
    function, image, naming = body.function, view.image, set(naming)
    names = named_data(image, function)
    instructions, edges = followed(image, function)
    if not instructions or instructions[0].address != function.entry:
        return
    held = {(item.at, item.anchor) for item in image.architecture.held(instructions, names, edges) if not item.moves}
    for item in image.architecture.reached(instructions, names, edges):
        if item.width and not item.indexed and item.anchor in naming and item.at != item.anchor and (item.at, item.anchor) in held:
            yield item.at, item.anchor, item.distance


def _names_live(view: View, link: Link) -> bool:
    return link.kind in WHOLE_KINDS and link.use is Use.DATA and view.place(link.target).kind is PlaceKind.WRITABLE


def accesses(view: View, body: Body, link: Link) -> bool:
    """Whether the instruction of a function that names data reads or writes right there, and does not only take the address."""
    code = body.code[link.part][link.offset : link.offset + _LONGEST]
    return view.architecture.accesses(link.kind, code, address_of(body, link))


def address_of(body: Body, link: Link) -> int:
    """The instruction of a function that has the link."""
    return body.function.ranges[link.part].start + link.offset


def in_base(old: Body, new: Body, at: int) -> int:
    """Where the base has the instruction that ``new`` has at ``at``."""
    parts = zip(old.function.ranges, new.function.ranges, strict=True)
    return next(there.start + at - here.start for there, here in parts if at in here)


def _partner(side: Sequence[tuple[int, int, int]], at: int) -> int | None:
    number = bisect_right(side, at, key=_start) - 1
    if number < 0:
        return None
    start, other, size = side[number]
    return other + at - start if at < start + size else None


def _start(row: tuple[int, int, int]) -> int:
    return row[0]
