"""x64: a fragment that lies apart from its function has the function's frame."""

from __future__ import annotations

import struct

from hotpatch.address import Rva, Va
from hotpatch.arch import Machine
from hotpatch.emulator.context import context_layout
from hotpatch.unwind import unwinder
from tests.emulator.pe import TEXT, Pe

FRAGMENT, SIZE = TEXT + 0x40, 0x10
FRAME, CALLER, KEPT = 0x5000_0040, 0x1234_5678, 0x77
PUSH_AND_SET_RBP = bytes.fromhex("01040205 0403 0150")
"""Version 1, a prologue of four bytes: ``push rbp``, then ``mov rbp, rsp``."""
CHAINED = bytes.fromhex("21000000")


def test_the_frame_register_is_the_primarys() -> None:
    """Also where the stack pointer has gone further down since, and for the address that handlers are told."""
    pe = Pe(Machine.X64)
    pe.put(TEXT, bytes.fromhex("55 4889e5") + b"\x90" * 0x80)
    primary = (TEXT, TEXT + SIZE, pe.add(PUSH_AND_SET_RBP))
    fragment = (FRAGMENT, FRAGMENT + SIZE, pe.add(CHAINED + struct.pack("<3I", *primary)))
    rows = b"".join(struct.pack("<3I", *row) for row in (primary, fragment))
    pe.directories["exception"] = pe.add(rows), len(rows)
    pe.exports("fragments.dll", [("f", TEXT)])
    image = pe.build("fragments.dll")
    stack = {FRAME: KEPT, FRAME + 8: CALLER}
    names = [field.register for field in context_layout(Machine.X64).fields]
    registers = {**dict.fromkeys(names, 0), "rbp": FRAME, "rsp": FRAME - 0x40}
    base = Va(0x1000_0000)

    def read(va: int, size: int) -> bytes:
        inside = base <= va < base + image.size_of_image
        return image.read(va - base, size) if inside else stack.get(va, 0).to_bytes(size, "little")

    found = unwinder(Machine.X64).unwind(registers, Rva(FRAGMENT + 1), image, read, base, called=False)
    assert found.establisher == FRAME
    assert [found.registers[name] for name in ("rip", "rsp", "rbp")] == [CALLER, FRAME + 16, KEPT]
