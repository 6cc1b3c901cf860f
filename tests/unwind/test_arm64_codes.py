"""Arm64 unwind codes, records and packed words, each with the prologue that it stands for (MS Learn, "ARM64 exception handling")."""

from __future__ import annotations

import struct

import pytest

from hotpatch.unwind.arm64_codes import Op, decode
from hotpatch.unwind.arm64_record import packed, unpacked
from hotpatch.unwind.arm64_undo import Caller, undo
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
    ("df05", Op.ALLOC_SCALED, 5, ()),
    ("dfff", Op.ALLOC_SCALED, 255, ()),
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
    ("e700c3", Op.SAVE_SCALED, 3, ("z8",)),
    ("e70fff", Op.SAVE_SCALED, 63, ("z23",)),
    ("e762c1", Op.SAVE_SCALED, 0xC1, ("z10",)),
    ("e714c3", Op.SAVE_SCALED, 3, ("p4",)),
    ("e73fc0", Op.SAVE_SCALED, 0x40, ("p15",)),
    ("e8", Op.TRAP_FRAME, 0, ()),
    ("e9", Op.MACHINE_FRAME, 0, ()),
    ("ea", Op.CONTEXT, 0, ()),
    ("eb", Op.EC_CONTEXT, 0, ()),
    ("ec", Op.CLEAR_UNWOUND, 0, ()),
    ("fc", Op.SIGN, 0, ()),
]


