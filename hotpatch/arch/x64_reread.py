"""x64: what code refers to, read at the places that an outline knows.

The bytes outside of distances and displacements alone say where instructions begin and what they are, so code with the same outline has
its fields in the same places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch.base import FixupKind, reference_of
from hotpatch.arch.x64_tables import MAY_DISPATCH

if TYPE_CHECKING:
    from hotpatch.arch.base import Reference
    from hotpatch.arch.outline import Outline

_WIDTHS = {FixupKind.REL32: 4, FixupKind.REL8: 1}


def is_exemplary(outline: Outline, image_base: int) -> bool:
    """Nothing in it jumps through a table, and nothing loads the image base."""
    if MAY_DISPATCH.search(outline.masked):
        return False
    return all(reference.kind in _WIDTHS and reference.target != image_base for reference in outline.references)


def reread(outline: Outline, code: bytes, address: int, image_base: int) -> tuple[Reference, ...] | None:
    """The references of ``code``; ``None`` where one leads to the image base, or into ``code`` where the outline's leads out."""
    if address <= image_base < address + len(code):
        return None
    found = outline.at(address)
    for index in outline.outward:
        offset, size, field, kind, use, _, addend = found[index]
        width = _WIDTHS[kind]
        target = address + field + width - addend + int.from_bytes(code[field : field + width], "little", signed=True)
        if target == image_base:
            return None
        found[index] = reference_of((offset, size, field, kind, use, target, addend))
    return tuple(found) if outline.still_outward(found, address) else None
