"""Whether functions of the same body take the end of constants that differ.

Code that walks back over an array may name nothing of it but its end, where something else begins that is the same in both images. Where
symbols say what begins there, only what such an address is handed to shows that it is an end (:mod:`.handed`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind, Use
from hotpatch.differ.distances import adds_entries
from hotpatch.differ.distant import address_of
from hotpatch.differ.handed import steps_back_from
from hotpatch.differ.parts import POINTER_SIZE, PlaceKind
from hotpatch.differ.texts import is_printable

if TYPE_CHECKING:
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body, Link
    from hotpatch.differ.view import View
    from hotpatch.image import Datum

_NAMES = frozenset({FixupKind.REL32, FixupKind.PAGEOFFSET_12A, FixupKind.IMAGEREL_LOW12A})
"""Fields that complete an address."""
_LONGEST = 16
"""Bytes that no instruction is longer than."""


def takes_another_end(relation: Correspondence, old: Body, new: Body) -> bool:
    """Whether, of two bodies of the same forms whose references correspond, one takes the end of another constant."""
    return another_end(relation, old, new) is not None


def another_end(relation: Correspondence, old: Body, new: Body) -> int | None:
    """The number of the first link by which it does."""
    base, fixed = relation.base, relation.fixed
    means_end = _is_handed_as_end if are_named(base, fixed) else _may_end
    for place, pair in enumerate(zip(old.targets, new.targets, strict=True)):
        if (
            pair not in relation.settled
            and not _jumps_through(base, old, pair[0])
            and not _jumps_through(fixed, new, pair[1])
            and have_different_ends(relation, *pair)
            and means_end(fixed, new, new.link(place))
            and means_end(base, old, old.link(place))
        ):
            return place
    return None


def are_named(base: View, fixed: View) -> bool:
    """Whether both images have symbols."""
    return base.image.has_symbols and fixed.image.has_symbols


def have_different_ends(relation: Correspondence, old: int, new: int) -> bool:
    """Whether different constants end where two constants begin; without symbols, different numbers."""
    base, fixed = relation.base, relation.fixed
    if _equal_plain_before(base, fixed, old, new):
        return False
    if are_named(base, fixed):
        return _named_ends_differ(relation, old, new)
    first, second = _numbers_before(base, old), _numbers_before(fixed, new)
    size = min(len(first), len(second))
    return size > 0 and first[-size:] != second[-size:] and not (_are_distances_before(base, old) and _are_distances_before(fixed, new))


def _named_ends_differ(relation: Correspondence, old: int, new: int) -> bool:
    """Whether constants with names end at both addresses and are not the same, in what both have in front of these."""
    there, here = _ending(relation.base, old), _ending(relation.fixed, new)
    if there is None or here is None:
        return False
    size = min(old - there.rva, new - here.rva)
    pairs = relation.content_pairs(old - size, new - size, size)
    return pairs is None or not all(relation.same(*pair) for pair in pairs)


def _ending(view: View, rva: int) -> Datum | None:
    """The constant that ends there, as symbols say."""
    found = view.symbol(rva - 1)
    return found if found is not None and found.end == rva and view.place(found.rva).kind is PlaceKind.CONSTANT else None


def _equal_plain_before(base: View, fixed: View, old: int, new: int) -> bool:
    content = base.plain_before(old)
    return content is not None and content == fixed.plain_before(new)


def _jumps_through(view: View, body: Body, rva: int) -> bool:
    """Whether the function has a jump table of its own there."""
    place = view.place(rva)
    return place.table is not None and place.function is body.function


def _numbers_before(view: View, rva: int) -> bytes:
    """What ends where the constant at ``rva`` begins, if that is numbers; behind pointers only what follows them."""
    place, section = view.place(rva), view.section(rva)
    if place.kind not in (PlaceKind.CONSTANT, PlaceKind.TABLE) or section is None:
        return b""
    at = bisect_left(view.boundaries, rva) - 1
    start = max(view.boundaries[at] if at >= 0 else rva, section.range.start)
    if view.place(start).kind is not PlaceKind.CONSTANT or not view.records.isdisjoint((start, rva)) or _begins_text(view, rva):
        return b""
    sites = view.pointers(start, rva)
    start += sites[-1] + POINTER_SIZE if sites else 0
    found = view.bare(start, rva - start)
    return b"" if _is_text(found) else found


def _are_distances_before(view: View, rva: int) -> bool:
    """Whether a table of distances ends where the constant at ``rva`` begins."""
    return adds_entries(view, view.boundaries[bisect_left(view.boundaries, rva) - 1])


def _is_text(raw: bytes) -> bool:
    """Whether it is printable and ends in a zero."""
    letters = raw.replace(b"\0", b"")
    return raw[-1:] == b"\0" and bool(letters) and is_printable(letters)


def _begins_text(view: View, rva: int) -> bool:
    raw = view.bare(rva, view.extent(rva).size).split(b"\0", 1)
    return len(raw) > 1 and len(raw[0]) > 1 and _is_text(raw[0] + b"\0")


def _is_handed_as_end(view: View, body: Body, link: Link) -> bool:
    """Whether the address that an instruction names is handed to a function that only goes back from there."""
    return link.use is Use.DATA and link.kind in _NAMES and steps_back_from(view, body.function, address_of(body, link))


def _may_end(view: View, body: Body, link: Link) -> bool:
    """Whether an instruction only takes the address that it names, and nothing shows that what begins there is meant."""
    if link.use is not Use.DATA:
        return False
    start, code = body.function.ranges[link.part].start, body.code[link.part]
    instruction = code[link.offset : link.offset + _LONGEST]
    taken = link.kind in _NAMES and not view.architecture.accesses(link.kind, instruction, start + link.offset)
    return taken and not view.architecture.goes_onward(code, start, link.offset)
