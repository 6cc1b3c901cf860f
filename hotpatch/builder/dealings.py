"""What code does with live data without names: by that two tell which is which that changed places in memory.

Where compilers lay data out by their first use, two statements that change places take their data with them. Then where the data lie says
the same as which instructions align, and both are wrong. Each is judged by what is done with it in both images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.ownership import FARTHEST
from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.matching import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch import Deed
    from hotpatch.builder.reached import Reached, Users
    from hotpatch.builder.reaches import Distances
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_Profile = Counter[tuple[int, "Deed"]]
"""How often the function of a row does what."""
_Likeness = tuple[Fraction, Fraction]
"""From 0 to 1: of what is done with two data, and of what is done beside that."""
_BESIDE = "beside"
_BY_CHANGED_CODE = frozenset({Evidence.ALIGNMENT, Evidence.ORDER})
"""Evidence that comes of where data lie and of which instructions of changed functions correspond."""


class Dealings:
    """Compares what the functions of both images do with data."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, there: Reached, here: Reached, distances: Distances) -> None:
        """Judge by ``diff``.

        Args:
            diff: The comparison.
            fixed: Its fixed image.
            base: Its base.
            there: What the functions of the base reach, by the number of their rows.
            here: What those of the fixed image do.
            distances: What the comparison says of places.
        """
        self._diff, self._distances = diff, distances
        self._fixed, self._base, self._there, self._here = fixed, base, there, here
        self._dealt: dict[tuple[View, int], Mapping[int, Counter[Deed]]] = {}

    def objection(self, fixed: int, base: int) -> str | None:
        """Why the live datum at ``fixed`` may be another than the base's at ``base``: one of the two would rather be with a third.

        The code does more alike with these two then, and more than with that third and what is held to be the same as it.
        """
        users = self._users(self._base, base) | self._users(self._fixed, fixed)
        own = self._likeness(base, fixed, users)
        for other in self._near(self._base, base, users):
            partner = self._distances.fixed_place(other)
            cross = self._likeness(other, fixed, users)
            if cross > own and self._is_open(partner) and (partner is None or cross > self._likeness(other, partner, users)):
                return f"the code does with it what it did with what is at 0x{other:x}"
        for other in self._near(self._fixed, fixed, users):
            partner = self._diff.base_datum(Rva(other))
            cross = self._likeness(base, other, users)
            if cross > own and self._is_open(other) and (partner is None or cross > self._likeness(partner, other, users)):
                return f"the code does with what is at 0x{other:x} what it did with that"
        return None

    def _is_open(self, fixed: int | None) -> bool:
        """Whether nothing but changed code tells which datum of the base lies at ``fixed``, or where it lies in what begins before it."""
        match = None if fixed is None else match_at_or_before(self._diff, fixed)
        return match is None or match.fixed != fixed or match.matched_by in _BY_CHANGED_CODE

    def _users(self, view: View, place: int) -> Users:
        """The functions that name a place or reach it from something near."""
        reached, numbers = (self._there if view is self._base else self._here).users(place), self._numbers[view]
        return reached.union(numbers[entry] for entry in view.users.get(place, ()) if entry in numbers)

    def _near(self, view: View, place: int, users: Users) -> list[int]:
        """The live data near a place that any of ``users`` names or reaches, sorted."""
        functions = (function for number in users if (function := self._function(view, number)) is not None)
        found = {other for function in functions for other in self._dealt_by(view, function)}
        return sorted(other for other in found if abs(other - place) <= FARTHEST and view.writable(other))

    def _function(self, view: View, number: int) -> Function | None:
        row = self._diff.functions[number]
        return row.base if view is self._base else row.fixed

    @cached_property
    def _numbers(self) -> Mapping[View, Mapping[int, int]]:
        """The rows of functions, by entry."""
        rows = range(len(self._diff.functions))
        sides = {view: ((number, self._function(view, number)) for number in rows) for view in (self._base, self._fixed)}
        return {view: {one.entry: number for number, one in functions if one is not None} for view, functions in sides.items()}

    def _likeness(self, base: int, fixed: int, users: Users) -> _Likeness:
        sides = self._profile(self._base, base, users), self._profile(self._fixed, fixed, users)
        return _share(*(done for done, _ in sides)), _share(*(beside for _, beside in sides))

    def _profile(self, view: View, place: int, users: Users) -> tuple[_Profile, _Profile]:
        """What ``users`` do with what lies at ``place``, and what they do beside that."""
        done: _Profile = Counter()
        beside: _Profile = Counter()
        for number in users:
            function = self._function(view, number)
            if function is not None and (deeds := self._dealt_by(view, function).get(place)) is not None:
                for deed, count in deeds.items():
                    (beside if deed.part == _BESIDE else done)[number, deed] += count
        return done, beside

    def _dealt_by(self, view: View, function: Function) -> Mapping[int, Counter[Deed]]:
        """What a function does with each place that it reaches; callees are told by their entries in the base."""
        known = self._dealt.get((view, function.entry))
        if known is None:
            known = self._dealt[view, function.entry] = self._look_at(view, function)
        return known

    def _look_at(self, view: View, function: Function) -> Mapping[int, Counter[Deed]]:
        names = named_data(view.image, function)
        instructions, edges = followed(view.image, function)
        deeds = view.architecture.deeds(instructions, edges)
        found: dict[int, Counter[Deed]] = defaultdict(Counter)
        made = {(name, naming) for naming, named in names.items() for name in named}
        accessed = set[tuple[int, int, int]]()
        for item in view.architecture.ever_reached(instructions, names, edges):
            for place in (name + item.distance for name in names[item.anchor]):
                (accessed.add((place, item.at, item.width)) if item.width else made.add((place, item.at)))
        for place, at in made:
            found[place] += self._in_base(view, deeds.making(at))
        for place, at, width in accessed:
            parts = deeds.accessing(at)
            for number, part in enumerate(parts):
                found[place + number * width // len(parts)] += self._in_base(view, part)
        return found

    def _in_base(self, view: View, deeds: Counter[Deed]) -> Counter[Deed]:
        if view is self._base:
            return deeds
        found: Counter[Deed] = Counter()
        for deed, count in deeds.items():
            found[deed if deed.callee is None else deed._replace(callee=self._diff.base_entries.get(Rva(deed.callee), -1))] += count
        return found


def _share(old: _Profile, new: _Profile) -> Fraction:
    """How much of what either does both do."""
    both = sum((old & new).values())
    return Fraction(both, sum((old | new).values()) or 1)
