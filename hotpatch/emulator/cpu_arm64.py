"""Arm64 details of the emulated processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unicorn import arm64_const
from unicorn.unicorn_const import UC_ARCH_ARM64, UC_HOOK_INSN, UC_MODE_ARM

from hotpatch.arch import Machine
from hotpatch.emulator.binding import new_engine
from hotpatch.emulator.cpu_model import HALT, Interrupt
from hotpatch.errors import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.emulator.binding import Engine
    from hotpatch.emulator.cpu import Cpu

_INTEGER = tuple(f"x{i}" for i in range(31))
_VECTORS = tuple(f"q{i}" for i in range(32))

_UNDEFINED, _SUPERVISOR_CALL, _BREAKPOINT = 1, 2, 7
"""Unicorn's exception numbers (QEMU ``target/arm/cpu.h``: EXCP_UDEF, EXCP_SWI, EXCP_BKPT)."""

_BRK_FAST_FAIL, _BRK_DIVIDE = 0xF003, 0xF004
"""``brk`` immediates of Windows: ``__fastfail`` and division by zero (MS Learn, "Arm64 intrinsics"; winnt.h)."""

_FP_ENABLE = 3 << 20
"""CPACR_EL1.FPEN: no trap (Arm Architecture Reference Manual)."""

_COUNTERS = frozenset({(3, 3, 14, 0, 1), (3, 3, 14, 0, 2)})
"""CNTPCT_EL0 and CNTVCT_EL0 as (op0, op1, CRn, CRm, op2)."""


class Arm64Cpu:
    """See :class:`hotpatch.emulator.cpu.CpuModel`."""

    machine = Machine.ARM64
    registers: Mapping[str, int] = {
        name: getattr(arm64_const, f"UC_ARM64_REG_{name.upper()}")
        for name in (*_INTEGER, *_VECTORS, "sp", "pc", "nzcv", "fpcr", "cpacr_el1")
    }
    general = (*_INTEGER, "sp", "pc", "nzcv")
    condition_flags = 0xF000_0000
    pc = "pc"
    sp = "sp"
    nop = bytes.fromhex("1f2003d5")
    guard_check = bytes.fromhex("c0035fd6")
    """``ret``: the check takes the target in x15 and returns (LLVM's CFGuard pass)."""
    guard_dispatch = None
    """No public source names the register of an Arm64 dispatch; the image's own no-op stays."""

    repeats = None

    def create(self) -> Engine:
        """An engine with every feature of the largest model, as pointer authentication and LSE atomics need."""
        uc = new_engine(UC_ARCH_ARM64, UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, _FP_ENABLE)
        return uc

    def hook(self, uc: Engine, clock: Callable[[], int], interrupts: list[int]) -> int:
        """Give the generic timer virtual time."""

        def read_system(uc: Engine, register: int, system: object, _data: object) -> int:
            if tuple(getattr(system, part) for part in ("op0", "op1", "crn", "crm", "op2")) not in _COUNTERS:
                return 0
            uc.reg_write(register, clock())
            return 1

        return uc.hook_add(UC_HOOK_INSN, read_system, None, 1, 0, arm64_const.UC_ARM64_INS_MRS)

    def bound(self, _uc: Engine, _trap: list[tuple[int, int]]) -> tuple[int, ...]:
        """None: Unicorn looks at every bit of an address."""
        return ()

    def interrupt(self, number: int, pc: int, read: Callable[[int, int], bytes]) -> Interrupt:
        """``brk`` and undefined instructions leave the PC at the instruction, ``svc`` behind it."""
        if number == HALT:
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 4, "privileged instruction wfi")
        if number == _BREAKPOINT:
            immediate = int.from_bytes(read(pc, 4), "little") >> 5 & 0xFFFF
            if immediate == _BRK_FAST_FAIL:
                return Interrupt(FaultKind.FAST_FAIL, 0, "__fastfail")
            if immediate == _BRK_DIVIDE:
                return Interrupt(FaultKind.DIVIDE, 0)
            return Interrupt(FaultKind.BREAKPOINT, 0, f"brk #0x{immediate:x}")
        if number == _SUPERVISOR_CALL:
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 4, "system call")
        if number == _UNDEFINED:
            return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 0)
        return Interrupt(FaultKind.ILLEGAL_INSTRUCTION, 0, f"processor exception {number}")

    def named_address(self, _cpu: Cpu, told: int, _code: bytes, _access: str) -> int:
        """Unicorn says the whole address."""
        return told

    def recorded(self, address: int, access: str | None) -> tuple[int, str | None]:
        """Both as they are."""
        return address, access

    def enter_thread(self, cpu: Cpu, teb: int) -> None:
        """Zero registers, the TEB in x18."""
        for name in (*_INTEGER, *_VECTORS, "nzcv", "fpcr"):
            cpu.set(name, 0)
        cpu.set("x18", teb)

    def read_float(self, cpu: Cpu, index: int) -> int:
        """The low half of q ``index``: d ``index``."""
        return cpu.get(f"q{index}") & (1 << 64) - 1

    def write_float(self, cpu: Cpu, index: int, bits: int) -> None:
        """Set d ``index``."""
        cpu.set(f"q{index}", bits)

    def leave(self, cpu: Cpu, read_word: Callable[[int], int]) -> None:
        """``ret``."""
        cpu.set("pc", cpu.get("x30"))

    def enter(self, cpu: Cpu, write_word: Callable[[int, int], None], sp: int, back: int) -> None:
        """Set the link register."""
        cpu.set("sp", sp)
        cpu.set("x30", back)


MODEL = Arm64Cpu()
