"""Moving entries on x64: original and copy run side by side on Unicorn and must do the same to registers, flags and memory."""

from __future__ import annotations

import random

import pytest
import unicorn
from unicorn import x86_const as uc

from hotpatch.arch import Machine, architecture
from tests.arch.x64.rows import NOT_RUN, ROWS, SOURCE, TRAPS

X64 = architecture(Machine.X64)

IMAGE, IMAGE_SIZE = 0x140000000, 0x10000
STACK, STACK_SIZE = 0x200000000, 0x4000
DATA, DATA_SIZE = 0x210000000, 0x4000
ELSEWHERE = 0x500000000
LIMIT = 200
COUNTS = (0, 1, 2, 3, 2**32, 2**63, DATA + 0x100)
"""What counted jumps find in rcx; the last one is a pointer."""
SEEDS = range(14)

NAMES = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{number}" for number in range(8, 16)))
GENERAL = [getattr(uc, f"UC_X86_REG_{name}") for name in (*NAMES, "EFLAGS")]
VECTORS = [getattr(uc, f"UC_X86_REG_XMM{number}") for number in range(4)]
LEFT = (unicorn.UC_ERR_OK, unicorn.UC_ERR_FETCH_UNMAPPED)
ARITHMETIC_FLAGS = 0x8D5


class Run:
    """One run from ``start`` until the program counter leaves ``[start, start + size)``."""

    def __init__(self, seed, image, extra, start, size):
        rng = random.Random(seed)
        machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        for base, length in ((IMAGE, IMAGE_SIZE), (STACK, STACK_SIZE), (DATA, DATA_SIZE)):
            machine.mem_map(base, length)
            words = (ELSEWHERE + rng.randrange(0, 2**20) for _ in range(length // 8))
            machine.mem_write(base, b"".join(word.to_bytes(8, "little") for word in words))
        machine.mem_write(SOURCE, image)
        if extra is not None:
            machine.mem_map(extra[0] & ~0xFFF, 0x1000)
            machine.mem_write(*extra)
        for register in GENERAL[:-1]:
            machine.reg_write(register, DATA + rng.randrange(0, DATA_SIZE // 2, 8))
        machine.reg_write(uc.UC_X86_REG_RCX, COUNTS[seed % len(COUNTS)])
        machine.reg_write(uc.UC_X86_REG_RSP, STACK + STACK_SIZE // 2)
        machine.reg_write(uc.UC_X86_REG_EFLAGS, 0x202 | rng.getrandbits(12) & ARITHMETIC_FLAGS)
        for register in VECTORS:
            machine.reg_write(register, rng.getrandbits(128))
        machine.hook_add(unicorn.UC_HOOK_CODE, self._step, (start, start + size))
        self.error, self.steps = unicorn.UC_ERR_OK, 0
        try:
            machine.emu_start(start, 0)
        except unicorn.UcError as error:
            self.error = error.errno
        self.pc = machine.reg_read(uc.UC_X86_REG_RIP)
        self.registers = [machine.reg_read(register) for register in GENERAL + VECTORS]
        self.stack = bytes(machine.mem_read(STACK, STACK_SIZE))
        self.data = bytes(machine.mem_read(DATA, DATA_SIZE) + machine.mem_read(SOURCE + 0x100, IMAGE + IMAGE_SIZE - SOURCE - 0x100))

    def _step(self, machine, address, size, bounds):
        self.steps += 1
        if not bounds[0] <= address < bounds[1] or self.steps > LIMIT:
            machine.emu_stop()


def home(moved, trampoline, address):
    """Where ``address`` in the copy lies in the original: the end of the instruction that it is behind or in, or its start."""
    offset = address - trampoline
    if not 0 <= offset <= len(moved.code):
        return address
    for source, place in moved.offsets.items():
        if place == offset:
            return SOURCE + source
    following = [source for source, place in moved.offsets.items() if place > offset]
    return SOURCE + min(following) if following else moved.resume_va


def compare(row, seed):
    moved = X64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)
    original = Run(seed, row.code, None, SOURCE, row.resume)
    patched = b"\xcc" * row.displaced + row.code[row.displaced :]
    copy = Run(seed, patched, (row.trampoline, moved.code), row.trampoline, len(moved.code))
    if original.steps > LIMIT:
        assert copy.steps > LIMIT
        return original
    stack = bytearray(copy.stack)
    for place in range(0, STACK_SIZE, 8):
        word = int.from_bytes(stack[place : place + 8], "little")
        if row.trampoline < word <= row.trampoline + len(moved.code):
            stack[place : place + 8] = home(moved, row.trampoline, word).to_bytes(8, "little")
    assert copy.error == original.error
    assert home(moved, row.trampoline, copy.pc) == original.pc
    assert copy.registers == original.registers
    assert bytes(stack) == original.stack
    assert copy.data == original.data
    return original


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in NOT_RUN], ids=str)
def test_copy_does_what_the_original_does(row):
    originals = [compare(row, seed) for seed in SEEDS]
    if row.name not in TRAPS:
        assert any(original.error in LEFT for original in originals)


def test_a_wrong_copy_is_noticed():
    row = next(row for row in ROWS if row.name == "jne-rel8")
    moved = X64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)
    wrong = moved.code.replace(b"\x0f\x85", b"\x0f\x84")
    runs = [
        (Run(seed, row.code, None, SOURCE, row.resume), Run(seed, row.code, (row.trampoline, wrong), row.trampoline, len(wrong)))
        for seed in SEEDS
    ]
    assert any(original.pc != copy.pc for original, copy in runs)
