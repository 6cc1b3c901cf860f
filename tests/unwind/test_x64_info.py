"""x64 unwind information that compilers emit rarely, each undone on a stack laid out by hand (MS Learn, "x64 exception handling")."""

from __future__ import annotations

import struct

import pytest

from hotpatch.unwind.model import StackUnreadable
from hotpatch.unwind.x64 import _undo
from hotpatch.unwind.x64_epilogue import match
from hotpatch.unwind.x64_info import parse

STACK = 0x1000


def info(*codes, version=1, flags=0, prologue=0x40, register=0, offset=0, tail=b""):
    raw = b"".join(bytes.fromhex(code) for code in codes)
    return bytes([version | flags << 3, prologue, len(raw) // 2, register | offset << 4]) + raw.ljust(-(-len(raw) // 4) * 4, b"\0") + tail


def reader(data):
    return lambda at, size: data[at : at + size]


def undo(data, registers, at=None):
    memory = struct.pack("<512Q", *range(0x100, 0x300))
    state = {"rsp": STACK, **registers}
    done = _undo(state, parse(0, reader(data)), at, lambda va, size: memory[va - STACK : va - STACK + size])
    names = dict.fromkeys((*registers, *state))
    return done, {name: state.get(name) for name in names if registers.get(name) != state.get(name)}


def slot(offset):
    return 0x100 + offset // 8


# name, information, registers before, offset in the prologue, registers after
ROWS = [
    ("push", info("0130"), {}, None, {"rbx": slot(0), "rsp": STACK + 8}),
    ("push-r15", info("02f0"), {}, None, {"r15": slot(0), "rsp": STACK + 8}),
    ("push-not-yet", info("0130"), {}, 0, {"rsp": STACK}),
    ("alloc-small", info("0432"), {}, None, {"rsp": STACK + 32}),
    ("alloc-large-16", info("07010010"), {}, None, {"rsp": STACK + 0x8000}),
    ("alloc-large-32", info("071100001000"), {}, None, {"rsp": STACK + 0x100000}),
    ("save-nonvol", info("04640200"), {}, None, {"rsi": slot(16), "rsp": STACK}),
    ("save-nonvol-far", info("046518000000"), {}, None, {"rsi": slot(24), "rsp": STACK}),
    ("save-xmm", info("05680100"), {}, None, {"xmm6": slot(16) | slot(24) << 64, "rsp": STACK}),
    ("save-xmm-far", info("056920000000"), {}, None, {"xmm6": slot(32) | slot(40) << 64, "rsp": STACK}),
    (
        "save-low-xmm",
        info("056602000130", version=1),
        {"xmm6": 5 << 64 | 1},
        None,
        {"xmm6": 5 << 64 | slot(16), "rbx": slot(0), "rsp": STACK + 8},
    ),
    ("save-low-xmm-not-yet", info("056602000130"), {"xmm6": 1}, 4, {"rbx": slot(0), "rsp": STACK + 8}),
    ("save-low-xmm-far", info("0567200000000130"), {"xmm6": 1, "xmm7": 2}, None, {"rbx": slot(0), "rsp": STACK + 8, "xmm6": None}),
    ("spare", info("0567200000000130", version=2), {"xmm6": 1}, None, {"rbx": slot(0), "rsp": STACK + 8}),
    ("epilogue-codes-padded", info("0506", "2016", "0006", "0006", "0130", version=2), {}, None, {"rbx": slot(0), "rsp": STACK + 8}),
    ("frame-register", info("0403", "0150", register=5, offset=2), {"rbp": STACK + 0x60}, None, {"rbp": slot(0x40), "rsp": STACK + 0x48}),
    ("frame-register-not-yet", info("0403", "0150", register=5, offset=2), {"rbp": 7}, 1, {"rbp": slot(0), "rsp": STACK + 8}),
    ("machine-frame", info("000a"), {}, None, {"rip": slot(0), "rsp": slot(24)}),
    ("machine-frame-with-code", info("001a"), {}, None, {"rip": slot(8), "rsp": slot(32)}),
    ("epilogue-codes", info("0516", "0006", "0130", version=2), {}, None, {"rbx": slot(0), "rsp": STACK + 8}),
]


@pytest.mark.parametrize(("data", "registers", "at", "after"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_undone(data, registers, at, after):
    done, changes = undo(data, registers, at)
    assert changes == {name: value for name, value in after.items() if registers.get(name) != value}
    assert done == ("rip" in after)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        info("0130", version=3),
        info("0136"),
        info("013b"),
        info("013b", version=2),
        info("0137", "0200"),
        info("0701"),
        info("0130")[:5],
    ],
    ids=lambda data: data.hex(),
)
def test_not_taken(data):
    with pytest.raises(StackUnreadable):
        parse(0, reader(data))


def test_chained_and_handled():
    chained = parse(0, reader(info("0130", flags=4, tail=struct.pack("<III", 0x10, 0x20, 0x30))))
    assert chained.chained == (0x10, 0x20, 0x30)
    assert not chained.has_handler
    handled = parse(0, reader(info("0130", flags=1, tail=struct.pack("<I", 0x1234) + bytes(8))))
    assert (handled.handler, handled.size) == (0x1234, 8)


# code, frame register, what is left (base, constant, registers), or None where it is no epilogue
EPILOGUES = [
    ("c3", None, (None, 0, ())),
    ("f3c3", None, (None, 0, ())),
    ("c20800", None, (None, 0, ())),
    ("5bc3", None, (None, 0, ("rbx",))),
    ("415f415e5dc3", None, (None, 0, ("r15", "r14", "rbp"))),
    ("4883c4285ec3", None, ("rsp", 0x28, ("rsi",))),
    ("4881c400100000c3", None, ("rsp", 0x1000, ())),
    ("488d65105dc3", "rbp", ("rbp", 0x10, ("rbp",))),
    ("488da5000100005dc3", "rbp", ("rbp", 0x100, ("rbp",))),
    ("498d642410415cc3", "r12", ("r12", 0x10, ("r12",))),
    ("498d6310c3", "r11", ("r11", 0x10, ())),
    ("488d65105dc3", "rbx", None),
    ("5be9fb0f0000", None, (None, 0, ("rbx",))),
    ("5be900000000", None, None),
    ("5bff2500000000", None, (None, 0, ("rbx",))),
    ("5b48ffe0", None, (None, 0, ("rbx",))),
    ("5bffe0", None, None),
    ("5b90c3", None, None),
    ("4883ec28c3", None, None),
    ("90", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("code", "register", "left"), EPILOGUES, ids=[f"{row[0]}-{row[1]}" for row in EPILOGUES])
def test_epilogues(code, register, left):
    raw = bytes.fromhex(code)
    found = match(0, register, lambda at, size: raw[at : at + size], lambda va: va > 0x800)
    assert (found and (found.base, found.add, found.pops)) == left


# a tail call behind a pop at 0x1000, and where it leads
TAIL_CALLS = [
    ("5beb10", 0x1013),
    ("5bebf0", 0xFF3),
    ("5bf2eb10", 0x1014),
    ("5be910000000", 0x1016),
    ("5be9f0ffffff", 0xFF6),
    ("5bf2e910000000", 0x1017),
]


@pytest.mark.parametrize(("code", "target"), TAIL_CALLS, ids=[row[0] for row in TAIL_CALLS])
@pytest.mark.parametrize("away", [True, False], ids=["away", "within"])
def test_a_jump_ends_an_epilogue_where_it_leaves_the_function(code, target, away):
    raw, asked = bytes.fromhex(code), []
    found = match(0x1000, None, lambda at, size: raw[at - 0x1000 : at - 0x1000 + size], lambda va: asked.append(va) or away)
    assert (found and found.pops) == (("rbx",) if away else None)
    assert asked == [target]


@pytest.mark.parametrize("code", ["5beb", "5be9000000", "5bff"])
def test_a_jump_cut_short_ends_nothing(code):
    raw = bytes.fromhex(code)
    assert match(0, None, lambda at, size: raw[at : at + size], lambda va: True) is None


SHOWN = [
    (1, "0130", "push_nonvol rbx"),
    (1, "0432", "alloc_small 32"),
    (1, "07010010", "alloc_large 32768"),
    (1, "0403", "set_fpreg"),
    (1, "04640200", "save_nonvol rsi +16"),
    (1, "046518000000", "save_nonvol_far rsi +24"),
    (1, "05660200", "save_xmm xmm6 +16"),
    (1, "056720000000", "save_xmm_far xmm6 +32"),
    (1, "05680100", "save_xmm128 xmm6 +16"),
    (1, "056920000000", "save_xmm128_far xmm6 +32"),
    (1, "000a", "push_machframe"),
    (1, "001a", "push_machframe code"),
    (2, "0516", "epilog 5 1"),
    (2, "056720000000", "spare"),
]


@pytest.mark.parametrize(("version", "code", "text"), SHOWN, ids=[row[2] for row in SHOWN])
def test_operations_are_shown(version, code, text):
    (found,) = parse(0, reader(info(code, version=version))).codes
    assert found.text == text
