"""Running original and copy on Unicorn, each until it leaves, and comparing what they did."""

from __future__ import annotations

import random

import unicorn
from unicorn import x86_const as uc

STACK, STACK_SIZE = 0x200000000, 0x4000
DATA, DATA_SIZE = 0x210000000, 0x4000
ELSEWHERE = 0x500000000
PAGE = 0x1000
LIMIT = 200
COUNTS = (0, 1, 2, 3, 2**32, 2**63, DATA + 0x100)
"""What counted jumps find in rcx; the last one is a pointer."""

NAMES = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{number}" for number in range(8, 16)))
GENERAL = [getattr(uc, f"UC_X86_REG_{name}") for name in (*NAMES, "EFLAGS")]
VECTORS = [getattr(uc, f"UC_X86_REG_XMM{number}") for number in range(4)]
ARITHMETIC_FLAGS = 0x8D5


def pointers(rng, size):
    """Bytes that read as canonical addresses of nothing."""
    return b"".join((ELSEWHERE + rng.randrange(0, 2**20)).to_bytes(8, "little") for _ in range(size // 8))


class Run:
    """One run over ``image`` (address, bytes) from ``start`` until the program counter leaves ``[start, start + size)``."""

    def __init__(self, seed, image, extra, start, size):
        rng = random.Random(seed)
        machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        for base, content in (image, (STACK, pointers(rng, STACK_SIZE)), (DATA, pointers(rng, DATA_SIZE)), extra):
            first, last = base & -PAGE, (base + len(content) + PAGE - 1) & -PAGE
            machine.mem_map(first, last - first)
            machine.mem_write(base, content)
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
        self.data = bytes(machine.mem_read(DATA, DATA_SIZE))
        self.image = bytes(machine.mem_read(image[0], len(image[1])))

    def _step(self, machine, address, size, bounds):
        self.steps += 1
        if not bounds[0] <= address < bounds[1] or self.steps > LIMIT:
            machine.emu_stop()


def home(moved, source, trampoline, address):
    """Where ``address`` in the copy lies in the original: an instruction's start, or the end of the one that it is in or behind."""
    offset = address - trampoline
    if not 0 <= offset <= len(moved.code):
        return address
    for origin, place in moved.offsets.items():
        if place == offset:
            return source + origin
    following = [origin for origin, place in moved.offsets.items() if place > offset]
    return source + min(following) if following else moved.resume_va


def compare(image, source, moved, trampoline, displaced, seed):
    """Run both, assert that they did the same, and give the original's run. ``image``: address and bytes, ``source`` in it."""
    base, content = image
    size = moved.resume_va - source
    original = Run(seed, image, (trampoline, moved.code), source, size)
    place = source - base
    redirected = content[:place] + b"\xcc" * displaced + content[place + displaced :]
    copy = Run(seed, (base, redirected), (trampoline, moved.code), trampoline, len(moved.code))
    if original.steps > LIMIT:
        assert copy.steps > LIMIT
        return original
    stack = bytearray(copy.stack)
    for offset in range(0, STACK_SIZE, 8):
        word = int.from_bytes(stack[offset : offset + 8], "little")
        if trampoline < word <= trampoline + len(moved.code):
            stack[offset : offset + 8] = home(moved, source, trampoline, word).to_bytes(8, "little")
    assert copy.error == original.error
    assert home(moved, source, trampoline, copy.pc) == original.pc
    assert copy.registers == original.registers
    assert bytes(stack) == original.stack
    assert copy.data == original.data
    assert copy.image[:place] == original.image[:place]
    assert copy.image[place + displaced :] == original.image[place + displaced :]
    return original
