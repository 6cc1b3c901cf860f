"""Live data without names that the base cannot have: static data of functions, told by the guards of their initialisation.

Only the compiler makes a guard, and whatever has the datum names its guard. So a guard that nothing matches is new where all guards of
the base are matched, though the base has room at its place. And what begins behind a guard is in no datum that begins before it: where
nothing but the functions of that guard accesses it, and none hands its address on, it came with the guard.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import FARTHEST, Usage
from hotpatch.differ import Verdict
from hotpatch.differ.follow import followed, named_data, reached_from_named

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View

_SIZE = 4
"""Bytes of a guard."""
_ALIGNMENT = 8
"""Bytes; less than so many lie between a guard and its datum."""


class Guards:
    """Tells new static data of functions."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base = diff, fixed, base
        self._known: dict[tuple[int, tuple[int, ...]], bool] = {}

    def is_new(self, rva: int, places: Collection[int]) -> bool:
        """Whether live data of the fixed image at ``rva``, which nothing matches, are a guard that the base has not, or what it guards.

        ``places``: where the base would have them, by what it has before and behind them.
        """
        key = rva, tuple(places)
        if key not in self._known:
            self._known[key] = self._is_new(rva, places)
        return self._known[key]

    def _is_new(self, rva: int, places: Collection[int]) -> bool:
        if self._fixed.symbol(rva) is not None or self._diff.base_datum(Rva(rva)) is not None:
            return False
        size = self._fixed.extent(rva).size
        if any(self._is_used(place, size) for place in places):
            return False
        return rva in self._new or self._is_guarded(rva, size)

    def _is_used(self, place: int, size: int) -> bool:
        """Whether the base names or reaches anything in ``size`` bytes at ``place``."""
        starts = self._base.boundaries
        named = bisect_left(starts, place) != bisect_left(starts, place + size)
        return named or bool(_reaching(self._base, place, size))

    @cached_property
    def _new(self) -> frozenset[int]:
        """The guards of the fixed image that nothing matches, where all of the base's are matched."""
        there, here = _guards(self._base), _guards(self._fixed)
        matched = {self._diff.base_datum(Rva(guard)) for guard in here}
        if not here or not there.keys() <= matched:
            return frozenset()
        return frozenset(guard for guard in here if self._diff.base_datum(Rva(guard)) is None)

    def _is_guarded(self, rva: int, size: int) -> bool:
        """Whether what is at ``rva`` begins right behind a new guard, and belongs to the functions of that guard alone."""
        starts = self._fixed.boundaries
        guard = starts[bisect_left(starts, rva) - 1]
        if guard not in self._new or not 0 <= rva - guard - _SIZE < _ALIGNMENT or rva in self._fixed.image.pointers.values():
            return False
        changed = {row.fixed.entry for row in self._diff.functions if row.fixed and row.verdict in (Verdict.CHANGED, Verdict.ADDED)}
        users = _users(self._fixed, rva)
        if not users or not users <= changed & _users(self._fixed, guard) or not _reaching(self._fixed, rva, size) <= users:
            return False
        return not any(self._is_taken(entry, rva) for entry in users)

    def _is_taken(self, entry: int, rva: int) -> bool:
        """Whether a function takes the address of what is at ``rva``, or may reach more from there."""
        image = self._fixed.image
        body = body_of(image, self._fixed.functions[entry])
        return not isinstance(body, Body) or rva in Usage(image, body.sites).taken


def _reaching(view: View, place: int, size: int) -> frozenset[int]:
    """The functions that reach any of ``size`` bytes at ``place`` from something near that they name."""
    near = (entry for entry in view.functions if any(abs(target - place) <= FARTHEST for target in view.body(entry).whole_targets))
    reached = ((entry, reached_from_named(view.image, view.functions[entry])) for entry in near)
    return frozenset(entry for entry, places in reached if any(place <= one < place + size for one in places))


def _users(view: View, rva: int) -> frozenset[int]:
    """The functions that name an address."""
    return frozenset(entry for entry in view.functions if rva in view.body(entry).targets)


def _guards(view: View) -> Mapping[int, frozenset[int]]:
    """Guards, each with the functions that it serves in; none that anything else names."""
    index = view.special_data.get("tls index")
    if index is None:
        return {}
    found: dict[int, set[int]] = {}
    for entry in sorted(_users(view, index)):
        function = view.functions[entry]
        instructions, _ = followed(view.image, function)
        for guard in view.architecture.guards(instructions, named_data(view.image, function), index):
            found.setdefault(guard, set()).add(entry)
    pointed = frozenset(view.image.pointers.values())
    return {guard: frozenset(users) for guard, users in found.items() if guard not in pointed and _users(view, guard) == users}
