"""Functions of the same body that one image has once and the other twice, without names."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.copies import are_copies
from hotpatch.differ.matching import Evidence
from hotpatch.differ.view import view_of
from tests.builder.test_reaches import RETURNS, reads
from tests.emulator.pe import DATA, TEXT, Pe

CALLERS = 3


def calls(machine, at, target, number):
    """Code that calls ``target`` and then gives ``number``."""
    if machine is Machine.X64:
        call = b"\x48\x83\xec\x28\xe8" + architecture(machine).bind(FixupKind.REL32, bytes(4), at + 5, target)
        return call + b"\x48\x83\xc4\x28\xb8" + struct.pack("<I", number) + RETURNS[machine]
    branch = struct.pack("<I", 0x94000000 | (target - at - 4) // 4 & 0x3FFFFFF)
    rest = struct.pack("<II", 0xF84107FE, 0x52800000 | number << 5)  # ldr x30, [sp], #16; mov w0, #number
    return struct.pack("<I", 0xF81F0FFE) + branch + rest + RETURNS[machine]  # str x30, [sp, #-16]!


def image(machine, callees, read, number=77):
    """Exported ``f0``… call one of ``callees`` each (their places), which read what stands at ``read`` (by the callee's place)."""
    pe = Pe(machine)
    pe.put(DATA, bytes(0x40))
    for index, place in enumerate(callees):
        pe.put(TEXT + 0x40 * index, calls(machine, TEXT + 0x40 * index, TEXT + place, index))
    for place in set(callees):
        pe.put(TEXT + place, reads(machine, TEXT + place, DATA + read.get(place, 0), number))
    keeper = TEXT + 0x400
    pe.put(keeper, reads(machine, keeper, DATA + 8, 5))
    entries = [(f"f{number}", TEXT + 0x40 * number) for number in range(len(callees))]
    pe.exports("folded.dll", [*entries, ("keeper", keeper)])
    return pe.build("folded.dll")


ONCE, TWICE = [0x200, 0x200, 0x200], [0x200, 0x200, 0x280]


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("base", "fixed", "side"), [(ONCE, TWICE, "base"), (TWICE, ONCE, "fixed image")], ids=["apart", "together"])
def test_a_body_that_stands_for_two_is_each_of_them(machine, base, fixed, side):
    diff = diff_images(image(machine, base, {}), image(machine, fixed, {}))
    assert {row.verdict for row in diff.functions} <= {Verdict.IDENTICAL, Verdict.RELOCATED}
    (folded,) = [row for row in diff.functions if row.matched_by == Evidence.FOLDED]
    assert folded.notes[-1].startswith(f"folded in the {side} with ")
    with pytest.raises(hotpatch.NothingToDo):
        hotpatch.build(diff)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("base", "fixed"), [(ONCE, TWICE), (TWICE, ONCE)], ids=["apart", "together"])
def test_a_body_that_refers_to_something_else_is_another(machine, base, fixed):
    diff = diff_images(image(machine, base, {0x280: 8}), image(machine, fixed, {0x280: 8}))
    assert {row.name for row in diff.of(Verdict.CHANGED)} == {"f2"}
    assert not any(row.matched_by == Evidence.FOLDED for row in diff.functions)


@pytest.mark.parametrize("machine", Machine)
def test_copies_of_what_a_body_became_are_each_of_them(machine):
    diff = diff_images(image(machine, ONCE, {}), image(machine, TWICE, {}, number=78))
    rows = [row for row in diff.functions if row.verdict is Verdict.CHANGED]
    assert [(row.fixed.entry, row.matched_by == Evidence.FOLDED) for row in rows] == [(TEXT + 0x200, False), (TEXT + 0x280, True)]
    assert rows[1].notes[0] == f"a copy of fixed:0x{TEXT + 0x200:x}"
    assert [row.base_rva for row in hotpatch.build(diff).functions] == [TEXT + 0x200]


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("handled", [False, True])
def test_functions_that_handle_exceptions_are_no_copies(machine, handled):
    """Their tables may differ, and are not compared."""
    pe, places, size = Pe(machine), (TEXT, TEXT + 0x80), 0x10
    for place in places:
        pe.put(place, RETURNS[machine] * (size // len(RETURNS[machine])))
    if machine is Machine.X64:
        info = pe.add(bytes([1 | 8 * handled, 0, 0, 0]) + struct.pack("<I", TEXT))
        rows = [struct.pack("<III", place, place + size, info) for place in places]
    else:  # one epilogue, in the first of one word of codes
        info = pe.add(struct.pack("<III", size // 4 | handled << 20 | 1 << 21 | 1 << 27, 0xE4E4E4E4, TEXT))
        rows = [struct.pack("<II", place, info) for place in places]
    pe.directories["exception"] = (pe.add(b"".join(rows)), sum(map(len, rows)))
    pe.exports("handled.dll", [("one", places[0]), ("two", places[1])])
    assert are_copies(view_of(pe.build("handled.dll")), *places) == (not handled)


@pytest.mark.parametrize("machine", Machine)
def test_what_differs_from_what_a_body_became_is_no_copy(machine):
    diff = diff_images(image(machine, ONCE, {}), image(machine, TWICE, {0x280: 8}, number=78))
    assert not any(row.matched_by == Evidence.FOLDED for row in diff.functions)
    assert {row.name for row in diff.of(Verdict.CHANGED)} >= {"f2"}
