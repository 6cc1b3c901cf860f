"""The x64 instruction set on every x64 image of the fixtures, against Capstone's detail mode and against Unicorn."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import capstone
import pefile
import pytest
from capstone import x86_const

from hotpatch.arch import FixupKind, Flow, Machine, Redirect, architecture
from hotpatch.arch.common import code_spans
from hotpatch.errors import CannotRelocate, Rule
from tests.arch.x64.sidebyside import compare

X64 = architecture(Machine.X64)
FIXTURES = Path(__file__).parents[3] / "fixtures"
IMAGES = sorted(path for path in FIXTURES.glob("*/x64/*") if path.suffix in (".dll", ".exe"))
RELATIVE = (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_BRANCH_RELATIVE)
NO_JUMP_GROUP = (x86_const.X86_INS_LOOP, x86_const.X86_INS_LOOPE, x86_const.X86_INS_LOOPNE)
ENTRY_REFUSALS = {Rule.FUNCTION_TOO_SHORT, Rule.BRANCH_INTO_DISPLACED}


@cache
def load(path):
    """Image base, bytes as mapped, functions as pairs of RVAs."""
    with pefile.PE(str(path)) as pe:
        content = pe.get_memory_mapped_image()
        content = content.ljust(pe.OPTIONAL_HEADER.SizeOfImage, b"\0")
        entries = getattr(pe, "DIRECTORY_ENTRY_EXCEPTION", ())
        functions = sorted((entry.struct.BeginAddress, entry.struct.EndAddress) for entry in entries)
        return pe.OPTIONAL_HEADER.ImageBase, content, functions


def test_there_are_images():
    assert any(load(path)[2] for path in IMAGES)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_references_are_capstones(path):
    detailed = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    detailed.detail = True
    _, content, functions = load(path)
    for start, end in functions:
        expected = {}
        for line in detailed.disasm(content[start:end], start):
            for operand in line.operands:
                if operand.type == x86_const.X86_OP_MEM and operand.mem.base == x86_const.X86_REG_RIP:
                    expected[line.address - start + line.disp_offset] = line.address + line.size + operand.mem.disp
                elif operand.type == x86_const.X86_OP_IMM and (line.id in NO_JUMP_GROUP or any(map(line.group, RELATIVE))):
                    expected[line.address - start + line.imm_offset] = operand.imm
        found = X64.references(content[start:end], start)
        assert {one.field: one.target for one in found if one.kind is not FixupKind.ADDR32NB} == expected
        for one in found:
            field = content[start + one.field : start + one.field + X64.field_size(one.kind)]
            assert X64.resolve(one.kind, field, start + one.field) == one.target + one.addend


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_dispatch_has_its_table(path):
    _, content, functions = load(path)
    for start, end in functions:
        code = content[start:end]
        tables = X64.jump_tables(code, start, lambda address, size: content[address : address + size])
        jumps = [line for line in X64.disassemble(code, start) if line.flow is Flow.JUMP_INDIRECT and "[rip" not in line.operands]
        lines = {line.address for line in X64.disassemble(code, start)}
        tail_calls = [line for line in jumps if line.address - start not in {table.jump for table in tables}]
        assert all(target in lines for table in tables for target in table.targets)
        if path.parts[-3] == "jump-table":
            assert not tail_calls
        assert code_spans(len(code), start, tables) == ((0, len(code)),)


def test_the_jump_table_case_has_one():
    (path,) = (path for path in IMAGES if path.parts[-3:] == ("jump-table", "x64", "base.dll"))
    _, content, functions = load(path)
    tables = [
        table
        for start, end in functions
        for table in X64.jump_tables(content[start:end], start, lambda address, size: content[address : address + size])
    ]
    assert len(tables) == 1
    assert len(tables[0].targets) >= 4


def entries():
    seen = set()
    for path in IMAGES:
        base, content, functions = load(path)
        for start, end in functions:
            if content[start:end] not in seen:
                seen.add(content[start:end])
                yield base, content, start, end


@pytest.mark.parametrize("strategy", [Redirect.HPAT, Redirect.INLINE])
def test_every_entry_moves_and_runs_the_same(strategy):
    """Those that begin with the same instructions, which do not say where they are, run once."""
    displaced = X64.entry_site(strategy).displaced
    ran, moved_count = set(), 0
    for base, content, start, end in entries():
        trampoline = base + 0x1000000
        try:
            moved = X64.trampoline(content[start:end], source_va=base + start, trampoline_va=trampoline, displaced=displaced)
        except CannotRelocate as refused:
            assert {refusal.rule for refusal in refused.refusals} <= ENTRY_REFUSALS
            continue
        moved_count += 1
        first = content[start : moved.resume_va - base]
        form = first, start if X64.references(first, start) else 0
        if form in ran:
            continue
        ran.add(form)
        for seed in (1, 6):
            compare((base, content), base + start, moved, trampoline, displaced, seed)
    assert moved_count > 300
    assert len(ran) >= 15
