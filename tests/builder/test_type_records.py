"""Records of C++ types: bound to the base's where it has the same, wherever they lie, and carried where it has not."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.applied import Applied, round_up
from tests.differ.test_types import descriptor, locator, thrown
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

STEP = 0x40
DESTROYS, COPIES = TEXT + 7 * STEP, TEXT + 8 * STEP
each_machine = pytest.mark.parametrize("machine", Machine)
NOTHING = {Machine.X64: b"\x90", Machine.ARM64: b"\x1f\x20\x03\xd5"}
RETURNS = {Machine.X64: b"\xc3", Machine.ARM64: b"\xc0\x03\x5f\xd6"}


def takes(machine: Machine, at: int, target: int) -> bytes:
    """Code that takes an address into the register of results."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return b"\x48\x8d\x05" + arch.bind(FixupKind.REL32, bytes(4), at + 3, target)
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000), at, target)
    return page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000), at + 4, target)


def image(machine: Machine, laid: list[str], taken: list[str], *, number: int = 1, size: int = 8, changed: bool = False, ends: bool = True):
    """Records of the classes ``laid``, in this order, all of what is thrown behind each other, and functions that take them.

    The first functions take the vtables of ``taken``, the next what is thrown of them; ``changed``: each of these does more; ``ends``:
    what is thrown has a destructor.
    """
    pe = Pe(machine)
    pe.pointer(pe.add(bytes(16)) + 8, DESTROYS)
    numbers = pe.add(struct.pack("<4Q", *range(number, number + 4)))
    pe.pointer(RDATA, locator(pe, descriptor(pe, DATA + 0x80, ".?AVtype_info@@", RDATA + 8)))
    kinds = {name: descriptor(pe, DATA + 0x100 + 0x40 * at, f".?AV{name}@@", RDATA + 8) for at, name in enumerate(sorted(laid))}
    locators = {name: locator(pe, kind) for name, kind in kinds.items()}
    places = {}
    for name in laid:
        pe.pointer(pe.cursor, locators[name])
        pe.pointer(pe.cursor + 8, DESTROYS)
        places[name, "class"] = pe.cursor + 8
        pe.cursor += 16
    for name in laid:
        places[name, "thrown"] = thrown(pe, kinds[name], destructor=DESTROYS if ends else 0, copy=COPIES, size=size)
    wanted = [places[name, what] for what in ("class", "thrown") for name in taken]
    functions = [takes(machine, TEXT + STEP * at, target) for at, target in enumerate(wanted)]
    functions.append(takes(machine, TEXT + STEP * len(functions), numbers))
    names = [f"f{at}" for at in range(len(functions))]
    for at, code in enumerate(functions):
        pe.put(TEXT + STEP * at, code + NOTHING[machine] * (changed and at < len(wanted)) + RETURNS[machine])
    for at in (DESTROYS, COPIES):
        pe.put(at, takes(machine, at, at) + RETURNS[machine])
    rows = [(name, TEXT + STEP * at) for at, name in enumerate(names)]
    pe.exports("types.dll", [*rows, ("destroys", DESTROYS), ("copies", COPIES)])
    return pe.build("types.dll"), wanted


def word(applied: Applied, rva: int) -> int:
    """64 bits of the patch image."""
    return int.from_bytes(applied.uc.mem_read(applied.patch_va + rva, 8), "little")


def words(applied: Applied, rva: int, count: int) -> tuple[int, ...]:
    """Numbers of 32 bits of the patch image."""
    return struct.unpack(f"<{count}I", applied.uc.mem_read(applied.patch_va + rva, 4 * count))


@each_machine
def test_records_that_lie_in_another_order_are_the_bases(machine):
    """Vtables and records stand right behind each other, as arrays do, and are none."""
    base, there = image(machine, ["circle", "shape", "square"], ["circle", "square"])
    fixed, _ = image(machine, ["square", "circle", "shape"], ["circle", "square"], changed=True)
    patch = build(diff_images(base, fixed))
    assert {row.name for row in patch.functions} == {"f0", "f1", "f2", "f3"}
    assert not patch.carried
    applied = Applied(base, patch)
    assert [applied.call(f"f{at}") for at in range(4)] == [applied.base_va + rva for rva in there]