@pytest.mark.parametrize(("raw", "op", "amount", "registers"), CODES, ids=[row[0] for row in CODES])
def test_codes(raw, op, amount, registers):
    code = decode(bytes.fromhex(raw), 0)
    assert (code.op, code.amount, code.registers, code.size) == (op, amount, registers, len(raw) // 2)


SHOWN = {
    "03": "alloc 48",
    "24": "save_x x19,x20 sp-32!",
    "42": "save x29,x30 sp+16",
    "d841": "save d9,d10 sp+8",
    "de43": "save_x d10 sp-32!",
    "df05": "alloc_z 5vl",
    "e1": "set_fp",
    "e204": "add_fp 32",
    "e6": "save_next",
    "e76882": "save_x q8,q9 sp-48!",
    "e74841": "save d8,d9 sp+16",
    "e762c1": "save_z z10 sp+193vl",
    "e714c3": "save_p p4 sp+3pl",
    "e8": "trap_frame",
    "eb": "ec_context",
    "ec": "clear_unwound_to_call",
    "fc": "pac_sign_lr",
}


@pytest.mark.parametrize("raw", SHOWN)
def test_codes_are_shown(raw):
    assert decode(bytes.fromhex(raw), 0).text == SHOWN[raw]


@pytest.mark.parametrize(
    "raw", ["", "c0", "e00010", "e7", "e700", "e78003", "e780c3", "e71f03", "e75e03", "e75f43", "df", "ed", "ef", "f0", "f8", "ff"]
)
def test_codes_that_are_not_taken(raw):
    with pytest.raises(StackUnreadable):
        decode(bytes.fromhex(raw), 0)


STACK = 0x1000


def slot(offset, size=8):
    return int.from_bytes(struct.pack("<512Q", *range(0x100, 0x300))[offset : offset + size], "little")


def context(at, first, count, name="x"):
    """Registers of ``name`` from ``first`` on, one after the other from ``at`` bytes above sp."""
    return {f"{name}{first + index}": slot(at + (16 if name == "q" else 8) * index, 16 if name == "q" else 8) for index in range(count)}


EC_INTEGERS = ["x8", "x0", "x1", "x27", "sp", "x29", "x25", "x26", "x2", "x3", "x4", "x5", "x19", "x20", "x21", "x22", "pc"]
EC_X87 = ["x30", "x6", "x7", "x9", "x10", "x11", "x12", "x15"]
EC_HIGH = [sum(slot(0x128 + 16 * (4 * register + part), 2) << 16 * part for part in range(4)) for register in range(2)]

# codes that compilers emit rarely, registers before, registers after, and where they leave the caller
RARE = [
    ("e70a81", {}, {"q10": slot(16, 16)}, Caller.LINKED),
    ("e76882", {}, {"q8": slot(0, 16), "q9": slot(16, 16), "sp": STACK + 48}, Caller.LINKED),
    ("e74841", {}, {"q8": slot(16), "q9": slot(24)}, Caller.LINKED),
    ("e6e6e75302", {}, context(32, 19, 6), Caller.LINKED),
    ("e6e6e74882", {}, context(32, 8, 6, "q"), Caller.LINKED),
    ("fc", {"x30": 0xABCD_8001_8000_1234}, {"x30": 0x8001_8000_1234}, Caller.LINKED),
    ("df03", {"vg": 4}, {"sp": STACK + 96}, Caller.LINKED),
    ("e700c3", {"vg": 4}, {"z8": slot(96, 32), "q8": slot(96, 16)}, Caller.LINKED),
    ("e70ac1", {"vg": 2}, {"z18": slot(16, 16), "q18": slot(16, 16)}, Caller.LINKED),
    ("e734c1", {"vg": 4}, {"p4": slot(0x41 * 4, 4)}, Caller.LINKED),
    ("df01e700c3", {"vg": 32}, {"sp": STACK + 256, "z8": slot(1024, 256), "q8": slot(1024, 16)}, Caller.LINKED),
    ("e9", {}, {"sp": slot(0), "pc": slot(8)}, Caller.INTERRUPTED),
    ("ea", {}, {**context(8, 0, 31), **context(0x110, 0, 32, "q"), "sp": slot(0x100), "pc": slot(0x108)}, Caller.INTERRUPTED),
    (
        "eb",
        {"x18": 7, "x13": 1, "x28": 1, "q15": 1, "q16": 1},
        {
            **{name: slot(0x78 + 8 * index) for index, name in enumerate(EC_INTEGERS)},
            **{name: slot(0x120 + 16 * index) for index, name in enumerate(EC_X87)},
            **{f"x{16 + index}": value for index, value in enumerate(EC_HIGH)},
            **context(0x1A0, 0, 16, "q"),
            "x13": None,
            "x28": None,
            "q16": None,
        },
        Caller.INTERRUPTED,
    ),
    ("ec", {"x30": 77}, {"pc": 77}, Caller.INTERRUPTED),
    ("42ec", {}, {"x29": slot(16), "x30": slot(24), "pc": slot(24)}, Caller.INTERRUPTED),
    ("df01", {}, None, "their length is not known"),
    ("e700c3", {}, None, "their length is not known"),
    ("e714c3", {}, None, "their length is not known"),
    ("7f" * 65, {"sp": STACK + 0x1000}, None, "cannot be read"),
]


def sequence(raw):
    raw, at = bytes.fromhex(raw), 0
    while at < len(raw):
        yield decode(raw, at)
        at += decode(raw, at).size


def undone(raw, before, changes=()):
    """What ``raw`` leaves of ``before`` on a stack whose words all differ, but for ``changes``: offset and bytes."""
    memory, state = bytearray(struct.pack("<512Q", *range(0x100, 0x300))), {"sp": STACK, **before}
    for offset, part in changes:
        memory[offset : offset + len(part)] = part
    return undo(state, sequence(raw), lambda va, size: bytes(memory[va - STACK : va - STACK + size])), state


@pytest.mark.parametrize(("raw", "before", "after", "caller"), RARE, ids=[f"{row[0][:10]}-{index}" for index, row in enumerate(RARE)])
def test_undone(raw, before, after, caller):
    if after is None:
        with pytest.raises(StackUnreadable, match=caller):
            undone(raw, before)
        return
    done, state = undone(raw, before)
    expected = {"sp": STACK} | before | after
    assert state == {name: value for name, value in expected.items() if value is not None}
    assert done is caller


@pytest.mark.parametrize(("raw", "flags"), [("ea", 0), ("eb", 0x30)])
def test_a_context_says_whether_it_stands_behind_a_call(raw, flags):
    assert undone(raw, {}, [(flags, (0x2040_000B).to_bytes(4, "little"))])[0] is Caller.RETURNED_TO
    assert undone(raw, {}, [(flags, (0x0040_000B).to_bytes(4, "little"))])[0] is Caller.INTERRUPTED


@pytest.mark.parametrize(
    ("there", "controls", "found"),
    [(0x400, (0, 0), True), (0x400, (0xFFFF_FFFF, 0), False), (0x400, (0, 0xFFFF_FFFF), False), (0, (0, 0), False)],
)
def test_trap_frame(there, controls, found):
    """The vector registers lie elsewhere, if they have been stored at all."""
    at = STACK + there if there else 0
    done, state = undone("e8", {"x19": 3}, [(0x10, struct.pack("<Q", at)), (0x408, struct.pack("<II", *controls))])
    stored = {**context(0xA0, 0, 19), "x30": slot(0x138), "x29": slot(0x140), "sp": slot(0x98), "pc": slot(0x148), "x19": 3}
    assert state == stored | (context(0x410, 0, 32, "q") if found else {})
    assert done is Caller.INTERRUPTED


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


@pytest.mark.parametrize(("codes", "readable"), [("01 e4 02 01", True), ("01 02 01 01", False), ("01 e4 01 c8", False)])
def test_the_end_of_the_words_ends_an_epilogue(codes, readable):
    """Microsoft's compiler leaves ``end`` out where it would need a word more; a prologue has one, and no code is cut."""
    data = struct.pack("<II", 0x20 // 4 | 1 << 22 | 1 << 27, 0x14 // 4 | 2 << 22) + bytes.fromhex(codes)
    if readable:
        record = unpacked(0, lambda at, size: data[at : at + size])
        assert text(record.pending(0x14)) == ["alloc 32", "alloc 16", "end 0"]
        assert record.epilogues[0].instructions == 3
    else:
        with pytest.raises(StackUnreadable):
            unpacked(0, lambda at, size: data[at : at + size])
