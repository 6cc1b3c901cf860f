"""What references to live data are bound to: to the base's own, and what speaks against that a datum is the one which matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.model import PAGES, BaseAddress, CarriedAddress
from hotpatch.builder.reaches import Reach
from hotpatch.differ.handed import goes_onward_from, steps_back_from
from hotpatch.image import Range

if TYPE_CHECKING:
    from hotpatch.builder.doubts import Doubts
    from hotpatch.builder.groups import Groups
    from hotpatch.builder.heirs import Heirs
    from hotpatch.builder.model import Destination, Site
    from hotpatch.builder.novelty import Novelty
    from hotpatch.builder.ownership import Ownership, Usage
    from hotpatch.builder.positions import Positions
    from hotpatch.builder.proofs import Proofs
    from hotpatch.builder.unclaimed import Unclaimed
    from hotpatch.builder.witnesses import Witnesses
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function


class Live:
    """Finds the base's place of live data, with names and without.

    Attributes:
        outside: Target → what travels for it, where that is more than, or something else than, what begins there.
    """

    def __init__(
        self,
        diff: ImageDiff,
        view: View,
        ownership: Ownership,
        novelty: Novelty,
        positions: Positions,
        doubts: Doubts,
        groups: Groups,
        witnesses: Witnesses,
        proofs: Proofs,
        unclaimed: Unclaimed,
        heirs: Heirs,
    ) -> None:
        """Judge by ``diff``, whose fixed image is seen as ``view``, and by what the others tell of it."""
        self._fixed, self._view = diff.fixed, view
        self._named = diff.fixed.has_symbols and diff.base.has_symbols
        self._ownership, self._novelty, self._positions = ownership, novelty, positions
        self._doubts, self._groups, self._witnesses, self._proofs = doubts, groups, witnesses, proofs
        self._unclaimed, self._heirs = unclaimed, heirs
        self.outside: dict[Rva, Range] = {}

    def outside_of_symbols(self, usage: Usage | None, site: Site) -> Destination | str | None:
        """A live address that belongs to a datum that does not cover it, or whose datum is unknown; ``None`` for all others."""
        target = site.target
        owner = self._ownership.live_owner(usage, site)
        if owner is None or isinstance(owner, str):
            return owner
        there = self._ownership.displacement(owner.rva)
        if there is not None:
            return BaseAddress(Rva(target + there))
        objection = self._novelty.objection(owner.rva)
        if objection is not None:
            return objection
        self.outside[target] = Range(min(owner.rva, target), Rva(max(owner.end, target + 1)))
        return CarriedAddress(target)

    def nameless(self, usage: Usage | None, target: Rva) -> Destination | str:
        """A live datum that nothing matches, in images without symbols."""
        objection = self._novelty.objection(target, self._positions.unsure) or self._heirs.objection(target)
        if objection is not None:
            return objection
        agreed, possible = self._positions.places(target)
        run = self._positions.new_run(target)
        if possible and (agreed is not None or not self._unclaimed.is_new(target, run, possible)):
            places = ", ".join(f"0x{place:x}" for place in possible)
            return f"the writable datum at 0x{target:x} may be new or one that the base has (at {places})"
        constant = self._positions.constant_of_base(target)
        if constant is not None:
            return f"the writable datum at 0x{target:x} begins as the constant at 0x{constant:x} of the base, and may be that"
        rival = self._positions.rival(usage, target) if usage is not None and target in usage.taken else None
        if rival is not None and usage is not None and not self._doubts.beginnings.are_shown(usage, target):
            return f"0x{target:x} may be a new datum or the end of the one at 0x{rival:x}"
        self.outside[target] = run
        return CarriedAddress(target)

    def known(self, usage: Usage | None, site: Site, matched: Rva | None) -> Destination | str | None:
        """The live datum of the base that the comparison has at ``matched``, or why it may be another; ``None`` where nothing is known."""
        target = site.target
        nameless = self._view.symbol(target) is None
        taken = nameless and usage is not None and usage.takes(self._fixed, site)
        if matched is not None and taken and self._positions.is_scattered(target):
            return f"the elements of the datum at 0x{target:x} lie apart from each other in the base"
        doubt = self._doubts.live(usage, site, matched) if nameless else None
        if doubt is not None or matched is None:
            return doubt
        objection = (
            self._groups.objection(target, matched)
            or self._heirs.objection(target)
            or self._gainsaid(site, matched, taken=taken)
            or self._only_ends(usage, target, matched)
        )
        if objection is not None:
            return objection
        return BaseAddress(matched)

    def as_end(self, function: Function | None, usage: Usage | None, site: Site, found: Destination | str) -> Destination | str:
        """The same, or why not: an address that is handed to a function which only goes back from it is the end of what is before it.

        One that is handed to a function which goes on from it is none. One at which a section ends may be the end of what is in that.
        """
        in_front = self._ends_in_front(usage, site, found)
        if in_front is not None:
            return in_front
        if function is None or usage is None or isinstance(found, str) or site.kind in PAGES or site.target not in usage.taken:
            return found
        moved = self._ownership.displacement_before(site.target)
        is_there = isinstance(found, BaseAddress) and moved == found.rva - site.target
        if is_there:
            begins_there = self._ownership.displacement(site.target) == moved
            if begins_there or not goes_onward_from(self._view, function, site.instruction):
                return found
            return f"what gets 0x{site.target:x} goes on from there, and nothing shows where the base has what begins there"
        if not steps_back_from(self._view, function, site.instruction):
            return found
        where = "not known to be in the base" if moved is None else f"at 0x{site.target + moved:x} of the base"
        return f"0x{site.target:x} is handed on as the end of what is before it, as what gets it goes back from there, and that is {where}"

    def _ends_in_front(self, usage: Usage | None, site: Site, found: Destination | str) -> str | None:
        """Why an address that is only taken may be the end of the section in front, which the base has elsewhere.

        That of constants only where the function refers to some of them, too.
        """
        target, front = site.target, self._ownership.section_in_front(site.target)
        only_taken = usage is None or (site.kind not in PAGES and target in usage.ended)
        if isinstance(found, str) or not only_taken or front is None:
            return None
        if not front.writable and (usage is None or not usage.within(front.range.start, target, target)):
            return None
        moved = self._ownership.displacement_in_front(target)
        if isinstance(found, BaseAddress):
            places = {int(found.rva)} if moved is None else {int(found.rva), target + moved}
            if len(places) == 1 and moved is not None:
                return None
            if usage is not None and usage.told(target, places) == found.rva and not usage.goes_on(found.rva):
                return None
        where = "not known to be in the base" if moved is None else f"at 0x{target + moved:x} of the base"
        return f"0x{target:x} may be the end of the section in front, {where}, and nothing shows that what begins there is meant"

    def _only_ends(self, usage: Usage | None, target: Rva, matched: Rva) -> str | None:
        """Why what the function reads or writes at ``target`` may be new: nothing of the base is known to begin at ``matched``."""
        if self._named or usage is None or target not in usage.begun or self._view.symbol(target) is not None:
            return None
        is_told = any(self._view.bare(target, self._view.extent(target).size)) and self._positions.alike(target, matched)
        if is_told or any(section.range.start == target for section in self._fixed.sections) or self._witnesses.begins(target, matched):
            return None
        return f"0x{target:x} may be new, for nothing in the base reads or writes at 0x{matched:x}, where what is before it may end"

    def _gainsaid(self, site: Site, matched: Rva, *, taken: bool) -> str | None:
        """Why a live datum without a name may not be the one at ``matched``, where both images have PDBs or changed code alone says so."""
        if not self._named:
            why = None if self._positions.is_told_by_more(site.target) else self._witnesses.exchanged(site.target, matched)
            why = why or self._witnesses.pointed_at(site.target, matched)
        else:
            why = self._witnesses.objection(Reach(site.instruction, site.size, site.target, site.target, 0), matched)
            why = why or self._witnesses.unused(site.target, matched) or self._witnesses.divided(site.target, matched)
            why = why or self._proofs.objection(site.target, matched, indexed=taken)
        return None if why is None else f"0x{site.target:x} may be another datum than the one at 0x{matched:x} of the base, for {why}"
