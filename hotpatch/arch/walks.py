"""Whether code goes on from an address that it takes, or may step back from it: there one array may end and another begin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hotpatch.arch.model import CallingConvention, Instruction

_WORD = re.compile(r"[a-z][a-z0-9]*")
_IN_MEMORY = re.compile(r"\[([^\]]*)\]")
_BACK = re.compile(r"- ?(?:0x)?\d|#-|0xf{4}")
_TURNS = frozenset(["dec", "neg", "negs", "not", "mvn"])
_TWO = 2
"""Operands of an addition whose result replaces one of the numbers added."""
_LEAST = -(1 << 16)
"""Bytes; how far back code is taken to step."""


def goes_onward(
    instructions: Iterable[Instruction], address: int, convention: CallingConvention, widest: Callable[[str], str | None]
) -> bool:
    """Whether the address that the instruction at ``address`` takes is first used to reach what is at or behind it, and nothing before.

    ``False`` where that is not seen: the address is handed on, or what is added to it may be negative. ``widest``: the 64-bit register
    that one is a part of.
    """
    code = list(instructions)
    at = next((number for number, item in enumerate(code) if item.address == address), len(code))
    register = widest(_first(code[at])) if at < len(code) else None
    for number, item in enumerate(code[at + 1 :] if register is not None else (), at + 1):
        inside = next((found for found in _IN_MEMORY.findall(item.operands) if register in _registers(found, widest)), None)
        if inside is None and item.mnemonic == "add" and register in _registers(item.operands, widest):
            operands = item.operands.split(", ")
            inside = ", ".join(operands[len(operands) > _TWO :])
        if inside is not None:
            steps = _registers(inside, widest) - {register}
            setters = (next((one for one in code[number - 1 :: -1] if step == widest(_first(one))), None) for step in steps)
            return not _BACK.search(inside) and not any(one is not None and _may_turn_back(one) for one in setters)
        kept = item.flow in (Flow.NEXT, Flow.BRANCH) or (item.flow is Flow.CALL and register in convention.preserved)
        if register in _registers(item.operands, widest) or not kept:
            return False
    return False


def _first(item: Instruction) -> str:
    return item.operands.partition(",")[0]


def _registers(operands: str, widest: Callable[[str], str | None]) -> frozenset[str | None]:
    return frozenset(widest(word) for word in _WORD.findall(operands)) - {None}


def _may_turn_back(item: Instruction) -> bool:
    """Whether it may make what it writes negative."""
    if item.mnemonic in _TURNS or (item.mnemonic == "lea" and _BACK.search(item.operands)):
        return True
    back = any(_LEAST <= number - top < 0 for number in item.immediates for top in (0, 1 << 32, 1 << 64))
    return back or (item.mnemonic.startswith("sub") and bool(item.immediates))
