"""x64: where the fields of an encoded instruction lie, and the instruction numbers that the other files sort by.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2 ("Instruction Format") and appendix A.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from capstone import CS_ARCH_X86, CS_MODE_64, x86_const

from hotpatch.arch.common import LiteDecoder
from hotpatch.arch.model import Flow

ADDRESS_MASK = 2**64 - 1
OPERAND_SIZE_PREFIX = 0x66
ADDRESS_SIZE_PREFIX = 0x67
LEGACY_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, OPERAND_SIZE_PREFIX, ADDRESS_SIZE_PREFIX, 0xF0, 0xF2, 0xF3))


def instruction_numbers(names: str) -> frozenset[int]:
    """Capstone's numbers of the instructions in ``names``, which are separated by spaces."""
    return frozenset(getattr(x86_const, f"X86_INS_{name}") for name in names.split())


CONDITIONAL_JUMPS = instruction_numbers("JA JAE JB JBE JE JG JGE JL JLE JNE JNO JNP JNS JO JP JS")
COUNTED_JUMPS = instruction_numbers("JRCXZ JECXZ LOOP LOOPE LOOPNE")
"""Jumps that only exist with an 8-bit distance (opcodes E0 to E3)."""

CALL = x86_const.X86_INS_CALL
JUMP = x86_const.X86_INS_JMP
TRANSACTION = x86_const.X86_INS_XBEGIN
INTERRUPT = x86_const.X86_INS_INT
FLOW = {
    CALL: Flow.CALL,
    x86_const.X86_INS_LCALL: Flow.CALL_INDIRECT,
    JUMP: Flow.JUMP,
    x86_const.X86_INS_LJMP: Flow.JUMP_INDIRECT,
    TRANSACTION: Flow.BRANCH,
    INTERRUPT: Flow.TRAP,
    **dict.fromkeys(CONDITIONAL_JUMPS | COUNTED_JUMPS, Flow.BRANCH),
    **dict.fromkeys(instruction_numbers("RET RETF RETFQ IRET IRETD IRETQ SYSRET SYSEXIT"), Flow.RETURN),
    **dict.fromkeys(instruction_numbers("INT1 INT3 INTO UD0 UD1 UD2 HLT"), Flow.TRAP),
}
"""Flow of every instruction that does not simply go on; calls and jumps through an operand are told apart by their encoding."""

_UNDEFINED = instruction_numbers("UD0 UD1 UD2")
_FAST_FAIL = b"\xcd\x29"
"""``int 29h``, the compiler's __fastfail: the process ends (MS Learn, "__fastfail")."""


def never_returns(number: int, code: bytes) -> bool:
    """Whether a trap ends the program, so that control does not go on behind it; a breakpoint does not."""
    return number in _UNDEFINED or code.startswith(_FAST_FAIL)


RIP_RELATIVE = re.compile(rb"\[rip")
"""How Capstone begins a RIP-relative operand."""


@cache
def decoder() -> LiteDecoder:
    """The one Capstone handle for x64."""
    return LiteDecoder(CS_ARCH_X86, CS_MODE_64)


class Prefixes(NamedTuple):
    """Legacy prefixes and REX of an instruction.

    Attributes:
        legacy: The legacy prefixes, in order.
        opcode: Offset of the first byte that is neither a legacy prefix nor REX.
    """

    legacy: bytes
    opcode: int


def prefixes(code: bytes) -> Prefixes:
    """Split the prefixes off the instruction at the start of ``code``."""
    position = 0
    while code[position] in LEGACY_PREFIXES:
        position += 1
    legacy = code[:position]
    return Prefixes(legacy, position + (code[position] & 0xF0 == 0x40))


def modrm_offset(code: bytes) -> int:
    """Offset of the ModRM byte of the instruction at the start of ``code``, which must have one."""
    position = 0
    first = code[0]
    while first in LEGACY_PREFIXES:
        position += 1
        first = code[position]
    if first & 0xF0 == 0x40:
        position += 1
        first = code[position]
    if first == 0x0F:
        return position + (3 if code[position + 1] in (0x38, 0x3A) else 2)
    if first == 0xC5:
        return position + 3
    if first == 0xC4 or (first == 0x8F and code[position + 1] & 0x1F >= 8):
        return position + 4
    if first == 0x62:
        return position + 5
    return position + 1


def disp32_offset(code: bytes) -> int | None:
    """Offset of the 32-bit displacement of the memory operand of the instruction at the start of ``code``; ``None`` where it has none."""
    position = modrm_offset(code)
    mode, base = code[position] >> 6, code[position] & 7
    if mode == 3:
        return None
    position += 1
    if base == 4:
        base = code[position] & 7
        position += 1
    if mode == 2 or (mode == 0 and base == 5):
        return position
    return None


def branch_field(code: bytes, size: int) -> tuple[int, int] | None:
    """Offset and size of the distance of a direct call, jump or branch of ``size`` bytes; ``None`` where the operand is not a distance."""
    first, opcode = code[0], 0
    if first in LEGACY_PREFIXES or first & 0xF0 == 0x40:
        opcode = prefixes(code).opcode
        first = code[opcode]
    if first in (0xE8, 0xE9):
        return (size - 4, 4) if size - opcode == 5 else None
    if first == 0xEB or first & 0xF0 == 0x70 or first & 0xFC == 0xE0:
        return size - 1, 1
    if (first == 0x0F and code[opcode + 1] & 0xF0 == 0x80) or (first == 0xC7 and code[opcode + 1] == 0xF8):
        return (size - 4, 4) if size - opcode == 6 else None
    return None


BRANCH_FIELDS = {
    0xE8: (1, 4),
    0xE9: (1, 4),
    0xEB: (1, 1),
    **dict.fromkeys((*range(0x70, 0x80), *range(0xE0, 0xE4)), (1, 1)),
}
"""Offset and size of the distance by the first byte, for branches without prefixes and of one opcode byte."""


def is_lea(number: int) -> bool:
    """Whether the instruction only takes an address, without going there."""
    return bool(number == x86_const.X86_INS_LEA)
