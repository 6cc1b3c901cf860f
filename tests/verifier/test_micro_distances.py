"""What code reaches at constant distances from data that it names is meant as much as what it names."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.builder.neighbours import Found, Neighbours
from hotpatch.verifier import MicroOutcome, verify_functions
from tests.emulator.pe import RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
FIRST, SECOND = RDATA + 0x400, RDATA + 0x418
CODE = {
    Machine.X64: "lea rax, [rip + {distance}]; mov ecx, dword ptr [rax]; mov eax, dword ptr [rax + {second}]; add eax, ecx; ret",
    Machine.ARM64: "adrp x9, 0x2000; add x9, x9, #0x400; ldr w1, [x9]; ldr w0, [x9, #{second}]; add w0, w0, w1; ret",
}
BEFORE = {Machine.X64: "mov eax, 7; ret", Machine.ARM64: "mov w0, #7; ret"}


def _images(machine: Machine) -> list[hotpatch.Image]:
    """A function that gets to read a new constant and from there another, which the base has too; a text stands between them."""
    images = []
    for code in (BEFORE[machine], CODE[machine].format(distance=FIRST - TEXT - 7, second=SECOND - FIRST)):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, code, TEXT))
        if code != BEFORE[machine]:
            pe.put(FIRST, struct.pack("<4I", 0x1111, 0x2222, 0x3333, 0x4444))
        pe.put(FIRST + 16, b"a text.\0" + struct.pack("<4I", 0x5555, 0x6666, 0x7777, 0x8888))
        pe.exports("reach.dll", [("walk", TEXT), ("text", FIRST + 16), ("second", SECOND), ("end", SECOND + 16)])
        images.append(pe.build("reach.dll"))
    return images


@each_machine
def test_a_constant_that_was_left_behind_is_a_difference(machine: Machine, monkeypatch) -> None:
    images = _images(machine)
    diff = hotpatch.diff(*images)
    right = hotpatch.build(diff)
    assert verify_functions(images[0], right, fixed=images[1]).ok
    monkeypatch.setattr(Neighbours, "of", lambda _self, _bodies, links, _pieces: Found(list(links), (), ()))
    monkeypatch.setattr("hotpatch.builder.make.self_check", lambda *_: ())
    wrong = hotpatch.build(diff)
    (report,) = verify_functions(images[0], wrong, fixed=images[1]).functions
    assert report.outcome is MicroOutcome.DIFFER, report.text
