"""x64 unwind information (``UNWIND_INFO``) as values. Source: MS Learn, "x64 exception handling"; winnt.h for version 2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from hotpatch.unwind.model import StackUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct("<BBBB")
"""Version and flags, size of the prologue, count of codes, frame register and offset."""
RUNTIME_FUNCTION = struct.Struct("<III")
_CODE = struct.Struct("<BB")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")


class Flags(IntFlag):
    """``UNW_FLAG_*``."""

    EHANDLER = 1
    UHANDLER = 2
    CHAINED = 4


class Op(IntEnum):
    """``UWOP_*``."""

    PUSH_NONVOL = 0
    ALLOC_LARGE = 1
    ALLOC_SMALL = 2
    SET_FPREG = 3
    SAVE_NONVOL = 4
    SAVE_NONVOL_FAR = 5
    EPILOG = 6
    """Version 2: where epilogues lie. Version 1 had a save of 64 bits of an XMM register here, which no compiler emits any more."""
    SPARE = 7
    SAVE_XMM128 = 8
    SAVE_XMM128_FAR = 9
    PUSH_MACHFRAME = 10


@dataclass(frozen=True, slots=True)
class Code:
    """One operation: ``offset`` of the end of its instruction in the prologue, ``value`` its size or stack offset in bytes."""

    offset: int
    op: Op
    info: int
    value: int


@dataclass(frozen=True, slots=True)
class UnwindInfo:
    """``UNWIND_INFO``; ``size`` in bytes up to the handler's RVA or the chained entry, which begin at that offset."""

    version: int
    flags: Flags
    prologue: int
    frame_register: str | None
    frame_offset: int
    codes: tuple[Code, ...]
    size: int
    handler: int | None
    chained: tuple[int, int, int] | None

    @property
    def stack(self) -> int:
        """Bytes of stack that the prologue takes."""
        pushes = sum(8 for code in self.codes if code.op is Op.PUSH_NONVOL)
        return pushes + sum(code.value for code in self.codes if code.op in {Op.ALLOC_SMALL, Op.ALLOC_LARGE})

    @property
    def has_handler(self) -> bool:
        """Whether a handler and its data follow."""
        return bool(self.flags & (Flags.EHANDLER | Flags.UHANDLER)) and not self.flags & Flags.CHAINED


def parse(rva: int, read: Callable[[int, int], bytes]) -> UnwindInfo:
    """The unwind information at ``rva``.

    Raises:
        StackUnreadable: It is damaged or of a version that is not known.
    """
    header = read(rva, HEADER.size)
    if len(header) < HEADER.size:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} is past the end of the image")
    version_flags, prologue, count, frame = HEADER.unpack(header)
    version, flags = version_flags & 7, Flags(version_flags >> 3 & 7)
    if version not in {1, 2}:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} has version {version}; 1 and 2 are known")
    raw = read(rva + HEADER.size, 2 * count)
    if len(raw) < 2 * count:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} is truncated")
    size = HEADER.size + 2 * (count + 1 & ~1)
    handler: int | None = None
    chained: tuple[int, int, int] | None = None
    tail = read(rva + size, RUNTIME_FUNCTION.size)
    if flags & Flags.CHAINED:
        if len(tail) < RUNTIME_FUNCTION.size:
            raise StackUnreadable(f"unwind information at rva 0x{rva:x} is truncated")
        chained = RUNTIME_FUNCTION.unpack(tail)
    elif flags and len(tail) >= _U32.size:
        (handler,) = _U32.unpack_from(tail)
    register = REGISTERS[frame & 15] if frame & 15 else None
    return UnwindInfo(version, flags, prologue, register, (frame >> 4) * 16, _codes(raw, rva, version), size, handler, chained)


def _codes(raw: bytes, rva: int, version: int) -> tuple[Code, ...]:
    unknown = StackUnreadable(f"unwind information at rva 0x{rva:x} holds an operation that is not known")
    found = []
    at = 0
    try:
        while at < len(raw):
            offset, packed = _CODE.unpack_from(raw, at)
            op, info = Op(packed & 15), packed >> 4
            at += 2
            value = 0
            if op is Op.ALLOC_SMALL:
                value = info * 8 + 8
            elif op is Op.ALLOC_LARGE:
                value = _U16.unpack_from(raw, at)[0] * 8 if info == 0 else _U32.unpack_from(raw, at)[0]
                at += 2 if info == 0 else 4
            elif op in {Op.SAVE_NONVOL, Op.SAVE_XMM128}:
                value = _U16.unpack_from(raw, at)[0] * (8 if op is Op.SAVE_NONVOL else 16)
                at += 2
            elif op in {Op.SAVE_NONVOL_FAR, Op.SAVE_XMM128_FAR}:
                value = _U32.unpack_from(raw, at)[0]
                at += 4
            if op is Op.SPARE or (op is Op.EPILOG and version == 1):
                raise unknown
            found.append(Code(offset, op, info, value))
    except (ValueError, struct.error) as error:
        raise unknown from error
    return tuple(found)
