"""Dispatchers run from random states: which way they go, and that they change nothing that a callee may expect."""

from __future__ import annotations

import random

import pytest
import unicorn
from unicorn import arm64_const, x86_const

from hotpatch.arch import Machine, architecture

CODE, BEFORE, AFTER, BLOCK, STACK = 0x10000, 0x5_0001_0000, 0x7_0002_0000, 0x20000, 0x30000
FLAG = 0xE8
STATES = 50
ARITHMETIC_FLAGS = 0x8D5
"""OF, SF, ZF, AF, PF, CF."""
X64 = [f"R{name}" for name in ("AX", "BX", "CX", "DX", "SI", "DI", "BP", *range(8, 16))] + [f"XMM{index}" for index in range(16)]
ARM64 = [f"X{index}" for index in range(31)] + [f"Q{index}" for index in range(32)] + ["NZCV"]


class Bench:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        x64 = machine is Machine.X64
        self.uc = unicorn.Uc(*((unicorn.UC_ARCH_X86, unicorn.UC_MODE_64) if x64 else (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)))
        constants, prefix = (x86_const, "UC_X86_REG_") if x64 else (arm64_const, "UC_ARM64_REG_")
        self.ids = {name: getattr(constants, prefix + name) for name in (X64 if x64 else ARM64)}
        self.sp, self.pc = (getattr(constants, prefix + name) for name in (("RSP", "RIP") if x64 else ("SP", "PC")))
        if not x64:
            self.uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        for page in (CODE, BEFORE, AFTER, BLOCK, STACK):
            self.uc.mem_map(page, 0x1000)
        self.uc.mem_write(CODE, architecture(machine).dispatcher(FLAG, BEFORE, AFTER))

    def state(self) -> dict[str, int]:
        found = {name: self.uc.reg_read(number) for name, number in self.ids.items()}
        if self.machine is Machine.X64:
            found["flags"] = self.uc.reg_read(x86_const.UC_X86_REG_RFLAGS) & ~ARITHMETIC_FLAGS
        return found | {"sp": self.uc.reg_read(self.sp)}

    def run(self, rng: random.Random, flag: int) -> tuple[int, dict[str, int], dict[str, int]]:
        for name, number in self.ids.items():
            bits = 4 if name == "NZCV" else 128 if name[0] in "Q" or name.startswith("XMM") else 64
            self.uc.reg_write(number, rng.getrandbits(bits) << (28 if name == "NZCV" else 0))
        if self.machine is Machine.X64:
            self.uc.reg_write(x86_const.UC_X86_REG_GS_BASE, BLOCK)
            self.uc.reg_write(x86_const.UC_X86_REG_RFLAGS, 0x202 | rng.getrandbits(12) & ARITHMETIC_FLAGS)
        else:
            self.uc.reg_write(arm64_const.UC_ARM64_REG_X18, BLOCK)
        self.uc.reg_write(self.sp, STACK + 0x800 + 16 * rng.randrange(32))
        self.uc.mem_write(STACK, rng.randbytes(0x1000))
        self.uc.mem_write(BLOCK, rng.randbytes(0x1000))
        self.uc.mem_write(BLOCK + FLAG, bytes((flag,)))
        memory = [bytes(self.uc.mem_read(page, 0x1000)) for page in (CODE, BLOCK, STACK)]
        before = self.state()
        self.uc.emu_start(CODE, BEFORE if flag else AFTER, count=8)
        assert [bytes(self.uc.mem_read(page, 0x1000)) for page in (CODE, BLOCK, STACK)] == memory
        return self.uc.reg_read(self.pc), before, self.state()


@pytest.mark.parametrize("flag", [0, 1])
def test_it_changes_nothing_but_what_the_convention_allows(machine: Machine, flag: int) -> None:
    bench, rng = Bench(machine), random.Random(flag)
    for _ in range(STATES):
        pc, before, after = bench.run(rng, flag)
        assert pc == (BEFORE if flag else AFTER)
        if machine is Machine.ARM64:
            assert after.pop("X16") == pc
            del before["X16"]
        assert after == before
