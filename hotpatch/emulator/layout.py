"""Where things lie in an emulated process, and the structures of Windows that compiled code reads, as data.

Sources: winternl.h and the published TEB and PEB of the Windows SDK's debugging symbols, as documented by MS Learn and used by compilers
(TEB 0x30 self, 0x58 thread-local storage, 0x60 PEB). Addresses of areas are this project's choice: above 4 GiB, and out of
the range below 0x7FFF_D000_0000 where Windows loads images.
"""

from __future__ import annotations

# areas ------------------------------------------------------------------------------------------------------------------------------------

GATE_VA = 0x7FFF_D000_0000
"""System functions: nothing is mapped there; reaching an address is calling the function. Slots of :data:`GATE_SIZE` bytes."""
GATE_SIZE = 16
GATE_LIMIT = 1 << 20
SYSTEM_MODULE_VA = 0x7FFF_E000_0000
"""What GetModuleHandle returns for system libraries; nothing is mapped there."""
SYSTEM_MODULE_SIZE = 0x10_0000
PEB_VA = 0x20_0000_0000
"""What the system brings lies close together: the emulator goes through a tree of all areas at each mapping."""
PARAMETERS_VA = PEB_VA + 0x1_0000
"""Command line and environment."""
STUB_VA = PEB_VA + 0x2_0000
"""Code that the system brings: control-flow-guard check and dispatch."""
TEB_VA = PEB_VA + 0x10_0000
TEB_STRIDE = 0x1_0000
STACK_VA = 0x10_0000_0000
STACK_STRIDE = 0x200_0000
"""Distance of stacks, in bytes; what is not committed of it is the guard."""
STACK_RESERVE_LIMIT = STACK_STRIDE - 0x10_0000
STACK_COMMIT = 0x1_0000
"""Bytes of a stack that are committed at first; it doubles when the program touches more."""
HEAP_VA = 0x30_0000_0000
ALLOCATION_VA = 0x40_0000_0000
ALLOCATION_END = 0x50_0000_0000
CALL_BUFFER_VA = 0x60_0000_0000
"""Arguments of calls that the host makes."""
MODULE_GRANULE = 0x400_0000
"""Images that cannot have their base are placed at multiples of this, which leaves room behind each for patches within every machine's
reach."""
MODULE_VA = 0x7FF0_0000_0000
"""Where such images go."""
ALLOCATION_GRANULE = 0x1_0000
"""Windows' allocation granularity in bytes (GetSystemInfo)."""

# structures: name → offset in bytes -------------------------------------------------------------------------------------------------------

TEB = {
    "StackBase": 0x08,
    "StackLimit": 0x10,
    "Self": 0x30,
    "ProcessId": 0x40,
    "ThreadId": 0x48,
    "ThreadLocalStoragePointer": 0x58,
    "ProcessEnvironmentBlock": 0x60,
    "LastErrorValue": 0x68,
    "UserReserved": 0xE8,
    "TlsSlots": 0x1480,
}
TEB_SIZE = 0x2000
THREAD_FLAGS = range(TEB["UserReserved"], TEB["UserReserved"] + 20)
"""Bytes of the TEB's UserReserved, five 32-bit words that Windows keeps for programs and nothing here uses: sides of threads while patches
are in transition."""
PEB = {"BeingDebugged": 0x02, "ImageBaseAddress": 0x10, "ProcessParameters": 0x20, "ProcessHeap": 0x30, "NumberOfProcessors": 0xB8}
PEB_SIZE = 0x1000
TLS_SLOTS = 64
"""Slots of TlsAlloc that lie in the TEB; there are no more here."""

PROCESS_ID = 0x1A4
STILL_ACTIVE = 259

TICKS_PER_MILLISECOND = 10_000
"""Virtual time: one executed instruction is 100 ns, so that a millisecond of Sleep is 10,000 instructions of the other threads."""
TICKS_PER_SECOND = 10_000_000
EPOCH_FILETIME = 133_801_632_000_000_000
"""Virtual start of every process: 1 January 2025, 00:00 UTC, in 100 ns since 1601."""
BOOT_TICKS = 60 * TICKS_PER_SECOND
"""Virtual time since the machine was started."""
