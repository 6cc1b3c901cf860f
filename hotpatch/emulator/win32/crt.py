"""The parts of the C run time (ucrtbase, vcruntime140, msvcrt) that plain C paths and DLL start-up reach."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.emulator.threads import Invoke
from hotpatch.emulator.win32.call import Call, Double, Dword, Int, Table, Word

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome

TABLE = Table()


@TABLE.provide("malloc", "_malloc_base")
def malloc(call: Call, size: Word) -> int:
    """Malloc."""
    return call.system.heap.allocate(size)


@TABLE.provide("calloc", "_calloc_base")
def calloc(call: Call, count: Word, size: Word) -> int:
    """Calloc."""
    total = count * size
    return call.system.heap.allocate(total, zero=True) if total < 1 << 40 else 0


@TABLE.provide("realloc", "_realloc_base")
def realloc(call: Call, block: Word, size: Word) -> int:
    """Realloc."""
    heap = call.system.heap
    if not block:
        return heap.allocate(size)
    if not size:
        heap.free(block)
        return 0
    return heap.resize(block, size) if heap.size(block) is not None else 0


@TABLE.provide("free", "_free_base", "_aligned_free")
def free(call: Call, block: Word) -> int:
    """Free."""
    call.system.heap.free(block)
    return 0


@TABLE.provide("_aligned_malloc")
def aligned_malloc(call: Call, size: Word, alignment: Word) -> int:
    """_aligned_malloc: up to the heap's granule of 16 bytes; more gives null."""
    return call.system.heap.allocate(size) if alignment <= 16 else 0


@TABLE.provide("_msize")
def msize(call: Call, block: Word) -> int:
    """_msize."""
    return call.system.heap.size(block) or 0


@TABLE.provide("_errno")
def errno(call: Call) -> int:
    """_errno: the address of the thread's own."""
    return call.thread.teb + 0x1800


@TABLE.provide("_set_errno")
def set_errno(call: Call, value: Int) -> int:
    """_set_errno."""
    call.put32(errno(call), value)
    return 0


@TABLE.provide("_initterm")
def initterm(call: Call, first: Word, last: Word) -> Outcome:
    """_initterm: calls each function pointer of a table that is not null."""
    return InitialisersInTurn(first, last, stop=False).resume(call.system, call.thread, 0)


@TABLE.provide("_initterm_e")
def initterm_e(call: Call, first: Word, last: Word) -> Outcome:
    """_initterm_e: stops at the first that fails."""
    return InitialisersInTurn(first, last, stop=True).resume(call.system, call.thread, 0)


@dataclass(frozen=True, slots=True)
class InitialisersInTurn:
    """What is left of a table of initialisers."""

    cursor: int
    end: int
    stop: bool

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Call the next one."""
        if self.stop and value & 0xFFFF_FFFF:
            return value & 0xFFFF_FFFF
        cursor = self.cursor
        while cursor < self.end:
            function = system.guest_word(cursor)
            cursor += 8
            if function:
                return Invoke(function, (), InitialisersInTurn(cursor, self.end, self.stop))
        return 0


@TABLE.provide(
    "_initialize_onexit_table",
    "_register_onexit_function",
    "_execute_onexit_table",
    "_crt_atexit",
    "_crt_at_quick_exit",
    "atexit",
    "_onexit",
)
def onexit(call: Call, first: Word) -> int:
    """Functions to call at exit: taken, never called, because a process ends at once here."""
    return 0


@TABLE.provide(
    "_seh_filter_dll",
    "_configure_narrow_argv",
    "_initialize_narrow_environment",
    "_initialize_wide_environment",
    "_configure_wide_argv",
    "_set_app_type",
    "__setusermatherr",
    "_configthreadlocale",
    "_set_new_mode",
    "_cexit",
    "_c_exit",
    "_register_thread_local_exe_atexit_callback",
    "__std_type_info_destroy_list",
    "_set_fmode",
    "_controlfp_s",
    "__vcrt_InitializeCriticalSectionEx",
)
def start_up(call: Call, first: Word) -> int:
    """Start-up of the run time: nothing to be done."""
    return 0


@TABLE.provide("abs", "labs")
def abs_(call: Call, value: Int) -> int:
    """Abs."""
    return abs(value)


@TABLE.provide("sqrt")
def sqrt(call: Call, value: Double) -> float:
    """Sqrt."""
    return math.sqrt(value) if value >= 0 else math.nan


@TABLE.provide("floor")
def floor(call: Call, value: Double) -> float:
    """Floor."""
    return float(math.floor(value)) if math.isfinite(value) else value


@TABLE.provide("ceil")
def ceil(call: Call, value: Double) -> float:
    """Ceil."""
    return float(math.ceil(value)) if math.isfinite(value) else value


@TABLE.provide("fabs")
def fabs(call: Call, value: Double) -> float:
    """Fabs."""
    return abs(value)


@TABLE.provide("rand")
def rand(call: Call) -> int:
    """Rand, from the process's seed."""
    return int.from_bytes(call.system.random(2), "little") & 0x7FFF


@TABLE.provide("srand")
def srand(call: Call, seed: Dword) -> int:
    """Srand: the process's seed decides."""
    return 0


@TABLE.provide("rand_s")
def rand_s(call: Call, result: Word) -> int:
    """rand_s, from the process's seed."""
    call.write(result, call.system.random(4))
    return 0


@TABLE.provide("atoi", "atol")
def atoi(call: Call, text: Word) -> int:
    """Atoi."""
    found = re.match(rb"\s*([+-]?\d+)", call.string(text))
    return int(found.group(1)) if found else 0
