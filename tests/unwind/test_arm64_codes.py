"""Arm64 unwind codes, records and packed words, each with the prologue that it stands for (MS Learn, "ARM64 exception handling")."""

from __future__ import annotations

import struct

import pytest

from hotpatch.unwind.arm64 import _undo
from hotpatch.unwind.arm64_codes import Op, decode
from hotpatch.unwind.arm64_record import packed, unpacked
from hotpatch.unwind.model import StackUnreadable

# bytes, operation, amount, registers
CODES = [
    ("03", Op.ALLOC, 48, ()),
    ("24", Op.SAVE_MOVING, 32, ("x19", "x20")),
    ("42", Op.SAVE, 16, ("x29", "x30")),
    ("83", Op.SAVE_MOVING, 32, ("x29", "x30")),
    ("c010", Op.ALLOC, 256, ()),
    ("c7ff", Op.ALLOC, 2047 * 16, ()),
    ("c842", Op.SAVE, 16, ("x20", "x21")),
    ("cc85", Op.SAVE_MOVING, 48, ("x21", "x22")),
    ("d0c3", Op.SAVE, 24, ("x22",)),
    ("d423", Op.SAVE_MOVING, 32, ("x20",)),
    ("d645", Op.SAVE, 40, ("x21", "x30")),
    ("d841", Op.SAVE, 8, ("q9", "q10")),
    ("da81", Op.SAVE_MOVING, 16, ("q10", "q11")),
    ("dcc2", Op.SAVE, 16, ("q11",)),
    ("de43", Op.SAVE_MOVING, 32, ("q10",)),
    ("e0001000", Op.ALLOC, 0x1000 * 16, ()),
    ("e1", Op.SET_FP, 0, ()),
    ("e204", Op.ADD_FP, 32, ()),
    ("e3", Op.NOP, 0, ()),
    ("e4", Op.END, 0, ()),
    ("e5", Op.END_C, 0, ()),
    ("e6", Op.SAVE_NEXT, 0, ()),
    ("e70003", Op.SAVE, 24, ("x0",)),
    ("e74302", Op.SAVE, 32, ("x3", "x4")),
    ("e76401", Op.SAVE_MOVING, 32, ("x4", "x5")),
    ("e74841", Op.SAVE, 16, ("q8", "q9")),
    ("e76882", Op.SAVE_MOVING, 48, ("q8", "q9")),
    ("e70a81", Op.SAVE, 16, ("q10",)),
    ("e9", Op.MACHINE_FRAME, 0, ()),
    ("ea", Op.CONTEXT, 0, ()),
    ("ec", Op.CLEAR_UNWOUND, 0, ()),
    ("fc", Op.SIGN, 0, ()),
]


