"""Jump tables of the functions that travel, written anew for where the patch image has them and what they lead to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind
from hotpatch.builder.bodies import distinct
from hotpatch.builder.spans import Spans
from hotpatch.errors import OutOfReach, Refusal, Rule
from hotpatch.patch import Fixup, Space

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from hotpatch.arch import JumpTable
    from hotpatch.builder.model import Placement
    from hotpatch.image import Image

ADDRESS_SIZE = 8
IMAGE_RELATIVE_SIZE = 4


class TableRows:
    """The jump tables of an image by address, to see where two of them claim the same bytes."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.spans = sorted({span for function in image.functions for table in image.jump_tables(function) for span in _spans(table)})
        self.ends: list[int] = []
        for _, end in self.spans:
            self.ends.append(max(end, self.ends[-1] if self.ends else 0))
        owned = ((function, table) for function in image.functions for table in distinct(image.jump_tables(function)))
        self._owned = Spans((start, end, (function.entry, table)) for function, table in owned for start, end in _spans(table))

    def covering(self, rva: int, entries: Container[Rva]) -> Iterator[JumpTable]:
        """The tables that ``rva`` lies in, or in whose entry numbers, of the functions with these ``entries``."""
        return (table for entry, table in self._owned.covering(rva) if entry in entries)

    def objection(self, table: JumpTable) -> str | None:
        """Why the length of ``table`` cannot be right: another table or a relocated pointer lies in it."""
        for start, end in _spans(table):
            first, behind = bisect_right(self.ends, start), bisect_left(self.spans, (end, 0))
            other = next((span for span in self.spans[first:behind] if span != (start, end) and span[1] > start), None)
            if other is not None:
                return f"the jump table at 0x{start:x} overlaps another at 0x{other[0]:x}, so the length of one of them is unknown"
            sites = self.image.relocations
            for site in sites[bisect_right(sites, start - ADDRESS_SIZE) : bisect_left(sites, end)]:
                if not holds_address(table, site):
                    return f"the jump table at 0x{start:x} has a relocated pointer in it at 0x{site:x}, so its length is unknown"
        return None


def holds_address(table: JumpTable, site: int) -> bool:
    """Whether the relocated pointer at ``site`` is an entry of ``table``, which :func:`link_table` binds."""
    offset = site - table.address
    return table.entry_size == ADDRESS_SIZE and 0 <= offset < table.size and offset % ADDRESS_SIZE == 0


def _spans(table: JumpTable) -> tuple[tuple[int, int], ...]:
    spans = [(table.address, table.address + table.size)]
    if table.index is not None:
        spans.append((table.index[0], sum(table.index)))
    return tuple(spans)


def entry_evidence(image: Image, table: JumpTable, number: int) -> dict[str, object]:
    """An entry of a jump table of ``image``: which one, and its bytes."""
    at = table.address + number * table.entry_size
    return {"image": "fixed", "table": table.address, "entry": number, "rva": at, "bytes": image.read(at, table.entry_size).hex()}


def link_table(image: Image, table: JumpTable, placement: Placement) -> tuple[bytes, tuple[Fixup, ...]]:
    """The bytes of a table of ``image`` in the patch image, and the fixups of entries that depend on where that is mapped.

    Entries that hold whole addresses become ADDR64 fixups. Entries relative to the image base are added to the base's image base by the
    code, so they become ADDR32NB fixups. Entries relative to the table or to a label are numbers that are known now. Zeros that
    lead nowhere stay.

    Raises:
        OutOfReach: An entry does not fit its size any more.
        KeyError: An entry leads to code that does not travel.
    """
    at = placement.of(table.address)
    targets = {number: placement.of(target) for number, target in enumerate(table.targets) if number not in table.holes}
    if table.entry_size == ADDRESS_SIZE:
        return bytes(table.size), _fixups(FixupKind.ADDR64, at, table.entry_size, targets)
    if table.anchor == 0:
        return bytes(table.size), _fixups(FixupKind.ADDR32NB, at, table.entry_size, targets)
    anchor = placement.of(table.anchor)
    empty, numbers = bytes(table.entry_size), range(len(table.targets))
    return b"".join(_entry(image, table, number, targets[number] - anchor) if number in targets else empty for number in numbers), ()


def _fixups(kind: FixupKind, at: Rva, size: int, targets: Mapping[int, Rva]) -> tuple[Fixup, ...]:
    return tuple(Fixup(kind, Rva(at + number * size), Space.PATCH, target, 0) for number, target in targets.items())


def _entry(image: Image, table: JumpTable, number: int, distance: int) -> bytes:
    value, lost = divmod(distance, 1 << table.shift)
    bits = 8 * table.entry_size - table.signed
    if lost == 0 and -(1 << bits) * table.signed <= value < 1 << bits:
        return value.to_bytes(table.entry_size, "little", signed=table.signed)
    reason = f"entry {number} of the jump table at 0x{table.address:x} cannot hold the distance {distance}; build with larger jump tables"
    evidence = {**entry_evidence(image, table, number), "distance": distance, "entry_size": table.entry_size, "shift": table.shift}
    raise OutOfReach([Refusal(Rule.OUT_OF_REACH, None, None, reason, evidence)])
