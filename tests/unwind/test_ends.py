"""Where walks begin and end: outside of every module, at 0, at the limit, in a trampoline, on a stack that cannot be read."""

from __future__ import annotations

import struct

import pytest
import unicorn
from unicorn import arm64_const, x86_const

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.image import open_image
from hotpatch.unwind import FRAME_LIMIT, Located, unwinder
from tests.image.conftest import FIXTURES

BASE = 0x1_8000_0000
STACK = 0x5000
ELSEWHERE = 0x7FFF_0000


class Process:
    """The recursion fixture at BASE, with ``depth`` frames of ``cost`` on its stack, the oldest of which returns to ``outside``."""

    def __init__(self, machine, outside, depth=3):
        self.image = open_image(FIXTURES / "recursion" / machine / "base.dll")
        self.unwinder = unwinder(self.image.machine)
        convention = architecture(self.image.machine).convention
        self.function = self.image.function_named("cost")
        self.memory = bytearray(0x8000)
        preserved = dict.fromkeys(convention.preserved, 0x55)
        entered = {**preserved, "x30": outside, convention.pc: BASE + self.function.entry, convention.sp: STACK + 0x7000}
        if convention.link is None:
            struct.pack_into("<Q", self.memory, 0x7000, outside)
        self.sp = convention.sp
        self.registers = self._descend(entered, depth, convention)

    def _descend(self, entered, depth, convention):
        """Memory and registers at the entry of the call that has ``depth`` callers in the function, as running it leaves them."""
        x64 = convention.link is None
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64) if x64 else unicorn.Uc(unicorn.UC_ARCH_ARM64, 0)
        module, prefix = (x86_const, "UC_X86_REG_") if x64 else (arm64_const, "UC_ARM64_REG_")
        number = {name: getattr(module, prefix + name.upper()) for name in entered if hasattr(module, prefix + name.upper())}
        uc.mem_map(BASE, 0x10000)
        uc.mem_write(BASE, self.image.mapped)
        uc.mem_map(STACK, 0x8000)
        uc.mem_write(STACK, bytes(self.memory))
        for name in number:
            uc.reg_write(number[name], entered[name])
        uc.reg_write(getattr(module, prefix + convention.integer_arguments[0].upper()), 1000)
        entry = BASE + self.function.entry
        arrivals = []

        def at_entry(machine, address, size, _):
            arrivals.append(address)
            if len(arrivals) > depth:
                machine.emu_stop()

        uc.hook_add(unicorn.UC_HOOK_CODE, at_entry, begin=entry, end=entry)
        uc.emu_start(entry, 0, count=10_000)
        self.memory[:] = uc.mem_read(STACK, 0x8000)
        return {name: uc.reg_read(number[name]) for name in number}

    def read(self, va, size):
        return bytes(self.memory[va - STACK : va - STACK + size]) if STACK <= va < STACK + len(self.memory) else self.code(va, size)

    def code(self, va, size):
        return self.image.read(va - BASE, size) if BASE <= va < BASE + self.image.size_of_image else b""

    def locate(self, va):
        return Located(Va(BASE), self.image) if BASE <= va < BASE + self.image.size_of_image else None

    def walk(self, registers=None, **options):
        return self.unwinder.walk(registers or self.registers, self.read, options.pop("locate", self.locate), **options)


@pytest.fixture(params=["x64", "arm64"])
def machine(request):
    return request.param


def test_a_caller_outside_of_every_module_is_the_last_frame(machine):
    frames = Process(machine, ELSEWHERE).walk()
    assert [frame.function and frame.function.name for frame in frames] == ["cost"] * 4 + [None]
    assert (frames[-1].pc, frames[-1].module, frames[-1].function) == (ELSEWHERE, None, None)
    assert frames[-1].sp in {STACK + 0x7000, STACK + 0x7008}
    assert frames[0].module == BASE


def test_a_return_address_of_zero_ends_the_walk(machine):
    frames = Process(machine, 0).walk()
    assert [frame.function.name for frame in frames] == ["cost"] * 4


def test_the_limit_holds(machine):
    process = Process(machine, ELSEWHERE)
    assert len(process.walk(limit=2)) == 2
    assert FRAME_LIMIT >= 64


def test_a_system_function_just_entered_shows_its_callers(machine):
    """The innermost frame stands outside of every module; its return address is where the call left it."""
    process = Process(machine, ELSEWHERE)
    convention = architecture(process.image.machine).convention
    frames = process.walk({**process.registers, convention.pc: ELSEWHERE + 0x100})
    assert [frame.function and frame.function.name for frame in frames] == [None, "cost", "cost", "cost", None]


def test_a_trampoline_is_walked_as_what_it_was_moved_from(machine):
    process = Process(machine, ELSEWHERE)
    convention = architecture(process.image.machine).convention
    entry = Va(BASE + process.function.entry)
    trampoline = 0x3_0000_0000

    def locate(va):
        return Located(Va(BASE), process.image, entry) if va == trampoline else process.locate(va)

    frames = process.walk({**process.registers, convention.pc: trampoline}, locate=locate)
    assert frames[0].pc == trampoline
    assert [frame.function and frame.function.name for frame in frames] == ["cost"] * 4 + [None]


def test_a_stack_that_cannot_be_read_ends_the_walk(machine):
    process = Process(machine, ELSEWHERE)
    frames = process.walk({**process.registers, process.sp: 0x9_0000_0000})
    assert 1 <= len(frames) <= 2
    assert frames[0].function.name == "cost"
