"""The public hot patch structures of an image, read: ours or anybody's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.patch.layout import BASE, INFO, WORD, BaseFlags, InfoFlags
from hotpatch.patch.records import Record, read_table

if TYPE_CHECKING:
    from hotpatch.image import Image

MOST_BASES = 256
"""Bases of one image that are read; more are taken for damage."""


@dataclass(frozen=True, slots=True)
class HotPatchBase:
    """An ``IMAGE_HOT_PATCH_BASE``: an image that can be patched; ``code_integrity`` is what ``CodeIntegrityInfo`` points at."""

    sequence_number: int
    flags: BaseFlags
    original_time_date_stamp: int
    original_checksum: int
    code_integrity: bytes
    records: tuple[Record, ...]
    buffer_offset: int


@dataclass(frozen=True, slots=True)
class HotPatchInfo:
    """An ``IMAGE_HOT_PATCH_INFO``; ``rva`` and ``size`` of the structure."""

    rva: Rva
    version: int
    size: int
    sequence_number: int
    buffer_offset: int
    extra_patch_size: int
    min_sequence_number: int
    flags: InfoFlags
    bases: tuple[HotPatchBase, ...]


def hot_patch_info(image: Image) -> HotPatchInfo | None:
    """What the image's load configuration points at, or ``None`` where it points at nothing that can be one.

    Offsets are taken from the ``IMAGE_HOT_PATCH_INFO`` structure on; a patch table is read up to its end mark or its section's end.
    """
    rva = image.load_configuration.hot_patch_table if image.load_configuration else None
    if not rva or image.section_at(rva) is None:
        return None
    version, size, sequence, bases_at, count, buffer, extra, minimum, flags = INFO.unpack(image.read(rva, INFO.size))
    if not version or size < WORD or count > MOST_BASES:
        return None
    if size < INFO.size:
        *_, buffer, extra, minimum, flags = INFO.unpack(image.read(rva, size))
    bases = (_base(image, rva, image.read(Rva(rva + bases_at + WORD * index), WORD)) for index in range(count))
    return HotPatchInfo(rva, version, size, sequence, buffer, extra, minimum, InfoFlags(flags), tuple(base for base in bases if base))


def _base(image: Image, info: Rva, word: bytes) -> HotPatchBase | None:
    data = image.read(Rva(info + int.from_bytes(word, "little")), BASE.size)
    if len(word) < WORD or len(data) < BASE.size:
        return None
    sequence, flags, stamp, checksum, integrity, integrity_size, table, buffer = BASE.unpack(data)
    at = Rva(info + table)
    section = image.section_at(at)
    return HotPatchBase(
        sequence,
        BaseFlags(flags),
        stamp,
        checksum,
        image.read(Rva(info + integrity), min(integrity_size, 0x1000)) if integrity else b"",
        read_table(image.read(at, section.range.end - at)) if table and section else (),
        buffer,
    )
