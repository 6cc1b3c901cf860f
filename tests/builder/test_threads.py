"""Thread-local data without names: an offset that only changed code uses may be another datum's in the base."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.builder import build_patch
from hotpatch.cases import find_case
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Image, open_image
from tests.emulator.pe import RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)

READS = {
    "displaced": {Machine.X64: "mov rax, qword ptr [rcx + {offset}]", Machine.ARM64: "add x9, x9, #0; ldr x0, [x9, #{offset}]"},
    "summed": {Machine.X64: "add rcx, {offset}; mov rax, qword ptr [rcx]", Machine.ARM64: "add x9, x9, #{offset}; ldr x0, [x9]"},
    "indexed": {Machine.X64: "mov edx, {offset}; mov rax, qword ptr [rdx + rcx]", Machine.ARM64: "add x9, x9, #{offset}; ldr x0, [x9]"},
}
"""As clang reads them, in a sum, and as MSVC does; on Arm64 MSVC sums, too."""


def block(machine: Machine, at: int, index: int) -> bytes:
    """Code that loads where the thread's block is: into rcx, x9."""
    arch = architecture(machine)
    if machine is Machine.X64:  # mov eax, [rip + …]; mov rcx, gs:[0x58]; mov rcx, [rcx + rax*8]
        return b"\x8b\x05" + arch.bind(FixupKind.REL32, bytes(4), at + 2, index) + bytes.fromhex("65488b0c2558000000 488b0cc1")
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, index)
    load = arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", 0xB9400108), at + 4, index)
    return page + load + struct.pack("<II", 0xF9402E49, 0xF8687929)  # ldr x9, [x18, #0x58]; ldr x9, [x9, x8, lsl #3]


def image(machine: Machine, form: str, offset: int, added: int, *, unchanged: int) -> Image:
    """``f`` reads at an offset and adds a number; ``g`` is the same in both images and reads at ``unchanged``."""
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    index = pe.tls(bytes(0x20), 0, [])
    add = {Machine.X64: "add rax, {number}; ret", Machine.ARM64: "add x0, x0, #{number}; ret"}[machine]
    for at, place, number in ((TEXT, offset, added), (TEXT + 0x80, unchanged, 1)):
        code = block(machine, at, index)
        text = f"{READS[form][machine].format(offset=place)}; {add.format(number=number)}"
        pe.put(at, code + assemble(machine, text, at + len(code)))
    pe.exports("thread.dll", [("f", TEXT), ("g", TEXT + 0x80)])
    return pe.build("thread.dll")


@each_machine
@pytest.mark.parametrize("form", READS)
@pytest.mark.parametrize(("there", "here", "unchanged", "known"), [(8, 8, 0x18, True), (8, 0x10, 0x10, True), (8, 0x10, 8, False)])
def test_an_offset_that_only_changed_code_uses(machine: Machine, form: str, there: int, here: int, unchanged: int, known: bool) -> None:
    diff = diff_images(image(machine, form, there, 2, unchanged=unchanged), image(machine, form, here, 3, unchanged=unchanged))
    if known:
        assert len(build_patch(diff).functions) == 1
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.evidence["offset"]) == (Rule.UNRESOLVED_REFERENCE, here)


def with_new(machine: Machine, form: str, offset: int | None, unchanged: int) -> Image:
    """``f`` goes on in a new function that reads at ``offset``, where that is given, else in ``g``, the same in both images."""
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    index = pe.tls(bytes(0x20), 0, [])
    calls = {Machine.X64: "mov edx, 7; jmp 0x1100", Machine.ARM64: "mov x1, #7; b 0x1100"}[machine]
    pe.put(TEXT, assemble(machine, calls.replace("0x1100", "0x1080") if offset is None else calls, TEXT))
    for at, place in ((TEXT + 0x80, unchanged), *([] if offset is None else [(TEXT + 0x100, offset)])):
        code = block(machine, at, index)
        pe.put(at, code + assemble(machine, f"{READS[form][machine].format(offset=place)}; ret", at + len(code)))
    pe.exports("thread.dll", [("f", TEXT), ("g", TEXT + 0x80), *([] if offset is None else [("new", TEXT + 0x100)])])
    return pe.build("thread.dll")


@each_machine
@pytest.mark.parametrize("form", READS)
@pytest.mark.parametrize("known", [True, False])
def test_an_offset_that_only_new_code_uses(machine: Machine, form: str, known: bool) -> None:
    diff = diff_images(with_new(machine, form, None, 8), with_new(machine, form, 8 if known else 0x10, 8))
    assert [row.name for row in diff.of(Verdict.ADDED)] == ["new"]
    if known:
        assert [item.name for item in build_patch(diff).carried] == ["new"]
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.rva, refusal.evidence["offset"]) == (Rule.UNRESOLVED_REFERENCE, TEXT + 0x100, 0x10)


def named(machine: Machine, side: str, kept: frozenset[str]) -> Image:
    """A side of the case whose thread-local data are in another order, of which the PDB names no more than ``kept``."""
    found = open_image(find_case("tls-layout-refused").image(machine, side))
    symbols = found.symbols
    data = tuple(datum for datum in symbols.data if datum.rva not in found.tls.template or datum.name in kept)
    return Image(found.path, found.data, found.parsed, replace(symbols, data=data), found.pdb_path)


@each_machine
@pytest.mark.parametrize(("there", "here"), [((), ()), (("calls",), ()), ((), ("calls",)), (("failures",), ("attempts",))])
def test_a_pdb_that_names_no_thread_local_data(machine: Machine, there: tuple[str, ...], here: tuple[str, ...]) -> None:
    images = named(machine, "base", frozenset(there)), named(machine, "fixed", frozenset(here))
    assert all(side.has_symbols for side in images)
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff_images(*images))
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.evidence["offset"]) == (Rule.UNRESOLVED_REFERENCE, 0x10)


@each_machine
def test_names_on_both_sides_decide(machine: Machine) -> None:
    images = [named(machine, side, frozenset({"calls"})) for side in ("base", "fixed")]
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff_images(*images))
    assert [refusal.rule for refusal in refused.value.refusals] == [Rule.DATA_LAYOUT]
