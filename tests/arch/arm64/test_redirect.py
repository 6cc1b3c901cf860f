"""Jumps over entries: written, read back, recognised, run."""

from __future__ import annotations

import struct

import pytest
import unicorn
from unicorn import arm64_const as uc

from hotpatch.arch import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE, Machine, Redirect, architecture
from hotpatch.errors import OutOfReach, Rule

ARM64 = architecture(Machine.ARM64)
ENTRY = 0x140001000
SLOT = 0x140050008


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def reader(*pieces: tuple[int, bytes]):
    def read(address: int, size: int) -> bytes:
        for base, content in pieces:
            if base <= address < base + len(content):
                return content[address - base : address - base + size]
        return b""

    return read


@pytest.mark.parametrize("strategy", list(Redirect))
def test_one_branch_over_the_entry_and_read_back(strategy: Redirect):
    site = ARM64.entry_site(strategy)
    assert (site.before, site.displaced) == (0, 4)
    (write,) = ARM64.redirect_writes(strategy, ENTRY, SLOT)
    assert (write.va, write.new) == (ENTRY, words(0x14013C02))
    assert ARM64.redirect_destination(strategy, ENTRY, reader((ENTRY, write.new))) == SLOT


@pytest.mark.parametrize("strategy", [Redirect.DIRECT, Redirect.INLINE])
def test_direct_redirects_go_backward_too(strategy: Redirect):
    (write,) = ARM64.redirect_writes(strategy, SLOT, ENTRY)
    assert ARM64.redirect_destination(strategy, SLOT, reader((SLOT, write.new))) == ENTRY


@pytest.mark.parametrize(
    ("strategy", "entry", "destination"),
    [
        (Redirect.HPAT, SLOT, ENTRY),
        (Redirect.HPAT, ENTRY, ENTRY),
        (Redirect.HPAT, ENTRY, ENTRY + (1 << 27)),
        (Redirect.DIRECT, ENTRY, ENTRY + (1 << 27)),
        (Redirect.DIRECT, ENTRY + (1 << 27) + 4, ENTRY),
        (Redirect.INLINE, ENTRY, SLOT + 2),
    ],
)
def test_a_redirect_that_cannot_be_is_refused(strategy: Redirect, entry: int, destination: int):
    with pytest.raises(OutOfReach) as caught:
        ARM64.redirect_writes(strategy, entry, destination)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.OUT_OF_REACH
    assert refusal.evidence["distance"] == destination - entry
    assert len(bytes.fromhex(str(refusal.evidence["bytes"]))) == 4


@pytest.mark.parametrize("content", [b"", words(0xD503201F), words(0x94000001), b"\x01\x00\x00"])
def test_bytes_that_are_no_redirect(content: bytes):
    assert ARM64.redirect_destination(Redirect.DIRECT, ENTRY, reader((ENTRY, content))) is None


def test_a_backward_branch_is_no_hpat_redirect():
    assert ARM64.redirect_destination(Redirect.HPAT, ENTRY, reader((ENTRY, words(0x17FFFFFF)))) is None


def test_reach():
    assert ARM64.branch_reach == (1 << 27) - 4
    ARM64.redirect_writes(Redirect.HPAT, ENTRY, ENTRY + ARM64.branch_reach)


