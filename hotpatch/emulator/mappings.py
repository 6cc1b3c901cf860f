"""Memory that the host maps into a process: patch images, slots, trampolines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator.layout import ALLOCATION_GRANULE
from hotpatch.emulator.memory import PAGE, RegionKind, page_up
from hotpatch.errors import ApplyRefused, HotpatchError, Refusal, Rule

if TYPE_CHECKING:
    from hotpatch.emulator.memory import Memory, Region


def find_room(memory: Memory, size: int, *, near: Va, reach: int, above: bool) -> Va:
    """See :meth:`hotpatch.engine.target.Target.find_room`."""
    size = page_up(max(size, 1))
    place = _place(memory, size, near, reach, above=above)
    if place is None:
        evidence = {"near": near, "reach": reach, "size": size, "above": above}
        where = f"within {reach} bytes {'above' if above else 'of'} 0x{near:x}"
        reason = f"no {size} free bytes lie {where}; load the image where there is room around it"
        raise ApplyRefused([Refusal(Rule.NO_ADDRESS_SPACE, None, None, reason, evidence)])
    return Va(place)


def unmap(memory: Memory, va: Va) -> None:
    """See :meth:`hotpatch.engine.target.Target.unmap`."""
    first = _mapping(memory, va)
    if first.mapping != va:
        raise HotpatchError(f"0x{va:x} is not the start of a mapping; unmap what map returned")
    memory.unmap(*(region for region in memory.regions() if region.mapping == va))


def _mapping(memory: Memory, va: Va) -> Region:
    region = memory.find(va)
    if region is None or region.kind is not RegionKind.HOST:
        raise HotpatchError(f"0x{va:x} lies in no mapping of the host's")
    return region


def _place(memory: Memory, size: int, near: int, reach: int, *, above: bool) -> int | None:
    """The free pages nearest to ``near`` whose bytes are all within ``reach`` of it."""
    found: list[int] = []
    up = page_up(near)
    while up + size - 1 - near <= reach:
        taken = memory.last_within(up, size)
        if taken is None:
            found.append(up)
            break
        up = taken.end
    down = (near - size + 1) & -PAGE
    while not above and down >= ALLOCATION_GRANULE and near - down <= reach:
        taken = memory.first_within(down, size)
        if taken is None:
            found.append(down)
            break
        down = (taken.va - size) & -PAGE
    return min(found, key=lambda va: abs(va - near), default=None)
