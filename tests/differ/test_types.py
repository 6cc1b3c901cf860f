"""C++ classes and thrown objects, told apart by what their records say; and live data that only live data lead to."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.builder.novelty import Novelty
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.view import View
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import FunctionSource
from hotpatch.image.type_records import type_record
from tests.emulator.pe import DATA, RDATA, TEXT, Pe


def descriptor(pe: Pe, at: int, name: str, vtable: int = RDATA) -> int:
    """A type's, in .data; the vtable of ``type_info`` is whatever begins .rdata."""
    pe.pointer(at, vtable)
    pe.put(at + 16, name.encode() + b"\0")
    return at


def locator(pe: Pe, kind: int, *, attributes: int = 64, offset: int = 0) -> int:
    """Of a class without bases but itself."""
    hierarchy = pe.add(bytes(16))
    base = pe.add(struct.pack("<IIiiiII", kind, 0, 0, -1, 0, attributes, hierarchy))
    pe.put(hierarchy, struct.pack("<4I", 0, 0, 1, pe.add(struct.pack("<I", base))))
    found = pe.add(bytes(24))
    pe.put(found, struct.pack("<6I", 1, offset, 0, kind, hierarchy, found))
    return found


def thrown(pe: Pe, kind: int, *, destructor: int = 0, copy: int = 0, size: int = 8) -> int:
    catchable = pe.add(struct.pack("<IIiiiII", 0, kind, 0, -1, 0, size, copy))
    return pe.add(struct.pack("<4I", 0, destructor, 0, pe.add(struct.pack("<II", 1, catchable))))


def image(
    *,
    names: int = 5,
    throws: bool = True,
    shift: int = 0,
    name: str = ".?AVshape@@",
    attributes: int = 64,
    offset: int = 0,
    size: int = 8,
    value: int = 5,
    second: int = DATA,
):
    """A function that refers to a vtable, one that refers to what it throws and one that refers to a table of tables."""
    pe = Pe(Machine.X64)
    pe.add(bytes(16))
    pe.put(TEXT, b"\xcc" * 0x100)
    pe.cursor += shift
    kind = descriptor(pe, DATA + 0x100 + shift, name)
    vtable = pe.add(bytes(24)) + 8
    pe.pointer(vtable - 8, locator(pe, kind, attributes=attributes, offset=offset))
    pe.pointer(vtable, TEXT)
    info = thrown(pe, kind, destructor=TEXT + 0x60, copy=TEXT + 0x80, size=size)
    table, inner = DATA + 0x40, second + 0x200 + shift
    pe.pointer(table, inner)
    pe.put(inner, struct.pack("<Q", value))
    for number, target in enumerate((vtable, info if throws else vtable, table)):
        at = TEXT + 0x20 * number
        pe.put(at, assemble(Machine.X64, f"lea rax, [rip + {target - at - 7}]; ret", at))
    for at in (TEXT + 0x60, TEXT + 0x80):
        pe.put(at, assemble(Machine.X64, f"mov eax, {at}; ret", at))
    exported = [("shape", TEXT), ("throws", TEXT + 0x20), ("tables", TEXT + 0x40), ("ends", TEXT + 0x60), ("copies", TEXT + 0x80)]
    pe.exports("types.dll", exported[:names])
    return pe.build("types.dll"), vtable, info


def verdicts(**changes):
    diff = diff_images(image()[0], image(shift=0x40, **changes)[0])
    return {row.name: row.verdict for row in diff.functions}, diff


def test_records_that_moved_say_the_same():
    found, diff = verdicts()
    assert set(found.values()) <= {Verdict.IDENTICAL, Verdict.RELOCATED}
    assert not diff.findings


def test_the_folder_of_a_source_file_is_no_difference_in_the_name_of_its_unnamed_namespace():
    base, fixed = (image(shift=shift, name=f".?AVshape@?A0x{digits}@@")[0] for shift, digits in ((0, "5d291131"), (0x40, "29384ca7")))
    diff = diff_images(base, fixed)
    assert {row.verdict for row in diff.functions} <= {Verdict.IDENTICAL, Verdict.RELOCATED}
    assert not diff.findings
    other = diff_images(base, image(shift=0x40, name=".?AVspare@?A0x29384ca7@@")[0])
    assert other.of(Verdict.CHANGED)


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"name": ".?AVother@@"}, {"shape", "throws"}),
        ({"attributes": 65}, {"shape"}),
        ({"offset": 8}, {"shape"}),
        ({"size": 16}, {"throws"}),
    ],
    ids=["name", "attributes", "offset", "size"],
)
def test_records_that_say_something_else(change, differing):
    found, _ = verdicts(**change)
    assert {name for name, verdict in found.items() if verdict is Verdict.CHANGED} == differing


def test_code_of_records_is_compared_by_what_it_matches():
    built, vtable, info = image()
    record = type_record(built, info)
    assert record is not None
    assert record.code == (TEXT + 0x60, TEXT + 0x80)
    assert type_record(built, vtable) is None
    assert type_record(built, info + 4) is None


def test_live_data_that_only_live_data_lead_to():
    found, diff = verdicts()
    assert (DATA + 0x200, DATA + 0x240) in {(match.base, match.fixed) for match in diff.data}
    assert found["tables"] in {Verdict.IDENTICAL, Verdict.RELOCATED}


def test_live_data_that_only_live_data_lead_to_start_with_another_value():
    _, diff = verdicts(value=6)
    assert [(finding.rule, finding.rva) for finding in diff.findings] == [(Rule.DATA_INIT, DATA + 0x200)]


def test_what_destroys_and_copies_thrown_objects_is_known_as_functions():
    found = {function.entry: function.source for function in image(names=3)[0].functions}
    assert found.keys() == {TEXT, TEXT + 0x20, TEXT + 0x40, TEXT + 0x60, TEXT + 0x80}
    assert found[TEXT + 0x60] == found[TEXT + 0x80] == FunctionSource.EXCEPTION


def test_records_of_types_are_bound_to_the_bases_or_refused():
    """Of another size is not the same, and objects as the base knows them may live."""
    base, _, there = image()
    for size in (8, 16):
        fixed, _, here = image(shift=0x40, size=size)
        diff = diff_images(base, fixed)
        assert Novelty(diff, View(fixed), View(base)).equal_constant(Rva(here)) == (there if size == 8 else None)
        if size != 8:
            with pytest.raises(NotHotpatchable, match="described otherwise than in the base") as refused:
                build(diff)
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.UNRESOLVED_REFERENCE}
