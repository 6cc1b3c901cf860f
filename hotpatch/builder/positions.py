"""Where nameless live data of the fixed image may lie in the base, and what must travel or end together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import FARTHEST, Usage
from hotpatch.builder.rearranged import Rearranged
from hotpatch.builder.spans import Spans
from hotpatch.differ.matching import Evidence
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.image import Range

if TYPE_CHECKING:
    from hotpatch.builder.novelty import Novelty
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Section

_COMPARED = 16
"""Bytes; how much of a datum's beginning is compared."""
_ALIGNMENT = 16
"""Bytes; what is left between two data is less."""
_WORDS = frozenset({"security cookie", "guard check pointer", "guard dispatch pointer", "tls index"})
"""Roles of data that are one word each."""


class Positions:
    """Where nameless live data of the fixed image may lie in the base, by what matches around them."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, novelty: Novelty) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base, self._novelty = diff, fixed, base, novelty
        self._rearranged = Rearranged(diff, fixed, base, novelty)
        self._constants: dict[int, dict[bytes, int]] = {}
        """By size: with what constants of the base begin, and the first that begins so."""

    @cached_property
    def _matches(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((match.fixed, match.base, match.size) for match in self._diff.data if match.writable)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(fixed for fixed, _, _ in self._matches)

    @cached_property
    def _roles(self) -> frozenset[int]:
        """Single words that the headers name, but for the beginning of thread-local data."""
        return frozenset(rva for role, rva in self._fixed.special_data.items() if role in _WORDS)

    @cached_property
    def _taken(self) -> Spans[int]:
        """What of the base is matched, by where the fixed image has it."""
        return Spans((base, base + size, fixed) for fixed, base, size in self._matches)

    def places(self, rva: int) -> tuple[int | None, tuple[int, ...]]:
        """Where the neighbours agree that the base has it, and every place of the base where it may be."""
        below, above = self._next_to(rva)
        found = {item[1] + rva - item[0] for item in (below, above) if item is not None}
        possible = sorted(place for place in found if self._free(place))
        agreed = next(iter(found)) if below is not None and above is not None and len(found) == 1 and possible else None
        return agreed, tuple(possible)

    def rival(self, usage: Usage, rva: int) -> int | None:
        """An address in data that end where ``rva`` begins and are new or lie elsewhere in the base, if the function may walk over them.

        Without symbols an address that is only taken may be the end of what lies before it, even where the function accesses memory at
        that address, too. What is before it may be referred to in the middle as well, and so look like several data.
        """
        before = self.run_before(rva)
        if before is None:
            return None
        return next((target for target in usage.inside(before) if self._may_be_walked(usage, target, rva)), None)

    def _may_be_walked(self, usage: Usage, target: int, end: int) -> bool:
        """Whether code may step on from there to ``end``: it takes the address, or nothing shows that one word is all that begins there.

        What is new cannot reach over what the base has.
        """
        if target in self._roles:
            return False
        at = bisect_right(self._matches, (target, self._base.image.size_of_image, 0))
        known = sum(self._matches[at - 1][::2]) - target if at else 0
        size = min(self._fixed.extent(target).size, known if known > 0 else self._base.image.size_of_image)
        if target not in usage.taken and size <= POINTER_SIZE:
            return False
        return self.displacement(target) is not None or at == len(self._matches) or self._matches[at][0] >= end

    def displacement(self, rva: int) -> int | None:
        """How much further the base has the live datum at ``rva``; ``None`` where it has none."""
        there = self._diff.base_datum(Rva(rva))
        return None if there is None else there - rva

    def is_borne_out(self, rva: int, base: int) -> bool:
        """Whether what is matched just before or behind ``rva`` has moved as far as it and ``base`` lie apart.

        Not where not both have, so that something may have come or gone, and another that nothing matches lies between them and begins
        alike, unless their uses tell them apart; nor where it lies inside of what is before it, as the base has that.
        True, too, where surer evidence than aligned instructions matches ``rva`` itself, where nothing else is matched, where data around
        it have but changed places, and where what it points to tells it.
        """
        if self.is_told_by_more(rva):
            return True
        near = self.displacements_around(rva)
        rivals = () if near == (base - rva, base - rva) else self._rivals(rva, base)
        is_inside = self._is_inside_another(rva, base)
        if not near or (base - rva in near and not is_inside and (not rivals or self._rearranged.is_told_by_use(rva, base, rivals))):
            return True
        return self._rearranged.is_reordered(rva, base) or self._rearranged.is_told_by_pointers(rva, base)

    @cached_property
    def unsure(self) -> tuple[int, ...]:
        """Where the base has live data that changed code alone matches, with what may be others: see :meth:`is_borne_out`."""
        matches = (match for match in self._diff.data if match.writable and match.matched_by == Evidence.ALIGNMENT)
        return tuple(sorted(match.base for match in matches if not self.is_borne_out(match.fixed, match.base)))

    def is_told_by_more(self, rva: int) -> bool:
        """Whether other evidence than aligned instructions matches what lies at ``rva`` or before it, or nothing does."""
        at = bisect_right(self._diff.data, rva, key=lambda match: match.fixed) - 1
        return at < 0 or self._diff.data[at].matched_by != Evidence.ALIGNMENT

    def _is_inside_another(self, rva: int, base: int) -> bool:
        """Whether what is matched before ``rva`` goes on in the base, past the place that is as far from its start, and is alike there."""
        before, _ = self._next_to(rva, rva)
        place = before[1] + rva - before[0] if before is not None else base
        if before is None or place == base or not self._free(place) or self._base.extent(before[1]).end <= place:
            return False
        size = min(self._fixed.extent(rva).size, self._base.extent(place).size, _COMPARED)
        return self._fixed.bare(rva, size) == self._base.bare(place, size)

    def _rivals(self, rva: int, base: int) -> tuple[int, ...]:
        """Other data that nothing matches, lie between the neighbours of the one at ``rva``, and may be the base's at ``base``."""
        before, after = self._next_to(rva, self._own(rva))
        low = before[0] if before is not None else rva - FARTHEST
        high = after[0] if after is not None else rva + FARTHEST
        starts, section = self._fixed.boundaries, self._fixed.section(rva)
        near = (start for start in starts[bisect_right(starts, low) : bisect_left(starts, high)] if start != rva)
        return tuple(start for start in near if self._fixed.section(start) is section and self._is_as_likely(rva, start, base))

    def _is_as_likely(self, rva: int, fixed: int, base: int) -> bool:
        """Whether a datum that nothing matches, no shorter than the one at ``rva``, begins as the base's at ``base`` does."""
        if fixed not in self._fixed.referenced or self.displacement(fixed) is not None:
            return False
        if self._fixed.extent(fixed).size + _ALIGNMENT <= self._fixed.extent(rva).size:
            return False
        size = min(self._fixed.extent(fixed).size, self._base.extent(base).size, _COMPARED)
        return self._fixed.bare(fixed, size) == self._base.bare(base, size)

    def displacements_around(self, rva: int) -> tuple[int, ...]:
        """How much further the base has the live data just before and just behind the one at ``rva``, where it has them."""
        return tuple(item[1] - item[0] for item in self._next_to(rva, self._own(rva)) if item is not None)

    def _own(self, rva: int) -> int | None:
        """Where the matched live datum begins that lies at ``rva`` or before it."""
        at = bisect_right(self._diff.data, rva, key=lambda match: match.fixed) - 1
        return self._diff.data[at].fixed if at >= 0 and self._diff.data[at].writable else None

    def _next_to(self, rva: int, but: int | None = None) -> tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]:
        """The matched live data that begin before and behind ``rva`` in its section, next to it; not the one that begins at ``but``."""
        section = self._fixed.section(rva)
        if section is None:
            return None, None
        below, above = bisect_left(self._starts, rva) - 1, bisect_right(self._starts, rva)
        if below >= 0 and self._matches[below][0] == but:
            below -= 1
        before = self._matches[below] if below >= 0 and self._matches[below][0] in section.range else None
        after = self._matches[above] if above < len(self._matches) and self._matches[above][0] in section.range else None
        return before, after

    def ending_place(self, rva: int) -> int | None:
        """Where the base has the end of the live data that end where ``rva`` begins, if it has no other known place for ``rva`` there.

        What nothing matches in between belongs to what is before it.
        """
        starts, section, own = self._fixed.boundaries, self._fixed.section(rva), self.displacement(rva)
        at = bisect_left(starts, rva) - 1
        while at >= 0 and rva - starts[at] <= FARTHEST and self._fixed.section(starts[at]) is section:
            displacement = self.displacement(starts[at])
            if displacement is not None:
                return None if displacement == own or self._is_number(starts[at]) else rva + displacement
            at -= 1
        return None

    def _is_number(self, rva: int) -> bool:
        """Whether the live datum there is short and no part of an array: nothing takes its address or one before it in the same piece."""
        starts, displacement = self._fixed.boundaries, self.displacement(rva)
        at = bisect_left(starts, rva)
        if self._fixed.extent(rva).size > _COMPARED:
            return False
        while at >= 0 and rva - starts[at] <= FARTHEST and self.displacement(starts[at]) == displacement:
            if starts[at] in self._taken_addresses:
                return False
            at -= 1
        return True

    @cached_property
    def _taken_addresses(self) -> frozenset[int]:
        """What code of the fixed image takes the address of, or has a pointer to."""
        image = self._fixed.image
        found = {int(target) for target in image.pointers.values()}
        for function in image.functions:
            body = body_of(image, function)
            if isinstance(body, Body):
                found |= Usage(image, body.sites).taken
        return frozenset(found)

    def run_before(self, rva: int) -> Range | None:
        """What lies before ``rva`` that may be one piece with another place in the base than what begins at ``rva``, or with none.

        Parts that nothing matches belong to what is before them only where the base has room for them there.
        """
        starts, section, own = self._fixed.boundaries, self._fixed.section(rva), self.displacement(rva)
        at, start, whole = bisect_left(starts, rva) - 1, rva, None
        unmatched: list[int] = []
        while at >= 0 and rva - starts[at] <= FARTHEST and self._fixed.section(starts[at]) is section:
            displacement = self.displacement(starts[at])
            unmatched.append(starts[at])
            if displacement is not None:
                apart = displacement == own or (whole is not None and displacement != whole)
                if apart or not all(self._free(part + displacement) for part in unmatched[:-1]):
                    break
                whole, unmatched = displacement, []
            start, at = starts[at], at - 1
        return Range(Rva(start), Rva(rva)) if start < rva else None

    def new_run(self, rva: Rva) -> Range:
        """What must travel together with new live data at ``rva``: all around it that the base has not.

        Its elements may be referred to one by one, so that an array looks like several data, and code may compute addresses in it.
        """
        starts, section, part = self._fixed.boundaries, self._fixed.section(rva), self._fixed.extent(rva)
        start, end = part.start, part.end
        at = bisect_left(starts, start) - 1
        while at >= 0 and rva - starts[at] <= FARTHEST and self._is_new(starts[at], section):
            start, at = Rva(starts[at]), at - 1
        at = bisect_left(starts, end)
        while at + 1 < len(starts) and starts[at] - rva <= FARTHEST and self._is_new(starts[at], section):
            at += 1
            end = Rva(starts[at])
        return Range(start, end)

    def run_of_new_before(self, rva: Rva) -> Range | None:
        """What ends where ``rva`` begins and has no counterpart in the base; ``None`` where that has one."""
        starts = self._fixed.boundaries
        at = bisect_left(starts, rva) - 1
        if at < 0 or not self._is_new(starts[at], self._fixed.section(rva)):
            return None
        run = self.new_run(Rva(starts[at]))
        return run if run.end == rva else None

    def _is_new(self, rva: int, section: Section | None) -> bool:
        return self._fixed.section(rva) is section and rva not in self._fixed.special_data.values() and self.displacement(rva) is None

    def _free(self, base: int) -> bool:
        section = self._base.section(base)
        return section is not None and section.writable and not self._taken.covers(base)

    def alike(self, fixed: int, base: int) -> bool:
        """Whether both begin with the same numbers and pointers."""
        size = min(self._fixed.extent(fixed).size, self._base.extent(base).size)
        return self._novelty.same_content(base, fixed, size)

    def is_scattered(self, fixed: int) -> bool:
        """Whether what follows ``fixed`` without a gap lies elsewhere in the base, and what follows that does not again.

        So lie the elements of an array that the base's compiler had split into variables of their own.
        """
        at = bisect_right(self._matches, (fixed, self._base.image.size_of_image, 0)) - 1
        if at < 0:
            return False
        start, base, size = self._matches[at]
        left = False
        for here, there, width in self._matches[at + 1 :]:
            if here != start + size or width > POINTER_SIZE:
                return False
            same = there - here == base - self._matches[at][0]
            if same and left:
                return True
            left = left or not same
            start, size = here, width
        return False

    def constant_of_base(self, fixed: int) -> int | None:
        """A constant of the base that has the same initial bytes, and so may have become writable."""
        size = self._fixed.extent(fixed).size
        content = self._fixed.bare(fixed, min(size, _COMPARED))
        if not any(content):
            return None
        known = self._constants.get(len(content))
        if known is None:
            starts = (start for start in reversed(self._base.boundaries) if self._base.image.holds_constants(self._base.section(start)))
            known = self._constants[len(content)] = {self._base.bare(start, len(content)): start for start in starts}
        return known.get(content)
