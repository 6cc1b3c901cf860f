"""``ARM64_NT_CONTEXT`` and ``DISPATCHER_CONTEXT_ARM64`` (winnt.h)."""

from __future__ import annotations

from hotpatch.emulator.context import ContextLayout, Field

_FLAGS = 0x40_0007
"""CONTEXT_ARM64 with control, integer and floating-point registers."""

LAYOUT = ContextLayout(
    size=0x390,
    fields=(
        Field("nzcv", 0x04, 4),
        *(Field(f"x{number}", 0x08 + 8 * number, 8) for number in range(31)),
        Field("sp", 0x100, 8),
        Field("pc", 0x108, 8),
        *(Field(f"q{number}", 0x110 + 16 * number, 16) for number in range(32)),
        Field("fpcr", 0x310, 4),
    ),
    constants=((0, _FLAGS.to_bytes(4, "little")),),
    dispatcher_size=0x58,
    nonvolatile=(*(f"x{number}" for number in range(19, 30)), *(f"q{number}" for number in range(8, 16))),
    funclet_base="x29",
    call_size=4,
)
"""Of vector registers the dispatcher context points at the low halves, d8 to d15 (``DISPATCHER_CONTEXT_NONVOLREG_ARM64``)."""
