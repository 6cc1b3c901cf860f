"""x64: which instructions load where a thread has its copy of the image's thread-local data.

Windows keeps the thread's environment block at gs:[0], and in it, at 0x58, the array of these copies by module (PE format, "The .tls
Section"). MSVC adds the offset in a copy from a register, which it sets right before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.x64_operands import PARENTS, memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.arch.model import Instruction

_ARRAY = re.compile(r"(\w+), qword ptr gs:\[0x58\]$")
_BLOCK = re.compile(r"(\w+), qword ptr \[(\w+)(?: \+ \w+\*8)?\]$")
_NUMBER = re.compile(r"(\w+), (0x[0-9a-f]+|\d+)$")
_NOT_WRITING = ("cmp", "test", "push")
_FARTHEST = 24
"""Instructions between the number and the access."""


def thread_blocks(instructions: Sequence[Instruction]) -> Mapping[int, str]:
    """See :meth:`hotpatch.arch.following.Following.thread_blocks`."""
    arrays: set[str] = set()
    blocks: dict[int, str] = {}
    for one in instructions:
        first = PARENTS.get(one.operands.partition(",")[0], "")
        load = one.mnemonic == "mov"
        if load and _ARRAY.match(one.operands):
            arrays.add(first)
            continue
        found = _BLOCK.match(one.operands) if load and arrays else None
        if found is not None and found[2] in arrays:
            blocks[one.address] = first
        if not one.mnemonic.startswith(_NOT_WRITING):
            arrays.discard(first)
    return blocks


def index_number(instructions: Sequence[Instruction], number: int) -> int | None:
    """See :meth:`hotpatch.arch.following.Following.index_number`."""
    text = next((operand for operand in instructions[number].operands.split(", ") if operand.endswith("]")), "")
    inside = memory(text) if text else None
    places = {inside.base, inside.scaled} if inside is not None else set()
    for one in reversed(instructions[max(0, number - _FARTHEST) : number]):
        found = _NUMBER.match(one.operands) if one.mnemonic == "mov" else None
        if found is not None and PARENTS.get(found[1]) in places:
            return int(found[2], 0)
    return None
