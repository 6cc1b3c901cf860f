"""x64 details of the emulated processor."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from unicorn import x86_const
from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_HOOK_TLB_FILL, UC_MODE_64, UC_PROT_ALL, UC_TLB_VIRTUAL

from hotpatch.arch import Machine, architecture
from hotpatch.arch.x64_operands import memory
from hotpatch.emulator.binding import new_engine
from hotpatch.emulator.cpu_model import HALT, NOWHERE, SYSTEM_CALL, Interrupt
from hotpatch.emulator.memory import PAGE
from hotpatch.emulator.repeats import RepeatForm
from hotpatch.errors import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.emulator.binding import Engine, TlbEntry
    from hotpatch.emulator.cpu import Cpu

_INTEGER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))
_VECTORS = tuple(f"xmm{i}" for i in range(16))

_DIVIDE, _BREAKPOINT, _FAST_FAIL = 0, 3, 0x29
"""Interrupt vectors: #DE, #BP, and Windows' ``__fastfail`` (MS Learn, "__fastfail")."""

_TOLD = (1 << 52) - 1
"""What Unicorn says of the address of an access that failed."""
_LOWER_END, _UPPER_START = 1 << 47, (1 << 64) - (1 << 47)
"""Addresses between them are not canonical (Intel SDM volume 1, "Canonical Addressing")."""
_LARGEST_ACCESS = 512
"""Bytes that one instruction accesses at most: ``fxsave``."""
_MXCSR = 0x1F80
_FPCW = 0x27F
"""What Windows starts a thread with (MS Learn, "x64 calling convention", FpCsr and MxCsr)."""

_REPEATED = (
    rb"(?=([\x26\x2e\x36\x3e\x64-\x67]{0,3}[\xf2\xf3][\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]{0,3}[\x40-\x4f]?"
    rb"[\x6c-\x6f\xa4-\xa7\xaa-\xaf]))"
)
"""REP and REPNE with their other prefixes, then INS, OUTS, MOVS, CMPS, STOS, LODS or SCAS (Intel SDM, volume 2, "REP")."""


