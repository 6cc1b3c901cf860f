"""Arm64: what code refers to, read at the places that an outline knows.

Which load or addition completes which ADRP does not depend on the addresses, as long as equal pages stay equal and different ones
different, and none is the image base's (on which arithmetic is followed further).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_code import Code
from hotpatch.arch.base import FixupKind

if TYPE_CHECKING:
    from hotpatch.arch.outline import Outline

_PAGE_MASK = ~0xFFF
_LOW = frozenset((FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L))
_RELATIVE = frozenset((FixupKind.IMAGEREL_HIGH12A, FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L))


def is_exemplary(outline: Outline, image_base: int) -> bool:
    """Nothing in it jumps through a table, and nothing makes the image base's page."""
    if any(reference.kind in _RELATIVE for reference in outline.references):
        return False
    code = Code(outline.masked, outline.address)
    return not any(code.may_read_table(jump) for jump in code.register_jumps())


def reread(outline: Outline, code: bytes, address: int, image_base: int) -> tuple[int, ...] | None:
    """Where the outward references of ``code`` lead; ``None`` where its pages are not to each other as the outline's, or one leads in."""
    pages = _new_pages(outline, code, address, image_base)
    if pages is None:
        return None
    completed, wholes = _new_targets(outline, code, pages)
    if wholes is None:
        return None
    leads = []
    references = outline.references
    for index in outline.outward:
        offset, _, _, kind, _, target, _ = references[index]
        if kind is FixupKind.PAGEBASE_REL21:
            leads.append(wholes[_page(outline.code, outline.address, offset), target])
        elif kind in _LOW:
            leads.append(completed[offset])
        else:
            leads.append(fields.decode(kind, _word(code, offset), address + offset))
    return tuple(leads) if outline.still_outward(leads, address) else None


def _word(code: bytes, offset: int) -> int:
    return int.from_bytes(code[offset : offset + a64.WORD], "little")


def _page(code: bytes, address: int, offset: int) -> int:
    return fields.decode(FixupKind.PAGEBASE_REL21, _word(code, offset), address + offset)


def _new_pages(outline: Outline, code: bytes, address: int, image_base: int) -> dict[int, int] | None:
    """The outline's page → that of ``code``, for each ADRP; ``None`` where the relation is not one to one or has the image base's page."""
    pages: dict[int, int] = {}
    for reference in outline.references:
        if reference.kind is FixupKind.PAGEBASE_REL21:
            old, new = _page(outline.code, outline.address, reference.offset), _page(code, address, reference.offset)
            if pages.setdefault(old, new) != new:
                return None
    news = set(pages.values())
    base = image_base & _PAGE_MASK
    return pages if len(news) == len(pages) and base not in pages and base not in news else None


_Whole = tuple[int, int]
"""An address and the page (the outline's) that an ADRP made it of."""


def _new_targets(outline: Outline, code: bytes, pages: dict[int, int]) -> tuple[dict[int, int], dict[_Whole, int] | None]:
    """What each instruction (by offset) that completes a page completes it to, and what became of each of the outline's whole addresses.

    The latter is ``None`` where two that were one have parted, or two have become one.
    """
    completed: dict[int, int] = {}
    wholes: dict[_Whole, set[int]] = defaultdict(set)
    for offset, _, _, kind, _, target, _ in outline.references:
        if kind in _LOW:
            page = target - fields.decode(kind, _word(outline.code, offset), 0)
            completed[offset] = pages[page] + fields.decode(kind, _word(code, offset), 0)
            wholes[page, target].add(completed[offset])
    for page, new in pages.items():  # a page may also be used as it is
        wholes[page, page].add(new)
    settled = {whole: new.pop() for whole, new in wholes.items() if len(new) == 1}
    apart = len(settled) == len(wholes) == len({(page, new) for (page, _), new in settled.items()})
    return completed, settled if apart else None
