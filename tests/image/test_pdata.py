"""Function tables by hand: chained, indirect and forwarded entries, fragments, handlers, and what makes no sense."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.image import Range
from hotpatch.image.pdata import read_function_table

TABLE = 0x100
INFO = 0x800
SIZE = 0x2000


def entries(machine, table, pieces):
    memory = bytearray(SIZE)
    memory[TABLE : TABLE + len(table)] = table
    for at, data in pieces.items():
        memory[at : at + len(data)] = data
    return read_function_table(Machine(machine), Range(TABLE, TABLE + len(table)), lambda at, size: bytes(memory[at : at + size]))


def x64(*rows):
    return b"".join(struct.pack("<III", *row) for row in rows)


def arm64(*rows):
    return b"".join(struct.pack("<II", *row) for row in rows)


PLAIN = bytes([1, 4, 1, 0, 4, 0x42, 0, 0])
CHAINED = bytes([0x21, 0, 0, 0])
HANDLED = bytes([0x09, 4, 1, 0, 4, 0x42, 0, 0]) + struct.pack("<I", 0x1500)


def test_x64_plain():
    (entry,) = entries("x64", x64((0x1000, 0x1040, INFO)), {INFO: PLAIN})
    assert (entry.range, entry.words, entry.info, entry.primary, entry.handler) == (
        Range(0x1000, 0x1040),
        (0x1000, 0x1040, INFO),
        INFO,
        0x1000,
        None,
    )


def test_x64_chain_of_chains():
    table = x64((0x1000, 0x1040, INFO), (0x1040, 0x1080, INFO + 0x20), (0x1400, 0x1440, INFO + 0x40))
    pieces = {INFO: PLAIN, INFO + 0x20: CHAINED + table[:12], INFO + 0x40: CHAINED + table[12:24]}
    assert [entry.primary for entry in entries("x64", table, pieces)] == [0x1000] * 3


def test_x64_chain_in_a_circle_ends():
    table = x64((0x1000, 0x1040, INFO), (0x1040, 0x1080, INFO + 0x20))
    pieces = {INFO: CHAINED + table[12:], INFO + 0x20: CHAINED + table[:12]}
    assert {entry.primary for entry in entries("x64", table, pieces)} <= {0x1000, 0x1040}


def test_x64_indirect_entry_uses_the_other_ones_information():
    table = x64((0x1000, 0x1040, INFO), (0x1400, 0x1440, TABLE | 1))
    _, other = entries("x64", table, {INFO: PLAIN})
    assert (other.range, other.info, other.primary) == (Range(0x1400, 0x1440), INFO, 0x1000)


def test_x64_handler():
    (entry,) = entries("x64", x64((0x1000, 0x1040, INFO)), {INFO: HANDLED})
    assert entry.handler == 0x1500


def test_x64_nonsense_is_left_out():
    table = x64((0, 0, 0), (0x1040, 0x1000, INFO), (0x1000, 0x1040, 0xFFFFFFF0), (0x1000, 0x1040, INFO)) + b"\x01\x02"
    assert [entry.range for entry in entries("x64", table, {INFO: PLAIN})] == [Range(0x1000, 0x1040)]


def record(size, codes, *, epilogs=0, single=0, handler=None):
    codes = bytes.fromhex(codes)
    words = -(-len(codes) // 4)
    header = size // 4 | single << 21 | (handler is not None) << 20 | epilogs << 22 | words << 27
    data = struct.pack("<I", header) + codes.ljust(4 * words, b"\xe3")
    return data + (struct.pack("<I", handler) if handler is not None else b"")


def packed(size, kind=1):
    return kind | size // 4 << 2


GOES_ON, RETURNS = bytes.fromhex("1f2003d5"), bytes.fromhex("c0035fd6")

# name, table, pieces, (start, size, info, primary, handler) of each entry
ARM64 = [
    ("packed", arm64((0x1000, packed(0x40))), {}, [(0x1000, 0x40, None, 0x1000, None)]),
    (
        "packed-fragment-goes-on",
        arm64((0x1000, packed(0x40)), (0x1040, packed(0x20, 2))),
        {0x103C: GOES_ON},
        [(0x1000, 0x40, None, 0x1000, None), (0x1040, 0x20, None, 0x1000, None)],
    ),
    (
        "packed-fragment-behind-a-return",
        arm64((0x1000, packed(0x40)), (0x1040, packed(0x20, 2))),
        {0x103C: RETURNS},
        [(0x1000, 0x40, None, 0x1000, None), (0x1040, 0x20, None, 0x1040, None)],
    ),
    (
        "packed-fragment-apart",
        arm64((0x1000, packed(0x40)), (0x1080, packed(0x20, 2))),
        {},
        [(0x1000, 0x40, None, 0x1000, None), (0x1080, 0x20, None, 0x1080, None)],
    ),
    ("record", arm64((0x1000, INFO)), {INFO: record(0x40, "e181e4")}, [(0x1000, 0x40, INFO, 0x1000, None)]),
    ("handler", arm64((0x1000, INFO)), {INFO: record(0x40, "e4", handler=0x1500)}, [(0x1000, 0x40, INFO, 0x1000, 0x1500)]),
    (
        "no-prologue-of-its-own",
        arm64((0x1000, packed(0x40)), (0x1040, INFO)),
        {INFO: record(0x20, "e5e181e4", single=1), 0x103C: GOES_ON},
        [(0x1000, 0x40, None, 0x1000, None), (0x1040, 0x20, INFO, 0x1000, None)],
    ),
    (
        "shrink-wrapped",
        arm64((0x1000, packed(0x40)), (0x1040, INFO)),
        {INFO: record(0x20, "c898e5e181e4"), 0x103C: GOES_ON},
        [(0x1000, 0x40, None, 0x1000, None), (0x1040, 0x20, INFO, 0x1000, None)],
    ),
    (
        "operand-that-looks-like-end-c",
        arm64((0x1000, packed(0x40)), (0x1040, INFO)),
        {INFO: record(0x20, "c0e5e4")},
        [(0x1000, 0x40, None, 0x1000, None), (0x1040, 0x20, INFO, 0x1040, None)],
    ),
    (
        "forwarded",
        arm64((0x1000, packed(0x40)), (0x1400, TABLE | 3)),
        {},
        [(0x1000, 0x40, None, 0x1000, None), (0x1400, 0x40, None, 0x1000, None)],
    ),
    ("forwarded-in-a-circle", arm64((0x1000, TABLE | 3)), {}, []),
    (
        "longer-than-the-next-begins",
        arm64((0x1000, packed(0x40)), (0x1020, packed(0x40))),
        {},
        [(0x1000, 0x20, None, 0x1000, None), (0x1020, 0x40, None, 0x1020, None)],
    ),
    ("empty", arm64((0, 0), (0x1000, 1)), {}, []),
]


@pytest.mark.parametrize(("table", "pieces", "rows"), [row[1:] for row in ARM64], ids=[row[0] for row in ARM64])
def test_arm64(table, pieces, rows):
    found = entries("arm64", table, pieces)
    assert [(entry.range.start, entry.range.size, entry.info, entry.primary, entry.handler) for entry in found] == rows


def test_arm64_extended_header():
    codes = bytes.fromhex("e181e4e3")
    data = struct.pack("<III", 0x40 // 4 | 1 << 20, 1 | 1 << 16, 0) + codes + struct.pack("<I", 0x1500)
    (entry,) = entries("arm64", arm64((0x1000, INFO)), {INFO: data})
    assert (entry.range.size, entry.handler) == (0x40, 0x1500)
