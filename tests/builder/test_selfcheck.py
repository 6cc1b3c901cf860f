"""Every kind of mistake that a linker can make is caught after linking, and a right link passes."""

from dataclasses import replace

import pytest

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Use
from hotpatch.builder.model import BaseAddress, CarriedAddress
from hotpatch.cases import case_names, find_case
from hotpatch.patch import Space
from tests.builder.steps import Steps

each_machine = pytest.mark.parametrize("machine", Machine)
BUILT = [name for name in case_names() if find_case(name).manifest.expect.outcome == "patched"]
DATA_FIXUPS = {FixupKind.REL32, FixupKind.PAGEBASE_REL21, FixupKind.ADDR64}


def one(steps, matches):
    """The index of the first link that ``matches``."""
    return next(index for index, item in enumerate(steps.bound.links) if matches(item))


def changed(steps, index, destination):
    links = list(steps.bound.links)
    links[index] = replace(links[index], destination=destination)
    return steps.linked(tuple(links))


@each_machine
@pytest.mark.parametrize("name", BUILT)
def test_a_right_link_passes(name, machine):
    steps = Steps.of(name, machine)
    assert steps.objections(steps.linked()) == []


@each_machine
def test_wrong_callee(machine):
    steps = Steps.of("recursion", machine)
    index = one(steps, lambda item: item.site.use is Use.CALL and isinstance(item.destination, BaseAddress))
    wrong = next(item.entry for item in steps.diff.base.functions if item.entry != steps.bound.links[index].destination.rva)
    assert "instead of" in " ".join(steps.objections(changed(steps, index, BaseAddress(wrong))))


@each_machine
def test_a_call_past_the_entry(machine):
    steps = Steps.of("recursion", machine)
    index = one(steps, lambda item: item.site.use is Use.CALL and isinstance(item.destination, BaseAddress))
    off = BaseAddress(Rva(steps.bound.links[index].destination.rva + 4))
    assert steps.objections(changed(steps, index, off))


@each_machine
def test_a_call_of_itself_that_skips_the_redirect(machine):
    """Bound to the patch's own copy, a later patch would not take over."""
    steps = Steps.of("recursion", machine)
    entry = steps.bound.bodies[0].function.entry
    index = one(steps, lambda item: item.site.target == entry and item.site.use is not Use.DATA)
    assert "own" in " ".join(steps.objections(changed(steps, index, CarriedAddress(entry))))


@each_machine
def test_swapped_addend(machine):
    steps = Steps.of("state-kept", machine)
    linked = steps.linked()
    at = next(index for index, item in enumerate(linked.fixups) if item.kind in DATA_FIXUPS)
    step = 0x1000 if linked.fixups[at].kind is FixupKind.PAGEBASE_REL21 else 8
    fixups = (*linked.fixups[:at], replace(linked.fixups[at], addend=linked.fixups[at].addend + step), *linked.fixups[at + 1 :])
    assert steps.objections(replace(linked, fixups=fixups))


@each_machine
def test_data_that_lies_next_to_the_right_one(machine):
    steps = Steps.of("state-kept", machine)
    index = one(steps, lambda item: item.site.use is Use.DATA and item.site.kind is not FixupKind.PAGEBASE_REL21)
    off = BaseAddress(Rva(steps.bound.links[index].destination.rva + 8))
    assert steps.objections(changed(steps, index, off))


@each_machine
@pytest.mark.parametrize("name", ["recursion", "state-kept", "overflow-check", "jump-table"])
def test_every_missing_fixup(name, machine):
    steps = Steps.of(name, machine)
    linked = steps.linked()
    for index in range(len(linked.fixups)):
        lacking = replace(linked, fixups=linked.fixups[:index] + linked.fixups[index + 1 :])
        assert steps.objections(lacking), linked.fixups[index]


