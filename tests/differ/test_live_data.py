"""Which live datum is which without names: images made by hand."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

import hotpatch
from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import diff_images
from tests.builder.forge import DATA, TEXT, Code, Data, forge
from tests.builder.test_reaches import RETURNS, reads
from tests.builder.test_type_records import NOTHING, takes
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA as PE_DATA
from tests.emulator.pe import RDATA, RELOC, SIZE, Pe
from tests.emulator.pe import TEXT as PE_TEXT

CELL = DATA + 0x40
NEIGHBOURS = [Data("start", 0, "01" * 8), Data("end", 0x80, "02" * 8)]
AND_ZERO, MOV_ZERO, MOV_SEVEN = ("8325", "00"), ("c705", "00000000"), ("c705", "07000000")


def _stores(form: tuple[str, str]) -> str:
    """x64: a store to ``CELL`` of a function at ``TEXT + 16``, and a return."""
    opcode, immediate = (bytes.fromhex(part) for part in form)
    distance = CELL - (TEXT + 16 + len(opcode) + 4 + len(immediate))
    return (opcode + distance.to_bytes(4, "little") + immediate + b"\xc3").hex()


@pytest.mark.parametrize(("before", "after"), [(AND_ZERO, MOV_ZERO), (MOV_ZERO, AND_ZERO), (MOV_ZERO, MOV_SEVEN)])
def test_a_store_by_another_instruction_goes_to_the_same_datum(before, after):
    """Compilers clear memory by ``and`` or by ``mov``: Microsoft's C runtime changed from one to the other between two of its releases."""
    images = [forge(Machine.X64, [Code("clear", 16, _stores(form)), Code("keep", 0x40, "c3")], NEIGHBOURS) for form in (before, after)]
    diff = diff_images(*images)
    assert diff.base_datum(Rva(CELL)) == CELL
    assert not diff.findings


def test_what_pointers_in_an_equal_constant_lead_to():
    """Only a table of constants leads to the datum, and only a changed function to the table."""
    images = []
    for code, datum in (("c3", PE_DATA + 0x40), ("31c9c3", PE_DATA + 0x60)):
        pe = Pe(Machine.X64)
        pe.put(PE_TEXT, b"\x48\x8d\x05" + (RDATA + 0x100 - PE_TEXT - 7).to_bytes(4, "little") + bytes.fromhex(code))
        pe.put(RDATA + 0x100, bytes(range(1, 17)))
        pe.pointer(RDATA + 0x110, datum)
        pe.put(datum, b"here")
        pe.exports("table.dll", [("user", PE_TEXT)])
        images.append(pe.build("table.dll"))
    assert hotpatch.diff(*images).base_datum(Rva(PE_DATA + 0x60)) == PE_DATA + 0x40


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("behind", "known"), [(0x80, True), (0x90, False)], ids=["neighbours-moved-alike", "what-is-behind-moved-further"])
def test_what_pointers_in_a_constant_of_nothing_else_lead_to(machine, behind, known):
    """Such are the pointers to the record and the context of a failed check in Microsoft's C runtime."""
    images = []
    for start, end, changes in ((PE_DATA, 0x80, b""), (PE_DATA + 0x10, behind, NOTHING[machine])):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        pe.put(PE_TEXT, takes(machine, PE_TEXT, RDATA + 0x100) + changes + RETURNS[machine])
        pe.pointer(RDATA + 0x108, start + 0x40)
        pe.put(RDATA + 0x110, b"text")
        rows = [("user", PE_TEXT)]
        for number, target in ((1, start), (2, start + end), (3, RDATA + 0x110)):
            pe.put(PE_TEXT + 0x40 * number, reads(machine, PE_TEXT + 0x40 * number, target, number))
            rows.append((f"g{number}", PE_TEXT + 0x40 * number))
        pe.exports("table.dll", rows)
        images.append(pe.build("table.dll"))
    found = {match.fixed: match.base for match in hotpatch.diff(*images).data}
    assert found.get(PE_DATA + 0x50) == (PE_DATA + 0x40 if known else None)


