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


def sites(image: Image, table: DistanceTable, part: Range, following: int) -> tuple[Site, ...] | None:
    """The entries of ``table``, which lies in what travels as ``part``, as sites; ``None`` where no field can hold them, or it may go on.

    It does where code says so and only its beginning travels.

    Without a bound, the table ends at ``following``, where something else begins that anything refers to, at the first thing behind it that
    one of its own entries leads to, or before a word that leads to another section than its first, or to none, such as one of a text. Where
    another entry may stand at ``following``, it is not known what begins there. Entries that lead into ``part`` move with it and are no
    sites.
    """
    if (table.entry_size, table.shift, table.signed) != (ENTRY_SIZE, 0, True):
        return None
    end = min(part.end, following) if table.count is None else table.address + table.count * table.entry_size
    if end > part.end:
        return None
    section = image.section_at(_target(image, table.address, table.address))
    found = []
    at = table.address
    while at + ENTRY_SIZE <= end:
        target = _target(image, table.address, at)
        if table.count is None and (section is None or image.section_at(target) is not section):
            break
        if target >= at and table.count is None:
            end = min(end, target)
        if target not in part:
            addend = at - table.address + ENTRY_SIZE
            found.append(Site(Rva(at), ENTRY_SIZE, Rva(at), FixupKind.REL32, Use.DATA, Rva(target), addend))
        at += ENTRY_SIZE
    if table.count is None and at == following < part.end:
        # Linkers put what such tables lead to before them.
        behind = _target(image, table.address, at)
        if behind < table.address and image.section_at(behind) is section:
            return None
    return tuple(found)


def _target(image: Image, start: int, at: int) -> int:
    """Where the entry at ``at`` of the table at ``start`` leads."""
    return start + int.from_bytes(image.read(at, ENTRY_SIZE), "little", signed=True)
