"""x64: how instructions name, fill and silently read registers that hold arguments. Source: Intel SDM volume 2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.unread import Spelling
from hotpatch.arch.x64_operands import PARENTS

if TYPE_CHECKING:
    from hotpatch.arch.model import Instruction

_FILLING = re.compile(r"(?:mov(?:abs|zx|sx|sxd)?|lea|pop|xor|sub)$")
_WHOLE = re.compile(r"r[a-z]{2}|e[a-z]{2}|r\d+d?")
"""Registers of 64 and of 32 bits; writing the latter clears the other half."""
_SILENT = {
    "rcx": re.compile(
        r"rep|loop|j[er]?cxz|cpuid|xgetbv|xsetbv|rdmsr|wrmsr|rdpmc|rdpru|monitor|mwait|umwait|tpause|cmpxchg(?:8|16)b|encl|vm|sys|int"
    ),
    "rdx": re.compile(r"i?div|mulx|in[bswd]?$|out|cmpxchg(?:8|16)b|v?pcmpestr|xsave|xrstor|xsetbv|wrmsr|umwait|tpause|mwait|vm|sys|int"),
    "r8": re.compile(r"vm|sys|int"),
    "r9": re.compile(r"vm|sys|int"),
}
"""Instructions that read the registers though their operands do not name them, or that hand control to the system."""


def _fills(instruction: Instruction) -> bool:
    """``xor`` and ``sub`` count for what they make of a register and itself."""
    first, _, others = instruction.operands.partition(", ")
    is_plain = _FILLING.match(instruction.mnemonic) is not None and _WHOLE.fullmatch(first) is not None
    return is_plain and (instruction.mnemonic not in ("xor", "sub") or others == first)


def _is_silent(instruction: Instruction, place: str) -> bool:
    return any(_SILENT[place].match(word) for word in instruction.mnemonic.split())  # prefixes are words of their own


SPELLING = Spelling(widest=PARENTS.get, fills=_fills, hidden=_is_silent, returned=())
