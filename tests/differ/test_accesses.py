"""Live data that a changed function uses as before, one after the other, though its instructions align otherwise."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

OWN = (5, 7)
"""Which of the words no other function uses."""
each_machine = pytest.mark.parametrize("machine", Machine)


def keeps(machine: Machine, at: int, target: int, slot: int) -> bytes:
    """Code that loads the eight bytes at an address, and stores them on the stack."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return b"\x48\x8b\x05" + arch.bind(FixupKind.REL32, bytes(4), at + 3, target) + b"\x48\x89\x44\x24" + bytes([slot])
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, target)
    load = arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", 0xF9400108), at + 4, target)
    return page + load + struct.pack("<I", 0xF90003E8 | slot // 8 << 10)


def pair(machine: Machine, *, order: tuple[int, ...] = tuple(range(12)), shared: int = 12) -> ImageDiff:
    """A function keeps twelve words on the stack, in the fixed image 16 bytes further up and in this ``order``.

    Others read those of the first ``shared`` that are not :data:`OWN`.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        words = [DATA + 0x100 + 8 * number for number in range(12)]
        entries, code = [], b""
        for slot, number in enumerate(order if is_fixed else range(12)):
            code += keeps(machine, TEXT + 0x800 + len(code), words[number], 8 * slot + (16 if is_fixed else 0))
        pe.put(TEXT + 0x800, code + RETURNS[machine])
        entries.append(("f", TEXT + 0x800))
        for number, word in enumerate(words[:shared]):
            if number not in OWN:
                pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, word, number))
                entries.append((f"g{number}", TEXT + 0x40 * number))
        pe.exports("accesses.dll", entries)
        images.append(pe.build("accesses.dll"))
    return diff_images(*images)


@each_machine
def test_words_that_are_used_in_turn_are_themselves(machine: Machine) -> None:
    diff = pair(machine)
    assert [diff.base_datum(DATA + 0x100 + 8 * number) for number in OWN] == [DATA + 0x100 + 8 * number for number in OWN]
    assert not diff.findings
    assert [row.name for row in build(diff).functions] == ["f"]


@each_machine
@pytest.mark.parametrize("how", [{"order": (*range(4), 5, 4, *range(6, 12))}, {"shared": 3}], ids=["another-order", "too-little-known"])
def test_where_that_is_not_so_instructions_tell_as_they_align(machine: Machine, how: dict[str, object]) -> None:
    with pytest.raises(NotHotpatchable):
        build(pair(machine, **how))
