"""Relocated pointers that stand among code: whole addresses as an operand (x64), literal pools (Arm64)."""

import struct

import pytest

from hotpatch.arch import FixupKind, Machine
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.view import View
from hotpatch.verifier.micro import MicroExecution
from hotpatch.verifier.micro_model import MicroOutcome
from tests.emulator.pe import TEXT, Pe

RETURN = {Machine.X64: b"\xc3", Machine.ARM64: b"\xc0\x03\x5f\xd6"}
GIVES = {
    Machine.X64: (b"\x48\xb8" + bytes(8) + b"\xc3", 2),
    Machine.ARM64: (bytes.fromhex("40000058 03000014") + bytes(8) + RETURN[Machine.ARM64], 8),
}
"""``movabs rax, …; ret``, and ``ldr x0, literal; b`` past that; ``ret``: the code, and where in it the pointer is."""
SETS = {
    Machine.X64: lambda number: b"\xb8" + struct.pack("<I", number),
    Machine.ARM64: lambda number: struct.pack("<I", 0x52800000 | number << 5),
}


def image(machine: Machine, one: int, other: int, *, second: bool = False):
    """``f`` gives the address of ``one``, or of ``other``."""
    code, at = GIVES[machine]
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x400)
    pe.put(TEXT, code)
    for number, rva in enumerate((one, other), 40):
        pe.put(rva, SETS[machine](number) + RETURN[machine])
    pe.pointer(TEXT + at, other if second else one)
    if machine is Machine.ARM64:  # packed unwind data, by which the literal belongs to the function
        pe.directories["exception"] = (pe.add(struct.pack("<II", TEXT, 1 | len(code) // 4 << 2)), 8)
    pe.exports("pointers.dll", [("f", TEXT), ("one", one), ("other", other)])
    return pe.build("pointers.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("second", "verdict"), [(False, Verdict.RELOCATED), (True, Verdict.CHANGED)], ids=["same", "other"])
def test_code_that_holds_an_address_is_the_same_where_that_leads_to_the_same(machine, second, verdict):
    base, fixed = image(machine, TEXT + 0x100, TEXT + 0x200), image(machine, TEXT + 0x140, TEXT + 0x240, second=second)
    diff = diff_images(base, fixed)
    assert {row.name: row.verdict for row in diff.functions}["f"] is verdict


@pytest.mark.parametrize("machine", Machine)
def test_an_address_in_code_is_a_link(machine):
    view = View(image(machine, TEXT + 0x100, TEXT + 0x200))
    links = [(link.kind, link.target) for link in view.links(TEXT)]
    assert links == [(FixupKind.ADDR64, TEXT + 0x100)]


@pytest.mark.parametrize("machine", Machine)
def test_made_up_state_holds_no_addresses_that_code_holds(machine):
    """Else a register that nobody sets would hold an address of one of the images, which is not the same in the other."""
    diff = diff_images(image(machine, TEXT + 0x100, TEXT + 0x200), image(machine, TEXT + 0x140, TEXT + 0x240))
    rows = [row for row in diff.functions if row.name == "f"]
    [report] = MicroExecution(diff.base, diff.fixed, diff=diff).unpatched(rows)
    assert (report.outcome, report.agreed) == (MicroOutcome.AGREE, report.seeds)
