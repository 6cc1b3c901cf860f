"""What lies on the stack where a routine of the system's own says so with an Arm64 unwind code, as data: each register's place.

Sources: winnt.h (``ARM64_NT_CONTEXT``, ``ARM64EC_NT_CONTEXT``; MS Learn, "Overview of ARM64EC ABI conventions", says which registers of x64
stand for which); dotnet/runtime, ``src/coreclr/unwinder/arm64/unwinder.cpp`` (machine frame, ``ARM64_KTRAP_FRAME``, ``ARM64_VFP_STATE``).
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where (part of) a register stands: offset and size in bytes, and the bit of the register that the first bit there is."""

    register: str
    offset: int
    size: int = 8
    bit: int = 0


def _vectors(first: int, count: int) -> tuple[Place, ...]:
    """Vector registers from v0 on, one after the other."""
    return tuple(Place(f"q{number}", first + 16 * number, 16) for number in range(count))


MACHINE_FRAME = (Place("sp", 0x00), Place("pc", 0x08))
CONTEXT = (
    *(Place(f"x{number}", 0x08 + 8 * number) for number in range(31)),
    Place("sp", 0x100),
    Place("pc", 0x108),
    *_vectors(0x110, 32),
)
CONTEXT_FLAGS = 0x00
EC_CONTEXT_FLAGS = 0x30
UNWOUND_TO_CALL = 0x2000_0000
"""``CONTEXT_UNWOUND_TO_CALL``, in a context's flags: its program counter is a return address."""
TRAP_FRAME = (
    Place("sp", 0x98),
    *(Place(f"x{number}", 0xA0 + 8 * number) for number in range(19)),
    Place("x30", 0x138),
    Place("x29", 0x140),
    Place("pc", 0x148),
)
TRAP_VECTORS = 0x10
"""In a trap frame: the address of ``ARM64_VFP_STATE``, or 0."""
VECTOR_CONTROLS = (0x08, 0x0C)
"""In ``ARM64_VFP_STATE``: fpcr and fpsr, 4 bytes each."""
NO_VECTORS = 0xFFFF_FFFF
"""In either of them: no vector registers have been stored."""
VECTORS = _vectors(0x10, 32)

_EC_INTEGER = ("x8", "x0", "x1", "x27", "sp", "x29", "x25", "x26", "x2", "x3", "x4", "x5", "x19", "x20", "x21", "x22", "pc")
"""By what x64 has there: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15, rip."""
_EC_X87 = ("x30", "x6", "x7", "x9", "x10", "x11", "x12", "x15")
"""The low 64 bits of st0 to st7. Of the 16 bits above, four make x16 and four make x17."""
EC_CONTEXT = (
    *(Place(name, 0x78 + 8 * index) for index, name in enumerate(_EC_INTEGER)),
    *(Place(name, 0x120 + 16 * index) for index, name in enumerate(_EC_X87)),
    *(Place(f"x{16 + index // 4}", 0x128 + 16 * index, 2, 16 * (index % 4)) for index in range(8)),
    *_vectors(0x1A0, 16),
)
EC_UNUSED = ("x13", "x14", "x23", "x24", "x28", *(f"q{number}" for number in range(16, 32)))
"""Registers that Arm64EC code may not use: a context says nothing of them."""
