"""x64: how code loads where a thread has its copy of the image's thread-local data. The thread's environment block is at gs:[0].

MSVC adds the offset in a copy from a register, which it sets right before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.thread_block import Form
from hotpatch.arch.x64_operands import PARENTS, memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch.model import Instruction

FORM = Form(
    load="mov",
    array=re.compile(r"(\w+), qword ptr gs:\[0x58\]$"),
    block=re.compile(r"(\w+), qword ptr \[(\w+)(?: \+ \w+\*8)?\]$"),
    whole=PARENTS.get,
    not_writing=("cmp", "test", "push"),
)
_NUMBER = re.compile(r"(\w+), (0x[0-9a-f]+|\d+)$")
_FARTHEST = 24
"""Instructions between the number and the access."""


def index_number(instructions: Sequence[Instruction], number: int) -> int | None:
    """See :meth:`hotpatch.arch.following.Following.index_number`."""
    text = next((operand for operand in instructions[number].operands.split(", ") if operand.endswith("]")), "")
    inside = memory(text) if text else None
    places = {inside.base, inside.scaled} if inside is not None else set()
    for one in reversed(instructions[max(0, number - _FARTHEST) : number]):
        written = PARENTS.get(one.operands.partition(",")[0])
        if written not in places or one.mnemonic.startswith(FORM.not_writing):
            continue
        found = _NUMBER.match(one.operands) if one.mnemonic == "mov" else None
        if found is not None:
            return int(found[2], 0)
        places.discard(written)
    return None
