"""x64: the guards of static data that a function initialises when control first comes there.

Source: MS Learn, "/Zc:threadSafeInit": a word beside the datum is compared with one of the thread's block; where it is greater, its address
is handed to a function, and -1 in it means that the initialisation is this thread's to do.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.arch.model import Flow
from hotpatch.arch.x64_operands import PARENTS, memory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.arch.model import Instruction

_THREAD_BLOCKS = "qword ptr gs:[0x58]"
"""``ThreadLocalStoragePointer`` of the thread's environment block."""
_POINTER_SIZE = 8
_TWO = 2
_MINUS_ONE = ("-1", "0xffffffff")
_PASSABLE = (Flow.NEXT, Flow.BRANCH)
_PLAIN = frozenset(
    ("mov", "movzx", "movsxd", "movaps", "movups", "movdqa", "movdqu", "lea", "xor", "xorps", "add", "sub", "and", "or", "cmp", "test")
)
"""What writes no register but its first operand."""


def guards(instructions: Sequence[Instruction], named: Mapping[int, Collection[int]], index: int) -> frozenset[int]:
    """See :meth:`hotpatch.arch.base.Architecture.guards`."""
    numbers = {item.address: number for number, item in enumerate(instructions)}
    found: set[int] = set()
    for number, (item, branch) in enumerate(pairwise(instructions)):
        operands = item.operands.split(", ")
        if branch.mnemonic != "jg" or branch.target not in numbers or item.mnemonic != "cmp" or len(operands) != _TWO:
            continue
        places = named.get(item.address, ())
        if len(places) != 1 or not operands[0].startswith("dword ptr [rip") or operands[1] not in PARENTS:
            continue
        (place,) = places
        begun = instructions[numbers[branch.target] :][:4]
        if _is_of_thread(instructions[:number], operands[1], named, index) and _begins(begun, place, named):
            found.add(place)
    return frozenset(found)


def _is_of_thread(before: Sequence[Instruction], register: str, named: Mapping[int, Collection[int]], index: int) -> bool:
    """Whether ``register`` holds a word of the thread's block of the module."""
    number, source = _written(before, register)
    inside = memory(source)
    for holder in (inside.base, inside.scaled) if inside is not None else ():
        at, block = _written(before[:number], holder)
        blocks = memory(block)
        if blocks is None or blocks.scale != _POINTER_SIZE or blocks.displacement:
            continue
        slot, _ = _written(before[:at], blocks.scaled)
        if _written(before[:at], blocks.base)[1] == _THREAD_BLOCKS and slot < at and named.get(before[slot].address) == {index}:
            return True
    return False


def _written(before: Sequence[Instruction], register: str | None) -> tuple[int, str]:
    """The last ``mov`` that writes ``register`` on the straight way through ``before``: its number, and what it moves."""
    wanted = PARENTS.get(register or "")
    for number in range(len(before) - 1, -1, -1):
        item = before[number]
        first, _, source = item.operands.partition(", ")
        if item.flow not in _PASSABLE or wanted is None or (item.flow is Flow.NEXT and item.mnemonic not in _PLAIN):
            break
        if PARENTS.get(first) == wanted and item.mnemonic not in ("cmp", "test"):
            return (number, source) if item.mnemonic == "mov" else (len(before), "")
    return len(before), ""


def _begins(begun: Sequence[Instruction], place: int, named: Mapping[int, Collection[int]]) -> bool:
    """Whether ``begun`` hands the address of ``place`` to a function, and goes elsewhere where -1 is not there afterwards."""
    if [item.flow for item in begun] != [Flow.NEXT, Flow.CALL, Flow.NEXT, Flow.BRANCH]:
        return False
    taken, _, compared, branch = begun
    if not all(named.get(item.address) == {place} for item in (taken, compared)):
        return False
    forms = taken.mnemonic == "lea", compared.mnemonic == "cmp", branch.mnemonic == "jne"
    return all(forms) and taken.operands.startswith("rcx,") and compared.operands.rpartition(", ")[2] in _MINUS_ONE
