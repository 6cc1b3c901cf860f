"""Arm64: which instructions load where a thread has its copy of the image's thread-local data.

Windows keeps the thread's environment block in x18, and in it, at 0x58, the array of these copies by module (PE format, "The .tls
Section").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.arch.model import Instruction

_ARRAY = re.compile(r"(x\d+), \[x18, #0x58\]$")
_BLOCK = re.compile(r"(x\d+), \[(x\d+)(?:, (?:x|w)\d+, (?:lsl|uxtw|sxtw) #3)?\]$")
_NOT_WRITING = ("st", "cmp", "cmn", "tst", "cb", "tb", "ccm")


def thread_blocks(instructions: Sequence[Instruction]) -> Mapping[int, str]:
    """See :meth:`hotpatch.arch.following.Following.thread_blocks`."""
    arrays: set[str] = set()
    blocks: dict[int, str] = {}
    for one in instructions:
        first = "x" + one.operands.partition(",")[0][1:]
        load = one.mnemonic == "ldr"
        if load and _ARRAY.match(one.operands):
            arrays.add(first)
            continue
        found = _BLOCK.match(one.operands) if load and arrays else None
        if found is not None and found[2] in arrays:
            blocks[one.address] = first
        if not one.mnemonic.startswith(_NOT_WRITING):
            arrays.discard(first)
    return blocks
