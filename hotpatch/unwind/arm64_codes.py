"""Arm64 unwind codes as values.

Sources: MS Learn, "ARM64 exception handling", "Unwind codes"; for ``save_any_reg``, ``save_zreg`` and ``save_preg`` LLVM,
``llvm/tools/llvm-readobj/ARMWinEHPrinter.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hotpatch.unwind.model import StackUnreadable


class Op(Enum):
    """What a code undoes, by Microsoft's names; forms of one meaning are one here."""

    ALLOC = "alloc"
    """``amount``: bytes that the stack pointer moved."""
    ALLOC_SCALED = "alloc_z"
    """``amount``: lengths of a scalable vector register that the stack pointer moved."""
    SAVE = "save"
    """``registers`` were stored at sp + ``amount``, ``width`` bytes each."""
    SAVE_MOVING = "save_x"
    """``registers`` were stored at sp after it moved by ``amount`` bytes."""
    SAVE_NEXT = "save_next"
    """The pair after that of the code before it in the prologue (after it in this order)."""
    SAVE_SCALED = "save_z"
    """The scalable vector or predicate register was stored at sp + ``amount`` of its own lengths."""
    SET_FP = "set_fp"
    """x29 = sp."""
    ADD_FP = "add_fp"
    """x29 = sp + ``amount``."""
    NOP = "nop"
    SIGN = "pac_sign_lr"
    """The return address was signed."""
    END = "end"
    END_C = "end_c"
    TRAP_FRAME = "trap_frame"
    """What a trap has stored stands at sp, program counter and stack pointer among it."""
    MACHINE_FRAME = "machine_frame"
    """Stack pointer and program counter of what was interrupted stand at sp."""
    CONTEXT = "context"
    """All registers stand at sp, as ``ARM64_NT_CONTEXT`` (winnt.h) lays them out."""
    EC_CONTEXT = "ec_context"
    """All registers stand at sp, as ``ARM64EC_NT_CONTEXT`` (winnt.h) lays them out."""
    CLEAR_UNWOUND = "clear_unwound_to_call"
    """The program counter is in x30 and was interrupted there: no call returns to it."""


@dataclass(frozen=True, slots=True)
class Code:
    """One unwind code: what it does, and the bytes that it takes."""

    op: Op
    size: int
    amount: int = 0
    registers: tuple[str, ...] = ()
    width: int = 8

    @property
    def instructions(self) -> int:
        """Instructions of the prologue or epilogue that it stands for; ``end`` is an epilogue's return."""
        return 0 if self.op in _NO_INSTRUCTION else 1

    @property
    def text(self) -> str:
        """For people: ``save x19,x20 sp+16``; ``vl`` is the length of a scalable vector, ``pl`` that of a predicate."""
        registers = ",".join(f"d{name[1:]}" if name[0] == "q" and self.width == _LOW else name for name in self.registers)
        predicate = registers.startswith("p")
        operand = _OPERANDS.get(self.op, "").format(self.amount, "pl" if predicate else "vl")
        return " ".join(part for part in ("save_p" if predicate else self.op.value, registers, operand) if part)


_LOW = 8
"""Bytes of a vector register that d registers are."""
_OPERANDS = {
    Op.ALLOC: "{0}",
    Op.ALLOC_SCALED: "{0}{1}",
    Op.SAVE: "sp+{0}",
    Op.SAVE_MOVING: "sp-{0}!",
    Op.SAVE_SCALED: "sp+{0}{1}",
    Op.ADD_FP: "{0}",
}
_NO_INSTRUCTION = frozenset({Op.END_C, Op.TRAP_FRAME, Op.MACHINE_FRAME, Op.CONTEXT, Op.EC_CONTEXT, Op.CLEAR_UNWOUND})
END = Code(Op.END, 1)

_NAMED = {
    0xE1: Code(Op.SET_FP, 1),
    0xE3: Code(Op.NOP, 1),
    0xE4: END,
    0xE5: Code(Op.END_C, 1),
    0xE6: Code(Op.SAVE_NEXT, 1),
    0xE8: Code(Op.TRAP_FRAME, 1),
    0xE9: Code(Op.MACHINE_FRAME, 1),
    0xEA: Code(Op.CONTEXT, 1),
    0xEB: Code(Op.EC_CONTEXT, 1),
    0xEC: Code(Op.CLEAR_UNWOUND, 1),
    0xFC: Code(Op.SIGN, 1),
}


def integer(number: int, count: int = 2) -> tuple[str, ...]:
    """``count`` registers from x``number`` on."""
    return tuple(f"x{number + index}" for index in range(count))


def floating(number: int, count: int = 2) -> tuple[str, ...]:
    """``count`` registers from d``number`` on, by the names of the vector registers that hold them."""
    return tuple(f"q{number + index}" for index in range(count))