@each_machine
def test_records_of_a_new_class_count_from_the_start_of_the_patch_image(machine):
    """A runtime finds the image of a class by its record's own address, and the image of what is thrown by where that record lies."""
    base, _ = image(machine, ["circle", "shape"], ["shape"])
    fixed, _ = image(machine, ["circle", "shape", "square"], ["square"])
    patch = build(diff_images(base, fixed))
    assert {row.name for row in patch.functions} == {"f0", "f1"}
    applied = Applied(base, patch)
    vtable, info = (applied.call(f"f{at}") - applied.patch_va for at in range(2))
    at = word(applied, vtable - 8) - applied.patch_va
    _, _, _, kind, hierarchy, itself = words(applied, at, 6)
    assert itself == at
    *_, bases = words(applied, hierarchy, 4)
    (only,) = words(applied, bases, 1)
    assert words(applied, only, 7) == (kind, 0, 0, 0xFFFFFFFF, 0, 64, hierarchy)
    assert applied.uc.mem_read(applied.patch_va + kind + 16, 13) == b".?AVsquare@@\0"
    assert word(applied, kind) == applied.base_va + RDATA + 8  # the vtable of type_info is the base's
    assert word(applied, vtable) == applied.base_va + DESTROYS
    _, destructor, _, types = words(applied, info, 4)
    count, catchable = words(applied, types, 2)
    _, caught, _, _, _, size, copy = words(applied, catchable, 7)
    assert (count, caught, size) == (1, kind, 8)
    behind = round_up(base.size_of_image)
    assert [applied.call_at(behind + rva) for rva in (destructor, copy)] == [applied.base_va + DESTROYS, applied.base_va + COPIES]


@each_machine
def test_a_class_that_the_base_describes_otherwise_is_refused(machine):
    """Objects of it may live, and are what the base says."""
    base, _ = image(machine, ["circle", "shape"], ["shape"])
    fixed, _ = image(machine, ["circle", "shape"], ["shape"], size=16)
    with pytest.raises(NotHotpatchable, match="described otherwise than in the base") as refused:
        build(diff_images(base, fixed))
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.UNRESOLVED_REFERENCE}


def unnamed(name: str, *hashes: str) -> list[str]:
    """The name of a class in the unnamed namespaces of files whose paths have these hashes."""
    return [f"{name}@?A0x{one}" for one in hashes]


@each_machine
def test_a_class_of_an_unnamed_namespace_is_the_bases_whatever_its_files_folder_is_called(machine):
    old, new = unnamed("lost", "5d291131"), unnamed("lost", "29384ca7")
    base, there = image(machine, [*old, "circle"], old)
    fixed, _ = image(machine, [*new, "circle"], new, changed=True)
    patch = build(diff_images(base, fixed))
    assert {row.name for row in patch.functions} == {"f0", "f1"}
    assert not patch.carried
    applied = Applied(base, patch)
    assert [applied.call(f"f{at}") for at in range(2)] == [applied.base_va + rva for rva in there]


@each_machine
def test_a_type_that_travels_bears_the_name_that_the_base_has_for_it(machine):
    """Who catches it in code that stays knows it by that name."""
    old, new = unnamed("lost", "5d291131"), unnamed("lost", "29384ca7")
    base, _ = image(machine, old, old)
    fixed, _ = image(machine, new, new, changed=True, ends=False)
    patch = build(diff_images(base, fixed))
    applied = Applied(base, patch)
    _, _, _, types = words(applied, applied.call("f1") - applied.patch_va, 4)
    _, catchable = words(applied, types, 2)
    _, kind, *_ = words(applied, catchable, 7)
    assert applied.uc.mem_read(applied.patch_va + kind + 16, 24) == b".?AVlost@?A0x5d291131@@\0"


@each_machine
def test_types_that_the_hash_alone_tells_apart_do_not_travel(machine):
    old, new = unnamed("lost", "5d291131", "11111111"), unnamed("lost", "29384ca7", "22222222")
    base, _ = image(machine, old, old)
    fixed, _ = image(machine, new, new[:1], changed=True)
    with pytest.raises(NotHotpatchable) as refused:
        build(diff_images(base, fixed))
    (refusal,) = (refusal for refusal in refused.value.refusals if "unnamed namespaces is which" in refusal.reason)
    shown = refusal.evidence
    assert (shown["rva"], bytes.fromhex(shown["bytes"])) == (refusal.rva, b"29384ca7")
    one, _ = image(machine, [*old, "circle"], old)
    same, _ = image(machine, [*reversed(old), "circle"], old, changed=True)
    assert not build(diff_images(one, same)).carried


