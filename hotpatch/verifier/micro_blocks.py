"""Blocks of functions that nothing but exception data lead to: catch blocks, ``__finally`` blocks, what unwinding runs."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.image.funclets import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.address import Rva
    from hotpatch.image import Image, Range


def entered_by_unwinding(image: Image, parts: Iterable[Range]) -> tuple[Rva, ...]:
    """Where the blocks begin, sorted, among the ``parts`` of a function, that its own exception data lead to."""
    parts = tuple(parts)
    entries = (entry for part in parts for found in led_to_by_unwinding(image, part).values() for entry in found)
    return tuple(sorted({entry for entry in entries if any(entry in each for each in parts)}))


def led_to_by_unwinding(image: Image, part: Range) -> dict[int, tuple[Rva, ...]]:
    """What exception data of the code in ``part`` leads to, wherever that is, by how far behind the start of ``part`` the code is."""
    rows, found = image.kept(_by_start), {}
    for start, entries in rows[bisect_left(rows, (part.start,)) :]:
        if start >= part.end:
            break
        found[start - part.start] = entries
    return found


def _by_start(image: Image) -> list[tuple[int, tuple[Rva, ...]]]:
    """What the exception data of each entry of the function table leads to, by where the code of the entry begins."""
    led_to = image.kept(blocks)
    entries = ((entry.range.start, led_to.get(entry.handler_data, ())) for entry in image.unwind_entries if entry.handler_data is not None)
    return sorted((start, tuple(block.entry for block in rows)) for start, rows in entries if rows)
