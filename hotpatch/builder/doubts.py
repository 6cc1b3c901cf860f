"""What the comparison holds for the same without names, and may be something else after all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.beginnings import Beginnings
from hotpatch.builder.model import BaseAddress
from hotpatch.differ import Verdict
from hotpatch.differ.matching import Evidence

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.builder.model import Destination, Site
    from hotpatch.builder.ownership import Usage
    from hotpatch.builder.positions import Positions
    from hotpatch.builder.unclaimed import Unclaimed
    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function


class Doubts:
    """Judges matches that nothing but code says."""

    def __init__(self, diff: ImageDiff, positions: Positions, unclaimed: Unclaimed, selected: Collection[Rva], view: View) -> None:
        """Judge by ``diff``, ``positions`` and ``unclaimed``; ``selected``: the entries of the base's functions that are replaced.

        The fixed image is seen as ``view``.
        """
        self._fixed, self._positions, self._unclaimed, self._selected = diff.fixed, positions, unclaimed, selected
        self.beginnings = Beginnings(view)
        self._named = diff.fixed.has_symbols and diff.base.has_symbols

    def entry(self, row: FunctionMatch, base: Function) -> Destination | str:
        """The entry of a base function; one that differs and stays as it is must be known by its name to be the same."""
        stays = row.verdict is Verdict.CHANGED and base.entry not in self._selected and not row.is_cosmetic
        known = row.matched_by == Evidence.NAME or (self._named and row.fixed is not None and set(base.names) & set(row.fixed.names))
        if stays and not known:
            return (
                f"{base.label} differs, stays as it is, and is matched by {row.matched_by}, not by its name, so that it may be another "
                "function than the one that is called; list it with --only too"
            )
        return BaseAddress(base.entry)

    def live(self, usage: Usage | None, site: Site, matched: Rva | None) -> Destination | str | None:
        """A live address without a name that may be something else than what the comparison holds it for; ``None`` where it may not.

        ``usage`` is ``None`` for a pointer in data, ``matched`` where the comparison has nothing for it.
        """
        if self._named:
            return None
        target, positions = site.target, self._positions
        if matched is not None and not positions.is_borne_out(target, matched):
            near = " and ".join(f"{displacement:+#x}" for displacement in positions.displacements_around(target))
            return (
                f"0x{target:x} may be the datum at 0x{matched:x} of the base, as changed code alone says, but that is "
                f"{matched - target:+#x} from it, and what is next to it lies {near} from where it was"
            )
        if usage is not None and not usage.takes(self._fixed, site):
            return None
        found = self._as_end(usage, target, matched)
        return None if isinstance(found, str) and usage is not None and self.beginnings.are_shown(usage, target) else found

    def _as_end(self, usage: Usage | None, target: Rva, matched: Rva | None) -> Destination | str | None:
        """What an address that is taken is the end of, or why it may be one; ``None`` where it is none."""
        positions = self._positions
        if usage is not None and matched is not None and self._follows_new(usage, target):
            return None
        place = positions.ending_place(target)
        rival = positions.rival(usage, target) if usage is not None and matched is not None else None
        if rival is not None and not self._told_from(usage, target, matched, rival):
            return f"0x{target:x} may be a datum of its own or the end of the one at 0x{rival:x}, and the base has these elsewhere"
        if place is None or (matched is None and usage is not None and target in usage.begun):
            return None
        told = usage.told(target, {place} if matched is None else {place, matched}) if usage is not None else None
        if told is not None and usage is not None and not (told == place and usage.goes_on(place)):
            return BaseAddress(Rva(told))
        own = "not known to be in the base" if matched is None else f"at 0x{matched:x} of the base"
        return f"0x{target:x} may be a datum of its own, {own}, or the end of the one before it, which is at 0x{place:x}"

    def _follows_new(self, usage: Usage, target: Rva) -> bool:
        """Whether something new lies right before ``target`` which ends before that, and which the function does not use.

        Then what the base has before ``target`` ends where the new one begins, at the latest, and ``target`` is the end of neither: what
        new functions alone use, another could only go over where it gets the address, and it would not stop behind the end.
        """
        run = self._positions.run_of_new_before(target)
        if run is None or usage.inside(run):
            return False
        agreed, possible = self._positions.places(run.start)
        return agreed is None and self._unclaimed.is_new(run.start, run, possible) and self._unclaimed.ends_before(run)

    def _told_from(self, usage: Usage | None, target: Rva, matched: Rva | None, rival: int) -> bool:
        """Whether the base's version of the function shows that ``target`` is ``matched``, not the end of what begins at ``rival``."""
        if usage is None or matched is None:
            return False
        displacement = self._positions.displacement(rival)
        places = {matched} if displacement is None else {matched, target + displacement}
        return usage.told(target, places) == matched
