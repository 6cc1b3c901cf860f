"""What differs between processors, and what a run of one says; :mod:`hotpatch.emulator.cpu` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.address import Va
    from hotpatch.arch import Machine
    from hotpatch.emulator.binding import Engine
    from hotpatch.emulator.cpu import Cpu
    from hotpatch.emulator.repeats import RepeatForm
    from hotpatch.errors import FaultKind

NOWHERE = 0xFFFF_FFFF_FFFF
"""``until`` of every run: an address that nothing jumps to."""
HALT, SYSTEM_CALL = -1, -2
"""Numbers for what stops a run and is no interrupt of Unicorn's: a halt instruction, a system call."""


@dataclass(frozen=True, slots=True)
class Trap:
    """Why a slice ended before its count was used up.

    Attributes:
        kind: What happened.
        pc: Of the instruction that did it (of the target, for a failed fetch).
        address: That could not be accessed, or ``pc``.
        access: ``read``, ``write``, ``execute`` or ``None``.
        detail: One sentence more, or nothing.
    """

    kind: FaultKind
    pc: Va
    address: Va
    access: str | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """What a run did: instructions executed, and the trap that ended it early, if any."""

    executed: int
    trap: Trap | None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """What an interrupt number means: the kind of fault, and how far behind the faulting instruction the PC is, in bytes."""

    kind: FaultKind
    pc_after: int
    detail: str = ""


class CpuModel(Protocol):
    """What differs between machines; one module each answers it (``cpu_x64``, ``cpu_arm64``)."""

    machine: Machine
    registers: Mapping[str, int]
    """Unicorn's identifier of each register, by name."""
    general: tuple[str, ...]
    """Integer registers, stack pointer, program counter and flags, as a thread is shown."""
    condition_flags: int
    """Bits of the flags that instructions compute."""
    pc: str
    sp: str
    nop: bytes
    """An instruction that does nothing."""
    guard_check: bytes
    """Code of a control-flow-guard check that lets everything pass."""
    guard_dispatch: bytes | None
    """Code of a control-flow-guard dispatch, where its register is documented."""
    repeats: RepeatForm | None
    """Its repeated string instructions, where it has any."""

    def create(self) -> Engine:
        """A new engine, floating point switched on."""

    def hook(self, uc: Engine, clock: Callable[[], int], interrupts: list[int]) -> int:
        """Hook what Unicorn reports in no other way.

        Instructions that would show the host's time to the program get ``clock``'s ticks; a system call is appended to ``interrupts`` as
        :data:`SYSTEM_CALL`. Returns the hook's handle.
        """

    def bound(self, uc: Engine, trap: list[tuple[int, int]]) -> tuple[int, ...]:
        """Make accesses fail that Unicorn lets through: address and kind of each are appended to ``trap``. Returns hooks' handles."""

    def interrupt(self, number: int, pc: int, read: Callable[[int, int], bytes]) -> Interrupt:
        """What interrupt ``number`` at Unicorn's ``pc`` means."""

    def named_address(self, cpu: Cpu, told: int, code: bytes, access: str) -> int:
        """The address that an instruction named whose access has failed.

        Args:
            cpu: Where it stands at the instruction.
            told: What Unicorn says of the address.
            code: The instruction and what follows, or nothing where it could not be fetched.
            access: ``read``, ``write`` or ``execute``.
        """

    def recorded(self, address: int, access: str | None) -> tuple[int, str | None]:
        """Address and access that Windows' exception record has for a failed ``access`` to ``address``."""

    def enter_thread(self, cpu: Cpu, teb: int) -> None:
        """Give the running context the registers that a new thread starts with."""

    def read_float(self, cpu: Cpu, index: int) -> int:
        """The low 64 bits of floating-point register ``index``."""

    def write_float(self, cpu: Cpu, index: int, bits: int) -> None:
        """Set floating-point register ``index`` to 64 ``bits``, the rest to zero."""

    def enter(self, cpu: Cpu, write_word: Callable[[int, int], None], sp: int, back: int) -> None:
        """Set stack pointer and return address as a call leaves them; at ``sp`` (16-byte aligned) home space and stack arguments begin."""

    def leave(self, cpu: Cpu, read_word: Callable[[int], int]) -> None:
        """Return from the function that :meth:`enter` has entered."""


@cache
def cpu_model(machine: Machine) -> CpuModel:
    """The one look-up from a machine to its details."""
    return cast("CpuModel", import_module(f"hotpatch.emulator.cpu_{machine.value}").MODEL)
