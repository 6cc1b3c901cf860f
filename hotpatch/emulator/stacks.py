"""Stacks that are committed as the program touches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator import layout
from hotpatch.emulator.memory import PAGE, RegionKind
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.emulator.memory import Memory
    from hotpatch.emulator.threads import GuestThread


def grow_stack(memory: Memory, threads: Mapping[int, GuestThread], address: int) -> bool:
    """Whether ``address`` is mapped; commits stack down to it where it lies in the reserve of a living thread's stack."""
    if memory.find(address) is not None:
        return True
    number = address // layout.STACK_STRIDE - layout.STACK_VA // layout.STACK_STRIDE + 1
    thread = threads.get(number)
    if thread is None or not thread.alive or not thread.stack_low <= address < thread.stack_top:
        return False
    regions = [region for region in memory.regions() if region.kind is RegionKind.STACK and region.name == f"stack {number}"]
    low = min(region.va for region in regions)
    committed = thread.stack_top - low
    new = max(thread.stack_low, min(low - committed, address & -PAGE))
    memory.map(new, low - new, Rights.READ | Rights.WRITE, RegionKind.STACK, f"stack {number}")
    return True
