"""Whether functions of the same body take the end of constants that differ, in images without symbols.

Code that walks back over an array may name nothing of it but its end, where something else begins that is the same in both images.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind, Use
from hotpatch.differ.parts import POINTER_SIZE, PlaceKind

if TYPE_CHECKING:
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body, Link
    from hotpatch.differ.view import View

_NAMES = frozenset({FixupKind.REL32, FixupKind.PAGEOFFSET_12A, FixupKind.IMAGEREL_LOW12A})
"""Fields that complete an address."""
_LONGEST = 16
"""Bytes that no instruction is longer than."""


def takes_another_end(relation: Correspondence, old: Body, new: Body) -> bool:
    """Whether, of two bodies of the same forms whose references correspond, one takes the end of other numbers."""
    base, fixed = relation.base, relation.fixed
    if base.image.has_symbols and fixed.image.has_symbols:
        return False
    alike = relation.alike_before
    if alike.issuperset(zip(old.targets, new.targets, strict=True)):
        return False
    for place, pair in enumerate(zip(old.targets, new.targets, strict=True)):
        if pair in alike:
            continue
        first, second = _numbers_before(base, old, pair[0]), _numbers_before(fixed, new, pair[1])
        size = min(len(first), len(second))
        if size and first[-size:] != second[-size:]:
            if _may_end(fixed, new, new.link(place)):
                return True
        elif base.place(pair[0]).table is None is fixed.place(pair[1]).table:  # of a table it matters whose it is
            alike.add(pair)
    return False


def _numbers_before(view: View, body: Body, rva: int) -> bytes:
    """What ends where the constant at ``rva`` begins, if that is numbers; behind pointers only what follows them."""
    place, section = view.place(rva), view.section(rva)
    if place.kind not in (PlaceKind.CONSTANT, PlaceKind.TABLE) or section is None or (place.table and place.function is body.function):
        return b""
    at = bisect_left(view.boundaries, rva) - 1
    start = max(view.boundaries[at] if at >= 0 else rva, section.range.start)
    if view.place(start).kind is not PlaceKind.CONSTANT or not view.records.isdisjoint((start, rva)) or _begins_text(view, rva):
        return b""
    sites = view.pointers(start, rva)
    start += sites[-1] + POINTER_SIZE if sites else 0
    found = view.bare(start, rva - start)
    return b"" if _is_text(found) else found


def _is_text(raw: bytes) -> bool:
    """Whether it is printable and ends in a zero."""
    letters = raw.replace(b"\0", b"")
    return raw[-1:] == b"\0" and bool(letters) and all(byte in b"\t\r\n" or 0x20 <= byte < 0x7F for byte in letters)


def _begins_text(view: View, rva: int) -> bool:
    raw = view.bare(rva, view.extent(rva).size).split(b"\0", 1)
    return len(raw) > 1 and len(raw[0]) > 1 and _is_text(raw[0] + b"\0")


def _may_end(view: View, body: Body, link: Link) -> bool:
    """Whether an instruction only takes the address that it names, and nothing shows that what begins there is meant."""
    if link.use is not Use.DATA:
        return False
    start, code = body.function.ranges[link.part].start, body.code[link.part]
    instruction = code[link.offset : link.offset + _LONGEST]
    taken = link.kind in _NAMES and not view.architecture.accesses(link.kind, instruction, start + link.offset)
    return taken and not view.architecture.goes_onward(code, start, link.offset)
