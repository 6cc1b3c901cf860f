"""Arm64: what code refers to, read at the places that an outline knows.

Which load or addition completes which ADRP does not depend on the addresses, as long as equal pages stay equal and different ones
different, and none is the image base's (on which arithmetic is followed further).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_code import MAY_JUMP, Code
from hotpatch.arch.base import FixupKind

if TYPE_CHECKING:
    from hotpatch.arch.outline import Outline

_PAGE_MASK = ~0xFFF
_PAGE = FixupKind.PAGEBASE_REL21
_LOW = frozenset((FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L))
_RELATIVE = frozenset((FixupKind.IMAGEREL_HIGH12A, FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L))


def is_exemplary(outline: Outline, image_base: int) -> bool:
    """Nothing in it jumps through a table, and nothing makes the image base's page."""
    if any(row[3] in _RELATIVE for row in outline.outward):
        return False
    if not MAY_JUMP.search(outline.code):
        return True
    code = Code(outline.masked, outline.address)
    return not any(code.may_read_table(jump) for jump in code.register_jumps())


def reread(outline: Outline, code: bytes, address: int, image_base: int) -> tuple[int, ...] | None:
    """Where the outward references of ``code`` lead; ``None`` where its pages are not to each other as the outline's, or one leads in."""
    words = struct.unpack_from(f"<{len(code) // a64.WORD}I", code)
    distances = fields.WORD_DISTANCE_OF_TOP
    leads: list[int] = []
    parts = False
    for offset, _, _, kind, _, _, _ in outline.outward:
        word = words[offset >> 2]
        distance = distances[word >> 24]
        if distance is None:  # a page, what completes one, or the whole address near by that ADR gives
            parts = True
            leads.append(fields.decode(kind, word, address + offset))
        else:
            place, mask, sign = distance
            leads.append(address + offset + (((word >> place & mask) ^ sign) - sign << 2))
    if parts and not _complete(outline, leads, image_base):
        return None
    return tuple(leads) if outline.still_outward(leads, address) else None


def _complete(outline: Outline, leads: list[int], image_base: int) -> bool:
    """Make whole addresses of the pages and offsets in pages among ``leads``.

    Not where the relation of the outline's pages and addresses to those of the code is not one to one, or one is the image base's page.
    """
    words = struct.unpack_from(f"<{len(outline.code) // a64.WORD}I", outline.code)
    pages: dict[int, int] = {}
    begun: list[tuple[int, int, int]] = []
    ended: list[tuple[int, int, int]] = []
    for place, (offset, _, _, kind, _, target, _) in enumerate(outline.outward):
        if kind is _PAGE:
            page = fields.page(words[offset >> 2], outline.address + offset)
            if pages.setdefault(page, leads[place]) != leads[place]:
                return False
            begun.append((place, page, target))
        elif kind in _LOW:
            ended.append((place, target - fields.decode(kind, words[offset >> 2], 0), target))
    news = set(pages.values())
    base = image_base & _PAGE_MASK
    if len(news) < len(pages) or base in pages or base in news:
        return False
    wholes: dict[tuple[int, int], int] = {(page, page): new for page, new in pages.items()}  # a page may also be used as it is
    for place, page, target in ended:
        leads[place] += pages[page]
        if wholes.setdefault((page, target), leads[place]) != leads[place]:
            return False
    if len({(page, new) for (page, _), new in wholes.items()}) != len(wholes):
        return False
    for place, page, target in begun:
        leads[place] = wholes[page, target]
    return True
