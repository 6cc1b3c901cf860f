"""Live data without names that have changed places: an address that is only taken, and what ends there, told by the base's version."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from tests.builder.applied import Applied
from tests.emulator.pe import DATA, TEXT, Pe

STEP = 0x40
FIRST, LAST = DATA + 0x100, DATA + 0x1D0
BASE = {"array": DATA + 0x110, "one": DATA + 0x150, "other": DATA + 0x170, "two": DATA + 0x1B0}
FIXED = {"one": DATA + 0x110, "other": DATA + 0x130, "array": DATA + 0x170, "two": DATA + 0x1B0}
"""In the fixed image the array ends where ``two`` begins, in the base where ``one`` does."""
RETURN = {Machine.X64: b"\xc3", Machine.ARM64: b"\xc0\x03\x5f\xd6"}


def takes(machine: Machine, at: int, target: int, register: int) -> bytes:
    """An address into ``rax`` and its like, or ``x0`` and its like, by number."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return bytes((0x48, 0x8D, 5 | register << 3)) + arch.bind(FixupKind.REL32, bytes(4), at + 3, target)
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000 | register), at, target)
    return page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000 | register << 5 | register), at + 4, target)


def adds(machine: Machine, number: int) -> bytes:
    if machine is Machine.X64:
        return bytes.fromhex("4829d0 4883c0") + bytes((number,))
    return struct.pack("<II", 0xCB020000, 0x91000000 | number << 10)


def image(machine: Machine, places: dict[str, int], number: int, taken: list[str]):
    """``f`` gives how far ``two`` is behind ``one``, and ``number`` more; other functions take what else there is."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x400)
    order = [(places[name], register) for register, name in zip((0, 2, 1, 3), taken, strict=False)]
    code = b""
    for target, register in order:
        code += takes(machine, TEXT + len(code), target, register)
    pe.put(TEXT, code + adds(machine, number) + RETURN[machine])
    rows = [("f", TEXT)]
    for count, target in enumerate((FIRST, LAST, places["array"], places["other"]), 2):
        at = TEXT + STEP * count
        pe.put(at, takes(machine, at, target, 0) + RETURN[machine])
        rows.append((f"g{count}", at))
    for count, at in enumerate((FIRST, *(places[name] for name in sorted(places)), LAST), 1):
        pe.put(at, struct.pack("<4I", *(0x1010101 * count + step for step in range(4))))
    pe.exports("places.dll", rows)
    return pe.build("places.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("taken", [["two", "one"], ["two", "one", "array"]], ids=["array-unused", "array-used"])
def test_what_stands_at_the_same_instruction_is_the_same(machine, taken):
    base, fixed = (image(machine, places, number, taken) for places, number in ((BASE, 1), (FIXED, 2)))
    patch = build(diff_images(base, fixed))
    assert [row.name for row in patch.functions] == ["f"]
    assert Applied(base, patch).call("f") == BASE["two"] - BASE["one"] + 2
