"""Which functions reach live data without names at constant distances, in both images (:mod:`.reaches`).

Compilers that merge globals give several data one address, and code tells them by their distances alone. That the address is matched says
nothing about what lies at a distance from it: two of them may have changed places, or a new one stand where another was. Who uses what lies
there tells.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.ownership import FARTHEST
from hotpatch.differ import Verdict
from hotpatch.differ.matching import Evidence
from hotpatch.differ.reached import reached_from_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.builder.reaches import Distances, Reach
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_Users = frozenset[int]
"""Functions by their number among the rows of the comparison."""
_UNCHANGED = frozenset({Verdict.IDENTICAL, Verdict.RELOCATED})


class Witnesses:
    """Hears the functions of both images about what lies at distances."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, distances: Distances) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``; ``distances`` tells what the comparison says of places."""
        self._diff, self._rows, self._distances = diff, diff.functions, distances
        self._fixed = fixed
        self._there = _Reached(base, [row.base for row in diff.functions])
        self._here = _Reached(fixed, [row.fixed for row in diff.functions])

    def objection(self, reach: Reach, place: int) -> str | None:
        """Why what ``reach`` tells of may be something else in the base, where what it is reached from is at ``place``.

        ``None`` where a function that did not change uses it, and for elements that nothing in the base uses by themselves, unless they are
        far into a stretch that changed code alone matches.
        """
        moved = place - reach.taken
        if not self._fixed.writable(reach.start) or self._fixed.symbol(reach.start) is not None:
            return None
        there, here = self._there.users(reach.start + moved), self._here.users(reach.start)
        if not there and reach.width and not reach.indexed:
            return self.unused(reach.start, Rva(reach.start + moved))
        if any(self._rows[number].verdict in _UNCHANGED for number in there & here):
            return None
        if not there:
            return self._moved_away(reach.start + moved, moved) or self._used_before(reach.start, moved)
        if not there & here:
            return f"{self._label(there)} uses what is there, {self._label(here)} this, and no function both"
        return self._used_before(reach.start, moved) or self._used_now(reach.start, moved)

    def _moved_away(self, base: int, moved: int) -> str | None:
        """Whether what begins in the base before ``base``, where nothing is known to, has moved otherwise, so that this goes on there."""
        start = self._there.before(base)
        if start is None or self._there.users(start) & self._here.users(start - moved):
            return None
        return f"it would be in what begins at 0x{start:x}, which none of those who used it has there"

    def unused(self, fixed: Rva, base: Rva) -> str | None:
        """Why what lies at ``fixed`` may not be at ``base``: changed code alone matches what begins before both, and nobody uses that."""
        match = match_at_or_before(self._diff, fixed)
        if match is None or match.matched_by != Evidence.ALIGNMENT or match.fixed == fixed or self._fixed.symbol(fixed) is not None:
            return None
        return None if self._there.users(base) else f"no function of the base uses 0x{base:x} by itself"

    def _used_before(self, fixed: int, moved: int) -> str | None:
        """Whether those who use it used something else in the base, which those who use what is in its place now did not use as much.

        Where nothing in the base uses its place, two must say so: one alone may have been edited.
        """
        there, here = self._there.users(fixed + moved), self._here.users(fixed)
        own = _likeness(there, here)
        for other in sorted(self._there.near(here, fixed + moved) - {fixed + moved}):
            here_is = self._distances.fixed_place(other)
            users, followers = self._there.users(other), self._here.users(other - moved if here_is is None else here_is)
            agreed = followers if there else len(users & here) > 1
            if agreed and _likeness(users, here) > max(own, _likeness(users, followers)):
                return f"the functions that use it used what is at 0x{other:x}"
        return None

    def _used_now(self, fixed: int, moved: int) -> str | None:
        """Whether those who used what is in its place in the base use something else now, in the same way."""
        there, here = self._there.users(fixed + moved), self._here.users(fixed)
        own = _likeness(there, here)
        for other in sorted(self._here.near(there, fixed) - {fixed}):
            there_is = self._diff.base_datum(Rva(other))
            users, forerunners = self._here.users(other), self._there.users(other + moved if there_is is None else there_is)
            if _likeness(there, users) > max(own, _likeness(forerunners, users)):
                return f"the functions that used what is there use what the fixed image has at 0x{other:x}"
        return None

    def _label(self, numbers: _Users) -> str:
        """The first of them; none where but a pointer in data leads to what no code names."""
        rows = [self._rows[number] for number in sorted(numbers)]
        return next((function.label for row in rows for function in (row.base, row.fixed) if function is not None), "nothing")


class _Reached:
    """What the functions of one image reach."""

    def __init__(self, view: View, functions: Iterable[Function | None]) -> None:
        self._view, self._functions = view, tuple(functions)
        self._found: dict[int, frozenset[int]] = {}

    def users(self, rva: int) -> _Users:
        """The functions that reach it from something near."""
        first, last = (bisect_left(self._named, (rva + far, 0)) for far in (-FARTHEST, FARTHEST))
        return frozenset(number for number in {number for _, number in self._named[first:last]} if rva in self._of(number))

    def before(self, rva: int) -> int | None:
        """The last live datum before it that any function reaches."""
        first, last = (bisect_left(self._named, (at, 0)) for at in (rva - FARTHEST, rva + FARTHEST))
        numbers = frozenset(number for _, number in self._named[first:last])
        return max((place for place in self.near(numbers, rva) if place < rva), default=None)

    def near(self, numbers: _Users, rva: int) -> frozenset[int]:
        """Live data that any of the functions ``numbers`` reaches near ``rva``."""
        places = {place for number in numbers for place in self._of(number) if abs(place - rva) <= FARTHEST}
        return frozenset(place for place in places if self._view.writable(place))

    def _of(self, number: int) -> frozenset[int]:
        found, function = self._found.get(number), self._functions[number]
        if found is None:
            found = self._found[number] = frozenset() if function is None else reached_from_named(self._view.image, function)
        return found

    @cached_property
    def _named(self) -> list[tuple[int, int]]:
        """The addresses that functions name, each with the function's number."""
        functions = [(number, function.entry) for number, function in enumerate(self._functions) if function is not None]
        return sorted({(target, number) for number, entry in functions for target in self._view.body(entry).whole_targets})


def _likeness(there: _Users, here: _Users) -> Fraction:
    """How many of those who use one or the other use both."""
    return Fraction(len(there & here), len(there | here) or 1)
