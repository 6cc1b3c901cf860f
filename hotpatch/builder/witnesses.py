"""Which functions reach live data without names at constant distances, in both images (:mod:`.reaches`).

Compilers that merge globals give several data one address, and code tells them by their distances alone. That the address is matched says
nothing about what lies at a distance from it: two of them may have changed places, or a new one stand where another was. Who uses what lies
there tells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.dealings import Dealings
from hotpatch.builder.reaches import Reach
from hotpatch.builder.wholes import Wholes
from hotpatch.differ.matching import Evidence
from hotpatch.differ.model import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.builder.model import Site
    from hotpatch.builder.novelty import Novelty
    from hotpatch.builder.reached import Reached, Users
    from hotpatch.builder.reaches import Distances
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Image


class Witnesses:
    """Hears the functions of both images about what lies at distances."""

    def __init__(
        self, diff: ImageDiff, fixed: View, base: View, there: Reached, here: Reached, distances: Distances, novelty: Novelty
    ) -> None:
        """Judge by ``diff``.

        Args:
            diff: The comparison.
            fixed: Its fixed image.
            base: Its base.
            there: What the functions of the base reach, by the number of their rows.
            here: What those of the fixed image do.
            distances: What the comparison says of places.
            novelty: Which live data of the base nothing matches.
        """
        self._diff, self._rows, self._distances = diff, diff.functions, distances
        self._fixed, self._base, self._novelty = fixed, base, novelty
        self._there, self._here = there, here
        self._dealings = Dealings(diff, fixed, base, there, here, distances)
        self._wholes_there, self._wholes_here = Wholes(diff, base, base=True), Wholes(diff, fixed, base=False)
        self._heard: dict[tuple[Rva, bool, int, Rva | None], str | None] = {}

    def objection(self, reach: Reach, place: int) -> str | None:
        """Why what ``reach`` tells of may be something else in the base, where what it is reached from is at ``place``.

        ``None`` where a function that did not change uses it, and for elements that nothing in the base uses by themselves, unless they are
        far into a stretch that changed code alone matches.
        """
        question = reach.start, bool(reach.width) and not reach.indexed, place - reach.taken, reach.taken if reach.indexed else None
        if question not in self._heard:
            self._heard[question] = self._objection(*question)
        return self._heard[question]

    def _objection(self, fixed: Rva, is_whole: bool, moved: int, over: Rva | None) -> str | None:
        """The same of what lies at ``fixed``, ``moved`` bytes from there in the base; ``is_whole``: accessed right there.

        ``over``: what is named where an index comes on top.
        """
        by_index = over is not None
        if not self._fixed.writable(fixed) or self._fixed.symbol(fixed) is not None:
            return None
        if self._is_told_by_content(fixed, fixed + moved):
            return None
        there, here = self._there.users(fixed + moved), self._here.users(fixed)
        if not there and is_whole:
            return self.unused(fixed, Rva(fixed + moved)) or self.pointed_at(fixed, Rva(fixed + moved))
        if any(self._rows[number].verdict in UNCHANGED for number in there & here):
            return self._used_apart(fixed, moved) if is_whole else None
        named = self._diff.fixed.has_symbols and self._diff.base.has_symbols
        if not there and over is not None and ((named and self._novelty.left_over_live) or not self._goes_on(over, fixed, moved)):
            return f"no function of the base goes over 0x{fixed + moved:x}"
        if not there:
            return self.pointed_at(fixed, Rva(fixed + moved)) or self._moved_away(fixed + moved, moved) or self._used_before(fixed, moved)
        split = not there & here
        there, here = self._users_there(fixed + moved, split=split), self._users_here(fixed, split=split)
        if not there & here:
            return f"{self._label(there)} uses what is there, {self._label(here)} this, and no function both"
        by_way = self._there.users(fixed + moved, indexed=by_index)
        if not (self._wholes_there.of(by_way) if split else by_way) & here:
            how = "does not go" if by_index else "only goes"
            return f"{self._label(there)} {how} over what is there by an index"
        by_users = self._used_before(fixed, moved, split=split) or self._used_now(fixed, moved, split=split)
        return by_users or self._dealings.objection(fixed, fixed + moved)

    def _users_there(self, rva: int, *, split: bool) -> Users:
        """The functions that use a place of the base; where ``split``, each part of a function counts as that one."""
        users = self._there.users(rva)
        return self._wholes_there.of(users) if split else users

    def _users_here(self, rva: int, *, split: bool) -> Users:
        """The same of the fixed image."""
        users = self._here.users(rva)
        return self._wholes_here.of(users) if split else users

    def _is_told_by_content(self, fixed: int, base: int) -> bool:
        """Whether what begins at these two places says what it is, whoever uses it."""
        match = match_at_or_before(self._diff, Rva(fixed))
        return match is not None and (match.fixed, match.base, match.matched_by) == (fixed, base, Evidence.CONTENT)

    def _moved_away(self, base: int, moved: int) -> str | None:
        """Whether what begins in the base before ``base``, where nothing is known to, has moved otherwise, so that this goes on there."""
        start = self._there.before(base)
        if start is None or self._there.users(start) & self._here.users(start - moved):
            return None
        return f"it would be in what begins at 0x{start:x}, which none of those who used it has there"

    def exchanged(self, fixed: Rva, base: Rva) -> str | None:
        """Why what lies at the two may be different data: those that use one use another place in the other image, more than these two."""
        if self._is_used_unchanged(fixed, base):
            return None
        return self._used_before(fixed, base - fixed) or self._used_now(fixed, base - fixed) or self._dealings.objection(fixed, base)

    def begins(self, fixed: Rva, base: Rva) -> bool:
        """Whether a datum is known to begin at the two, and not only to end there: code of the base, or unchanged, reads or writes it."""
        unchanged = any(self._rows[number].verdict in UNCHANGED for number in self._here.accessing(fixed))
        return unchanged or bool(self._there.accessing(base))

    def divided(self, fixed: Rva, base: Rva) -> str | None:
        """Why what lies at the two, without a name, may be different data: a function that did not change uses only one of them."""
        if self._fixed.symbol(fixed) is not None:
            return None
        apart = self._there.users(base) ^ self._here.users(fixed)
        unchanged = frozenset(number for number in apart if self._rows[number].verdict in UNCHANGED)
        return f"{self._label(unchanged)}, which did not change, uses only one of the two" if unchanged else None

    def unused(self, fixed: Rva, base: Rva) -> str | None:
        """Why what lies at ``fixed`` may not be at ``base``: changed code alone matches what begins before both, and nobody uses that."""
        match = match_at_or_before(self._diff, fixed)
        if match is None or match.matched_by != Evidence.ALIGNMENT or match.fixed == fixed or self._fixed.symbol(fixed) is not None:
            return None
        return None if self._there.users(base) else f"no function of the base uses 0x{base:x} by itself"

    def pointed_at(self, fixed: Rva, base: Rva) -> str | None:
        """Why what lies at the two may be different data: pointers lead to the base's, and other ones, or none, to the fixed image's.

        That concerns what begins further behind in both than what is known to begin; not what a function uses that did not change.
        """
        match = match_at_or_before(self._diff, fixed)
        place = self._base.boundaries[bisect_right(self._base.boundaries, base) - 1]
        if match is None or place <= match.base or place not in self._pointers[True] or self._is_used_unchanged(fixed, base):
            return None
        there, here = self._pointers[True][place], self._pointers[False].get(fixed + place - base, ())
        return f"pointers lead to 0x{place:x}, and not to this" if there - {self._diff.base_datum(site) for site in here} else None

    def _is_used_unchanged(self, fixed: Rva, base: Rva) -> bool:
        """Whether a function uses both that did not change."""
        return any(self._rows[number].verdict in UNCHANGED for number in self._there.users(base) & self._here.users(fixed))

    @cached_property
    def _pointers(self) -> Mapping[bool, Mapping[int, frozenset[Rva]]]:
        """Of the base (``True``) and the fixed image: address → where pointers in data lead to it."""
        return {is_base: _sites_by_target(image) for is_base, image in ((True, self._diff.base), (False, self._diff.fixed))}

    def _goes_on(self, start: Rva, fixed: int, moved: int) -> bool:
        """Whether one function goes over what begins at ``start`` by an index in both images, and nothing reaches anything behind it.

        Nothing up to ``fixed``, that is, where another begins else.
        """
        both = ((self._there, moved), (self._here, 0))
        there, here = (view.users(start + by, indexed=True) for view, by in both)
        return bool(there & here) and all((view.before(fixed + by) or 0) <= start + by for view, by in both)

    def unproven(self, site: Site) -> str | None:
        """Why the base may have something else where a datum without a name that begins further up would have what ``site`` leads to.

        How far such a datum goes is told by what is named behind it, and of merged data the first alone is.
        """
        match = match_at_or_before(self._diff, site.target)
        if match is None or match.fixed == site.target or self._fixed.symbol(site.target) is not None:
            return None
        return self._distances.problem(Reach(site.instruction, site.size, match.fixed, site.target, 1), match.base)

    def _used_apart(self, fixed: int, moved: int) -> str | None:
        """Whether functions access what begins at the two right there, and none does so in both images.

        Then those that reach both by an index tell nothing: it may begin behind another datum.
        """
        there, here = (ends.users(at, indexed=False) for ends, at in ((self._there, fixed + moved), (self._here, fixed)))
        if not there or not here or there & here:
            return None
        return f"{self._label(there)} uses what begins there, {self._label(here)} what begins here, and no function both"

    def _used_before(self, fixed: int, moved: int, *, split: bool = False) -> str | None:
        """Whether those who use it used something else in the base, which those who use what is in its place now did not use as much.

        Where nothing in the base uses its place, two must say so: one alone may have been edited. ``split``: see :meth:`_users_there`.
        """
        there, here = self._users_there(fixed + moved, split=split), self._users_here(fixed, split=split)
        own = _likeness(there, here)
        for other in self._there.near(self._wholes_there.with_parts(here) if split else here, fixed + moved):
            if other == fixed + moved:
                continue
            here_is = self._distances.fixed_place(other)
            users = self._users_there(other, split=split)
            followers = self._users_here(other - moved if here_is is None else here_is, split=split)
            agreed = followers if there else len(users & here) > 1
            if agreed and _likeness(users, here) > max(own, _likeness(users, followers)):
                return f"the functions that use it used what is at 0x{other:x}"
        return None

    def _used_now(self, fixed: int, moved: int, *, split: bool = False) -> str | None:
        """Whether those who used what is in its place in the base use something else now, in the same way."""
        there, here = self._users_there(fixed + moved, split=split), self._users_here(fixed, split=split)
        own = _likeness(there, here)
        for other in self._here.near(self._wholes_here.with_parts(there) if split else there, fixed):
            if other == fixed:
                continue
            there_is = self._diff.base_datum(Rva(other))
            users = self._users_here(other, split=split)
            forerunners = self._users_there(other + moved if there_is is None else there_is, split=split)
            if _likeness(there, users) > max(own, _likeness(forerunners, users)):
                return f"the functions that used what is there use what the fixed image has at 0x{other:x}"
        return None

    def _label(self, numbers: Users) -> str:
        """The first of them; none where but a pointer in data leads to what no code names."""
        rows = [self._rows[number] for number in sorted(numbers)]
        return next((function.label for row in rows for function in (row.base, row.fixed) if function is not None), "nothing")


def _sites_by_target(image: Image) -> Mapping[int, frozenset[Rva]]:
    found: dict[int, set[Rva]] = defaultdict(set)
    for site, target in image.pointers.items():
        found[target].add(site)
    return {target: frozenset(sites) for target, sites in found.items()}


def _likeness(there: Users, here: Users) -> Fraction:
    """How many of those who use one or the other use both."""
    return Fraction(len(there & here), len(there | here) or 1)
