"""Tables of distances to constants, which nothing marks: what code adds to the table's address leads somewhere, and is no number."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from tests.emulator.pe import RDATA, TEXT, Pe

# the address of the table, the load of an entry (movsxd rax, [rcx + rdx*4]; ldrsw x9, [x8, x1, lsl #2]), what is made of it
TAKE = {Machine.X64: "lea rcx, [rip + {distance}]", Machine.ARM64: "adrp x8, {page}; add x8, x8, #{low}"}
LOAD = {Machine.X64: bytes.fromhex("48630491"), Machine.ARM64: bytes.fromhex("0979a1b8")}
ADD = {Machine.X64: "add rax, rcx; ret", Machine.ARM64: "add x0, x8, x9; ret"}
NEGATE = {Machine.X64: "neg rax; ret", Machine.ARM64: "neg x0, x9; ret"}
SIZE_OF_TAKING = {Machine.X64: 7, Machine.ARM64: 8}

NEAR, FAR = RDATA + 0x9F0, RDATA + 0x800
"""Texts that move as the table right behind them does, and some that stay where they are."""
TABLE, END_OF_FAR = RDATA + 0xA00, FAR + 9
OTHER = TEXT + 0x40


def _image(machine: Machine, moved: int, near: tuple[int, ...], then: str):
    """A function that loads from a table of distances to texts that nothing ends, and one that takes what is behind those that stay."""
    pe = Pe(machine)

    def take(at: int, target: int) -> bytes:
        distance = target - at - SIZE_OF_TAKING[machine]
        return assemble(machine, TAKE[machine].format(distance=distance, page=target & -0x1000, low=target & 0xFFF), at)

    table = TABLE + moved
    pe.put(TEXT, take(TEXT, table) + LOAD[machine] + assemble(machine, then, TEXT))
    pe.put(OTHER, take(OTHER, END_OF_FAR) + assemble(machine, "ret", 0))
    pe.put(NEAR + moved, b"onetwothree.")
    pe.put(FAR, b"fourfive.behind")
    places = (*(NEAR + moved + offset for offset in near), FAR + 4)
    pe.put(table, struct.pack(f"<{len(places)}i", *(place - table for place in places)))
    pe.exports("table.dll", [("user", TEXT), ("other", OTHER)])
    return pe.build("table.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("then", "near", "verdict"),
    [(ADD, (0, 3, 6), "relocated"), (ADD, (0, 6, 6), "changed"), (NEGATE, (0, 3, 6), "changed")],
    ids=["the-same-texts", "another-text", "numbers"],
)
def test_a_table_of_distances(machine, then, near, verdict):
    base, fixed = _image(machine, 0, (0, 3, 6), then[machine]), _image(machine, 0x40, near, then[machine])
    verdicts = {row.base.name: str(row.verdict) for row in hotpatch.diff(base, fixed).functions}
    assert verdicts["user"] == verdict


def _numbers(machine: Machine, before: bytes, words: tuple[int, ...]):
    """A function that loads from a table of numbers, which it negates, and one that takes what ends where the table begins."""
    pe = Pe(machine)

    def take(at: int, target: int) -> bytes:
        distance = target - at - SIZE_OF_TAKING[machine]
        return assemble(machine, TAKE[machine].format(distance=distance, page=target & -0x1000, low=target & 0xFFF), at)

    pe.put(TEXT, take(TEXT, TABLE) + LOAD[machine] + assemble(machine, NEGATE[machine], TEXT))
    pe.put(OTHER, take(OTHER, TABLE - len(before)) + LOAD[machine] + assemble(machine, NEGATE[machine], OTHER))
    pe.put(TABLE - len(before), before)
    pe.put(TABLE, struct.pack(f"<{len(words)}i", *words))
    pe.exports("numbers.dll", [("user", TEXT), ("other", OTHER)])
    return pe.build("numbers.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("before", "words"),
    [
        (bytes(64), ((-1, -2), (-3, -4))),
        (bytes(64), ((-16, -32), (-24, -40))),
        (b"\x05" * 64, ((-24, -40), (-16, -32))),
        (struct.pack("<16i", *[1] * 16), ((-8, -16), (-4, -12))),
    ],
    ids=["behind-zeros", "farther-behind-zeros", "behind-equal-bytes", "behind-equal-numbers"],
)
def test_negative_numbers_that_differ_alike_are_no_distances(machine, before, words):
    """What such would lead to is the same in both images, for it says nothing."""
    diff = hotpatch.diff(*(_numbers(machine, before, one) for one in words))
    assert {row.base.name: str(row.verdict) for row in diff.functions} == {"user": "changed", "other": "identical"}


@pytest.mark.parametrize("machine", Machine)
def test_negative_numbers_begin_nothing_in_the_constants_before_them(machine):
    """What code refers to ends at the numbers, and not at the first place that one of these would lead to."""
    before = [struct.pack("<16i", *range(1, 16), last) for last in (16, 17)]
    diff = hotpatch.diff(*(_numbers(machine, one, (-4, -8, -12)) for one in before))
    assert {row.base.name: str(row.verdict) for row in diff.functions}["other"] == "changed"