@pytest.mark.parametrize("machine", Machine)
def test_a_constant_that_would_reach_past_the_end_of_the_image(machine):
    """A base's constant at its image's end has no room for the fixed image's: the two are no tables of distances, nor the same."""
    images = []
    for constant in (SIZE - 0x10, RDATA + 0x400):
        pe = Pe(machine)
        pe.put(PE_TEXT, takes(machine, PE_TEXT, constant) + RETURNS[machine])
        pe.put(constant, b"\xf0\xff\xff\xff" * 4 + b"\x08" * (0x10 if constant < RELOC else 0))
        pe.exports("table.dll", [("user", PE_TEXT)])
        images.append(pe.build("table.dll"))
    diff = hotpatch.diff(*images)
    assert diff.base_datum(Rva(RDATA + 0x400)) is None
    assert [str(row.verdict) for row in diff.functions] == ["changed"]


def _cookies(*, cookie: int, complement: int, behind: bytes, number: int) -> hotpatch.Image:
    """A function that reads the complement of the security cookie, behind which something else stands, and one that changed."""
    pe = Pe(Machine.X64)
    pe.put(PE_TEXT, b"\xcc" * 0x80)
    pe.put(cookie, struct.pack("<Q", 0x2B992DDFA232))
    pe.put(complement, struct.pack("<Q", 0x2B992DDFA232 ^ (1 << 64) - 1) + behind)
    pe.load_configuration(cookie=cookie, check=PE_DATA + 0xF0, dispatch=PE_DATA + 0xF8)
    for at, target, value in ((PE_TEXT, complement, 7), (PE_TEXT + 0x20, cookie, number)):
        pe.put(at, assemble(Machine.X64, f"mov rax, [rip + {target - at - 7}]; mov ecx, {value}; ret", at))
    pe.exports("cookies.dll", [("reads", PE_TEXT), ("changed", PE_TEXT + 0x20)])
    return pe.build("cookies.dll")


def test_the_complement_of_the_security_cookie_is_one_word_whatever_stands_behind_it() -> None:
    """A newer linker lays both onto lines of their own: what stood behind the complement stands elsewhere."""
    base = _cookies(cookie=PE_DATA, complement=PE_DATA + 0x40, behind=b"\xff" * 4, number=1)
    fixed = _cookies(cookie=PE_DATA + 0x40, complement=PE_DATA, behind=b"", number=2)
    diff = hotpatch.diff(base, fixed)
    assert not diff.findings
    assert [function.name for function in hotpatch.build(diff).functions] == ["changed"]


# whose static local the base names, and the fixed image, whether it is the same
SCOPES = [
    pytest.param("f", "f", True, id="the-same"),
    pytest.param("f", "g", False, id="of-another-function"),
    pytest.param(None, "f", False, id="of-a-file"),
]


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("before", "after", "same"), SCOPES)
def test_static_locals_of_one_name_are_those_of_one_function(machine, before, after, same):
    """Of data that LLVM has merged, a PDB names the first alone: each image may name the static local of another function."""
    images = []
    for scope, at, number in ((before, PE_DATA + 0x40, 1), (after, PE_DATA + 0x60, 2)):
        pe = Pe(machine)
        pe.put(PE_TEXT, reads(machine, PE_TEXT, at, number))
        pe.put(PE_DATA, bytes(0x100))
        pe.exports("local.dll", [("f", PE_TEXT)])
        image = named(pe.build("local.dll"), {"again": (at, 8)})
        image.__dict__["data_symbols"] = tuple(replace(datum, scope=scope) for datum in image.data_symbols)
        images.append(image)
    evidence = [match.matched_by for match in diff_images(*images).data if match.fixed == PE_DATA + 0x60]
    assert ("name" in evidence or "order" in evidence) == same
