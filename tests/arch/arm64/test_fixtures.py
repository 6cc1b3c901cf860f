"""The Arm64 instruction set on every Arm64 image of the fixtures, against Capstone's own decoding and against Unicorn."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import capstone
import pefile
import pytest
from capstone import arm64_const as cs

from hotpatch.arch import FixupKind, Flow, Machine, Redirect, architecture
from hotpatch.errors import CannotRelocate
from tests.arch.arm64.sidebyside import same

ARM64 = architecture(Machine.ARM64)
FIXTURES = Path(__file__).parents[3] / "fixtures"
IMAGES = sorted(path for path in FIXTURES.glob("*/arm64/*") if path.suffix in (".dll", ".exe"))
LOW = (FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L)


@cache
def load(path: Path):
    """Image base, bytes as mapped, functions as pairs of RVAs (from one entry of .pdata or export to the next)."""
    with pefile.PE(str(path)) as pe:
        content = pe.get_memory_mapped_image().ljust(pe.OPTIONAL_HEADER.SizeOfImage, b"\0")
        directory = pe.OPTIONAL_HEADER.DATA_DIRECTORY[3]
        starts = {begin for begin, _ in struct.iter_unpack("<II", content[directory.VirtualAddress :][: directory.Size]) if begin}
        starts |= {symbol.address for symbol in getattr(getattr(pe, "DIRECTORY_ENTRY_EXPORT", None), "symbols", ())}
        text = next(section for section in pe.sections if section.Name.startswith(b".text"))
        end = text.VirtualAddress + text.Misc_VirtualSize
        ordered = sorted(start for start in starts if text.VirtualAddress <= start < end)
        return pe.OPTIONAL_HEADER.ImageBase, content, list(zip(ordered, [*ordered[1:], end], strict=True))


def named(path: Path) -> str:
    return f"{path.parts[-3]}-{path.stem}"


def test_there_are_images():
    assert sum(len(load(path)[2]) for path in IMAGES) > 20


@pytest.mark.parametrize("path", IMAGES, ids=named)
def test_references_are_capstones(path: Path):
    detailed = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    detailed.detail = True
    relative = ("b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp")
    _, content, functions = load(path)
    for start, end in functions:
        code = content[start:end]
        expected = {}
        for line in detailed.disasm(code, start):
            literal = line.mnemonic in ("ldr", "ldrsw", "prfm") and line.operands[-1].type == cs.ARM64_OP_IMM and "[" not in line.op_str
            if literal or line.mnemonic in relative or line.mnemonic.startswith("b."):
                expected[line.address - start] = line.operands[-1].imm
        found = ARM64.references(code, start)
        low = [one for one in found if one.kind in LOW]
        direct = {
            one.offset: one.target & -0x1000 if one.kind is FixupKind.PAGEBASE_REL21 else one.target for one in found if one not in low
        }
        assert direct == expected
        for one in found:
            field = code[one.field : one.field + 4]
            assert ARM64.bind(one.kind, field, start + one.field, one.target) == field
        pages = {one.target for one in found if one.kind is FixupKind.PAGEBASE_REL21}
        assert pages == {one.target for one in low}, "every page is completed"


@pytest.mark.parametrize("path", IMAGES, ids=named)
def test_every_dispatch_has_its_table(path: Path):
    _, content, functions = load(path)
    for start, end in functions:
        code = content[start:end]
        tables = ARM64.jump_tables(code, start, lambda address, size: content[address : address + size])
        assert all(start <= target < end and not target % 4 for table in tables for target in table.targets)
        jumps = {line.address - start for line in ARM64.disassemble(code, start) if line.flow is Flow.JUMP_INDIRECT}
        assert {table.jump for table in tables} <= jumps
        if path.parts[-3] == "jump-table":
            assert len(tables) == len(jumps)


def test_the_jump_table_case_has_one():
    _, content, functions = load(FIXTURES / "jump-table" / "arm64" / "base.dll")
    tables = [
        table
        for start, end in functions
        for table in ARM64.jump_tables(content[start:end], start, lambda address, size: content[address : address + size])
    ]
    assert len(tables) == 1
    assert len(tables[0].targets) >= 4


def entries():
    seen = set()
    for path in IMAGES:
        if path.parts[-3] == "entry-refused":  # its entries are those that cannot be moved
            continue
        base, content, functions = load(path)
        for start, end in functions:
            if content[start:end] not in seen:
                seen.add(content[start:end])
                yield base, content, start, end


@pytest.mark.parametrize("distance", [0x100000, 0x4000000, 1 << 40])
def test_every_entry_moves_and_runs_the_same(distance: int):
    """Those that begin with the same instruction, which does not say where it is, run once."""
    ran, moved_count = set(), 0
    for base, content, start, end in entries():
        trampoline = base + distance
        displaced = ARM64.entry_site(Redirect.HPAT).displaced
        try:
            moved = ARM64.trampoline(content[start:end], source_va=base + start, trampoline_va=trampoline, displaced=displaced)
        except CannotRelocate as refused:
            pytest.fail(f"{refused}")
        moved_count += 1
        first = content[start : moved.resume_va - base]
        form = first, start if ARM64.references(first, start) else 0
        if form in ran:
            continue
        ran.add(form)
        for seed in (1, 2):
            same(f"{start} {seed}", (base, content), base + start, displaced, moved, trampoline)
    assert moved_count > 500
    assert len(ran) > 100
