"""Heaps and virtual memory. The process may make no code: it runs as under Windows' dynamic code policy (Arbitrary Code Guard).

So allocating or protecting anything as executable, or image code as writable, fails with ERROR_DYNAMIC_CODE_BLOCKED, and no code page is
ever writable to the program.
"""

from __future__ import annotations

from hotpatch.emulator import layout
from hotpatch.emulator.memory import PAGE, Region, RegionKind, page_down, page_up
from hotpatch.emulator.win32.call import (
    ERROR_DYNAMIC_CODE_BLOCKED,
    ERROR_INVALID_ADDRESS,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_ENOUGH_MEMORY,
    Call,
    Dword,
    Table,
    Word,
)
from hotpatch.engine.target import Rights

TABLE = Table()

_ZERO_MEMORY, _REALLOC_IN_PLACE_ONLY = 8, 0x10
_MEM_COMMIT, _MEM_RESERVE, _MEM_RELEASE, _MEM_FREE = 0x1000, 0x2000, 0x8000, 0x10000
_MEM_PRIVATE, _MEM_IMAGE = 0x20000, 0x100_0000
_RIGHTS = {
    0x01: Rights.NONE,
    0x02: Rights.READ,
    0x04: Rights.READ | Rights.WRITE,
    0x08: Rights.READ | Rights.WRITE,
    0x10: Rights.READ | Rights.EXECUTE,
    0x20: Rights.READ | Rights.EXECUTE,
    0x40: Rights.READ | Rights.WRITE | Rights.EXECUTE,
    0x80: Rights.READ | Rights.WRITE | Rights.EXECUTE,
}
"""PAGE_* constants (MS Learn, "Memory Protection Constants")."""
_PAGE_OF = {Rights.NONE: 0x01, Rights.READ: 0x02, Rights.READ | Rights.WRITE: 0x04, Rights.READ | Rights.EXECUTE: 0x20}
_INVALID_SIZE = 0xFFFF_FFFF_FFFF_FFFF
_BASIC_INFORMATION_SIZE = 48


@TABLE.provide("GetProcessHeap")
def get_process_heap(call: Call) -> int:
    """GetProcessHeap."""
    return call.system.heap.default


@TABLE.provide("HeapCreate", "RtlCreateHeap")
def heap_create(call: Call, options: Dword, initial: Word, maximum: Word) -> int:
    """HeapCreate."""
    return call.system.heap.create()


@TABLE.provide("HeapDestroy")
def heap_destroy(call: Call, heap: Word) -> int:
    """HeapDestroy."""
    if not call.system.heap.exists(heap) or heap == call.system.heap.default:
        return call.fail(ERROR_INVALID_HANDLE)
    call.system.heap.destroy(heap)
    return 1


@TABLE.provide("HeapAlloc", "RtlAllocateHeap")
def heap_alloc(call: Call, heap: Word, flags: Dword, size: Word) -> int:
    """HeapAlloc."""
    if not call.system.heap.exists(heap):
        return call.fail(ERROR_INVALID_HANDLE)
    return call.system.heap.allocate(size, heap, zero=bool(flags & _ZERO_MEMORY)) or call.fail(ERROR_NOT_ENOUGH_MEMORY)


@TABLE.provide("HeapReAlloc", "RtlReAllocateHeap")
def heap_realloc(call: Call, heap: Word, flags: Dword, block: Word, size: Word) -> int:
    """HeapReAlloc."""
    if call.system.heap.size(block) is None:
        return call.fail(ERROR_INVALID_PARAMETER)
    moved = call.system.heap.resize(block, size, zero=bool(flags & _ZERO_MEMORY), move=not flags & _REALLOC_IN_PLACE_ONLY)
    return moved or call.fail(ERROR_NOT_ENOUGH_MEMORY)


@TABLE.provide("HeapFree", "RtlFreeHeap")
def heap_free(call: Call, heap: Word, flags: Dword, block: Word) -> int:
    """HeapFree; of nothing, success."""
    return 1 if not block or call.system.heap.free(block) else call.fail(ERROR_INVALID_PARAMETER)


@TABLE.provide("HeapSize", "RtlSizeHeap")
def heap_size(call: Call, heap: Word, flags: Dword, block: Word) -> int:
    """HeapSize."""
    size = call.system.heap.size(block)
    return _INVALID_SIZE if size is None else size


@TABLE.provide("HeapValidate")
def heap_validate(call: Call, heap: Word, flags: Dword, block: Word) -> int:
    """HeapValidate."""
    return int(not block or call.system.heap.size(block) is not None)


@TABLE.provide("HeapSetInformation")
def heap_set_information(call: Call, heap: Word, kind: Dword, value: Word, size: Word) -> int:
    """HeapSetInformation: accepted, without effect."""
    return 1


@TABLE.provide("LocalAlloc", "GlobalAlloc")
def local_alloc(call: Call, flags: Dword, size: Word) -> int:
    """LocalAlloc of fixed memory; 0x40 zeroes."""
    return call.system.heap.allocate(size, zero=bool(flags & 0x40)) or call.fail(ERROR_NOT_ENOUGH_MEMORY)


@TABLE.provide("LocalFree", "GlobalFree")
def local_free(call: Call, block: Word) -> int:
    """LocalFree."""
    if block and not call.system.heap.free(block):
        return call.fail(ERROR_INVALID_HANDLE, block)
    return 0


