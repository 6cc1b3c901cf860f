"""The program's heaps: blocks of 16-byte granules, cut from arenas that grow, reused last freed first.

Bookkeeping is the host's, so a program that writes past a block spoils its neighbours and nothing else, as deterministically as the rest.
Every state is a copyable value: free lists are linked tuples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.emulator.layout import ALLOCATION_GRANULE, HEAP_VA
from hotpatch.emulator.memory import RegionKind, page_up
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from hotpatch.emulator.memory import Memory

GRANULE = 16
"""MEMORY_ALLOCATION_ALIGNMENT of 64-bit Windows."""
_GAP = 16
"""Bytes between blocks, where Windows has its block headers."""
_ARENA_FIRST, _ARENA_LAST = 0x1_0000, 0x40_0000
_LIMIT = 1 << 30
"""Bytes that all heaps together may take."""

_Chain = tuple[int, "_Chain"] | None


@dataclass(frozen=True, slots=True)
class HeapState:
    """Everything but contents."""

    blocks: dict[int, tuple[int, int]]
    free: dict[int, _Chain]
    heaps: frozenset[int]
    cursor: int
    end: int
    arena: int


class Heap:
    """All heaps of a process."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._blocks: dict[int, tuple[int, int]] = {}
        self._free: dict[int, _Chain] = {}
        self._heaps = frozenset({HEAP_VA})
        self._cursor = self._end = HEAP_VA + ALLOCATION_GRANULE
        self._arena = _ARENA_FIRST

    @property
    def default(self) -> int:
        """Handle of the process heap."""
        return HEAP_VA

    def exists(self, heap: int) -> bool:
        """Whether ``heap`` is a heap's handle."""
        return heap in self._heaps

    def create(self) -> int:
        """A new heap's handle."""
        handle = HEAP_VA + GRANULE * len(self._heaps)
        self._heaps |= {handle}
        return handle

    def destroy(self, heap: int) -> None:
        """Free all blocks of a heap."""
        for address in [address for address, (_, owner) in self._blocks.items() if owner == heap]:
            self.free(address)
        self._heaps -= {heap}

    def allocate(self, size: int, heap: int = HEAP_VA, *, zero: bool = False) -> int:
        """A block's address, or 0 when there is no room."""
        room = _room(size)
        chain = self._free.get(room)
        if chain is not None:
            address, self._free[room] = chain
            if zero:
                self._memory.write(address, bytes(room - _GAP))
        else:
            address = self._cut(room)
            if not address:
                return 0
        self._blocks[address] = (size, heap)
        return address

    def size(self, address: int) -> int | None:
        """Bytes that were asked for, or ``None`` where no block begins."""
        block = self._blocks.get(address)
        return None if block is None else block[0]

    def free(self, address: int) -> bool:
        """Give a block back; whether there was one."""
        block = self._blocks.pop(address, None)
        if block is None:
            return False
        room = _room(block[0])
        self._free[room] = (address, self._free.get(room))
        return True

    def resize(self, address: int, size: int, *, zero: bool = False, move: bool = True) -> int:
        """Another block (or the same) with the old contents; 0 when there is no room, the old block stays."""
        old, heap = self._blocks[address]
        if _room(old) == _room(size):
            if zero and size > old:
                self._memory.write(address + old, bytes(size - old))
            self._blocks[address] = (size, heap)
            return address
        new = self.allocate(size, heap, zero=zero) if move else 0
        if new:
            self._memory.write(new, self._memory.read(address, min(old, size)))
            self.free(address)
        return new

    def state(self) -> HeapState:
        """A copy for a snapshot."""
        return HeapState(dict(self._blocks), dict(self._free), self._heaps, self._cursor, self._end, self._arena)

    def restore(self, state: HeapState) -> None:
        """Back to a copy; memory is restored apart."""
        self._blocks, self._free, self._heaps = dict(state.blocks), dict(state.free), state.heaps
        self._cursor, self._end, self._arena = state.cursor, state.end, state.arena

    def take_back(self, state: HeapState) -> None:
        """Back to a copy, and what has been mapped since is given back; contents stay as they are."""
        arenas = [region for region in self._memory.regions() if region.kind is RegionKind.HEAP and region.va >= state.end]
        self._memory.unmap(*arenas)
        self.restore(state)

    def _cut(self, room: int) -> int:
        if self._cursor + room > self._end:
            size = max(self._arena, page_up(room))
            if self._end + size - HEAP_VA > _LIMIT:
                return 0
            self._memory.map(self._end, size, Rights.READ | Rights.WRITE, RegionKind.HEAP, "heap")
            self._end += size
            self._arena = min(2 * self._arena, _ARENA_LAST)
        address = self._cursor
        self._cursor += room
        return address


def _room(size: int) -> int:
    """Bytes that a block of ``size`` takes, with the gap behind it."""
    return (max(size, 1) + GRANULE - 1 & -GRANULE) + _GAP
