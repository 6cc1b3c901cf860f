"""Tables of 32-bit distances to other constants, counted from the table's start.

Compilers turn tables of constant pointers into these (LLVM: RelLookupTableConverter), and nothing marks them: they are neither code nor
relocated. A table is taken for one only if every entry leads out of it to something, and if either all of them lead to texts before it, or
code adds them to its address. Small negative numbers lead somewhere, too, and what other numbers or zeros begin there tells nothing.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.differ.texts import is_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_WORD = 4
_PIECE = 1 << 18
"""Bytes looked at together."""
_NEGATIVE = 0x80
"""From here on the highest byte of a word says so."""
_LEAST = 2
_LONGEST_TEXT = 8192
"""Bytes."""
_MOST_USERS = 4
"""Functions that name a table and are looked at: the first that uses it tells."""


def may_be_distances(view: View, starts: Sequence[int]) -> list[tuple[int, int]]:
    """A quick look: those of ``starts`` (sorted), with the next, between which there is room for a table with a negative first entry."""
    found = []
    for first in range(0, view.image.size_of_image, _PIECE):
        low, high = bisect_left(starts, first), bisect_left(starts, first + _PIECE)
        content = view.image.read(first, _PIECE).ljust(_PIECE + _WORD, b"\0")
        top = _WORD - 1 - first
        found += [
            (start, end)
            for start, end in zip(starts[low:high], starts[low + 1 : high + 1], strict=False)
            if not start % _WORD and content[start + top] >= _NEGATIVE and end - start >= _LEAST * _WORD
        ]
    return found


def distance_targets(view: View, start: int, end: int) -> tuple[int, ...]:
    """Where the entries of what lies from ``start`` to ``end`` lead, if they are distances for certain; else nothing.

    They are when all are negative (the linker puts tables behind what they lead to) and each leads to a text, just behind a zero byte, as
    the text or the padding before it ends in.
    """
    targets = _targets(view, start, end)
    section = view.section(start)
    first = section.range.start if section is not None else 0
    certain = all(
        (target == first or view.image.read(target - 1, 1) == b"\0") and _leads_to_text(view, target, start) for target in targets
    )
    return targets if certain else ()


def _leads_to_text(view: View, rva: int, end: int) -> bool:
    """Whether two printable characters or more stand at ``rva``, then a zero before ``end``: a number of two bytes may look like one."""
    found, zero, _ = view.image.read(rva, min(end - rva, _LONGEST_TEXT)).partition(b"\0") if rva < end else (b"", b"", b"")
    return bool(zero) and len(found) > 1 and is_printable(found)


def distance_pairs(base: View, fixed: View, old: tuple[int, int], new: tuple[int, int]) -> Sequence[Pair] | None:
    """The targets of two tables, from start to end each, that must correspond for the tables to; ``None`` where they are no such tables.

    Two tables whose entries lead into texts before them and differ in each by the same distance are taken for such, too: linkers put one
    text into another's end. So are two whose entries code adds to their addresses, of which each that differs leads out of them.
    """
    there, here = _targets(base, *old), _targets(fixed, *new)
    if not there or len(there) != len(here):
        return None
    moved = {(b - old[0]) - (f - new[0]) for b, f in zip(there, here, strict=True)}
    texts = all(_leads_to_text(base, target, old[0]) for target in there) and all(_leads_to_text(fixed, target, new[0]) for target in here)
    certain = (len(moved) == 1 and texts) or (distance_targets(base, *old) and distance_targets(fixed, *new))
    added = certain or (adds_entries(base, old[0]) and adds_entries(fixed, new[0]))
    return list(zip(there, here, strict=True)) if added else None


def adds_entries(view: View, start: int) -> bool:
    """Whether a function that names the table adds its entries to its address."""
    for entry in view.users.get(start, ())[:_MOST_USERS]:
        for part in view.functions[entry].ranges:
            for table in view.distance_tables(part):
                if (table.address, table.entry_size, table.shift, table.signed) == (start, _WORD, 0, True):
                    return True
    return False


def _targets(view: View, start: int, end: int) -> tuple[int, ...]:
    size = (end - start) // _WORD * _WORD
    section = view.section(start)
    if size < _LEAST * _WORD or start % _WORD or section is None or start + size > section.range.end:
        return ()
    words = list(struct.unpack(f"<{size // _WORD}i", view.image.read(start, size)))
    while words and not words[-1]:
        words.pop()
    targets = tuple(start + word for word in words)
    inside = all(section.range.start <= target < section.range.end and not start <= target < end for target in targets)
    return targets if len(targets) >= _LEAST and inside else ()
