"""Tables of 32-bit distances from themselves to other data or code: nothing relocates their entries, so a copy must be bound anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.model import Site

if TYPE_CHECKING:
    from hotpatch.arch import DistanceTable
    from hotpatch.image import Function, Image, Range

ENTRY_SIZE = 4


def tables_of(image: Image, function: Function) -> tuple[DistanceTable, ...]:
    """The function's tables of such distances, jump tables left out."""
    jumps = {table.address for table in image.jump_tables(function)}
    found = (table for part in function.ranges for table in image.architecture.distance_tables(image.code(part), part.start))
    return tuple(table for table in found if table.address not in jumps)


def sites(image: Image, table: DistanceTable, part: Range) -> tuple[Site, ...] | None:
    """The entries of ``table``, which lies in the datum ``part``, as sites; ``None`` where they are of a form that no field can hold.

    Without a bound, the table ends at the first thing behind it that one of its own entries leads to, or before a word that leads out of
    the image, such as one of a text. Entries that lead into the datum itself move with it and are no sites.
    """
    end = part.end if table.count is None else min(part.end, table.address + table.count * table.entry_size)
    if (table.entry_size, table.shift, table.signed) != (ENTRY_SIZE, 0, True):
        return None
    found = []
    at = table.address
    while at + ENTRY_SIZE <= end:
        target = table.address + int.from_bytes(image.read(at, ENTRY_SIZE), "little", signed=True)
        if table.count is None and image.section_at(Rva(target)) is None:
            break
        if target >= at and table.count is None:
            end = min(end, target)
        if target not in part:
            addend = at - table.address + ENTRY_SIZE
            found.append(Site(Rva(at), ENTRY_SIZE, Rva(at), FixupKind.REL32, Use.DATA, Rva(target), addend))
        at += ENTRY_SIZE
    return tuple(found)