class X64Cpu:
    """See :class:`hotpatch.emulator.cpu.CpuModel`."""

    machine = Machine.X64
    registers: Mapping[str, int] = {
        **{
            name: getattr(x86_const, f"UC_X86_REG_{name.upper()}")
            for name in (*_INTEGER, *_VECTORS, "rip", "rflags", "mxcsr", "fpcw", "gs_base")
        }
    }
    general = (*_INTEGER, "rip", "rflags")
    condition_flags = 0x8D5
    pc = "rip"
    sp = "rsp"
    nop = b"\x90"
    guard_check = b"\xc3"
    guard_dispatch = b"\xff\xe0"
    """``jmp rax``: the dispatch function takes the target in rax (MS Learn and LLVM's CFGuard pass say so)."""

    repeats = RepeatForm(re.compile(_REPEATED, re.DOTALL), b"\xa6\xa7\xae\xaf", 0x67, "rcx")

    def create(self) -> Engine:
        """A 64-bit engine."""
        return new_engine(UC_ARCH_X86, UC_MODE_64)

    def hook(self, uc: Engine, clock: Callable[[], int], interrupts: list[int]) -> int:
        """Catch ``syscall``. Unicorn 2.1 hooks neither RDTSC nor RDRAND (docs/limits.md)."""

        def system_call(uc: Engine, _data: object) -> None:
            interrupts.append(SYSTEM_CALL)
            uc.emu_stop()

        return uc.hook_add(UC_HOOK_INSN, system_call, None, 1, 0, x86_const.UC_X86_INS_SYSCALL)

    def bound(self, uc: Engine, trap: list[tuple[int, int]]) -> tuple[int, ...]:
        """Addresses that are not canonical. Unicorn 2.1 maps their low 52 bits, unless it is asked where pages lie, once for each."""

        def fill(_uc: Engine, page: int, access: int, entry: TlbEntry, _data: object) -> bool:
            if _LOWER_END <= page < _UPPER_START and page != NOWHERE & -PAGE:  # Unicorn looks there for itself
                trap.append((page, access))
                return False
            entry.paddr, entry.perms = page, UC_PROT_ALL  # rights are those of what is mapped there
            return True

        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        return (uc.hook_add(UC_HOOK_TLB_FILL, fill),)

    def interrupt(self, number: int, pc: int, read: Callable[[int, int], bytes]) -> Interrupt:
        """Exceptions leave the PC at the instruction, ``int3`` one byte and ``int n`` and ``syscall`` two bytes behind."""
        if number == HALT:
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 1, "privileged instruction hlt")
        if number == SYSTEM_CALL:
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 2, "system call")
        if number == _DIVIDE:
            return Interrupt(FaultKind.DIVIDE, 0)
        if number == _BREAKPOINT and read(pc - 1, 1) == b"\xcc":
            return Interrupt(FaultKind.BREAKPOINT, 1)
        if read(pc - 2, 2) == bytes((0xCD, number)):
            if number == _FAST_FAIL:
                return Interrupt(FaultKind.FAST_FAIL, 2, "__fastfail")
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 2, f"interrupt 0x{number:x}")
        return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 0, f"processor exception {number}")

    def named_address(self, cpu: Cpu, told: int, code: bytes, access: str) -> int:
        """Unicorn 2.1 says the low 52 bits, or the page: the rest is that of the operand, or of the stack pointer, which leads there."""
        stack = cpu.get("rsp")
        named = [cpu.pc] if not code else [stack - 8, stack] if access == "write" else [stack, stack - 8]
        for instruction in islice(architecture(Machine.X64).disassemble(code, cpu.pc), 1) if code else ():
            for operand in filter(None, map(memory, instruction.operands.split(", "))):
                base = cpu.get(operand.base) if operand.base else 0
                scaled = cpu.get(operand.scaled) * operand.scale if operand.scaled else 0
                named.insert(0, base + scaled + operand.displacement + (instruction.size if operand.base == "rip" else 0))
        for start in named:
            into = (told - start) & _TOLD
            if into < _LARGEST_ACCESS:
                return (start + into) & (1 << 64) - 1
            if (start & (1 << 64) - 1) - told in range(PAGE):
                return start & (1 << 64) - 1
        return told

    def recorded(self, address: int, access: str | None) -> tuple[int, str | None]:
        """A read of address -1 where ``address`` is not canonical: that is a general protection fault, which comes without an address.

        Source: crash dumps, where KiGeneralProtectionFault raises 0xc0000005 with the parameters 0 and 0xffffffffffffffff.
        """
        if access in ("read", "write") and _LOWER_END <= address < _UPPER_START:
            return (1 << 64) - 1, "read"
        return address, access

    def enter_thread(self, cpu: Cpu, teb: int) -> None:
        """Zero registers, Windows' floating-point control words, the TEB behind gs."""
        for name in (*_INTEGER, *_VECTORS):
            cpu.set(name, 0)
        cpu.set("rflags", 0x202)
        cpu.set("mxcsr", _MXCSR)
        cpu.set("fpcw", _FPCW)
        cpu.set("gs_base", teb)

    def read_float(self, cpu: Cpu, index: int) -> int:
        """The low half of xmm ``index``."""
        return cpu.get(f"xmm{index}") & (1 << 64) - 1

    def write_float(self, cpu: Cpu, index: int, bits: int) -> None:
        """Set xmm ``index``."""
        cpu.set(f"xmm{index}", bits)

    def leave(self, cpu: Cpu, read_word: Callable[[int], int]) -> None:
        """``ret``."""
        sp = cpu.get("rsp")
        cpu.set("rip", read_word(sp))
        cpu.set("rsp", sp + 8)

    def enter(self, cpu: Cpu, write_word: Callable[[int, int], None], sp: int, back: int) -> None:
        """Push the return address."""
        write_word(sp - 8, back)
        cpu.set("rsp", sp - 8)


MODEL = X64Cpu()