def described(machine: Machine, names: list[str], taken: str, *, number: int, within: int):
    """What describes types by their names alone, ``names`` right behind each other, and a function that takes an address in one."""
    pe = Pe(machine)
    vtable = pe.add(bytes(16)) + 8
    pe.pointer(vtable, DESTROYS)
    pe.pointer(RDATA, locator(pe, descriptor(pe, DATA + 0x80, ".?AVtype_info@@", vtable)))
    places = {name: descriptor(pe, DATA + 0x100 + 0x20 * at, name, vtable) for at, name in enumerate(names)}
    adds = {Machine.X64: b"\x83\xc1" + bytes((number,)), Machine.ARM64: struct.pack("<I", 0x11000021 | number << 10)}[machine]
    pe.put(TEXT, takes(machine, TEXT, places[taken] + within) + adds + RETURNS[machine])
    pe.put(TEXT + STEP, takes(machine, TEXT + STEP, RDATA) + RETURNS[machine])
    pe.put(DESTROYS, takes(machine, DESTROYS, DESTROYS) + RETURNS[machine])
    for at, name in enumerate(sorted(names), 2):
        if name != taken:
            pe.put(TEXT + STEP * at, takes(machine, TEXT + STEP * at, places[name]) + RETURNS[machine])
    rows = [("f", TEXT), ("g", TEXT + STEP), ("destroys", DESTROYS)]
    rows += [(f"of_{at}", TEXT + STEP * at) for at, name in enumerate(sorted(names), 2) if name != taken]
    pe.exports("types.dll", rows)
    return pe.build("types.dll"), places[taken] + within


NAMED = [".?AVshape@@", ".P6AHH@Z", ".PEAH"]


@each_machine
@pytest.mark.parametrize("names", [NAMED, [NAMED[0], NAMED[2], NAMED[1]]], ids=["in-order", "in-another-order"])
@pytest.mark.parametrize("within", [0, 8], ids=["itself", "the-pointer-to-its-name"])
def test_a_type_that_only_its_name_tells_is_the_bases(machine, names, within):
    base, there = described(machine, NAMED, NAMED[1], number=3, within=within)
    fixed, _ = described(machine, names, NAMED[1], number=4, within=within)
    patch = build(diff_images(base, fixed))
    assert not patch.carried
    applied = Applied(base, patch)
    assert applied.call("f") == applied.base_va + there


def used_in_order(machine: Machine, taken: list[str], number: int):
    """Types of the names ``taken``, and one function that takes them in this order and returns the last."""
    pe = Pe(machine)
    vtable = pe.add(bytes(16)) + 8
    pe.pointer(vtable, DESTROYS)
    pe.pointer(RDATA, locator(pe, descriptor(pe, DATA + 0x80, ".?AVtype_info@@", vtable)))
    places = {name: descriptor(pe, DATA + 0x100 + 0x40 * at, name, vtable) for at, name in enumerate(NAMED)}
    at = TEXT
    for name in taken:
        code = takes(machine, at, places[name])
        pe.put(at, code)
        at += len(code)
    pe.put(at, (NOTHING[machine] * number) + RETURNS[machine])
    pe.put(TEXT + STEP, takes(machine, TEXT + STEP, RDATA) + RETURNS[machine])
    pe.put(DESTROYS, takes(machine, DESTROYS, DESTROYS) + RETURNS[machine])
    pe.exports("types.dll", [("f", TEXT), ("g", TEXT + STEP), ("destroys", DESTROYS)])
    return pe.build("types.dll"), places[taken[-1]]


@each_machine
def test_types_are_told_by_their_names_and_not_by_what_stands_in_their_place(machine):
    """Aligned instructions of changed code name one type where they named another."""
    base, _ = used_in_order(machine, [NAMED[1], NAMED[2]], 1)
    fixed, there = used_in_order(machine, [NAMED[2], NAMED[1]], 2)
    diff = diff_images(base, fixed)
    assert {match.fixed: match.base for match in diff.data}[there] == there
    assert Rule.DATA_INIT not in {finding.rule for finding in diff.findings}
    patch = build(diff)
    assert not patch.carried
    applied = Applied(base, patch)
    assert applied.call("f") == applied.base_va + there
