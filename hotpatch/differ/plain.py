"""Constants that say no more than their bytes do: most of those that code refers to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ.view import View


def plain_constants(view: View) -> Mapping[int, bytes]:
    """What begins at each boundary among the constants that the file has, up to the next one.

    Left out is whatever more is known of: what has pointers, a symbol that covers it or ends there, or a role in the headers; import slots,
    jump tables, records of C++ types, and vtables, whose class the pointer in front of them tells.
    """
    image, starts = view.image, view.boundaries
    found: dict[int, bytes] = {}
    for section in image.sections:
        if image.holds_constants(section):
            first = section.rva
            content = image.read(first, min(section.size, section.raw_size))
            own = starts[bisect_left(starts, first) : bisect_right(starts, first + len(content))]
            found.update((start, content[start - first : end - first]) for start, end in pairwise(own))
    for start in _told_more_of(view):
        found.pop(start, None)
    return found


def _told_more_of(view: View) -> Iterator[int]:
    image = view.image
    yield from view.tables
    yield from image.imports_by_slot
    yield from view.special_data.values()
    yield from view.type_records
    yield from (site + POINTER_SIZE for site, target in image.pointers.items() if target in view.type_records)
    yield from view.holders
    starts = view.boundaries
    for datum in image.data_symbols:
        if datum.size:
            yield from starts[bisect_left(starts, datum.rva) : bisect_right(starts, datum.rva + datum.size)]
