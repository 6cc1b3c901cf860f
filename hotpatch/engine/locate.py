"""What lies at an address, trampolines and slots included, so that stacks can be walked through them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import HPAT_SLOT_SIZE
from hotpatch.engine.dispatch import STUB_SIZE
from hotpatch.engine.mapping import VENEER_SIZE
from hotpatch.engine.registry import SiteKey
from hotpatch.unwind import Located

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.engine.registry import PlacedTrampoline, Registry
    from hotpatch.engine.target import Module


class Locator:
    """Looks addresses up in ``registry`` as it is now."""

    def __init__(self, registry: Registry) -> None:
        """Index ``registry``, which must not change afterwards."""
        self._trampolines = sorted(((placed.va, key.site, placed) for key, placed in registry.trampolines.items()), key=lambda row: row[0])
        self._starts = [row[0] for row in self._trampolines]
        self._slots: dict[int, SiteKey] = {slot: site for site, slot in registry.slots.items()}
        self._veneers: dict[int, SiteKey] = {
            veneer: SiteKey(key.module, Rva(leads_to - key.module))
            for key, image in registry.images.items()
            for veneer, leads_to in image.veneers
        }
        self._stubs: dict[int, SiteKey] = {site.dispatcher: key for key, site in registry.sites.items() if site.dispatcher is not None}

    def locate(self, va: Va, modules: Iterable[Module]) -> Located | None:
        """The module at ``va``; in a trampoline or a slot the base's, with the address that unwinding must pretend to stand at.

        In a slot, a dispatcher and a veneer of a patch image no instruction of the function has run: it stands at the entry. In a
        trampoline it stands at the instruction that was moved there, or behind the displaced ones when it is about to jump back. What a
        moved instruction was widened to are branches and address arithmetic, which leave stack and preserved registers alone, so that
        within it the next instruction's address says the same.
        """
        moved = self._moved(va)
        if moved is not None:
            site, original = moved
            base = next((module for module in modules if module.va == site.module), None)
            return None if base is None else Located(base.va, base.image, original)
        owner = next((module for module in modules if module.va <= va < module.va + module.size), None)
        return None if owner is None else Located(owner.va, owner.image)

    def _moved(self, va: Va) -> tuple[SiteKey, Va] | None:
        site = self._slots.get(va - va % HPAT_SLOT_SIZE) or self._veneers.get(va - va % VENEER_SIZE) or self._stubs.get(va - va % STUB_SIZE)
        if site is not None:
            return site, Va(site.entry)
        index = bisect_right(self._starts, va) - 1
        if index < 0:
            return None
        start, site, placed = self._trampolines[index]
        if va >= start + len(placed.code):
            return None
        return site, _source(site, placed, va - start)


def _source(site: SiteKey, placed: PlacedTrampoline, offset: int) -> Va:
    """Where the instruction at ``offset`` of a trampoline, or the next one that was moved, stands in the original."""
    rows = sorted((there, here) for here, there in placed.offsets.items())
    index = bisect_left(rows, (offset, 0))
    return Va(site.entry + rows[index][1]) if index < len(rows) else placed.resume_va
