"""Live data without a name that only new functions use, while the base's code has lost none that they may be.

Where data in front and behind have moved by different distances, something was put in between; the base may yet have room there. That is
its own only if something of the base uses it: what unchanged code uses, both images use alike, and of what changed code used, all has its
counterpart. So a word that a newer run time keeps for itself is told from one that has moved.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.differ import Verdict
from hotpatch.differ.follow import ways_from_named
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.address import Rva
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Range

_LARGEST = 2 * POINTER_SIZE
"""Bytes; of larger data, code may use parts that it does not name."""


class Unclaimed:
    """Judges live data of the fixed image for which the comparison has no counterpart."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base = diff, fixed, base

    def is_new(self, target: Rva, part: Range, places: Iterable[int]) -> bool:
        """Whether ``part``, in which ``target`` lies, is used by new functions alone, and nothing in the base uses what may be there.

        ``places``: where the base may have ``target``.
        """
        starts, size = self._fixed.boundaries, self._fixed.extent(target).size
        rooms = [range(place, min(place + size, self._base.extent(place).end)) for place in places]
        inside = starts[bisect_right(starts, part.start - 1) : bisect_right(starts, part.end - 1)]
        users = [user for start in inside for user in self._fixed.users.get(start, ())]
        return (
            part.size <= _LARGEST
            and bool(users)
            and self._added.issuperset(users)
            and self._fixed.pointed.isdisjoint(inside)
            and self._has_lost_none
            and not any(at in room for at in self._used_in_base for room in rooms)
            and not any(at in part for at in self._reached_by_others)
        )

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(row.fixed.entry for row in self._diff.of(Verdict.ADDED) if row.fixed is not None)

    @cached_property
    def _changed_in_base(self) -> tuple[Function, ...]:
        rows = (*self._diff.of(Verdict.CHANGED), *self._diff.of(Verdict.REMOVED))
        return tuple(row.base for row in rows if row.base is not None)

    @cached_property
    def _has_lost_none(self) -> bool:
        """Whether all live data that changed code of the base names, or reaches at constant distances, are in the fixed image, too."""
        live = sorted((match.base, match.base + match.size) for match in self._diff.data if match.writable)
        used = {at for function in self._changed_in_base for at, _ in self._ways(self._base, function) if self._base.writable(at)}
        return all((at := bisect_right(live, (place, self._base.image.size_of_image)) - 1) >= 0 and place < live[at][1] for place in used)

    @cached_property
    def _used_in_base(self) -> frozenset[int]:
        """Where any function of the base goes that names live data."""
        functions = (function for function in self._base.image.functions if self._names_live(self._base, function))
        return self._base.pointed.union(at for function in functions for at, _ in self._ways(self._base, function))

    @cached_property
    def _reached_by_others(self) -> frozenset[int]:
        """Where functions of the fixed image go that are not new and name live data."""
        functions = (one for one in self._fixed.image.functions if one.entry not in self._added and self._names_live(self._fixed, one))
        return frozenset(at for function in functions for at, _ in self._ways(self._fixed, function))

    @staticmethod
    def _names_live(view: View, function: Function) -> bool:
        return any(view.writable(target) for target in view.body(function.entry).whole_targets)

    @staticmethod
    def _ways(view: View, function: Function) -> frozenset[tuple[int, bool]]:
        """What a function names, and what it reaches from there, with whether an index comes on top."""
        return ways_from_named(view.image, function).union((target, False) for target in view.body(function.entry).whole_targets)
