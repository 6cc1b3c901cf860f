"""Whose datum an address is that code computes with: a place just past an array's end, or before its start, belongs to the array.

An instruction that reads or writes memory at the address itself names that datum. One that only takes the address may mean the datum
that ends there, for a loop that counts down or to hand it on, and then another displacement than that of the datum that begins there
would be wrong. The address alone cannot tell; the base's version of the function can, where the instruction is in both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.model import PAGES
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hotpatch.builder.counterparts import Counterparts
    from hotpatch.builder.model import Site
    from hotpatch.builder.proofs import Proofs
    from hotpatch.differ import DatumMatch, ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Datum, Image, Range, Section

_BIAS = 16
"""Bytes; how far outside of its datum an address that code computes with lies at most: one element."""
FARTHEST = 4096
"""Bytes; how far from a reference its datum is taken to reach without symbols."""


def accesses(image: Image, site: Site) -> bool:
    """Whether the instruction reads or writes memory at the address that it names, and so does not only take it."""
    if site.kind is FixupKind.REL32 and site.use is not Use.DATA:
        return False
    return image.architecture.accesses(site.kind, image.read(site.instruction, site.size), site.instruction)


class Usage:
    """What one function does with each address of data that it names."""

    def __init__(
        self, image: Image, sites: Iterable[Site], counterparts: Counterparts | None = None, through: Collection[Site] = frozenset()
    ) -> None:
        """Sort ``sites``, the references of one function, which has ``counterparts`` where the base has a version of it.

        ``through``: those that take an address at which memory is accessed then.
        """
        self._sites, self._counterparts, self._through = tuple(sites), counterparts, through
        data = [site for site in self._sites if site.use is Use.DATA]
        self.targets = tuple(sorted({site.target for site in data}))
        self._taking = taking = [site for site in data if site.kind not in PAGES and not accesses(image, site)]
        self.taken = frozenset(site.target for site in taking)
        """What only has its address taken, at one instruction at least."""
        self.accessed = frozenset(site.target for site in data if site.kind not in PAGES and accesses(image, site))
        """What is read or written at its very address, at one instruction at least."""
        self.begun = self.accessed.union(site.target for site in taking if site in through)
        """The same, and what is read or written right where an instruction takes the address: something begins there."""
        self.ended = frozenset(site.target for site in taking if site not in through)
        """What has its address taken, at one instruction at least through which it is not accessed: something else may end there."""
        self.both = frozenset(site.target for site in data if site.kind in PAGES) & self.taken & self.accessed
        """What is both, by instructions that complete pages: which of these serve which is not known."""

    def besides(self, image: Image, site: Site) -> Usage:
        """What the function does, with ``site`` among those that name addresses."""
        return self if site in self._sites else Usage(image, (*self._sites, site), self._counterparts, self._through)

    def takes(self, image: Image, site: Site) -> bool:
        """Whether ``site`` does not access memory at its target itself."""
        return site.target in self.taken if site.kind in PAGES else not accesses(image, site)

    def makers(self, target: int) -> frozenset[Rva]:
        """The instructions that only take the address ``target``."""
        return frozenset(site.instruction for site in self._taking if site.target == target)

    def told(self, target: int, places: Collection[int]) -> int | None:
        """See :meth:`hotpatch.builder.counterparts.Counterparts.told`."""
        return None if self._counterparts is None else self._counterparts.told(target, places)

    def goes_on(self, place: int) -> bool:
        """See :meth:`hotpatch.builder.counterparts.Counterparts.goes_on`."""
        return self._counterparts is not None and self._counterparts.goes_on(place)

    def taken_there(self, target: int) -> frozenset[int]:
        """See :meth:`hotpatch.builder.counterparts.Counterparts.taken_there`."""
        return frozenset() if self._counterparts is None else self._counterparts.taken_there(target)

    def handed_there(self, target: int) -> frozenset[int]:
        """See :meth:`hotpatch.builder.counterparts.Counterparts.handed_there`."""
        return frozenset() if self._counterparts is None else self._counterparts.handed_there(target)

    def within(self, start: int, end: int, but: int) -> bool:
        """Whether the function names an address from ``start`` to before ``end`` other than ``but``."""
        at = bisect_left(self.targets, start)
        return any(start <= target < end for target in self.targets[at:] if target != but)

    def inside(self, part: Range) -> tuple[int, ...]:
        """The addresses in ``part`` that the function names."""
        return self.targets[bisect_left(self.targets, part.start) : bisect_left(self.targets, part.end)]


class Ownership:
    """Finds the data that an address may belong to, by the symbols of the fixed image."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, proofs: Proofs) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``, and by ``proofs``."""
        self._diff, self._fixed, self._base, self._proofs = diff, fixed, base, proofs

    @cached_property
    def _sized(self) -> tuple[Datum, ...]:
        return tuple(
            sorted((datum for datum in self._diff.fixed.data_symbols if datum.size), key=lambda datum: (datum.rva, datum.size or 0))
        )

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(datum.rva for datum in self._sized)

    def neighbours(self, rva: int) -> tuple[Datum | None, Datum | None]:
        """The last symbol that begins before ``rva`` and the first that begins after, where they are as near as an element."""
        below, above = bisect_left(self._starts, rva) - 1, bisect_right(self._starts, rva)
        before = self._sized[below] if below >= 0 and rva - self._sized[below].end < _BIAS else None
        after = self._sized[above] if above < len(self._sized) and self._sized[above].rva - rva <= _BIAS else None
        return tuple(item if item and self._same_section(item.rva, rva) else None for item in (before, after))  # type: ignore[return-value]

    def _same_section(self, one: int, other: int) -> bool:
        section = self._fixed.section(one)
        return section is not None and section is (self._fixed.section(other) or section)

    def displacement(self, start: int) -> int | None:
        """How much further the base has the live datum at ``start``; ``None`` where it has none."""
        there = self._diff.base_datum(Rva(start))
        return None if there is None else there - start

    def displacement_before(self, rva: int) -> int | None:
        """How much further the base has what ends at ``rva``; ``None`` where that is nothing that both images have."""
        at = bisect_left(self._live_starts, rva) - 1
        found = self._live[at] if at >= 0 and self._same_section(self._live[at].fixed, rva) else None
        return None if found is None or found.fixed + found.size < rva else found.base - found.fixed

    def section_in_front(self, rva: int) -> Section | None:
        """The section of the fixed image that ends at ``rva``, where another may begin, so that it may be the end of what is in that."""
        return next((section for section in self._diff.fixed.sections if section.range.end == rva), None)

    def displacement_in_front(self, rva: int) -> int | None:
        """How much further the base has what the section ends with that ends at ``rva``; ``None`` where that is nothing that both have."""
        match = match_at_or_before(self._diff, Rva(rva - 1))
        return None if match is None or match.fixed + match.size < rva else match.base - match.fixed

    def unclear_end(self, usage: Usage | None, rva: Rva, base: int) -> str | None:
        """Why an address that is only made may be the end of what nothing is known of, and not the datum which begins there.

        The function's own version in the base shows which is meant, where it hands on ``base`` and nothing else in its stead.
        """
        symbol, match = self._fixed.symbol(rva), match_at_or_before(self._diff, rva)
        starts = (symbol is not None and symbol.rva == rva) or (match is not None and match.fixed == rva)
        if not starts or not self._fixed.writable(rva) or not self._is_unknown(Rva(rva - 1)):
            return None
        handed = usage.handed_there(rva) if usage is not None else frozenset[int]()
        if handed == {base}:
            return None
        told = f"the base's version of the function hands on 0x{min(handed - {base}):x} instead" if handed else "nothing shows which"
        return f"0x{rva:x} may be the end of what is before it, of which nothing is known, and {told}"

    def _is_unknown(self, rva: Rva) -> bool:
        """Whether what lies there in live memory has no name, and the base is not known to have it."""
        match = match_at_or_before(self._diff, rva)
        known = match is not None and rva < match.fixed + match.size
        return self._fixed.writable(rva) and self._fixed.symbol(rva) is None and not known

    def live_owner(self, usage: Usage | None, site: Site) -> Datum | str | None:
        """The datum that an address of writable memory belongs to, why that is unknown, or ``None`` where symbols say nothing else.

        ``usage`` is ``None`` for a pointer in data.
        """
        rva = site.target
        covering = self._fixed.symbol(rva)
        if usage is not None and not usage.takes(self._diff.fixed, site):
            return None
        before, after = self.neighbours(rva)
        if covering is None:
            return self._uncovered(usage, rva, before, after)
        if usage is not None and rva not in usage.ended:
            return None
        if covering.rva != rva:
            before = None
        rivals = [item for item in (before, after) if item and item.rva != covering.rva and self._may_be_walked(usage, item)]
        rivals = [item for item in rivals if self.displacement(item.rva) != self.displacement(covering.rva)]
        for rival in rivals:
            used = usage is not None and usage.within(rival.rva, rival.end, rva)
            own = usage is not None and usage.within(covering.rva, covering.end, rva)
            if (used and not (own and rival is after)) or rival.end == rva:
                return self._told(usage, rva, covering, rivals) or (
                    f"0x{rva:x} is in {covering.name} and {'the end' if rival is before else 'before the start'} of {rival.name}, "
                    "and nothing shows which of the two is meant"
                )
        return None

    def _told(self, usage: Usage | None, rva: int, first: Datum, rivals: Sequence[Datum]) -> Datum | None:
        """Which of the data that ``rva`` may belong to is meant, by the base's version of the function.

        One that only ends there is not told where the function accesses what begins there too: pages are the same for both. Nor is it where
        the base's version goes on from there, to what may begin there in the base alone.
        """
        places: dict[int, list[Datum]] = defaultdict(list)
        for datum in (first, *rivals):
            displacement = self.displacement(datum.rva)
            if displacement is not None:
                places[rva + displacement].append(datum)
        told = usage.told(rva, places) if usage is not None else None
        if usage is None or told is None:
            return None
        owner = places[told][0]
        if owner is first:
            return owner
        return None if rva in usage.both or usage.goes_on(told) else owner

    def _may_be_walked(self, usage: Usage | None, datum: Datum) -> bool:
        """Whether code may step through a datum and past its end: it is no single number, or its own address is taken too."""
        size = datum.size or 0
        if datum.is_array or size > POINTER_SIZE:
            return True
        return usage is not None and size > 1 and any(datum.rva <= target < datum.end for target in usage.taken)

    def _uncovered(self, usage: Usage | None, rva: Rva, before: Datum | None, after: Datum | None) -> Datum | str | None:
        begun = usage is not None and rva in usage.begun and rva not in usage.ended
        found = [item for item in (before, after) if item is not None and not (begun and item.end == rva)]
        if len({self.displacement(item.rva) for item in found}) > 1 or (len(found) > 1 and self.displacement(found[0].rva) is None):
            exact = [item for item in found if item.end == rva]
            used = [item for item in found if usage is not None and usage.within(item.rva, item.end, rva)]
            likely = used if not exact or used == exact else exact if not used else []
            told = None if likely else self._told(usage, rva, found[0], found[1:])
            found = likely if len(likely) == 1 else [] if told is None else [told]
            if not found:
                return f"no symbol covers 0x{rva:x}, and it may belong to {before and before.name} or to {after and after.name}"
        if not found:
            return None if self._is_steady(rva) else f"no symbol covers 0x{rva:x}, and none ends there"
        owner, there = found[0], usage.taken_there(rva) if usage is not None else frozenset[int]()
        displacement = self.displacement(owner.rva)
        rival = self._unsized(rva)
        if rival is not None and rival.base - rival.fixed != displacement and (owner.end != rva or rival.fixed == rva):
            place = usage.told(rva, (rva + displacement, rival.base)) if usage is not None and displacement is not None else None
            if owner.end == rva and (place == rival.base or not self._may_be_walked(usage, owner)):
                return None
            if owner.end != rva or place is None:
                return (
                    f"no symbol covers 0x{rva:x}, near {owner.name}, and it may belong to what is at 0x{rival.fixed:x}, whose size no "
                    f"symbol tells, and which the base has at 0x{rival.base:x}"
                )
        is_shown = displacement is not None and self._proofs.objection(rva, rva + displacement) is None
        if not there and not is_shown and not owner.rva < rva <= owner.end:
            return f"no symbol covers 0x{rva:x}, near {owner.name}, and something else, whose name is lost, may be there"
        if there and displacement is None:
            return f"no symbol covers 0x{rva:x}, near {owner.name}, and the base's version of the function has 0x{min(there):x} there"
        if there and displacement is not None:
            known = range(owner.rva + displacement - _BIAS, owner.end + displacement + _BIAS)
            if not any(place in known for place in there) or (rva < owner.rva and rva + displacement not in there):
                return f"no symbol covers 0x{rva:x}, near {owner.name}, and the base's version of the function has 0x{min(there):x} there"
        return owner

    def _is_steady(self, rva: int) -> bool:
        """Whether both images have what lies at ``rva``, what is before it and what is just behind it, as far from each other as they were.

        However far it is to what is known before: what ends at ``rva`` may be something that no code names. At an edge of the section the
        one neighbour is enough, for nothing ends where a section begins but what the section in front of it ends with, and that is refused.
        """
        if self.section_in_front(rva) is not None:
            return False
        at = bisect_right(self._live_starts, rva) - 1
        own = self._live[at] if at >= 0 else None
        if own is None or rva >= own.fixed + own.size:
            return False
        before, behind = self._live[max(at - 1, 0) : at], self._live[at + 1 : at + 2]
        gaps = [(item, item.fixed + item.size, own.fixed) for item in before]
        gaps += [(item, own.fixed + own.size, item.fixed) for item in behind if item.fixed - own.fixed - own.size < _BIAS]
        near = [(item, start, end) for item, start, end in gaps if self._same_section(item.fixed, rva)]
        starts = self._fixed.boundaries
        empty = all(bisect_right(starts, start) >= bisect_left(starts, end) for _, start, end in near)
        return bool(near) and empty and all(item.base - item.fixed == own.base - own.fixed for item, _, _ in near)

    @cached_property
    def _live(self) -> tuple[DatumMatch, ...]:
        return tuple(match for match in self._diff.data if match.writable)

    @cached_property
    def _live_starts(self) -> tuple[int, ...]:
        return tuple(match.fixed for match in self._live)

    def _unsized(self, rva: int) -> DatumMatch | None:
        """Live data of both images that lie or end at ``rva`` of the fixed image, and whose size no symbol tells."""
        match = match_at_or_before(self._diff, rva)
        symbol = self._fixed.symbol(match.fixed) if match is not None else None
        return match if symbol is None or not symbol.size else None
