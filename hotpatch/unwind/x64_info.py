"""x64 unwind information (``UNWIND_INFO``), versions 1 and 2, as values. Source: MS Learn, "x64 exception handling"."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntFlag, auto
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


class Op(Enum):
    """``UWOP_*``."""

    PUSH_NONVOL = auto()
    ALLOC_LARGE = auto()
    ALLOC_SMALL = auto()
    SET_FPREG = auto()
    SAVE_NONVOL = auto()
    SAVE_NONVOL_FAR = auto()
    SAVE_XMM = auto()
    """The low 64 bits of an XMM register; no compiler has emitted it for long."""
    SAVE_XMM_FAR = auto()
    """The same with a long offset, not certainly in bytes: binutils has it in units of 8, MS Learn none of the other far saves."""
    EPILOG = auto()
    """Where epilogues lie; they are known by their instructions here."""
    SPARE = auto()
    SAVE_XMM128 = auto()
    SAVE_XMM128_FAR = auto()
    PUSH_MACHFRAME = auto()


_FIRST = (Op.PUSH_NONVOL, Op.ALLOC_LARGE, Op.ALLOC_SMALL, Op.SET_FPREG, Op.SAVE_NONVOL, Op.SAVE_NONVOL_FAR)
_LAST = (Op.SAVE_XMM128, Op.SAVE_XMM128_FAR, Op.PUSH_MACHFRAME)
_OPS = {1: (*_FIRST, Op.SAVE_XMM, Op.SAVE_XMM_FAR, *_LAST), 2: (*_FIRST, Op.EPILOG, Op.SPARE, *_LAST)}
"""By the version of the information and the operation's number.

Sources: MS Learn; for 6 and 7 of version 1 binutils, ``bfd/pei-x86_64.c``; of version 2 LLVM, ``llvm/tools/llvm-readobj/Win64EHDumper.cpp``
(an epilogue takes one slot, and one of offset 0 pads them to an even number), and dotnet/runtime,
``src/coreclr/unwinder/amd64/unwinder.cpp`` (a spare code takes three slots and says nothing).
"""
_SCALED = {Op.ALLOC_LARGE: 8, Op.SAVE_NONVOL: 8, Op.SAVE_XMM: 8, Op.SAVE_XMM128: 16}
"""Operations with a number in the next slot, and its unit in bytes."""
_XMM = frozenset({Op.SAVE_XMM, Op.SAVE_XMM_FAR, Op.SAVE_XMM128, Op.SAVE_XMM128_FAR})
_FAR = frozenset({Op.SAVE_NONVOL_FAR, Op.SAVE_XMM_FAR, Op.SPARE, Op.SAVE_XMM128_FAR})
"""Operations with a number in the next two slots."""


@dataclass(frozen=True, slots=True)
class Code:
    """One operation: ``offset`` of the end of its instruction in the prologue, ``value`` its size or stack offset in bytes."""

    offset: int
    op: Op
    info: int
    value: int

    @property
    def text(self) -> str:
        """For people: ``save_nonvol rsi +16``."""
        name = self.op.name.lower()
        if self.op in {Op.PUSH_NONVOL, Op.SAVE_NONVOL, Op.SAVE_NONVOL_FAR}:
            name += f" {REGISTERS[self.info]}"
        elif self.op in _XMM:
            name += f" xmm{self.info}"
        elif self.op is Op.EPILOG:
            return f"{name} {self.offset} {self.info}"
        elif self.op is Op.PUSH_MACHFRAME and self.info:
            name += " code"
        if self.op in {Op.ALLOC_SMALL, Op.ALLOC_LARGE}:
            return f"{name} {self.value}"
        return f"{name} +{self.value}" if self.op in _SCALED or self.op in _FAR - {Op.SPARE} else name


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
    found = []
    at = 0
    try:
        while at < len(raw):
            offset, packed = _CODE.unpack_from(raw, at)
            op, info = _OPS[version][packed & 15], packed >> 4
            at += _CODE.size
            value = 0
            if op is Op.ALLOC_SMALL:
                value = info * 8 + 8
            elif op in _FAR or (op is Op.ALLOC_LARGE and info):
                (value,) = _U32.unpack_from(raw, at)
                at += _U32.size
            elif op in _SCALED:
                value = _U16.unpack_from(raw, at)[0] * _SCALED[op]
                at += _U16.size
            found.append(Code(offset, op, info, value))
    except (IndexError, struct.error) as error:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} holds an operation that is not known") from error
    return tuple(found)