TARGET = 0x7FF812345678
POINTER = 0x140060010
FOREIGN = {
    "b": ((words(0x14000400),), ENTRY + 0x1000),
    "b behind a landing pad": ((words(0xD503245F, 0x14000400),), ENTRY + 0x1004),
    "b behind nop": ((words(0xD503201F, 0x14000400),), ENTRY + 0x1004),
    "ldr x16 literal, br": ((words(0x58000050, 0xD61F0200) + struct.pack("<Q", TARGET),), TARGET),
    "ldr x17 literal, br": ((words(0x58000051, 0xD61F0220) + struct.pack("<Q", TARGET),), TARGET),
    "movz, movk, movk, br": ((words(0xD28ACF10, 0xF2A24690, 0xF2CFFF10, 0xD61F0200),), TARGET),
    "movz, movk x3, br": ((words(0xD28ACF11, 0xF2A24691, 0xF2CFFF11, 0xF2E00011, 0xD61F0220),), TARGET),
    "movn, br": ((words(0x92800010, 0xD61F0200),), 0xFFFFFFFFFFFFFFFF),
    "adrp, add, br": ((words(0xF00002F0, 0x91004210, 0xD61F0200),), POINTER),
    "adrp, ldr, br": ((words(0xF00002F0, 0xF9400A10, 0xD61F0200), struct.pack("<Q", TARGET)), TARGET),
    "other register, br": ((words(0x58000049, 0xD61F0120) + struct.pack("<Q", TARGET),), TARGET),
    "different registers": ((words(0x58000050, 0xD61F0220) + struct.pack("<Q", TARGET),), None),
    "br of an argument": ((words(0xD61F0000),), None),
    "call": ((words(0x58000050, 0xD63F0200) + struct.pack("<Q", TARGET),), None),
    "ordinary code": ((words(0xA9BF7BFD, 0x910003FD, 0xD61F03A0),), None),
    "truncated literal": ((words(0x58000050, 0xD61F0200) + b"\1\2",), None),
    "nothing": ((b"",), None),
    "only landing pads": ((words(0xD503245F, 0xD503201F),), None),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_jumps(name: str):
    (code, *pointer), expected = FOREIGN[name]
    pieces = [(ENTRY, code)] + [(POINTER, content) for content in pointer]
    assert ARM64.foreign_jump(ENTRY, reader(*pieces)) == expected


def test_own_redirects_and_slots_are_seen_as_jumps():
    (write,) = ARM64.redirect_writes(Redirect.HPAT, ENTRY, SLOT)
    assert ARM64.foreign_jump(ENTRY, reader((ENTRY, write.new))) == SLOT
    slot = reader((SLOT, ARM64.hpat_slot()), (SLOT + HPAT_POINTER_DISTANCE, struct.pack("<Q", TARGET)))
    assert ARM64.foreign_jump(SLOT, slot) == TARGET
    assert ARM64.foreign_jump(SLOT, reader((SLOT, ARM64.absolute_jump(TARGET)))) == TARGET


def test_fixed_words():
    assert ARM64.hpat_slot() == words(0x58008010, 0xD61F0200)
    assert len(ARM64.hpat_slot()) == HPAT_SLOT_SIZE
    assert ARM64.absolute_jump(TARGET) == words(0x58000050, 0xD61F0200) + struct.pack("<Q", TARGET)


@pytest.mark.parametrize("how", ["slot", "absolute"])
def test_jumps_arrive_and_change_x16_alone(how: str):
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    page, pointers, target = 0x140050000, 0x140051000, 0x7FF812345000
    for base in (page, pointers, target):
        engine.mem_map(base, 0x1000)
    if how == "slot":
        engine.mem_write(page + 8, ARM64.hpat_slot())
        engine.mem_write(pointers + 8, struct.pack("<Q", target))
    else:
        engine.mem_write(page + 8, ARM64.absolute_jump(target))
    engine.mem_write(target, words(0xD503201F))
    registers = [getattr(uc, f"UC_ARM64_REG_X{n}") for n in range(31)] + [uc.UC_ARM64_REG_SP, uc.UC_ARM64_REG_NZCV]
    before = [n << 20 for n in range(31)] + [0x1000, 0xA0000000]
    for register, value in zip(registers, before, strict=True):
        engine.reg_write(register, value)
    engine.emu_start(page + 8, target, count=8)
    assert engine.reg_read(uc.UC_ARM64_REG_PC) == target
    after = [engine.reg_read(register) for register in registers]
    assert [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [16]


def test_convention():
    convention = ARM64.convention
    assert convention.integer_arguments == ("x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7")
    assert convention.float_arguments[0] == convention.float_result == "q0"
    assert (convention.positional, convention.home_space, convention.link, convention.thread) == (False, 0, "x30", "x18")
    assert convention.preserved == tuple(f"x{n}" for n in range(19, 30))
