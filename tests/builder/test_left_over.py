"""Live data that the base has lost: one that is new may be these, whatever the base's code did with them as far as it names them.

An element that code names begins a piece of its own, and what goes over the array by an index is not seen to come to it.
"""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.test_reaches import RETURNS, reads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

FAILS = {Machine.X64: b"\xcd\x29", Machine.ARM64: struct.pack("<I", 0xD43E0060)}
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


def pair(machine: Machine, code: bytes) -> ImageDiff:
    """A changed function reads a word that is new, and read none; another goes on by ``code`` behind a store that it no longer does."""
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
        pe.exports("left.dll", entries)
        images.append(pe.build("left.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("kind", ["fails", "zeroes"])
def test_what_is_stored_last_or_set_to_zero_may_be_what_is_new(machine: Machine, kind: str) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(pair(machine, FAILS[machine] if kind == "fails" else RETURNS[machine]))
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.UNRESOLVED_REFERENCE}
