"""Jump tables of the functions that travel, written anew for where the patch image has them and what they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind
from hotpatch.errors import OutOfReach, Refusal, Rule
from hotpatch.patch import Fixup, Space

if TYPE_CHECKING:
    from hotpatch.arch import JumpTable
    from hotpatch.builder.model import Placement

ADDRESS_SIZE = 8
IMAGE_RELATIVE_SIZE = 4


def link_table(table: JumpTable, placement: Placement) -> tuple[bytes, tuple[Fixup, ...]]:
    """The table's bytes in the patch image, and the fixups of entries that depend on where that is mapped.

    Entries that hold whole addresses become ADDR64 fixups. Entries relative to the image base are added to the base's image base by the
    code, so they become ADDR32NB fixups. Entries relative to the table or to a label are numbers that are known now.

    Raises:
        OutOfReach: An entry does not fit its size any more.
        KeyError: An entry leads to code that does not travel.
    """
    at = placement.of(table.address)
    targets = [placement.of(target) for target in table.targets]
    if table.entry_size == ADDRESS_SIZE:
        return bytes(table.size), _fixups(FixupKind.ADDR64, at, table.entry_size, targets)
    if table.anchor == 0:
        return bytes(table.size), _fixups(FixupKind.ADDR32NB, at, table.entry_size, targets)
    anchor = placement.of(table.anchor)
    return b"".join(_entry(table, number, target - anchor) for number, target in enumerate(targets)), ()


def _fixups(kind: FixupKind, at: Rva, size: int, targets: list[Rva]) -> tuple[Fixup, ...]:
    return tuple(Fixup(kind, Rva(at + number * size), Space.PATCH, target, 0) for number, target in enumerate(targets))


def _entry(table: JumpTable, number: int, distance: int) -> bytes:
    value, lost = divmod(distance, 1 << table.shift)
    bits = 8 * table.entry_size - table.signed
    if lost == 0 and -(1 << bits) * table.signed <= value < 1 << bits:
        return value.to_bytes(table.entry_size, "little", signed=table.signed)
    reason = f"entry {number} of the jump table at 0x{table.address:x} cannot hold the distance {distance}; build with larger jump tables"
    evidence = {"table": table.address, "entry": number, "distance": distance, "entry_size": table.entry_size, "shift": table.shift}
    raise OutOfReach([Refusal(Rule.OUT_OF_REACH, None, None, reason, evidence)])
