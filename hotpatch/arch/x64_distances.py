"""x64: the tables of distances that code loads from and adds their own address to.

Compilers make them of tables of pointers to constants (LLVM: RelLookupTableConverter), so that they need no relocation:
``lea rcx, [rip+table]; movsxd rax, [rcx+rax*4]; add rax, rcx``.
"""

from __future__ import annotations

from capstone import x86_const

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.model import WIDTHS, DistanceTable
from hotpatch.arch.x64_flow import Blocks
from hotpatch.arch.x64_operands import PARENTS
from hotpatch.arch.x64_values import Destination, Values

_SIGN_EXTENDING_LOAD = b"\x63"
"""The opcode of MOVSXD, wherever it may stand in the bytes."""


def distance_tables(code: bytes, address: int, image_base: int) -> tuple[DistanceTable, ...]:
    """The tables by address, those of jumps among them."""
    if _SIGN_EXTENDING_LOAD not in code:
        return ()
    blocks = Blocks(encoding.decoder().rows(code, address))
    sums = frozenset(position for position, operands in enumerate(blocks.operands) if _may_be_sum(blocks.numbers[position], operands))
    if not sums:
        return ()
    values = Values(blocks, image_base, sums, blocks.leaders)
    values.run()
    found: dict[int, DistanceTable] = {}
    for leader in values.entries:
        asked = [position for position in range(leader, blocks.end(leader)) if position in sums]
        if not asked:
            continue
        state = values.at(leader)
        for position in range(leader, asked[-1] + 1):
            values.step(position, state)
            value = state.get(PARENTS[blocks.operands[position][0]]) if position in sums else None
            if isinstance(value, Destination) and value.anchor == value.entry.table:
                entry = value.entry
                found[entry.table] = DistanceTable(entry.table, entry.size, 0, entry.signed, None if entry.limit in WIDTHS else entry.limit)
    return tuple(found[at] for at in sorted(found))


def _may_be_sum(number: int, operands: tuple[str, ...]) -> bool:
    """Whether the instruction adds two registers, and no more."""
    if number == x86_const.X86_INS_ADD:
        return operands[0] in PARENTS and operands[1] in PARENTS
    accessed = x64_operands.accessed(operands) if number == x86_const.X86_INS_LEA else None
    return accessed is not None and accessed.scaled is not None and accessed.scale == 1 and accessed.displacement == 0
