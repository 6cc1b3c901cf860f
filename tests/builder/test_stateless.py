"""Live data that the base has lost, and whether one that is new may be these: not where they hold nothing but their first value."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

FAILS = {Machine.X64: b"\xcd\x29", Machine.ARM64: struct.pack("<I", 0xD43E0060)}
TRAPS = {Machine.X64: b"\x0f\x0b", Machine.ARM64: struct.pack("<I", 0xD4200020)}
CALLS = {Machine.X64: b"\xff\xd1", Machine.ARM64: struct.pack("<I", 0xD63F0020)}  # what its first argument, or second, leads to
each_machine = pytest.mark.parametrize("machine", Machine)


def stores(machine: Machine, at: int, target: int, *, zero: bool = False) -> bytes:
    """Code that stores an argument, or zero, in the four bytes at an address."""
    if machine is Machine.X64:
        code, rest = (b"\xc7\x05", bytes(4)) if zero else (b"\x89\x0d", b"")
        return code + struct.pack("<i", target - at - len(code) - 4 - len(rest)) + rest
    arch = architecture(machine)
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, target)
    store = 0xB9000100 | (31 if zero else 0)
    return page + arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", store), at + 4, target)


def skips(machine: Machine, count: int) -> bytes:
    """Code that goes over ``count`` bytes, or not."""
    return b"\x74" + bytes([count]) if machine is Machine.X64 else struct.pack("<I", 0xB4000000 | (count // 4 + 1) << 5)


def pair(machine: Machine, code: bytes, *, first: int = 0, pointed: bool = False) -> ImageDiff:
    """A changed function reads a word that is new, and read none; another goes on by ``code`` behind a store that it no longer does.

    ``first``: what the word begins with. ``pointed``: a pointer leads to it, which a third function reads.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        moved = 8 if is_fixed else 0
        words = [DATA + 0x100, DATA + 0x108, DATA + 0x118 + moved, DATA + 0x120 + moved]
        lost = new = DATA + 0x110
        entries = []
        for number, word in enumerate(words, 1):
            pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, word, number))
            entries.append((f"g{number}", TEXT + 0x40 * number))
        body = reads(machine, TEXT + 0x200, new, 5)
        pe.put(TEXT + 0x200, body if is_fixed else body[6 if machine is Machine.X64 else 8 :])
        store = b"" if is_fixed else stores(machine, TEXT + 0x300, lost, zero=code == RETURNS[machine])
        pe.put(TEXT + 0x300, store + code)
        entries += [("f", TEXT + 0x200), ("last", TEXT + 0x300)]
        if pointed and not is_fixed:
            pe.pointer(RDATA + 0x100, lost)
        if pointed:
            pe.put(TEXT + 0x380, reads(machine, TEXT + 0x380, RDATA + 0x100, 9))
            entries.append(("pointed", TEXT + 0x380))
        pe.put(lost, struct.pack("<I", 0 if is_fixed else first))
        pe.exports("stateless.dll", entries)
        images.append(pe.build("stateless.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("kind", ["fails", "zeroes"])
def test_what_holds_nothing_is_not_taken_for_what_is_new(machine: Machine, kind: str) -> None:
    patch = build_patch(pair(machine, FAILS[machine] if kind == "fails" else RETURNS[machine]))
    assert [item.kind.value for item in patch.carried].count("data") == 1


@each_machine
@pytest.mark.parametrize("kind", ["branches", "traps", "calls", "not-zero", "pointed"])
def test_what_may_hold_something_may_be_it(machine: Machine, kind: str) -> None:
    ends, back = FAILS[machine], RETURNS[machine]
    code = {
        "branches": skips(machine, len(ends)) + ends + back,
        "traps": TRAPS[machine],
        "calls": CALLS[machine] + ends,
        "not-zero": back,
        "pointed": ends,
    }
    with pytest.raises(NotHotpatchable):
        build_patch(pair(machine, code[kind], first=7 if kind == "not-zero" else 0, pointed=kind == "pointed"))
