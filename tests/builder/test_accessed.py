"""Live data that one build names and the other reckons from a neighbour's address: the same where aligned code accesses both first."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from hotpatch.image import Image
from tests.builder.test_reaches import RETURNS, reads, refusals
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
FIRST, TABLE, BEHIND = 0x100, 0x110, 0x150
MOVED = 0x20
FILLS = {
    Machine.X64: bytes.fromhex("8911 4883c104 ffca 75f6"),
    Machine.ARM64: struct.pack("<3I", 0xB8004521, 0x71000421, 0x54FFFFC1),
}
"""Stores a number where the other register leads to, goes on by four bytes, and again, as often as it says."""
HANDS_ON = {Machine.X64: bytes.fromhex("48894c2408"), Machine.ARM64: struct.pack("<I", 0xF9000BE9)}
"""Puts the other register on the stack."""


def takes(machine: Machine, at: int, target: int, *, other: bool) -> bytes:
    """An address into the register of results, or into the other one."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return (b"\x48\x8d\x0d" if other else b"\x48\x8d\x05") + arch.bind(FixupKind.REL32, bytes(4), at + 3, target)
    number = 9 if other else 0
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000 | number), at, target)
    return page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000 | number << 5 | number), at + 4, target)


def fills(machine: Machine, first: int, table: int, *, named: bool, number: int, does: bytes) -> bytes:
    """Code that reads the first datum, then ``does`` something with the table, which it names, or reckons from the first one's address."""
    code = takes(machine, TEXT, first, other=False)
    if named:
        code += takes(machine, TEXT + len(code), table, other=True)
    elif machine is Machine.X64:
        code += b"\x48\x8d\x48" + bytes((table - first,))
    else:
        code += struct.pack("<I", 0x91000009 | table - first << 10)
    code += b"\x8b\x00" if machine is Machine.X64 else struct.pack("<I", 0xB9400000)
    adds = b"\x83\xc0" + bytes((number,)) if machine is Machine.X64 else struct.pack("<I", 0x11000000 | number << 10)
    return code + does + adds + RETURNS[machine]


def compared(
    machine: Machine, *, named: int, table: tuple[int, int] = (TABLE, TABLE), behind: int = BEHIND, does: bytes = b""
) -> ImageDiff:
    """Two builds, of which the one with that number names the table; the fixed one has all of its data 32 bytes further on."""
    images = []
    for number in (0, 1):
        start, last = DATA + MOVED * number, behind if number else BEHIND
        pe = Pe(machine)
        places = start + FIRST, start + table[number]
        pe.put(TEXT, fills(machine, *places, named=named == number, number=3 + 4 * number, does=does or FILLS[machine]))
        entries = [("f", TEXT)]
        for count, place in enumerate((FIRST, last), 1):
            at = TEXT + 0x40 * count
            pe.put(at, reads(machine, at, start + place, count))
            entries.append((f"g{count}", at))
        pe.exports("fill.dll", entries)
        images.append(pe.build("fill.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("named", [0, 1], ids=["named-by-the-base", "named-by-the-fixed-image"])
def test_a_table_that_is_filled_alike(machine: Machine, named: int) -> None:
    diff = compared(machine, named=named)
    assert diff.base_datum(Rva(DATA + MOVED + TABLE)) == DATA + TABLE
    assert build_patch(diff).carried == ()


@each_machine
@pytest.mark.parametrize("named", [0, 1], ids=["named-by-the-base", "named-by-the-fixed-image"])
@pytest.mark.parametrize(
    "other",
    [{"table": (TABLE, TABLE + 16)}, {"table": (TABLE + 16, TABLE)}, {"behind": BEHIND + 16}],
    ids=["further-from-the-first", "nearer-to-the-first", "what-is-behind-moved-further"],
)
def test_another_place_is_no_proof(machine: Machine, named: int, other: dict[str, Any]) -> None:
    diff = compared(machine, named=named, **other)
    if named:
        assert {rule for rule, _ in refusals(diff)} == {"unresolved-reference"}
    else:
        with pytest.raises(NotHotpatchable):
            build_patch(diff)


@each_machine
def test_an_address_that_is_only_handed_on_may_be_an_end(machine: Machine) -> None:
    diff = compared(machine, named=1, does=HANDS_ON[machine])
    assert {rule for rule, _ in refusals(diff)} == {"unresolved-reference"}


SPEC, OTHER, TEXT_OF_SPEC = 0x170, 0x120, RDATA + 0x100
METHODS, BEHIND_ALL = 0x140, 0x190


def specified(machine: Machine, *, place: int, number: int, changed: bool) -> Image:
    """Code that hands on the address of what describes something, reckoned from that of another datum.

    What describes another thing, which nothing names, lies where that does in the other build.
    """
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    pe.put(TEXT, fills(machine, DATA + FIRST, DATA + place, named=False, number=3 + 4 * changed, does=HANDS_ON[machine]))
    entries = [("f", TEXT)]
    for count, target in enumerate((FIRST, METHODS, BEHIND_ALL), 1):
        at = TEXT + 0x40 * count
        pe.put(at, reads(machine, at, DATA + target, count))
        entries.append((f"g{count}", at))
    pe.put(TEXT_OF_SPEC, b"described\0")
    pe.put(DATA + METHODS, bytes(range(1, 0x31)))
    for at, value in ((place, number), (SPEC + OTHER - place, 9)):
        pe.pointer(DATA + at, TEXT_OF_SPEC)
        pe.put(DATA + at + 8, struct.pack("<Q", value))
    pe.exports("describe.dll", entries)
    return pe.build("describe.dll")


@each_machine
def test_what_describes_something_lies_elsewhere(machine: Machine) -> None:
    """It is compared with what it is, not with what lies in its place; but code that reckons its address cannot be bound."""
    diff = diff_images(*(specified(machine, place=place, number=7, changed=place == OTHER) for place in (SPEC, OTHER)))
    assert diff.base_datum(Rva(DATA + OTHER)) == DATA + SPEC
    assert not diff.findings
    assert refusals(diff) == [("unresolved-reference", DATA + OTHER)]


@each_machine
def test_what_describes_something_else_is_another_value(machine: Machine) -> None:
    pairs = ((SPEC, 7), (OTHER, 8))
    diff = diff_images(*(specified(machine, place=place, number=number, changed=place == OTHER) for place, number in pairs))
    assert {str(finding.rule) for finding in diff.findings} == {"data-init"}
