"""x64: how instructions name, fill and silently read registers that hold arguments. Source: Intel SDM volume 2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.unread import Spelling
from hotpatch.arch.x64_operands import PARENTS, VOLATILE

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

_IMPLICIT = re.compile(
    r"rep|i?mul$|i?div$|mulx|c(?:bw|wde|dqe|wd|dq|qo)$|cmpxchg|xlat|cpuid|rd|wr|xgetbv|xsetbv"
    r"|loop|j[er]?cxz|leave|enter|push[af]|popf|popa|monitor|u?mwait|tpause|encl|vm|sys|int|iret|in$|out$|xsave|xrstor|fx|lahf|sahf"
    r"|v?p?cmp[ei]str|v?p?gather|v?p?scatter|maskmov|vpmaskmov|salc|aa[adms]$|da[as]$|xbegin|xabort|key|aes.*kl$|l[defgs]s$|bound"
)
"""Instructions that use registers which their operands do not name, more memory than these tell, or an index that is a vector."""
_STRINGS = re.compile(r"(?:movs|stos|lods|scas|cmps|ins|outs)[bwdq]$")
"""Others that do; those of the same name that have vectors do not."""


def _fills(instruction: Instruction) -> bool:
    """``xor`` and ``sub`` count for what they make of a register and itself."""
    first, _, others = instruction.operands.partition(", ")
    is_plain = _FILLING.match(instruction.mnemonic) is not None and _WHOLE.fullmatch(first) is not None
    return is_plain and (instruction.mnemonic not in ("xor", "sub") or others == first)


def _is_silent(instruction: Instruction, place: str) -> bool:
    silent = _SILENT.get(place)
    if silent is None:
        return _is_implicit(instruction)
    return any(silent.match(word) for word in instruction.mnemonic.split())  # prefixes are words of their own


def _is_implicit(instruction: Instruction) -> bool:
    is_string = _STRINGS.match(instruction.mnemonic) is not None and "mm" not in instruction.operands
    return is_string or any(_IMPLICIT.match(word) for word in instruction.mnemonic.split())


def _loads_pair(instruction: Instruction) -> bool:
    del instruction
    return False


SPELLING = Spelling(
    widest=PARENTS.get,
    fills=_fills,
    hidden=_is_silent,
    returned=(),
    second="rdx",
    given=(),
    implicit=_is_implicit,
    scratch=frozenset(VOLATILE),
    pairs=_loads_pair,
)
