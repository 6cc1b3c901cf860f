"""Arm64: what code refers to, read at the places that an outline knows.

Which load or addition completes which ADRP does not depend on the addresses, as long as equal pages stay equal and different ones
different, and none is the image base's (on which arithmetic is followed further).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_code import Code, may_jump
from hotpatch.arch.model import FixupKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch.outline import Outline

_PAGE_MASK = ~0xFFF
_PAGE, _NEAR = FixupKind.PAGEBASE_REL21, FixupKind.REL21
_LOW = frozenset((FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L))
_RELATIVE = frozenset((FixupKind.IMAGEREL_HIGH12A, FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L))


def is_exemplary(outline: Outline, image_base: int) -> bool:
    """Nothing in it jumps through a table, and nothing makes the image base's page."""
    if not _RELATIVE.isdisjoint([encoding[2] for encoding in outline.outward[1]]):
        return False
    if not may_jump(outline.code):
        return True
    code = Code(outline.masked, outline.address)
    return not any(code.may_read_table(jump) for jump in code.register_jumps())


def reread(outline: Outline, code: bytes, address: int, image_base: int) -> tuple[int, ...] | None:
    """Where the outward references of ``code`` lead; ``None`` where its pages are not to each other as the outline's, or one leads in."""
    layout = f"<{len(code) // a64.WORD}I"
    words: Sequence[int] = struct.unpack_from(layout, code)
    old_words: Sequence[int] = ()
    distances = fields.WORD_DISTANCE_OF_TOP
    end, old_address = address + len(code), outline.address
    leads: list[int] = []
    parts_stand = True
    for offset, (_, _, kind, _, _), target in zip(*outline.outward, outline.leads, strict=True):
        word = words[offset >> 2]
        distance = distances[word >> 24]
        if distance is None and kind is not _NEAR:  # a page, or what completes one
            leads.append(target)
            old_words = old_words or struct.unpack_from(layout, outline.code)
            if word != old_words[offset >> 2] or (kind is _PAGE and (address + offset ^ old_address + offset) & _PAGE_MASK):
                parts_stand = False
            continue
        if distance is None:
            lead = fields.decode(kind, word, address + offset)
        else:  # what :func:`fields.decode` does, written out, because most references are of this kind
            place, mask, sign = distance
            lead = address + offset + (((word >> place & mask) ^ sign) - sign << 2)
        if address <= lead < end:  # not out, where the outline's led
            return None
        leads.append(lead)
    return tuple(leads) if parts_stand or _complete(outline, old_words, words, address, leads, image_base) else None


def _complete(outline: Outline, old_words: Sequence[int], words: Sequence[int], address: int, leads: list[int], image_base: int) -> bool:
    """Put among ``leads`` the whole addresses that pages and offsets in pages among ``words`` make.

    Not where the relation of the outline's pages and addresses to those of the code is not one to one, or one is the image base's page.
    """
    pages: dict[int, int] = {}
    begun: list[tuple[int, int, int]] = []
    ended: list[tuple[int, int, int]] = []
    for place, (offset, (_, _, kind, _, _), target) in enumerate(zip(*outline.outward, outline.leads, strict=True)):
        if kind is _PAGE:
            page = fields.page(old_words[offset >> 2], outline.address + offset)
            new = fields.page(words[offset >> 2], address + offset)
            if pages.setdefault(page, new) != new:
                return False
            begun.append((place, page, target))
        elif kind in _LOW:
            leads[place] = fields.decode(kind, words[offset >> 2], 0)
            ended.append((place, target - fields.decode(kind, old_words[offset >> 2], 0), target))
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