@pytest.mark.parametrize(("raw", "op", "amount", "registers"), CODES, ids=[row[0] for row in CODES])
def test_codes(raw, op, amount, registers):
    code = decode(bytes.fromhex(raw), 0)
    assert (code.op, code.amount, code.registers, code.size) == (op, amount, registers, len(raw) // 2)


@pytest.mark.parametrize("raw", ["", "c0", "e00010", "e7", "e78003", "e700c3", "e8", "eb", "ed", "f8", "ff", "df01"])
def test_codes_that_are_not_taken(raw):
    with pytest.raises(StackUnreadable):
        decode(bytes.fromhex(raw), 0)


STACK = 0x1000


def slot(offset, size=8):
    return int.from_bytes(struct.pack("<512Q", *range(0x100, 0x300))[offset : offset + size], "little")


# codes that compilers emit rarely, registers after
RARE = [
    ("e70a81", {"q10": slot(16, 16)}),
    ("e76882", {"q8": slot(0, 16), "q9": slot(16, 16), "sp": STACK + 48}),
    ("e74841", {"q8": slot(16), "q9": slot(24)}),
    ("e9", {"sp": slot(0), "pc": slot(8)}),
    ("ea", {**{f"x{number}": slot(8 + 8 * number) for number in range(31)}, "sp": slot(0x100), "pc": slot(0x108)}),
    ("ec", {}),
]


@pytest.mark.parametrize(("raw", "after"), RARE, ids=[row[0] for row in RARE])
def test_undone(raw, after):
    """On a stack whose words all differ; a machine frame and a context give the program counter themselves."""
    memory, state = struct.pack("<512Q", *range(0x100, 0x300)), {"sp": STACK}
    done = _undo(state, (decode(bytes.fromhex(raw), 0),), lambda va, size: memory[va - STACK : va - STACK + size])
    assert state == {"sp": STACK} | after
    assert done is ("pc" in after)


def word(*, length=100, floats=0, integers=0, homes=0, chain=0, frame=0, kind=1):
    return kind | length // 4 << 2 | floats << 13 | integers << 16 | homes << 20 | chain << 21 | frame // 16 << 23


def text(codes):
    return [f"{code.op.name.lower()} {','.join(code.registers)} {code.amount}".replace("  ", " ").strip() for code in codes]


# word, prologue as undone, instructions of the epilogue with its return
PACKED = [
    (word(frame=32), ["alloc 32", "end 0"], 2),
    (word(integers=2, frame=32), ["alloc 16", "save_moving x19,x20 16", "end 0"], 3),
    (
        word(integers=3, chain=3, frame=64),
        ["set_fp 0", "save_moving x29,x30 32", "save x21 16", "save_moving x19,x20 32", "end 0"],
        4,
    ),
    (word(integers=1, chain=1, frame=32), ["alloc 16", "save x19,x30 0", "alloc 16", "end 0"], 4),
    (word(chain=1, frame=16), ["save_moving x30 16", "end 0"], 2),
    (word(integers=2, chain=1, frame=32), ["save x30 16", "save_moving x19,x20 32", "end 0"], 3),
    (word(integers=3, chain=1, frame=32), ["save x21,x30 16", "save_moving x19,x20 32", "end 0"], 3),
    (word(floats=2, frame=32), ["save q10 16", "save_moving q8,q9 32", "end 0"], 3),
    (
        word(integers=2, floats=1, homes=1, chain=3, frame=112),
        [
            "set_fp 0",
            "save_moving x29,x30 16",
            *["nop 0"] * 4,
            "save q8,q9 16",
            "save_moving x19,x20 96",
            "end 0",
        ],
        4,
    ),
    (word(homes=1, chain=3, frame=96), ["set_fp 0", "save_moving x29,x30 96", "end 0"], 2),
    (word(chain=2, frame=16), ["set_fp 0", "save_moving x29,x30 16", "sign 0", "end 0"], 3),
    (word(chain=3, frame=1024), ["set_fp 0", "save x29,x30 0", "alloc 1024", "end 0"], 3),
    (word(chain=3, frame=5008), ["set_fp 0", "save x29,x30 0", "alloc 928", "alloc 4080", "end 0"], 4),
]


@pytest.mark.parametrize(("value", "prologue", "epilogue"), PACKED, ids=[f"{row[0]:08x}" for row in PACKED])
def test_packed(value, prologue, epilogue):
    record = packed(value)
    assert text(record.prologue) == prologue
    (last,) = record.epilogues
    assert last.instructions == epilogue
    assert last.start == 100 - 4 * epilogue


def test_packed_fragment_has_no_prologue_to_stand_in():
    record = packed(word(integers=2, chain=3, frame=48, kind=2))
    for offset in range(0, 100, 4):
        assert [code.op for code in record.pending(offset)][-4:] == [Op.SET_FP, Op.SAVE_MOVING, Op.SAVE_MOVING, Op.END]


@pytest.mark.parametrize("value", [word(integers=11, frame=512), word(integers=4, frame=16)])
def test_packed_that_contradicts_itself(value):
    with pytest.raises(StackUnreadable):
        packed(value)


def test_position_in_prologue_and_epilogue():
    """The example of MS Learn: four instructions in, four out and a return at 0x100."""
    codes = bytes.fromhex("e1c81ed81c9fe400")  # set_fp, save_regp 0 240, save_fregp 0 224, save_fplr_x 256, end
    data = struct.pack("<II", 0x114 // 4 | 1 << 22 | 2 << 27, 0x100 // 4) + codes
    record = unpacked(0, lambda at, size: data[at : at + size])
    assert text(record.pending(0)) == ["end 0"]
    assert text(record.pending(4)) == ["save_moving x29,x30 256", "end 0"]
    assert len(record.pending(12)) == 4
    assert len(record.pending(16)) == 5
    assert len(record.pending(0x100)) == 5
    assert len(record.pending(0x104)) == 4
    assert text(record.pending(0x10C)) == ["save_moving x29,x30 256", "end 0"]
    assert text(record.pending(0x110)) == ["end 0"]
    assert record.size == 16
    assert record.handler is None
