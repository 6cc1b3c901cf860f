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
    pages = _pages(outline, leads, image_base)
    if pages is None:
        return False
    wholes: dict[tuple[int, int], int] = {(page, page): new for page, new in pages.items()}  # a page may also be used as it is
    for place, (offset, _, _, kind, _, target, _) in enumerate(outline.outward):
        if kind in _LOW:
            page = target - fields.decode(kind, _word(outline, offset), 0)
            whole = leads[place] = pages[page] + leads[place]
            if wholes.setdefault((page, target), whole) != whole:
                return False
    if len({(page, new) for (page, _), new in wholes.items()}) != len(wholes):
        return False
    for place, (offset, _, _, kind, _, target, _) in enumerate(outline.outward):
        if kind is _PAGE:
            leads[place] = wholes[fields.decode(_PAGE, _word(outline, offset), outline.address + offset), target]
    return True


def _pages(outline: Outline, leads: list[int], image_base: int) -> dict[int, int] | None:
    """The outline's page → that of the code; ``None`` where the relation is not one to one or has the image base's page."""
    pages: dict[int, int] = {}
    for (offset, _, _, kind, _, _, _), new in zip(outline.outward, leads, strict=True):
        if kind is _PAGE:
            old = fields.decode(_PAGE, _word(outline, offset), outline.address + offset)
            if pages.setdefault(old, new) != new:
                return None
    news = set(pages.values())
    base = image_base & _PAGE_MASK
    return pages if len(news) == len(pages) and base not in pages and base not in news else None


def _word(outline: Outline, offset: int) -> int:
    return int.from_bytes(outline.code[offset : offset + a64.WORD], "little")
