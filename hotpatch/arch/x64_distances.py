"""x64: the tables of distances that code loads from and adds their own address to.

Compilers make them of tables of pointers to constants (LLVM: RelLookupTableConverter), so that they need no relocation:
``lea rcx, [rip+table]; movsxd rax, [rcx+rax*4]; add rax, rcx``.
"""

from __future__ import annotations

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch.model import WIDTHS, DistanceTable
from hotpatch.arch.x64_flow import Blocks
from hotpatch.arch.x64_values import Destination, Values

_SIGN_EXTENDING_LOAD = b"\x63"
"""The opcode of MOVSXD, wherever it may stand in the bytes."""


def distance_tables(code: bytes, address: int, image_base: int) -> tuple[DistanceTable, ...]:
    """The tables by address, those of jumps among them."""
    if _SIGN_EXTENDING_LOAD not in code:
        return ()
    values = Values(Blocks(encoding.decoder().rows(code, address)), image_base)
    values.run()
    found: dict[int, DistanceTable] = {}
    for leader in values.entries:
        state = values.at(leader)
        for position in range(leader, values.blocks.end(leader)):
            values.step(position, state)
            for value in state.values.values():
                if isinstance(value, Destination) and value.anchor == value.entry.table:
                    entry = value.entry
                    found[entry.table] = DistanceTable(
                        entry.table, entry.size, 0, entry.signed, None if entry.limit in WIDTHS else entry.limit
                    )
    return tuple(found[at] for at in sorted(found))
