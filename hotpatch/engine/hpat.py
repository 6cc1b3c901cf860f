"""The hot patch address table: pages past a module's end through which redirects go.

A table is a code page of 512 slots and, :data:`hotpatch.arch.HPAT_POINTER_DISTANCE` bytes after it, the page of their pointers (source of
the layout: ``docs/mechanics.md``). All slots of a page hold the same bytes, so they are written when the page is mapped and never again; a
patch only ever stores pointers. The program can read and run the code page and read the pointer page, and write neither.

A function keeps its slot for as long as something may lead there: superseding, reverting and applying again store a pointer and no code.
While its function is not redirected, a slot's pointer leads to the original through the trampoline.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE
from hotpatch.engine.mapping import place
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from hotpatch.arch import Architecture
    from hotpatch.engine.registry import Registry, SiteKey
    from hotpatch.engine.transaction import Transaction

SLOTS_PER_TABLE = HPAT_POINTER_DISTANCE // HPAT_SLOT_SIZE
TABLE_SIZE = 2 * HPAT_POINTER_DISTANCE
"""Bytes of a code page with its pointer page."""
POINTER_SIZE = 8


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

    def give_back(self, slot: Va) -> None:
        """Make a slot free again."""
        insort(self.free, (slot - self.va) // HPAT_SLOT_SIZE, key=lambda index: -index)

    def __contains__(self, va: int) -> bool:
        """Whether an address lies in the page pair."""
        return self.va <= va < self.va + TABLE_SIZE


def pointer_of(slot: Va) -> Va:
    """Address of the pointer that a slot jumps through."""
    return Va(slot + HPAT_POINTER_DISTANCE)


def pointer_bytes(destination: Va) -> bytes:
    """A pointer as it stands in the pointer page."""
    return destination.to_bytes(POINTER_SIZE, "little")


def slot_for(step: Transaction, registry: Registry, arch: Architecture, site: SiteKey) -> Va:
    """The slot of a function: the one that it has, the first free one that its entry reaches, or the first of a new page pair.

    Raises:
        ApplyRefused: No free memory lies past the entry and within reach of it (out-of-reach).
    """
    known = registry.slots.get(site)
    if known is not None:
        return known
    # The newest table is the likeliest to have a free slot.
    for table in reversed(registry.tables):
        if table.free and 0 < table.slot(table.free[-1]) - site.entry <= arch.branch_reach:
            slot = table.take()
            break
    else:
        table = _map_table(step, arch, site)
        registry.tables = (*registry.tables, table)
        slot = table.take()
    registry.slots[site] = slot
    return slot


def _map_table(step: Transaction, arch: Architecture, site: SiteKey) -> HpatTable:
    entry = Va(site.entry)
    va = place(step, TABLE_SIZE, Rights.READ | Rights.EXECUTE, entry, entry, arch.branch_reach, forward=True)
    step.fill(va, arch.hpat_slot() * SLOTS_PER_TABLE)
    step.protect(Va(va + HPAT_POINTER_DISTANCE), HPAT_POINTER_DISTANCE, Rights.READ)
    step.event("map", what="hpat", va=va, size=TABLE_SIZE, module=site.module)
    return HpatTable(va, list(range(SLOTS_PER_TABLE - 1, -1, -1)))
