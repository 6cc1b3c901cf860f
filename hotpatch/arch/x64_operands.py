"""x64: reading Capstone's operand text, and which registers an instruction writes.

Capstone's own lists of registers read and written need its detail mode, which is eight times slower, and leave implicit ones out.
Sources: Intel SDM volume 2 (operands of each instruction); MS Learn, "x64 calling convention" (what a call leaves undefined).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from capstone import x86_const

from hotpatch.arch.common import text
from hotpatch.arch.x64_encoding import instruction_numbers


def _parents() -> dict[str, str]:
    parents: dict[str, str] = {}
    for letter in "abcd":
        whole = f"r{letter}x"
        parents |= dict.fromkeys((whole, f"e{letter}x", f"{letter}x", f"{letter}l", f"{letter}h"), whole)
    for name in ("si", "di", "bp", "sp"):
        whole = f"r{name}"
        parents |= dict.fromkeys((whole, f"e{name}", name, f"{name}l"), whole)
    for number in range(8, 16):
        whole = f"r{number}"
        parents |= dict.fromkeys((whole, f"{whole}d", f"{whole}w", f"{whole}b"), whole)
    return parents


PARENTS = _parents()
"""Each general-purpose register's name → that of the 64-bit register which it is part of."""

_UPPER = frozenset({"ah", "bh", "ch", "dh"})

VOLATILE = ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
"""General-purpose registers that a call may change."""

_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8}


class Memory(NamedTuple):
    """A memory operand.

    Attributes:
        size: Of the access in bytes, 0 where the text gives none or a vector's.
        base: 64-bit register or ``None``; ``rip`` where the operand is RIP-relative.
        scaled: 64-bit register or ``None``.
        scale: Factor of ``scaled``.
        displacement: Signed, in bytes.
        place: The address expression as text, without the size.
    """

    size: int
    base: str | None
    scaled: str | None
    scale: int
    displacement: int
    place: str


_MEMORY = re.compile(r"(?:(\w+) ptr )?(\w\w:)?\[(.+)\]$")
_TERM = re.compile(r"([+-]?) ?([a-z0-9]+)(?:\*(\d))?")


@lru_cache(maxsize=4096)
def memory(operand: str) -> Memory | None:
    """``operand`` read as a memory operand; ``None`` where it is something else, or relative to a segment."""
    match = _MEMORY.match(operand)
    if match is None or match[2]:
        return None
    base = scaled = None
    scale, displacement = 1, 0
    for sign, name, factor in _TERM.findall(match[3]):
        register = "rip" if name == "rip" else PARENTS.get(name)
        if register is None:
            if not name[0].isdigit():
                return None
            displacement += -int(name, 0) if sign == "-" else int(name, 0)
        elif factor or base is not None:
            scaled, scale = register, int(factor or 1)
        else:
            base = register
    return Memory(_SIZES.get(match[1] or "", 0), base, scaled, scale, displacement, match[3])


def split(operands: bytes) -> tuple[str, ...]:
    """Capstone's operand text, operand by operand."""
    whole = text(operands)
    return tuple(whole.split(", ")) if whole else ()


_FIRST_NOT_WRITTEN = instruction_numbers("CMP TEST PUSH BT NOP MUL DIV IDIV JMP CALL")
_BOTH_WRITTEN = instruction_numbers("XCHG XADD MULX")
_IMPLICIT = {
    **dict.fromkeys(instruction_numbers("MUL DIV IDIV CWD CDQ CQO RDTSC XGETBV RDMSR RDPMC CMPXCHG8B CMPXCHG16B"), ("rax", "rdx")),
    **dict.fromkeys(instruction_numbers("CBW CWDE CDQE CMPXCHG LAHF XLATB IN"), ("rax",)),
    **dict.fromkeys(instruction_numbers("MOVSB MOVSW MOVSD MOVSQ CMPSB CMPSW CMPSD CMPSQ"), ("rsi", "rdi", "rcx")),
    **dict.fromkeys(instruction_numbers("STOSB STOSW STOSD STOSQ SCASB SCASW SCASD SCASQ INSB INSW INSD"), ("rdi", "rcx")),
    **dict.fromkeys(instruction_numbers("LODSB LODSW LODSD LODSQ"), ("rax", "rsi", "rcx")),
    **dict.fromkeys(instruction_numbers("OUTSB OUTSW OUTSD"), ("rsi", "rcx")),
    **dict.fromkeys(instruction_numbers("LOOP LOOPE LOOPNE"), ("rcx",)),
    **dict.fromkeys(instruction_numbers("LEAVE ENTER"), ("rbp", "rsp")),
    **dict.fromkeys(instruction_numbers("PUSH POP PUSHFQ POPFQ"), ("rsp",)),
    x86_const.X86_INS_CPUID: ("rax", "rbx", "rcx", "rdx"),
    x86_const.X86_INS_RDTSCP: ("rax", "rcx", "rdx"),
    x86_const.X86_INS_SYSCALL: ("rax", "rcx", "r11"),
}


def written(number: int, operands: tuple[str, ...]) -> set[str]:
    """The 64-bit general-purpose registers that instruction ``number`` may change, calls apart."""
    registers: set[str] = set()
    if number == x86_const.X86_INS_IMUL and len(operands) == 1:
        return {"rax", "rdx"}
    implicit = _IMPLICIT.get(number)
    if implicit and not any("xmm" in operand for operand in operands):  # the name movsd is also a vector move's
        registers.update(implicit)
    if operands and number not in _FIRST_NOT_WRITTEN:
        registers.update(PARENTS[name] for name in operands[: 2 if number in _BOTH_WRITTEN else 1] if name in PARENTS)
    return registers


def accessed(operands: tuple[str, ...]) -> Memory | None:
    """The memory operand among ``operands``, also where it only makes an address."""
    for operand in operands:
        if operand[-1] == "]":
            return memory(operand)
    return None


def stack_slot(operand: Memory | None) -> str | None:
    """The name of a fixed place on the stack; ``None`` where ``operand`` is none."""
    if operand is None or operand.scaled is not None or operand.base not in ("rsp", "rbp"):
        return None
    return operand.place


def stored_in_part(mnemonic: str, operands: str) -> tuple[str, ...]:
    """See :meth:`hotpatch.arch.base.Architecture.stored_in_part`."""
    place, _, source = operands.partition(", ")
    if mnemonic != "mov" or not place.endswith("]") or source == PARENTS.get(source) or source in _UPPER:
        return ()
    whole = PARENTS.get(source)
    return () if whole is None else (whole,)
