"""Runs a function of a fake process in Unicorn, with its memory and rights."""

from __future__ import annotations

import unicorn
from unicorn import arm64_const, x86_const

from hotpatch.arch import Machine, architecture
from hotpatch.engine import Rights

from .fake import Fake

STOP = 0x10000
STACK = 0x20000
SIZE = 0x4000
LIMIT = 20_000


def call(fake: Fake, va: int, *arguments: int) -> tuple[int, list[int]]:
    """Result of the function at ``va`` with integer arguments in registers, and the addresses of the instructions that ran."""
    x64 = fake.machine is Machine.X64
    machine = unicorn.Uc(*((unicorn.UC_ARCH_X86, unicorn.UC_MODE_64) if x64 else (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)))
    for block in fake.blocks.values():
        machine.mem_map(block.va, len(block.memory), unicorn.UC_PROT_NONE)
        machine.mem_write(block.va, bytes(block.memory))
        for page, rights in enumerate(block.rights):
            machine.mem_protect(block.va + page * 0x1000, 0x1000, _protection(rights))
    machine.mem_map(STOP, 0x1000)
    machine.mem_map(STACK, SIZE)
    trail: list[int] = []
    machine.hook_add(unicorn.UC_HOOK_CODE, lambda _uc, address, _size, _data: trail.append(address))
    sp = STACK + SIZE - 0x108 if x64 else STACK + SIZE - 0x100
    if x64:
        machine.mem_write(sp, STOP.to_bytes(8, "little"))
        machine.reg_write(x86_const.UC_X86_REG_RSP, sp)
    else:
        machine.reg_write(arm64_const.UC_ARM64_REG_SP, sp)
        machine.reg_write(arm64_const.UC_ARM64_REG_X30, STOP)
    convention = architecture(fake.machine).convention
    assert len(arguments) <= len(convention.integer_arguments)
    for register, value in zip(convention.integer_arguments, arguments, strict=False):
        machine.reg_write(_number(fake.machine, register), value % (1 << 64))
    machine.emu_start(va, STOP, count=LIMIT)
    assert machine.reg_read(_number(fake.machine, convention.pc)) == STOP, "did not come to an end"
    for block in fake.blocks.values():
        block.memory[:] = machine.mem_read(block.va, len(block.memory))
    result = machine.reg_read(x86_const.UC_X86_REG_RAX if x64 else arm64_const.UC_ARM64_REG_X0)
    return result, trail


def _number(machine: Machine, register: str) -> int:
    if machine is Machine.X64:
        return getattr(x86_const, f"UC_X86_REG_{register.upper()}")
    return getattr(arm64_const, f"UC_ARM64_REG_{register.upper()}")


def _protection(rights: Rights) -> int:
    return sum(
        bit
        for right, bit in (
            (Rights.READ, unicorn.UC_PROT_READ),
            (Rights.WRITE, unicorn.UC_PROT_WRITE),
            (Rights.EXECUTE, unicorn.UC_PROT_EXEC),
        )
        if rights & right
    )