# virtual memory ---------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("VirtualAlloc")
def virtual_alloc(call: Call, address: Word, size: Word, kind: Dword, protection: Dword) -> int:
    """VirtualAlloc: reserved memory is committed at once, without rights until it is committed by the program."""
    rights = _RIGHTS.get(protection & 0xFF)
    if rights is None or not size or not kind & (_MEM_COMMIT | _MEM_RESERVE):
        return call.fail(ERROR_INVALID_PARAMETER)
    if rights & Rights.EXECUTE:
        return call.fail(ERROR_DYNAMIC_CODE_BLOCKED)
    memory = call.system.memory
    if address and memory.find(address) is not None:
        start, end = page_down(address), page_up(address + size)
        if not kind & _MEM_COMMIT or not _allocated(call, start, end):
            return call.fail(ERROR_INVALID_ADDRESS)
        memory.protect(start, end - start, rights)
        return start
    counters = call.system.counters
    size = page_up(address % PAGE + size)
    start = page_down(address) & -layout.ALLOCATION_GRANULE if address else counters.allocation
    if start + size > layout.ALLOCATION_END or start < layout.ALLOCATION_VA or not memory.free(start, size):
        return call.fail(ERROR_INVALID_ADDRESS if address else ERROR_NOT_ENOUGH_MEMORY)
    memory.map(start, size, rights if kind & _MEM_COMMIT else Rights.NONE, RegionKind.ALLOCATION, f"allocation 0x{start:x}")
    behind = start + size + layout.ALLOCATION_GRANULE & -layout.ALLOCATION_GRANULE
    counters.allocation = max(counters.allocation, behind)
    return start


@TABLE.provide("VirtualFree")
def virtual_free(call: Call, address: Word, size: Word, kind: Dword) -> int:
    """VirtualFree: releases a whole allocation, or takes the rights to pages away (decommit)."""
    memory = call.system.memory
    region = memory.find(address)
    if region is None or region.kind is not RegionKind.ALLOCATION:
        return call.fail(ERROR_INVALID_ADDRESS)
    if kind == _MEM_RELEASE:
        if size or region.name != f"allocation 0x{address:x}":
            return call.fail(ERROR_INVALID_PARAMETER)
        for part in [part for part in memory.regions() if part.name == region.name]:
            memory.unmap(part)
        return 1
    start, end = page_down(address), page_up(address + size)
    if not size or not _allocated(call, start, end):
        return call.fail(ERROR_INVALID_PARAMETER)
    memory.write(start, bytes(end - start))
    memory.protect(start, end - start, Rights.NONE)
    return 1


@TABLE.provide("VirtualProtect")
def virtual_protect(call: Call, address: Word, size: Word, protection: Dword, old: Word) -> int:
    """VirtualProtect; nothing becomes executable, and nothing executable becomes anything else."""
    memory = call.system.memory
    rights = _RIGHTS.get(protection & 0xFF)
    start, end = page_down(address), page_up(address + size)
    regions = _regions(call, start, end)
    if rights is None or not size:
        return call.fail(ERROR_INVALID_PARAMETER)
    if regions is None or any(region.kind is RegionKind.SYSTEM for region in regions):
        return call.fail(ERROR_INVALID_ADDRESS)
    call.put32(old, _PAGE_OF[regions[0].rights])
    if all(region.rights == rights for region in regions):
        return 1
    if rights & Rights.EXECUTE or any(region.rights & Rights.EXECUTE for region in regions):
        return call.fail(ERROR_DYNAMIC_CODE_BLOCKED)
    memory.protect(start, end - start, rights)
    return 1


@TABLE.provide("VirtualQuery")
def virtual_query(call: Call, address: Word, result: Word, size: Word) -> int:
    """VirtualQuery (MEMORY_BASIC_INFORMATION of 64-bit Windows)."""
    if size < _BASIC_INFORMATION_SIZE:
        return call.fail(ERROR_INVALID_PARAMETER)
    region = call.system.memory.find(address)
    start = page_down(address)
    words: tuple[tuple[int, int], ...]
    if region is None:
        following = min((r.va for r in call.system.memory.regions() if r.va > address), default=1 << 47)
        words = ((start, 8), (0, 8), (0, 8), (following - start, 8), (_MEM_FREE, 4), (1, 4), (0, 8))
    else:
        module = call.system.module_at(address)
        base = module.va if module is not None else region.va
        kind = _MEM_IMAGE if region.kind is RegionKind.IMAGE else _MEM_PRIVATE
        page = _PAGE_OF[region.rights]
        words = ((start, 8), (base, 8), (page, 8), (region.end - start, 8), (_MEM_COMMIT, 4), (page, 4), (kind, 8))
    call.write(result, b"".join(value.to_bytes(width, "little") for value, width in words))
    return _BASIC_INFORMATION_SIZE


@TABLE.provide("FlushInstructionCache")
def flush_instruction_cache(call: Call, process: Word, address: Word, size: Word) -> int:
    """FlushInstructionCache: the program has no code that it could have changed."""
    return 1


def _regions(call: Call, start: int, end: int) -> list[Region] | None:
    """The regions that cover a range without gaps."""
    found = []
    at = start
    while at < end:
        region = call.system.memory.find(at)
        if region is None:
            return None
        found.append(region)
        at = region.end
    return found


def _allocated(call: Call, start: int, end: int) -> bool:
    regions = _regions(call, start, end)
    return regions is not None and all(region.kind is RegionKind.ALLOCATION for region in regions)
