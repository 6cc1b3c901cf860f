"""Jump tables among the code of their own function, which nothing refers to from elsewhere, as Microsoft's compiler has them for Arm64."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.copies import are_copies
from hotpatch.differ.view import view_of
from tests.builder.applied import Applied
from tests.differ.test_folded import calls
from tests.emulator.pe import DATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)

TABLE = 0x60
"""Where in the function the table stands."""
LOAD = struct.pack("<2I", 0x10000000 | (TABLE - 8) // 4 << 5 | 9, 0xB8A05928)
"""``adr x9``, 8 bytes into the function, and ``ldrsw x8, [x9, w0, uxtw #2]``."""
HEADS = {
    Machine.X64: ("cmp ecx, 3; ja 0x{first:x}", "lea rdx, [rip + {distance}]; movsxd rax, dword ptr [rdx + rcx*4]; add rax, rdx; jmp rax"),
    Machine.ARM64: ("cmp w0, #3; b.hi 0x{first:x}", "add x8, x8, x9; br x8"),
}
CASES = {Machine.X64: "mov eax, {}; ret", Machine.ARM64: "mov w0, #{}; ret"}
HEAD_SIZE, CASE_SIZE, LEA_END = {Machine.X64: 21, Machine.ARM64: 24}, {Machine.X64: 6, Machine.ARM64: 8}, 12


def switch(machine: Machine, at: int, order: tuple[int, ...], values: tuple[int, ...]) -> bytes:
    """A function at ``at`` that gives one of four ``values``, or the first of them: by the ``order`` of its table's entries."""
    first, (check, jump) = at + HEAD_SIZE[machine], HEADS[machine]
    code = assemble(machine, check.format(first=first), at)
    if machine is Machine.ARM64:
        code += LOAD
    code += assemble(machine, jump.format(distance=TABLE - LEA_END), at + len(code))
    assert at + len(code) == first
    code += assemble(machine, "; ".join(CASES[machine].format(value) for value in values), first)
    starts = [first + CASE_SIZE[machine] * number - at - TABLE for number in order]
    return code.ljust(TABLE, b"\xcc" if machine is Machine.X64 else bytes(1)) + struct.pack("<4i", *starts)


def image(machine: Machine, callees: tuple[int, ...], orders: dict[int, tuple[int, ...]], values: tuple[int, ...]) -> hotpatch.Image:
    """Exported ``f0``… call one switch of ``callees`` each, by its place; the ``orders`` of their tables where they are turned round."""
    pe = Pe(machine)
    pe.put(DATA, bytes(0x40))
    for number, place in enumerate(callees):
        pe.put(TEXT + 0x40 * number, calls(machine, TEXT + 0x40 * number, TEXT + place, number))
    for place in set(callees):
        pe.put(TEXT + place, switch(machine, TEXT + place, orders.get(place, (0, 1, 2, 3)), values))
    if machine is Machine.X64:
        info = pe.add(bytes([1, 0, 0, 0]))
        rows = [struct.pack("<III", TEXT + place, TEXT + place + TABLE + 16, info) for place in sorted(set(callees))]
    else:  # packed: a leaf without a frame
        rows = [struct.pack("<II", TEXT + place, 1 | (TABLE + 16) // 4 << 2) for place in sorted(set(callees))]
    pe.directories["exception"] = (pe.add(b"".join(rows)), sum(map(len, rows)))
    pe.exports("switch.dll", [(f"f{number}", TEXT + 0x40 * number) for number in range(len(callees))])
    return pe.build("switch.dll")


OLD, NEW, TURNED = (10, 20, 30, 40), (11, 22, 33, 44), (3, 2, 1, 0)


@each_machine
def test_the_table_is_among_the_code(machine):
    view = view_of(image(machine, (0x200,), {}, OLD))
    assert view.bodies[TEXT + 0x200].tables == (TEXT + 0x200 + TABLE,)
    assert [Applied(view.image).call_at(TEXT + 0x200, number) for number in range(4)] == [*OLD]


@each_machine
def test_a_function_that_differs_in_its_table_alone_is_changed(machine):
    base, fixed = image(machine, (0x200,), {}, OLD), image(machine, (0x200,), {0x200: TURNED}, OLD)
    diff = diff_images(base, fixed)
    assert [row.base.entry for row in diff.of(Verdict.CHANGED)] == [TEXT + 0x200]
    patched = Applied(base, hotpatch.build(diff))
    assert [patched.call_at(TEXT + 0x200, number) for number in range(4)] == [40, 30, 20, 10]


@each_machine
def test_functions_whose_tables_differ_are_no_copies(machine):
    base, fixed = image(machine, (0x200,) * 3, {}, OLD), image(machine, (0x200, 0x300, 0x200), {0x300: TURNED}, NEW)
    assert not are_copies(view_of(fixed), TEXT + 0x200, TEXT + 0x300)
    diff = diff_images(base, fixed)
    assert [row.fixed.entry for row in diff.of(Verdict.ADDED)] == [TEXT + 0x300]
    assert {row.base.entry for row in diff.of(Verdict.CHANGED)} == {TEXT + 0x40, TEXT + 0x200}
