"""``CONTEXT`` and ``DISPATCHER_CONTEXT`` of x64 (winnt.h)."""

from __future__ import annotations

from hotpatch.emulator.context import ContextLayout, Field

_INTEGER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)), "rip")
_FLAGS = 0x10_000F
"""CONTEXT_AMD64 with control, integer, segment and floating-point registers."""
_SEGMENTS = bytes.fromhex("33002b002b0053002b002b00")
"""cs, ds, es, fs, gs, ss of a 64-bit Windows process."""

LAYOUT = ContextLayout(
    size=0x4D0,
    fields=(
        Field("mxcsr", 0x34, 4),
        Field("rflags", 0x44, 4),
        *(Field(name, 0x78 + 8 * index, 8) for index, name in enumerate(_INTEGER)),
        Field("fpcw", 0x100, 2),
        *(Field(f"xmm{number}", 0x1A0 + 16 * number, 16) for number in range(16)),
    ),
    constants=((0x30, _FLAGS.to_bytes(4, "little")), (0x38, _SEGMENTS)),
    dispatcher_size=0x50,
    nonvolatile=(),
    funclet_base=None,
    call_size=0,
)
