"""Redirects of x64 functions, foreign jumps, padding and the calling convention."""

from __future__ import annotations

import pytest

from hotpatch.arch import HPAT_SLOT_SIZE, CodeWrite, EntrySite, Machine, Redirect, architecture
from hotpatch.errors import OutOfReach

X64 = architecture(Machine.X64)
ENTRY = 0x140001010


def reader(parts):
    def read(address, size):
        for start, data in parts.items():
            if start <= address < start + len(data):
                return data[address - start : address - start + size]
        return b""

    return read


def test_sites():
    assert X64.entry_site(Redirect.HPAT) == EntrySite(before=5, displaced=2)
    assert X64.entry_site(Redirect.DIRECT) == EntrySite(before=5, displaced=2)
    assert X64.entry_site(Redirect.INLINE) == EntrySite(before=0, displaced=5)


WRITES = (
    (Redirect.HPAT, 0x140020000, ((ENTRY - 5, "e9f0ef0100"), (ENTRY, "ebf9"))),
    (Redirect.DIRECT, 0x13FFF0000, ((ENTRY - 5, "e9f0effeff"), (ENTRY, "ebf9"))),
    (Redirect.INLINE, 0x140020000, ((ENTRY, "e9ebef0100"),)),
)


@pytest.mark.parametrize(("strategy", "destination", "writes"), WRITES)
def test_writes_and_back(strategy, destination, writes):
    expected = tuple(CodeWrite(va, bytes.fromhex(new)) for va, new in writes)
    assert X64.redirect_writes(strategy, ENTRY, destination) == expected
    memory = bytearray(b"\xcc" * 6 + b"\x90" * 10)
    for write in expected:
        memory[write.va - (ENTRY - 6) : write.va - (ENTRY - 6) + len(write.new)] = write.new
    read = reader({ENTRY - 6: bytes(memory)})
    assert X64.redirect_destination(strategy, ENTRY, read) == destination
    assert len(expected[-1].new) == X64.entry_site(strategy).displaced


@pytest.mark.parametrize("strategy", list(Redirect))
def test_no_redirect_there(strategy):
    for memory in ("cccccccccccc48895c2408", "cccccccccccc ebf9", "cce900000000 6690", "cccc", ""):
        read = reader({ENTRY - 6: bytes.fromhex(memory)})
        assert X64.redirect_destination(strategy, ENTRY, read) is None


@pytest.mark.parametrize("strategy", list(Redirect))
def test_out_of_reach(strategy):
    last = ENTRY + X64.entry_site(strategy).displaced * (strategy is Redirect.INLINE) + 2**31 - 1
    assert len(X64.redirect_writes(strategy, ENTRY, last)) >= 1
    with pytest.raises(OutOfReach):
        X64.redirect_writes(strategy, ENTRY, last + 1)


def test_slot_jumps_through_the_pointer_0x1000_behind_it():
    assert X64.hpat_slot().hex() == "ff25fa0f0000cccc"
    assert len(X64.hpat_slot()) == HPAT_SLOT_SIZE
    pointer = reader({0x140020000: X64.hpat_slot(), 0x140021000: (0x150000000).to_bytes(8, "little")})
    assert X64.foreign_jump(0x140020000, pointer) == 0x150000000


def test_absolute_jump():
    code = X64.absolute_jump(0x7FF612345678)
    assert code.hex() == "ff250000000078563412f67f0000"
    assert X64.foreign_jump(0x1000, reader({0x1000: code})) == 0x7FF612345678


FOREIGN = (
    ("jmp-rel32", "e9ebef0100", 0x140020000),
    ("jmp-rel8", "ebf9", ENTRY - 5),
    ("jmp-rel8-forward", "eb10", ENTRY + 0x12),
    ("mov-rax-jmp-rax", "48b87856341200000000ffe0", 0x12345678),
    ("mov-r11-jmp-r11", "49bb7856341200000000 41ffe3", 0x12345678),
    ("mov-rax-jmp-rcx", "48b87856341200000000ffe1", None),
    ("push-ret", "6878563412 c3", 0x12345678),
    ("push-mov-ret", "6878563412 c744240401000000 c3", 0x112345678),
    ("push-mov-no-ret", "6878563412 c744240401000000 90", None),
    ("push-exchange-ret", "50 48b87856341200000000 48870424 c3", 0x12345678),
    ("int3", "cc", None),
    ("call", "e800000000", None),
    ("je", "7400", None),
    ("ordinary", "48895c2408", None),
    ("cut-jmp", "e90000", None),
    ("cut-jmp-rel8", "eb", None),
    ("cut-through-pointer", "ff2500", None),
    ("pointer-unreadable", "ff25fa0f0000", None),
    ("nothing", "", None),
)


@pytest.mark.parametrize(("name", "code", "target"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_foreign_jump(name, code, target):
    assert X64.foreign_jump(ENTRY, reader({ENTRY: bytes.fromhex(code)})) == target


@pytest.mark.parametrize("filler", X64.padding_bytes, ids=bytes.hex)
def test_fillers_are_single_instructions_that_do_nothing(filler):
    (instruction,) = X64.disassemble(filler, 0x1000)
    assert instruction.size == len(filler)
    assert instruction.mnemonic in ("nop", "int3")


def test_fillers_are_sorted_and_of_every_length():
    lengths = [len(filler) for filler in X64.padding_bytes]
    assert lengths == sorted(lengths, reverse=True)
    assert set(lengths) == set(range(1, 16))


def test_convention():
    convention = X64.convention
    assert convention.integer_arguments == ("rcx", "rdx", "r8", "r9")
    assert convention.float_arguments == ("xmm0", "xmm1", "xmm2", "xmm3")
    assert (convention.positional, convention.result, convention.float_result, convention.home_space) == (True, "rax", "xmm0", 32)
    assert set(convention.preserved) == {"rbx", "rbp", "rdi", "rsi", "r12", "r13", "r14", "r15", "rsp"}
    assert (convention.sp, convention.pc, convention.link, convention.thread) == ("rsp", "rip", None, None)
