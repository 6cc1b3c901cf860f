"""Structures and numbers of structured exception handling, as data (winnt.h, ntstatus.h; MS Learn, "x64 exception handling")."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from hotpatch.errors import FaultKind

if TYPE_CHECKING:
    from hotpatch.emulator.context import ContextLayout

EXCEPTION_RECORD = struct.Struct("<IIQQII15Q")
"""ExceptionCode, ExceptionFlags, ExceptionRecord, ExceptionAddress, NumberParameters, padding, ExceptionInformation."""
PARAMETERS = 15
"""EXCEPTION_MAXIMUM_PARAMETERS."""
DISPATCHER = {
    "ControlPc": 0x00,
    "ImageBase": 0x08,
    "FunctionEntry": 0x10,
    "EstablisherFrame": 0x18,
    "TargetPc": 0x20,
    "ContextRecord": 0x28,
    "LanguageHandler": 0x30,
    "HandlerData": 0x38,
    "ScopeIndex": 0x48,
    "ControlPcIsUnwound": 0x4C,
    "NonVolatileRegisters": 0x50,
}
"""``DISPATCHER_CONTEXT``: offsets; the last two are Arm64's."""
SCOPE = struct.Struct("<IIII")
"""``SCOPE_TABLE``: begin, end, filter or finally block, target of the except block (0: a finally block); RVAs."""
EXECUTE_HANDLER = 1
"""In the place of a filter: always."""


class Flags(IntFlag):
    """``EXCEPTION_*`` flags of a record."""

    NONE = 0
    NONCONTINUABLE = 0x01
    UNWINDING = 0x02
    EXIT_UNWIND = 0x04
    NESTED_CALL = 0x10
    TARGET_UNWIND = 0x20


class Disposition(IntEnum):
    """``EXCEPTION_DISPOSITION``: what a language-specific handler answers."""

    CONTINUE_EXECUTION = 0
    CONTINUE_SEARCH = 1


class Status(IntEnum):
    """``STATUS_*`` codes."""

    GUARD_PAGE = 0x8000_0001
    BREAKPOINT = 0x8000_0003
    ACCESS_VIOLATION = 0xC000_0005
    ILLEGAL_INSTRUCTION = 0xC000_001D
    UNWIND = 0xC000_0027
    INTEGER_DIVIDE_BY_ZERO = 0xC000_0094


_STATUS = {
    FaultKind.ACCESS_VIOLATION: Status.ACCESS_VIOLATION,
    FaultKind.ILLEGAL_INSTRUCTION: Status.ILLEGAL_INSTRUCTION,
    FaultKind.BREAKPOINT: Status.BREAKPOINT,
    FaultKind.DIVIDE: Status.INTEGER_DIVIDE_BY_ZERO,
}
_ACCESS = {"read": 0, "write": 1, "execute": 8}


@dataclass(frozen=True, slots=True)
class Record:
    """``EXCEPTION_RECORD`` without the pointer to another one."""

    code: int
    flags: Flags
    address: int
    parameters: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """The structure."""
        padded = (*self.parameters[:PARAMETERS], *[0] * (PARAMETERS - len(self.parameters)))
        return EXCEPTION_RECORD.pack(self.code, self.flags, 0, self.address, len(self.parameters), 0, *padded)

    @staticmethod
    def unpack(raw: bytes) -> Record:
        """The record of a structure."""
        code, flags, _, address, count, _, *parameters = EXCEPTION_RECORD.unpack(raw)
        return Record(code, Flags(flags), address, tuple(parameters[: min(count, PARAMETERS)]))

    def unwinding(self, *, target: bool) -> Record:
        """The record as handlers see it while the stack is unwound, at the ``target`` frame or on the way there."""
        flags = self.flags & ~Flags.TARGET_UNWIND | Flags.UNWINDING
        return replace(self, flags=flags | Flags.TARGET_UNWIND if target else flags)


def record_of(kind: FaultKind, pc: int, address: int, access: str | None) -> Record | None:
    """The record of a fault of the processor's, or ``None`` where Windows dispatches none."""
    status = _STATUS.get(kind)
    if status is None:
        return None
    if status is Status.ACCESS_VIOLATION:
        return Record(status, Flags.NONE, pc, (_ACCESS[access or "read"], address))
    return Record(status, Flags.NONE, pc, (0,) if status is Status.BREAKPOINT else ())


@dataclass(frozen=True, slots=True)
class Area:
    """Where the structures of one exception lie on the thread's stack, below everything that is in use there."""

    va: int
    layout: ContextLayout

    @staticmethod
    def below(sp: int, layout: ContextLayout) -> Area:
        """The area below a stack pointer."""
        size = layout.size + EXCEPTION_RECORD.size + layout.dispatcher_size + 8 * len(layout.nonvolatile) + 16
        return Area((sp - size) & -16, layout)

    @property
    def context(self) -> int:
        """VA of the ``CONTEXT``."""
        return self.va

    @property
    def record(self) -> int:
        """VA of the ``EXCEPTION_RECORD``."""
        return self.va + self.layout.size

    @property
    def pointers(self) -> int:
        """VA of the ``EXCEPTION_POINTERS``."""
        return self.record + EXCEPTION_RECORD.size

    @property
    def dispatcher(self) -> int:
        """VA of the ``DISPATCHER_CONTEXT``."""
        return self.pointers + 16

    @property
    def nonvolatile(self) -> int:
        """VA of the registers that the dispatcher context points at."""
        return self.dispatcher + self.layout.dispatcher_size


def pointers_of(dispatcher: int) -> int:
    """VA of the ``EXCEPTION_POINTERS`` that lie with a dispatcher context of this emulator's."""
    return dispatcher - 16
