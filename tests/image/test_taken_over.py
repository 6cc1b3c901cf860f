"""What the same code at the same place of another image was read as is taken over only where nothing that bears on it differs."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from hotpatch.arch import Machine, Use
from hotpatch.image import Image
from tests.image.conftest import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = ("jump-table", "two-level-switch", "function-pointer", "tail-call", "shared-tail", "page-crossing")
_RUNTIME_FUNCTION = {Machine.X64: 12, Machine.ARM64: 8}
_RETURN = {Machine.X64: (b"\xc3", b"\x90"), Machine.ARM64: (bytes.fromhex("c0035fd6"), bytes.fromhex("1f2003d5"))}
"""A return, and as many bytes that do nothing."""


class Editor:
    """The bytes of a file, changed by RVA."""

    def __init__(self, image: Image) -> None:
        self.image, self.data = image, bytearray(image.data)

    def write(self, rva: int, new: bytes) -> bool:
        section = self.image.section_at(rva)
        assert section is not None
        at = section.offset + rva - section.rva
        changed = self.data[at : at + len(new)] != new
        self.data[at : at + len(new)] = new
        return changed


def other_targets_in_a_table(edit: Editor) -> bool:
    """Its first entry becomes its last, though no code differs."""
    tables = [table for function in edit.image.functions for table in edit.image.jump_tables(function)]
    changed = [
        edit.write(table.address, edit.image.read(table.address + table.size - table.entry_size, table.entry_size)) for table in tables
    ]
    return any(changed)


def a_table_that_leads_out(edit: Editor) -> bool:
    """The last entry leads beyond the function: the table is shorter, or none."""
    tables = [table for function in edit.image.functions for table in edit.image.jump_tables(function)]
    changed = [edit.write(table.address + table.size - table.entry_size, b"\x7f" * table.entry_size) for table in tables]
    return any(changed)


def calls_that_lead_elsewhere(edit: Editor) -> bool:
    """Every other call leads to its caller's middle, or to where nothing begins."""
    image, changed = edit.image, []
    for function in image.functions[::2]:
        for part, references in zip(function.ranges, image.references(function), strict=True):
            for one in references:
                if one.use is Use.CALL:
                    site = part.start + one.field
                    size = image.architecture.field_size(one.kind)
                    target = part.start + max(image.architecture.instruction_alignment, part.size // 8 * 4)
                    changed.append(edit.write(site, image.architecture.bind(one.kind, image.read(site, size), site, target + one.addend)))
    return any(changed)


def shorter_neighbours(edit: Editor) -> bool:
    """Every other entry of the function table ends half-way, and what follows belongs to nobody."""
    image, size, changed = edit.image, _RUNTIME_FUNCTION[edit.image.machine], []
    table = image.parsed.function_table
    for at in range(table.start, table.end - size + 1, 2 * size):
        begin, second = struct.unpack("<II", image.read(at, 8))
        if image.machine is Machine.X64:
            changed.append(edit.write(at + 4, struct.pack("<I", begin + (second - begin + 1) // 2)))
        elif second & 3:  # packed: the length in words from bit 2 on
            changed.append(edit.write(at + 4, struct.pack("<I", second & ~(0x7FF << 2) | max(1, (second >> 2 & 0x7FF) // 2) << 2)))
        else:
            header = image.u32(second)
            changed.append(edit.write(second, struct.pack("<I", header & ~0x3FFFF | max(1, (header & 0x3FFFF) // 2))))
    return any(changed)


def functions_that_fall_through(edit: Editor) -> bool:
    """Every other function goes on into the one behind it, which itself stays as it was."""
    image, (leave, go_on), changed = edit.image, _RETURN[edit.image.machine], []
    for function in image.functions[::2]:
        last = function.ranges[0].end - len(leave)
        if image.read(last, len(leave)) == leave:
            changed.append(edit.write(last, go_on))
    return any(changed)


def no_padding(edit: Editor) -> bool:
    """Between functions stands code that returns."""
    image, (leave, _), changed = edit.image, _RETURN[edit.image.machine], []
    for function in image.functions:
        room = image.padding_before(function) // len(leave)
        if room:
            changed.append(edit.write(function.entry - room * len(leave), leave * room))
    return any(changed)


def any_bytes(edit: Editor) -> bool:
    """A few bytes of code and constants, anywhere."""
    chance = random.Random(len(edit.data))
    places = [section.range for section in edit.image.sections if not section.writable]
    changed = [edit.write(chance.randrange(*chance.choice(places)), chance.randbytes(1)) for _ in range(24)]
    return any(changed)


EDITS = (
    other_targets_in_a_table,
    a_table_that_leads_out,
    calls_that_lead_elsewhere,
    shorter_neighbours,
    functions_that_fall_through,
    no_padding,
    any_bytes,
)


def found(image: Image) -> list[object]:
    return [
        (function, image.jump_tables(function), image.references(function), [image.reading(part).leads for part in function.ranges])
        for function in image.functions
    ]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("machine", Machine)
def test_following_another_image_finds_what_searching_finds(edit: Callable[[Editor], bool], machine: Machine) -> None:
    changed = []
    for case in CASES:
        path = next((FIXTURES / case / machine).glob("base.[de]*"))
        base = Image.from_bytes(path.read_bytes(), path.name)
        editor = Editor(base)
        changed.append(edit(editor))
        told, untold = (Image.from_bytes(bytes(editor.data), path.name) for _ in range(2))
        told.expect(base)
        assert found(told) == found(untold)
        back = Image.from_bytes(path.read_bytes(), path.name)
        back.expect(untold)
        assert found(back) == found(base)
    assert any(changed)


@pytest.mark.parametrize("machine", Machine)
def test_a_table_is_taken_over_while_all_that_was_read_for_it_is_the_same(machine: Machine) -> None:
    data = (FIXTURES / "jump-table" / machine / "base.dll").read_bytes()
    base, same = Image.from_bytes(data), Image.from_bytes(data)
    same.expect(base)
    parts = [part for function in base.functions for part in function.ranges if base.jump_tables_in(part)]
    assert parts
    assert same.functions == base.functions
    assert all(same.reading(part) is base.reading(part) for part in parts)
    editor = Editor(base)
    assert other_targets_in_a_table(editor)
    other = Image.from_bytes(bytes(editor.data))
    other.expect(base)
    assert other.functions
    assert all(other.jump_tables_in(part) != base.jump_tables_in(part) for part in parts)
