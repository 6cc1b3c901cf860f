"""Which instructions load where a thread has its copy of the image's thread-local data, on either machine.

Windows keeps in the thread's environment block, at 0x58, the array of these copies by module (PE format, "The .tls Section").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping

    from hotpatch.arch.model import Instruction


class Form(NamedTuple):
    """How a machine's code loads it.

    Attributes:
        load: The mnemonic of a load.
        array: Matches the operands of the load of the array.
        block: Matches those of a load from an array; the second group is the register that holds that.
        whole: The 64-bit register of an operand.
        not_writing: What mnemonics of instructions begin with that leave their first operand alone.
    """

    load: str
    array: re.Pattern[str]
    block: re.Pattern[str]
    whole: Callable[[str], str | None]
    not_writing: tuple[str, ...]


def thread_blocks(instructions: Iterable[Instruction], form: Form) -> Mapping[int, str]:
    """See :meth:`hotpatch.arch.following.Following.thread_blocks`."""
    arrays: set[str] = set()
    blocks: dict[int, str] = {}
    for one in instructions:
        first = form.whole(one.operands.partition(",")[0]) or ""
        load = one.mnemonic == form.load
        if load and form.array.match(one.operands):
            arrays.add(first)
            continue
        found = form.block.match(one.operands) if load and arrays else None
        if found is not None and found[2] in arrays:
            blocks[one.address] = first
        if not one.mnemonic.startswith(form.not_writing):
            arrays.discard(first)
    return blocks
