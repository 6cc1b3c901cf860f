"""The hot patch address table: pages past a module's end through which redirects go.

A table is a code page of 512 slots and, :data:`hotpatch.arch.HPAT_POINTER_DISTANCE` bytes after it, the page of their pointers (source of
the layout: ``docs/mechanics.md``). All slots of a page hold the same bytes, so they are written when the page is mapped and never again; a
patch only ever stores pointers. The program can read and run the code page and read the pointer page, and write neither.

A function keeps its slot for as long as something may lead there: superseding, reverting and applying again store a pointer and no code.
While its function is not redirected, a slot's pointer leads to the original through the trampoline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE, Redirect
from hotpatch.engine.mapping import find_place
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.registry import Registry, SiteKey
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction

SLOTS_PER_TABLE = HPAT_POINTER_DISTANCE // HPAT_SLOT_SIZE
TABLE_SIZE = 2 * HPAT_POINTER_DISTANCE
"""Bytes of a code page with its pointer page."""
POINTER_SIZE = 8
_ALL = tuple(range(SLOTS_PER_TABLE - 1, -1, -1))
_PAGES = (Rights.READ | Rights.EXECUTE, Rights.READ)


@dataclass(slots=True)
class HpatTable:
    """A page pair; ``free`` holds the indices of slots that no function has, largest first."""

    va: Va
    free: list[int]

    def copy(self) -> HpatTable:
        """An independent copy."""
        return HpatTable(self.va, list(self.free))

    def slot(self, index: int) -> Va:
        """Address of a slot."""
        return Va(self.va + index * HPAT_SLOT_SIZE)

    def take(self) -> Va:
        """The first free slot, no longer free."""
        return self.slot(self.free.pop())

    def give(self, slot: Va) -> None:
        """Take back what :meth:`take` gave."""
        self.free.append((slot - self.va) // HPAT_SLOT_SIZE)
        self.free.sort(reverse=True)

    def __contains__(self, va: int) -> bool:
        """Whether an address lies in the page pair."""
        return self.va <= va < self.va + TABLE_SIZE


def pointer_of(slot: Va) -> Va:
    """Address of the pointer that a slot jumps through."""
    return Va(slot + HPAT_POINTER_DISTANCE)


def pointer_bytes(destination: Va) -> bytes:
    """A pointer as it stands in the pointer page."""
    return destination.to_bytes(POINTER_SIZE, "little")


def reserve_slots(step: Transaction, target: Target, registry: Registry, arch: Architecture, functions: Iterable[CheckedFunction]) -> None:
    """Give each function that is to be redirected through one a slot.

    It keeps the one that it has, or gets a free one that its entry reaches, or one of a new table.

    Raises:
        ApplyRefused: No free memory lies past an entry and within reach of it (out-of-reach).
    """
    for function in functions:
        site = function.key
        if function.function.redirect is Redirect.HPAT and site not in registry.slots and site not in registry.sites:
            registry.slots[site] = _take(step, target, registry, arch, site)


def _take(step: Transaction, target: Target, registry: Registry, arch: Architecture, site: SiteKey) -> Va:
    for table in reversed(registry.tables):  # the newest is the likeliest to have a free slot
        if table.free and 0 < table.slot(table.free[-1]) - site.entry <= arch.branch_reach:
            return table.take()
    table = _map_table(step, target, arch, site)
    registry.tables = (*registry.tables, table)
    return table.take()


def _map_table(step: Transaction, target: Target, arch: Architecture, site: SiteKey) -> HpatTable:
    entry = Va(site.entry)
    va = find_place(target, TABLE_SIZE, entry, entry, arch.branch_reach, forward=True)
    step.map(va, TABLE_SIZE, _PAGES, arch.hpat_slot() * SLOTS_PER_TABLE)
    step.event("map", what="hpat", va=va, size=TABLE_SIZE, module=site.module)
    return HpatTable(va, list(_ALL))
