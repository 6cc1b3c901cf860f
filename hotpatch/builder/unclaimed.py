"""Live data without a name that only new functions use, while the base's code has lost none that they may be.

Where data in front and behind have moved by different distances, something was put in between; the base may yet have room there. That is
its own only if something of the base uses it: what unchanged code uses, both images use alike, and of what changed code used, all has its
counterpart. So a word that a newer run time keeps for itself is told from one that has moved.

What begins behind such data is no end of theirs where they are shorter than the room that they have: what they are used for ends before.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.counterparts import Counterparts
from hotpatch.builder.pointed import read_by
from hotpatch.builder.spans import Spans
from hotpatch.differ import Verdict
from hotpatch.differ.correspond import fills
from hotpatch.differ.follow import every_way, followed, named_data, ways_from_named
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Range

_LARGEST = 2 * POINTER_SIZE
"""Bytes; of larger data, code may use parts that it does not name."""
_ALIGNMENT = 16
"""Bytes; what lies between data and what follows is less, where it is there for alignment alone."""


class Unclaimed:
    """Judges live data of the fixed image for which the comparison has no counterpart."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base = diff, fixed, base

    def is_new(self, target: Rva, part: Range, places: Iterable[int]) -> bool:
        """Whether ``part``, in which ``target`` lies, is used by new functions alone, and nothing in the base uses what may be there.

        ``places``: where the base may have ``target``.
        """
        size = self._fixed.extent(target).size
        places = tuple(places)
        rooms = [range(place, min(place + size, self._base.extent(place).end)) for place in places]
        inside = self._inside(part)
        users = self._users(part)
        return (
            self._is_short(part)
            and bool(users)
            and self._added.issuperset(users)
            and self._fixed.pointed.isdisjoint(inside)
            and self._has_lost_none
            and not any(at in room for at in self._used_in_base for room in rooms)
            and not any(at in part for at in self._reached_by_others)
            and not any(self._may_be_gone_over(self._base, place) for place in places)
            and not self._may_be_gone_over(self._fixed, part.start)
        )

    def _may_be_gone_over(self, view: View, place: int) -> bool:
        """Whether it may be an element of what begins before it: code does more with that than to access it at constant distances."""
        start = view.boundaries[bisect_right(view.boundaries, place - 1) - 1]
        users = [view.functions[user] for user in view.users.get(start, ())]
        return start in view.pointed or any(start in read_by(view, user)[1] for user in users)

    def ends_before(self, part: Range) -> bool:
        """Whether what lies in ``part``, which is new, ends before ``part`` does, so that an address behind it is not its end.

        New functions alone use it, all of them at distances that do not depend on anything, and what is left behind the last byte that they
        read or write is what aligning the next datum takes. One that went over it up to ``part.end`` would have to read or write that too.
        """
        end, partner = self._used_end(part), self._diff.base_datum(Rva(part.end))
        if end is None or partner is None:
            return False
        return 0 < part.end - end < _ALIGNMENT and fills(end, part.end, partner)

    def _used_end(self, part: Range) -> int | None:
        """Behind the last byte of ``part`` that is read or written; ``None`` where that depends on something."""
        ways = [way for user in set(self._users(part)) for way in every_way(self._fixed.image, self._fixed.functions[user])]
        within = [way for way in ways if way.place in part]
        if any(way.indexed for way in within) or self._walks(part):
            return None
        return max((way.place + way.width for way in within if way.width), default=None)

    def _walks(self, part: Range) -> bool:
        """Whether a function adds something unknown to an address in ``part``, or goes on from it in a loop."""
        for user in set(self._users(part)):
            function = self._fixed.functions[user]
            names = {at for at, targets in named_data(self._fixed.image, function).items() if any(target in part for target in targets)}
            instructions, edges = followed(self._fixed.image, function)
            if self._fixed.architecture.walked(instructions, names, edges):
                return True
        return False

    def _inside(self, part: Range) -> list[int]:
        """Where anything in ``part`` may begin."""
        starts = self._fixed.boundaries
        return list(starts[bisect_right(starts, part.start - 1) : bisect_right(starts, part.end - 1)])

    def _users(self, part: Range) -> list[int]:
        return [user for start in self._inside(part) for user in self._fixed.users.get(start, ())]

    def _is_short(self, part: Range) -> bool:
        """Whether it is no longer than :data:`_LARGEST`, or no more of it is used."""
        if part.size <= _LARGEST:
            return True
        end = self._used_end(part)
        return end is not None and end - part.start <= _LARGEST

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(row.fixed.entry for row in self._diff.of(Verdict.ADDED) if row.fixed is not None)

    @cached_property
    def _has_lost_none(self) -> bool:
        """Whether all live data that changed code of the base names, or reaches at constant distances, are in the fixed image, too."""
        rows = (*self._diff.of(Verdict.CHANGED), *self._diff.of(Verdict.REMOVED))
        return not any(self._loses(row.base, row.fixed) for row in rows if row.base is not None)

    def _loses(self, base: Function, fixed: Function | None) -> bool:
        """Whether a function used live data that nothing matches, but where its version in the fixed image takes what shows to be that."""
        used = {at for at, _ in self._ways(self._base, base) if self._base.writable(at)}
        lost = sorted(place for place in used if not self._live_in_base.covers(place))
        if not lost or fixed is None:
            return bool(lost)
        counterparts = Counterparts(self._diff, self._base, self._fixed, (base, fixed))
        gained = [at for at in self._fixed.body(fixed.entry).whole_targets if self._diff.base_datum(Rva(at)) is None]
        return any(all(counterparts.told(target, {place}) != place for target in gained) for place in lost)

    @cached_property
    def _live_in_base(self) -> Spans[int]:
        """Live data of the base that the fixed image has, too."""
        return Spans((match.base, match.base + match.size, match.fixed) for match in self._diff.data if match.writable)

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
