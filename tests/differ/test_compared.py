"""An address that code only compares others with is where an array ends, whatever begins there."""

from __future__ import annotations

import pytest

from hotpatch import build
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import Refused
from tests.builder.test_reaches import reads
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA, TEXT, Pe

LOOPS = {
    Machine.X64: "lea rcx, [rip + {array}]; lea rax, [rip + {end}]; xor edx, edx; add edx, dword ptr [rcx]; add rcx, 4; "
    "cmp rcx, rax; jne 0x1010; {last}; ret",
    Machine.ARM64: "adrp x8, 0x3000; add x8, x8, #{array}; adrp x9, 0x3000; add x9, x9, #{end}; ldr w1, [x8], #4; add w0, w0, w1; "
    "cmp x8, x9; b.ne 0x1010; {last}; ret",
}
NOTHING = {Machine.X64: "mov eax, edx", Machine.ARM64: "nop"}
READS_END = {Machine.X64: "mov eax, dword ptr [rax]", Machine.ARM64: "ldr w0, [x9]"}


def summing(machine, places, last, code=LOOPS):
    """``f`` adds up an array of two words, and does ``last`` at its end; ``places`` of data, each with its own reader."""
    pe = Pe(machine)
    array, end = places["array"], places["array"] + 8
    if machine is Machine.X64:
        array, end = DATA + array - TEXT - 7, DATA + end - TEXT - (7 if code is MEANT["alone"] else 14)
    pe.put(TEXT, assemble(machine, code[machine].format(array=array, end=end, last=last[machine]), TEXT))
    pe.put(DATA, bytes(0x100))
    entries = [("f", TEXT)]
    for number, (name, place) in enumerate(places.items(), 1):
        at = TEXT + 0x40 * number
        pe.put(at, reads(machine, at, DATA + place, number))
        entries.append((f"reads_{name}", at))
    pe.exports("sums.dll", entries)
    return pe.build("sums.dll")


MEANT = {
    "alone": {
        Machine.X64: "lea rax, [rip + {end}]; cmp rcx, rax; sete al; ret",
        Machine.ARM64: "nop; nop; adrp x9, 0x3000; add x9, x9, #{end}; cmp x0, x9; cset w0, eq; ret",
    },
    "besides-what-is-before": {
        Machine.X64: "lea rcx, [rip + {array}]; lea rax, [rip + {end}]; mov ecx, dword ptr [rcx]; cmp rdx, rax; sete al; ret",
        Machine.ARM64: "adrp x8, 0x3000; add x8, x8, #{array}; adrp x9, 0x3000; add x9, x9, #{end}; ldr w1, [x8]; cmp x0, x9; ret",
    },
    "handed-on-by-a-branch": {
        Machine.X64: "lea rdx, [rip + {array}]; lea rcx, [rip + {end}]; cmp rdx, rcx; jne 0x1400; ret",
        Machine.ARM64: "adrp x8, 0x3000; add x8, x8, #{array}; adrp x0, 0x3000; add x0, x0, #{end}; cmp x8, x0; b.ne 0x1400; ret",
    },
}
"""What begins where the array ends is meant."""

BASE = {"array": 0x10, "behind": 0x18, "other": 0x20}
MOVED = {"array": 0x10, "behind": 0x20, "other": 0x18}


def with_names(image, places):
    return named(image, {name: (DATA + place, 8) for name, place in places.items()})


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("pdb", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize(("last", "differs"), [(NOTHING, False), (READS_END, True)], ids=["compared", "read-besides"])
def test_what_begins_at_the_end_of_an_array_does_not_matter(machine, pdb, last, differs):
    images = [summing(machine, places, last) for places in (BASE, MOVED)]
    if pdb:
        images = [with_names(image, places) for image, places in zip(images, (BASE, MOVED), strict=True)]
    diff = diff_images(*images)
    rows = {row.name: row.verdict for row in diff.functions}
    assert (rows["f"] is Verdict.CHANGED) == differs
    if pdb:
        assert not any(verdict is Verdict.CHANGED for name, verdict in rows.items() if name != "f")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("pdb", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize("case", MEANT)
def test_what_begins_where_an_array_ends_may_be_meant(machine, case, pdb):
    """By its address alone, as the head of a list is in a comparison."""
    images = [summing(machine, places, NOTHING, MEANT[case]) for places in (BASE, MOVED)]
    if pdb:
        images = [with_names(image, places) for image, places in zip(images, (BASE, MOVED), strict=True)]
    rows = {row.name: row.verdict for row in diff_images(*images).functions}
    assert rows["f"] is Verdict.CHANGED


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("last", "refused"), [(NOTHING, False), (READS_END, True)], ids=["compared", "read-besides"])
def test_an_end_is_nothing_that_a_new_datum_may_be(machine, last, refused):
    """Something without a name that code reads may be what has a name in the fixed image alone."""
    base = with_names(summing(machine, {"array": 0x10}, last), {"array": 0x10})
    places = {"array": 0x10, "fresh": 0x40}
    fixed = summing(machine, places, NOTHING)
    pe = bytearray(fixed.data)
    code = reads(machine, TEXT, DATA + 0x40, 99)
    at = pe.index(fixed.read(TEXT, 16))
    pe[at : at + len(code)] = code
    fixed = with_names(type(fixed).from_bytes(bytes(pe), fixed.name), places)
    diff = diff_images(base, fixed)
    if not refused:
        assert [function.name for function in build(diff).functions] == ["f"]
        return
    with pytest.raises(Refused) as found:
        build(diff)
    assert ["may be new or one that the base has" in refusal.reason for refusal in found.value.refusals] == [True]
