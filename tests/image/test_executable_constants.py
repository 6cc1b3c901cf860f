"""Constants in a section that may be executed: NASM makes such of ``.rodata`` and of every other name that it does not know."""

from __future__ import annotations

import pytest

from hotpatch import build
from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from hotpatch.image import Image
from hotpatch.patch import CarriedKind
from tests.builder.test_reaches import RETURNS, reads
from tests.builder.test_type_records import NOTHING, takes
from tests.emulator.pe import RDATA, RX, TEXT, Pe

USER, READER, CALLER = TEXT + 0x40, TEXT + 0x80, TEXT + 0xC0
CONSTANT, OTHER, NEW = RDATA + 0x200, RDATA + 0x300, RDATA + 0x400
each_machine = pytest.mark.parametrize("machine", Machine)


def image(machine: Machine, *, read: bool = True, called: bool = False, new: bool = False) -> Image:
    """A function that takes a constant which decodes as code, one that reads another, and perhaps one that calls the first."""
    arch = architecture(machine)
    pe = Pe(machine, rdata_flags=RX)
    pe.put(TEXT, arch.trap * (0x200 // len(arch.trap)))
    rows = [("user", USER), ("reader", READER)]
    pe.put(USER, takes(machine, USER, NEW if new else CONSTANT) + (NOTHING[machine] if new else b"") + RETURNS[machine])
    pe.put(READER, reads(machine, READER, OTHER, 3) if read else RETURNS[machine])
    pe.put(CONSTANT - 16, arch.trap * (16 // len(arch.trap)))
    if called:
        opcode, kind = (b"\xe8", FixupKind.REL32) if machine is Machine.X64 else (b"", FixupKind.BRANCH26)
        field = arch.bind(kind, b"\0\0\0\x94"[len(opcode) * 4 :] or bytes(4), CALLER + len(opcode), CONSTANT)
        pe.put(CALLER, opcode + field + RETURNS[machine])
        rows.append(("caller", CALLER))
    for at in (CONSTANT, NEW):
        pe.put(at, NOTHING[machine] * 3 + RETURNS[machine])
    pe.put(OTHER, b"here")
    pe.exports("constants.dll", rows)
    return pe.build("constants.dll")


@each_machine
@pytest.mark.parametrize(
    ("read", "called", "code"), [(True, False, False), (False, False, True), (True, True, True)], ids=["read", "only-taken", "called"]
)
def test_what_is_taken_is_code_unless_the_section_is_read_and_nothing_else_speaks_for_code(machine, read, called, code) -> None:
    found = image(machine, read=read, called=called)
    section = found.section_at(CONSTANT)
    assert section is not None
    assert (found.function_at(CONSTANT) is not None, found.holds_code(section), found.holds_constants(section)) == (code, code, not code)


@each_machine
def test_a_new_constant_there_travels(machine: Machine) -> None:
    patch = build(diff_images(image(machine), image(machine, new=True)))
    assert [(function.name, row.kind) for function, row in zip(patch.functions, patch.carried, strict=True)] == [
        ("user", CarriedKind.CONSTANT)
    ]


@each_machine
def test_what_is_in_both_is_the_base_s(machine: Machine) -> None:
    diff = diff_images(image(machine), image(machine))
    assert diff.base_datum(Rva(OTHER)) == OTHER
    assert diff.base_datum(Rva(CONSTANT)) == CONSTANT