@each_machine
@pytest.mark.parametrize("name", ["overflow-check", "state-kept", "new-constant"])
def test_every_fixup_that_leads_elsewhere(name, machine):
    """Each target moved by one page, which every kind can express."""
    steps = Steps.of(name, machine)
    linked = steps.linked()
    for index, item in enumerate(linked.fixups):
        limit = steps.diff.base.size_of_image if item.space is Space.BASE else 0x2000
        wrong = replace(item, target=Rva(item.target + 0x1000 if item.target + 0x1000 < limit else item.target - 0x1000))
        assert steps.objections(replace(linked, fixups=(*linked.fixups[:index], wrong, *linked.fixups[index + 1 :]))), item


@each_machine
def test_every_byte_of_code(machine):
    """One bit of each byte of the patch's code, filler between functions apart."""
    steps = Steps.of("overflow-check", machine)
    linked = steps.linked()
    text = linked.sections[0]
    placed = [
        range(rva - text.rva, rva - text.rva + piece.range.size)
        for piece, rva in zip(steps.layout.placement.pieces, steps.layout.placement.rvas, strict=True)
        if text.rva <= rva < text.rva + text.virtual_size
    ]
    fields = {item.site - text.rva + byte for item in linked.fixups for byte in range(8 if item.kind is FixupKind.ADDR64 else 4)}
    missed = []
    for at in sorted(at for part in placed for at in part if at not in fields)[::3]:
        data = bytearray(text.data)
        data[at] ^= 1 << (at % 8)
        if not steps.objections(replace(linked, sections=(replace(text, data=bytes(data)), *linked.sections[1:]))):
            missed.append(hex(at))
    assert not missed


@each_machine
def test_an_entry_of_a_jump_table(machine):
    steps = Steps.of("jump-table", machine)
    linked = steps.linked()
    table = steps.bound.bodies[0].tables[0]
    rva = steps.layout.placement.of(table.address)
    index = next(index for index, item in enumerate(linked.sections) if item.rva <= rva < item.rva + item.virtual_size)
    section = linked.sections[index]
    data = bytearray(section.data)
    data[rva - section.rva] ^= 4
    sections = (*linked.sections[:index], replace(section, data=bytes(data)), *linked.sections[index + 1 :])
    assert "jump table" in " ".join(steps.objections(replace(linked, sections=sections)))


@each_machine
def test_a_byte_of_a_carried_constant(machine):
    steps = Steps.of("new-constant", machine)
    linked = steps.linked()
    section = linked.sections[1]
    assert section.name == ".rdata"
    damaged = replace(section, data=bytes([section.data[0] ^ 1]) + section.data[1:])
    assert "differs" in " ".join(steps.objections(replace(linked, sections=(linked.sections[0], damaged, *linked.sections[2:]))))


@each_machine
def test_a_copy_of_live_data(machine):
    """Bound to a copy in the patch, state would be lost."""
    steps = Steps.of("new-global", machine)
    live = next(item for item in steps.diff.data if item.writable)
    fresh = next(piece for piece in steps.bound.pieces if piece.area.value == ".data")
    index = one(steps, lambda item: item.site.use is Use.DATA and item.destination == BaseAddress(steps.diff.base_datum(item.site.target)))
    assert live is not None
    assert steps.objections(changed(steps, index, CarriedAddress(fresh.range.start)))


@each_machine
def test_lost_unwind_data(machine):
    steps = Steps.of("overflow-check", machine)
    linked = steps.linked()
    assert linked.pdata is not None
    assert "unwind" in " ".join(steps.objections(replace(linked, pdata=None)))


@each_machine
def test_another_functions_unwind_data(machine):
    steps = Steps.of("overflow-check", machine)
    linked = steps.linked()
    index = next(index for index, item in enumerate(linked.sections) if item.name == ".pdata")
    section = linked.sections[index]
    table = linked.pdata.start - section.rva
    row = linked.pdata.size // 2
    data = bytearray(section.data)
    half = row // 2 if row == 8 else 8
    one_word, other_word = data[table + half : table + row], data[table + row + half : table + 2 * row]
    if one_word == other_word:
        pytest.skip("both functions have the same unwind data")
    data[table + half : table + row], data[table + row + half : table + 2 * row] = other_word, one_word
    damaged = replace(linked, sections=(*linked.sections[:index], replace(section, data=bytes(data)), *linked.sections[index + 1 :]))
    assert "unwind" in " ".join(steps.objections(damaged))
