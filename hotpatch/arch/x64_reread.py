"""x64: what code refers to, read at the places that an outline knows.

The bytes outside of distances and displacements alone say where instructions begin and what they are, so code with the same outline has
its fields in the same places.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.arch.model import FixupKind
from hotpatch.arch.x64_tables import MAY_DISPATCH

if TYPE_CHECKING:
    from hotpatch.arch.outline import Outline

_REL32, _REL8 = FixupKind.REL32, FixupKind.REL8
_NEAR = struct.Struct("<i").unpack_from
_SHORT = struct.Struct("<b").unpack_from


def is_exemplary(outline: Outline, image_base: int) -> bool:
    """Nothing in it jumps through a table, and nothing loads the image base."""
    if MAY_DISPATCH.search(outline.masked) or outline.address <= image_base < outline.address + len(outline.code):
        return False
    return image_base not in outline.leads


def reread(outline: Outline, code: bytes, address: int, image_base: int) -> tuple[int, ...] | None:
    """Where the outward references of ``code`` lead; ``None`` where one leads to the image base or into ``code``, or is no distance."""
    end = address + len(code)
    if address <= image_base < end:
        return None
    leads = []
    for offset, (_, distance, kind, _, addend) in zip(*outline.outward, strict=True):
        field = offset + distance
        if kind is _REL32:
            lead = address + field + 4 - addend + _NEAR(code, field)[0]
        elif kind is _REL8:
            lead = address + field + 1 - addend + _SHORT(code, field)[0]
        else:
            return None
        if address <= lead < end or lead == image_base:
            return None
        leads.append(lead)
    return tuple(leads)
