"""Whether code goes on from an address that it takes, or may step back from it: there one array may end and another begin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.base import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hotpatch.arch.base import CallingConvention, Instruction

_WORD = re.compile(r"[a-z][a-z0-9]*")
_IN_MEMORY = re.compile(r"\[([^\]]*)\]")
_BACK = re.compile(r"- ?(?:0x)?\d|#-")
_TURNS = frozenset(["neg", "negs", "not", "mvn"])
_LEAST = -(1 << 16)
"""Bytes; how far back code is taken to step."""


def accesses_onward(
    instructions: Iterable[Instruction], address: int, convention: CallingConvention, widest: Callable[[str], str | None]
) -> bool:
    """Whether memory at or behind the address that the instruction at ``address`` takes is accessed through its register, and none before.

    ``False`` where that is not seen: the address is handed on, or computed with. ``widest``: the 64-bit register that one is a part of.
    """
    code = list(instructions)
    at = next((number for number, item in enumerate(code) if item.address == address), len(code))
    register = widest(code[at].operands.partition(",")[0]) if at < len(code) else None
    for item in code[at + 1 :] if register is not None else ():
        inside = [found for found in _IN_MEMORY.findall(item.operands) if register in _registers(found, widest)]
        if inside:
            if item.mnemonic == "lea" or _BACK.search(inside[0]):
                return False
            return len(_registers(inside[0], widest)) == 1 or not any(_may_turn_back(one, convention.sp) for one in code)
        kept = item.flow is Flow.NEXT or item.flow is Flow.BRANCH or (item.flow is Flow.CALL and register in convention.preserved)
        if register in _registers(item.operands, widest) or not kept:
            return False
    return False


def _registers(operands: str, widest: Callable[[str], str | None]) -> Collection[str | None]:
    return {widest(word) for word in _WORD.findall(operands)} - {None}


def _may_turn_back(item: Instruction, stack: str) -> bool:
    """Whether it may make an index negative."""
    if item.mnemonic in _TURNS or (item.mnemonic == "lea" and _BACK.search(item.operands)):
        return True
    if stack in item.operands:
        return False
    numbers = item.immediates
    back = any(_LEAST <= number - top < 0 for number in numbers for top in (0, 1 << 32, 1 << 64))
    return back or (item.mnemonic.startswith("sub") and bool(numbers))