def decode(raw: bytes, at: int) -> Code:
    """The code at ``at``.

    Raises:
        StackUnreadable: It is truncated or reserved.
    """
    first = raw[at] if at < len(raw) else None
    if first is None:
        raise StackUnreadable("unwind codes end without an end code")
    if first < 0xC0:
        return _short(first)
    if first in _NAMED:
        return _NAMED[first]
    if first == 0xE7:
        return _any_register(raw[at : at + 3])
    size = 4 if first == 0xE0 else 2
    if at + size > len(raw):
        raise StackUnreadable("unwind codes are truncated")
    if first == 0xE0:
        return Code(Op.ALLOC, 4, int.from_bytes(raw[at + 1 : at + 4], "big") * 16)
    if first == 0xE2:
        return Code(Op.ADD_FP, 2, raw[at + 1] * 8)
    return _long(int.from_bytes(raw[at : at + 2], "big"))


def _short(value: int) -> Code:
    if value < 0x20:
        return Code(Op.ALLOC, 1, value * 16)
    if value < 0x40:
        return Code(Op.SAVE_MOVING, 1, (value & 0x1F) * 8, integer(19))
    if value < 0x80:
        return Code(Op.SAVE, 1, (value & 0x3F) * 8, integer(29))
    return Code(Op.SAVE_MOVING, 1, ((value & 0x3F) + 1) * 8, integer(29))


def _long(value: int) -> Code:
    """The two-byte codes, by their prefixes."""
    offset, register = (value & 0x3F) * 8, value >> 6 & 0xF
    if value >> 11 == 0b11000:
        return Code(Op.ALLOC, 2, (value & 0x7FF) * 16)
    if value >> 10 == 0b110010:
        return Code(Op.SAVE, 2, offset, integer(19 + register))
    if value >> 10 == 0b110011:
        return Code(Op.SAVE_MOVING, 2, offset + 8, integer(19 + register))
    if value >> 10 == 0b110100:
        return Code(Op.SAVE, 2, offset, integer(19 + register, 1))
    if value >> 9 == 0b1101010:
        return Code(Op.SAVE_MOVING, 2, (value & 0x1F) * 8 + 8, integer(19 + (value >> 5 & 0xF), 1))
    if value >> 9 == 0b1101011:
        return Code(Op.SAVE, 2, offset, (f"x{19 + 2 * (register & 7)}", "x30"))
    if value >> 9 == 0b1101100:
        return Code(Op.SAVE, 2, offset, floating(8 + (register & 7)))
    if value >> 9 == 0b1101101:
        return Code(Op.SAVE_MOVING, 2, offset + 8, floating(8 + (register & 7)))
    if value >> 9 == 0b1101110:
        return Code(Op.SAVE, 2, offset, floating(8 + (register & 7), 1))
    if value >> 8 == 0b11011110:
        return Code(Op.SAVE_MOVING, 2, (value & 0x1F) * 8 + 8, floating(8 + (value >> 5 & 7), 1))
    if value >> 8 == 0b11011111:
        return Code(Op.ALLOC_SCALED, 2, value & 0xFF)
    raise StackUnreadable(f"unwind code 0x{value >> 8:x} is not known")


def _any_register(raw: bytes) -> Code:
    """``save_any_reg`` (11100111'0pxrrrrr'ffoooooo): pair, writeback, register, kind (x, d, q), offset; kind 3: scalable registers."""
    unknown = StackUnreadable("unwind code 0xe7 is not of a known form")
    if len(raw) < 3 or raw[1] & 0x80:
        raise unknown
    pair, moving, register = raw[1] >> 6 & 1, raw[1] >> 5 & 1, raw[1] & 0x1F
    kind, offset = raw[2] >> 6, raw[2] & 0x3F
    if kind == 3:
        return _scaled(raw)
    if register + pair > (30 if kind == 0 else 31):
        raise unknown
    scale = 16 if pair or moving or kind == 2 else 8
    names = integer(register, 1 + pair) if kind == 0 else floating(register, 1 + pair)
    return Code(Op.SAVE_MOVING if moving else Op.SAVE, 3, (offset + moving) * scale, names, 16 if kind == 2 else 8)


def _scaled(raw: bytes) -> Code:
    """``save_zreg`` and ``save_preg`` (11100111'0oo0rrrr'11oooooo, 11100111'0oo1rrrr'11oooooo): z8 and on, p0 and on."""
    number, offset = raw[1] & 0xF, (raw[1] & 0x60) << 1 | raw[2] & 0x3F
    return Code(Op.SAVE_SCALED, 3, offset, (f"p{number}" if raw[1] & 0x10 else f"z{8 + number}",))
