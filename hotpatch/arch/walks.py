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
_WRITTEN_BACK = re.compile(r"\[([^\]]*)\](?:!|, (#[^,]+))")
"""Arm64: an address that is left in its register, counted on before (``!``) or after the access, and by what after it."""
_READING = frozenset(["cmp", "cmn", "test", "tst", "str", "stp", "push"])
"""Do not write their first operand."""
_TWO = 2
"""Operands of an addition whose result replaces one of the numbers added."""
_LEAST = -(1 << 16)
"""Bytes; how far back code is taken to step."""


def goes_onward(
    instructions: Iterable[Instruction], address: int, convention: CallingConvention, widest: Callable[[str], str | None]
) -> bool:
    """Whether the address that the instruction at ``address`` takes is first used to reach what is at or behind it, and nothing before.

    ``False`` where that is not seen: the address is handed on, or what is added to it may be negative; and where the register is counted
    down after that, by a loop that begins with an array's last element. ``widest``: the 64-bit register that one is a part of.
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
            back = _BACK.search(inside) or any(one is not None and _may_turn_back(one) for one in setters)
            return not back and not _is_counted_down(code[number:], register, convention, widest)
        kept = item.flow in (Flow.NEXT, Flow.BRANCH) or (item.flow is Flow.CALL and register in convention.preserved)
        if register in _registers(item.operands, widest) or not kept:
            return False
    return False


def _is_counted_down(
    code: Iterable[Instruction], register: str | None, convention: CallingConvention, widest: Callable[[str], str | None]
) -> bool:
    """Whether a constant is taken from ``register`` before it is written otherwise; what follows in memory is looked at."""
    for item in code:
        addressed = (found for found in _WRITTEN_BACK.findall(item.operands) if register in _registers(found[0], widest))
        if any(_BACK.search(by if by else place) for place, by in addressed):
            return True
        if widest(_first(item)) == register and item.mnemonic not in _READING:
            _, _, others = item.operands.partition(", ")
            if item.mnemonic == "dec":
                return True
            if item.mnemonic in ("sub", "subs"):
                return bool(item.immediates) and ("," not in others or register in _registers(others, widest))
            itself = register in _registers(others, widest) or (item.mnemonic == "add" and "," not in others)
            return itself and item.mnemonic in ("add", "lea") and bool(_BACK.search(others))
        if item.flow not in (Flow.NEXT, Flow.BRANCH) and not (item.flow is Flow.CALL and register in convention.preserved):
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
