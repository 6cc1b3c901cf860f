"""What the functions of an image reach, and which of them reach a place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import FARTHEST, Usage
from hotpatch.differ.follow import Way, every_way, in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hotpatch.differ.view import View
    from hotpatch.image import Function

Users = frozenset[int]
"""Functions by their number among the rows of the comparison."""


class Reached:
    """What the functions of one image reach; a function is followed when something near what it names is first asked about."""

    def __init__(self, view: View, functions: Iterable[Function | None]) -> None:
        self._view, self._functions = view, tuple(functions)
        self._found: dict[int, frozenset[int]] = {}
        self._reaching: dict[int, list[int]] = defaultdict(list)
        """Place → the functions followed so far that reach it."""
        self._places: list[int] = []
        """The places, sorted."""
        self._ahead: list[int] = []
        """Of each address in ``_named``, the next whose function may not have been followed yet, itself or one behind it."""
        self._users: dict[int, Users] = {}
        self._ways: dict[int, frozenset[tuple[int, bool]]] = {}
        """What each function followed so far reaches, and whether by an index."""
        self._begun: dict[int, frozenset[int]] = {}
        """Where each of them reads or writes."""
        self._accessed: dict[int, frozenset[int]] = {}
        """The same, and what it reads or writes by its own address."""

    def users(self, rva: int, *, indexed: bool | None = None) -> Users:
        """The functions that reach it from something near: all, or those that do so with or without an index on top."""
        found = self._users.get(rva)
        if found is None:
            self._follow_near(rva)
            found = self._users[rva] = frozenset(number for number in self._reaching.get(rva, ()) if self._names_near(number, rva))
        return found if indexed is None else frozenset(number for number in found if (rva, indexed) in self._ways[number])

    def accessing(self, rva: int) -> Users:
        """The functions that read or write what begins at it, by its own address or from something near."""
        return frozenset(number for number in self.users(rva) | self._naming(rva) if rva in self._accessed_by(number))

    def _naming(self, rva: int) -> Users:
        """The functions that name it."""
        return frozenset(number for _, number in self._named[bisect_left(self._named, (rva, 0)) : bisect_left(self._named, (rva + 1, 0))])

    def _accessed_by(self, number: int) -> frozenset[int]:
        """What a function reads or writes, by its own address or from something near."""
        found, function = self._accessed.get(number), self._functions[number]
        if found is None:
            self._of(number)
            body = None if function is None else body_of(self._view.image, function)
            direct = Usage(self._view.image, body.sites).accessed if isinstance(body, Body) else frozenset[Rva]()
            found = self._accessed[number] = direct.union(self._begun[number])
        return found

    def before(self, rva: int) -> int | None:
        """The last live datum before it that any function reaches."""
        self._follow_near(rva)
        places = (place for place in reversed(self._around(rva)) if place < rva and self._view.writable(place))
        return next((place for place in places if any(self._names_near(number, rva) for number in self._reaching[place])), None)

    def between(self, low: int, high: int) -> list[int]:
        """What any function reaches from ``low`` to before ``high``, which lie near each other, sorted."""
        self._follow_near(low)
        self._follow_near(high)
        found = [place for place in self._around(low) if low <= place < high]
        return [place for place in found if any(self._names_near(number, low) for number in self._reaching[place])]

    def near(self, numbers: Users, rva: int) -> list[int]:
        """Live data that any of the functions ``numbers`` reaches near ``rva``, sorted."""
        for number in numbers:
            self._of(number)
        places = (place for place in self._around(rva) if self._view.writable(place))
        return [place for place in places if not numbers.isdisjoint(self._reaching[place])]

    def _around(self, rva: int) -> list[int]:
        """The places near ``rva`` that any function followed so far reaches."""
        if len(self._places) < len(self._reaching):
            self._places = sorted(self._reaching)
        return self._places[bisect_left(self._places, rva - FARTHEST) : bisect_right(self._places, rva + FARTHEST)]

    def _of(self, number: int) -> frozenset[int]:
        found, function = self._found.get(number), self._functions[number]
        if found is None:
            ways = frozenset[Way]() if function is None else every_way(self._view.image, function)
            self._ways[number], self._begun[number] = in_words(ways), frozenset(way.place for way in ways if way.width)
            found = self._found[number] = frozenset(place for place, _ in self._ways[number])
            for place in found:
                self._reaching[place].append(number)
        return found

    def _follow_near(self, rva: int) -> None:
        """Follow all functions that name something near ``rva``."""
        first, last = (bisect_left(self._named, (rva + far, 0)) for far in (-FARTHEST, FARTHEST))
        at = self._not_followed(first)
        while at < last:
            self._of(self._named[at][1])
            self._ahead[at] = at + 1
            at = self._not_followed(at)

    def _not_followed(self, at: int) -> int:
        """The first address from ``at`` on whose function may not have been followed; what is passed over is so only once."""
        if not self._ahead:
            self._ahead = list(range(len(self._named) + 1))
        passed = []
        while self._ahead[at] != at:
            passed.append(at)
            at = self._ahead[at]
        for one in passed:
            self._ahead[one] = at
        return at

    def _names_near(self, number: int, rva: int) -> bool:
        """Whether the function ``number`` names something from which ``rva`` is near."""
        targets = self._targets[number]
        return bisect_left(targets, rva - FARTHEST) < bisect_left(targets, rva + FARTHEST)

    @cached_property
    def _named(self) -> list[tuple[int, int]]:
        """The addresses that functions name, each with the function's number."""
        return sorted((target, number) for number, targets in self._targets.items() for target in targets)

    @cached_property
    def _targets(self) -> Mapping[int, Sequence[int]]:
        """The addresses that each function names, sorted, by the function's number."""
        functions = [(number, function.entry) for number, function in enumerate(self._functions) if function is not None]
        return {number: sorted(set(self._view.body(entry).whole_targets)) for number, entry in functions}
