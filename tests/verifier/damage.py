"""Patches that are wrong in a known way, as files that every check of the reader passes."""

from __future__ import annotations

from dataclasses import replace

from hotpatch.arch import Machine
from hotpatch.image import Image
from hotpatch.patch import SECTION_NAME, Patch, Space
from hotpatch.patch.pe import seal

FAULTING = {Machine.X64: "0f0b", Machine.ARM64: "00000000"}
"""``ud2``, ``udf #0``."""
LOOPING = {Machine.X64: "ebfe", Machine.ARM64: "00000014"}
"""A jump to itself."""


def with_code(patch: Patch, offset: int, old: str, new: str, entry: int | None = None) -> Patch:
    """The patch with other bytes (hexadecimal) at an offset of its first function, or of what it has at ``entry``."""
    rva = (patch.functions[0].patch_rva if entry is None else entry) + offset
    before, after = bytes.fromhex(old), bytes.fromhex(new)
    assert len(before) == len(after)
    assert patch.image.read(rva, len(before)) == before
    section = patch.image.section_at(rva)
    at = section.offset + rva - section.rva
    data = bytearray(patch.data)
    data[at : at + len(after)] = after
    own = next(section.offset for section in patch.image.sections if section.name == SECTION_NAME)
    sealed = seal(bytes(data), own)
    return replace(patch, data=sealed, image=Image.from_bytes(sealed, name=patch.image.name))


def at_entry(patch: Patch, code: str) -> Patch:
    """The patch with other instructions at its first function's entry."""
    size = len(code) // 2
    return with_code(patch, 0, patch.image.read(patch.functions[0].patch_rva, size).hex(), code)


def calling_itself_directly(patch: Patch) -> Patch:
    """The patch whose first function calls its new self, not the base's entry, so that the redirect is passed by."""
    function = patch.functions[0]
    fixups = tuple(
        replace(fixup, space=Space.PATCH, target=function.patch_rva)
        if fixup.space is Space.BASE and fixup.target == function.base_rva
        else fixup
        for fixup in patch.fixups
    )
    assert fixups != patch.fixups
    return replace(patch, fixups=fixups)
