"""Running original and copy in Unicorn, each until it leaves, and comparing what they did."""

from __future__ import annotations

import random
from dataclasses import dataclass

import unicorn
from unicorn import arm64_const as uc

from hotpatch.arch import Trampoline

STACK, STACK_SIZE = 0x7F0000000000, 0x10000
DATA, DATA_SIZE = 0x7E0000000000, 0x4000
GENERAL = [getattr(uc, f"UC_ARM64_REG_X{n}") for n in range(31)]
VECTORS = [getattr(uc, f"UC_ARM64_REG_Q{n}") for n in range(32)]
PAGE = 0x1000
STEPS = 64
SCRATCH = (16, 17)
LINK = 30


@dataclass(frozen=True)
class Outcome:
    pc: int
    general: list[int]
    vectors: list[int]
    sp: int
    nzcv: int
    memory: tuple[bytes, ...]


def run(seed: str, image: tuple[int, bytes], extra: tuple[int, bytes], start: int, size: int) -> Outcome:
    """From ``start`` until the program counter leaves ``size`` bytes; everything that ``seed`` sets is the same for the same ``seed``."""
    rng = random.Random(seed)
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    engine.ctl_set_cpu_model(uc.UC_CPU_ARM64_MAX)
    pieces = [image, (STACK, rng.randbytes(STACK_SIZE)), (DATA, rng.randbytes(DATA_SIZE))]
    for base, content in pieces + ([] if image[0] <= extra[0] < image[0] + len(image[1]) else [extra]):
        first, last = base & -PAGE, base + len(content) + PAGE - 1 & -PAGE
        engine.mem_map(first, last - first)
        engine.mem_write(base, content)
    engine.mem_write(*extra)
    engine.reg_write(uc.UC_ARM64_REG_CPACR_EL1, 0x300000)
    for number, register in enumerate(GENERAL):
        pointer = DATA + 16 * rng.randrange(DATA_SIZE // 32)
        plain = rng.choice((0, 1, rng.getrandbits(3), rng.getrandbits(64)))
        engine.reg_write(register, pointer if number in (1, 8, LINK) or rng.random() < 0.3 else plain)
    for register in VECTORS:
        engine.reg_write(register, rng.getrandbits(128))
    engine.reg_write(uc.UC_ARM64_REG_SP, STACK + STACK_SIZE // 2)
    engine.reg_write(uc.UC_ARM64_REG_NZCV, rng.getrandbits(4) << 28)
    pc = start
    for _ in range(STEPS):
        if not start <= pc < start + size:
            break
        try:
            engine.emu_start(pc, 0, count=1)
        except unicorn.UcError as fault:  # an access through a register that is no pointer: the copy must fault alike
            pc = -fault.errno
            break
        pc = engine.reg_read(uc.UC_ARM64_REG_PC)
    else:
        raise AssertionError("never left")
    engine.mem_write(extra[0], bytes(len(extra[1])))  # the trampoline itself is no difference
    return Outcome(
        pc,
        [engine.reg_read(register) for register in GENERAL],
        [engine.reg_read(register) for register in VECTORS],
        engine.reg_read(uc.UC_ARM64_REG_SP),
        engine.reg_read(uc.UC_ARM64_REG_NZCV),
        tuple(bytes(engine.mem_read(base, len(content))) for base, content in pieces),
    )


def same(
    seed: str, image: tuple[int, bytes], source: int, displaced: int, moved: Trampoline, trampoline: int, kept: tuple[int, ...] = ()
) -> int:
    """Assert that the copy does as the original; give the address at which both left. ``kept``: scratch registers whose values count."""
    extra = (trampoline, moved.code)
    one = run(seed, image, extra, source, displaced)
    other = run(seed, image, extra, trampoline, len(moved.code))
    assert other.pc == one.pc
    for number, (value, copy) in enumerate(zip(one.general, other.general, strict=True)):
        if number == LINK and source < value <= source + displaced:  # a moved call returns behind its copy
            call = moved.offsets[value - 4 - source]
            behind = moved.offsets.get(value - source, len(moved.code))
            assert trampoline + call < copy <= trampoline + behind, "x30"
        elif number not in SCRATCH or number in kept:
            assert copy == value, f"x{number}"
    assert other.vectors == one.vectors
    assert (other.sp, other.nzcv) == (one.sp, one.nzcv)
    assert other.memory == one.memory
    return one.pc
