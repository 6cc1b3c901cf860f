"""A part whose function-table entry only points at another one (Arm64: flag 3; x64: the lowest bit) travels with its function."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.image import Range
from tests.emulator.pe import TEXT, Pe
from tests.unwind.followed import Followed

_F, _G, _PART = TEXT + 0x20, TEXT + 0x80, TEXT + 0x200
_CODE = {
    Machine.X64: ("sub rsp, 40", "call {callee}", "add rax, {number}", "mov rcx, rax", "add rsp, 40"),
    Machine.ARM64: ("stp x29, x30, [sp, #-16]!", "mov x29, sp", "bl {callee}", "add x0, x0, #{number}", "ldp x29, x30, [sp], #16"),
}
_CALLEE = {Machine.X64: "lea rax, [rcx + 1]; ret", Machine.ARM64: "add x0, x0, #1; ret"}
_LEAVE = {Machine.X64: "jmp", Machine.ARM64: "b"}
_INFO = bytes([1, 4, 1, 0, 4, 0x42, 0, 0])
"""``UNWIND_INFO`` of ``sub rsp, 40``."""
_FRAME = 1 | 6 << 2 | 3 << 21 | 1 << 23
"""Packed: six instructions, a frame of 16 bytes that holds x29 and x30."""


def _function(machine: Machine, at: int, number: int, leave: str) -> bytes:
    return assemble(machine, "; ".join(_CODE[machine]).format(callee=_G, number=number) + "; " + leave, at)


def _image(machine: Machine, number: int) -> hotpatch.Image:
    """``f`` calls ``g`` and goes on in a part of its own that does too, and adds ``number``."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x300)
    sizes = {}
    for at, adds, leave in ((_F, 10, f"{_LEAVE[machine]} {_PART}"), (_PART, number, "ret")):
        code = _function(machine, at, adds, leave)
        sizes[at] = len(code)
        pe.put(at, code)
    pe.put(_G, assemble(machine, _CALLEE[machine], _G))
    table = pe.cursor
    if machine is Machine.X64:
        pe.cursor += 32
        info = pe.add(_INFO)
        rows = struct.pack("<6I", _F, _F + sizes[_F], info, _PART, _PART + sizes[_PART], table | 1)
    else:
        rows = struct.pack("<4I", _F, _FRAME, _PART, table | 3)
        pe.cursor += 16
    pe.put(table, rows)
    pe.directories["exception"] = (table, len(rows))
    pe.exports("forwarded.dll", [("f", _F), ("g", _G)])
    return pe.build("forwarded.dll")


@pytest.mark.parametrize("machine", Machine)
def test_a_part_with_a_forwarded_entry_travels(machine: Machine) -> None:
    base, fixed = _image(machine, 1000), _image(machine, 2000)
    function = base.function_named("f")
    assert [part.start for part in function.ranges] == [_F, _PART]
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    (row,) = patch.functions
    assert (row.name, row.base_rva) == ("f", _F)
    size = sum(part.size for part in function.ranges)
    described = [entry.range for entry in patch.image.unwind_entries]
    assert len(described) == 2 and sum(part.size for part in described) == size
    assert described[0] == Range(row.patch_rva, row.patch_rva + function.ranges[0].size)
    process = hotpatch.Process(base)
    assert process.call("f", 5) == 5 + 1 + 10 + 1 + 1000
    applied = process.apply(patch)
    followed = Followed(process, 1)
    assert process.call("f", 5) == 5 + 1 + 10 + 1 + 2000
    assert followed.problems == []
    assert followed.compared > 2 * len(_CODE[machine])
    process.revert(applied)
    assert process.call("f", 5) == 5 + 1 + 10 + 1 + 1000
