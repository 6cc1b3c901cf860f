"""What tells one build from another, and whether memory holds what a file would map."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hotpatch.image.model import BaseIdentity, SectionFlags

if TYPE_CHECKING:
    from hotpatch.address import Rva, Va
    from hotpatch.image.image import Image
    from hotpatch.image.model import Section

_FIELD = 8
"""Bytes of a pointer field."""
_CHANGING = int(SectionFlags.WRITE | SectionFlags.DISCARDABLE)
"""A number: members of an enumeration take microseconds to combine."""


def identity(image: Image) -> BaseIdentity:
    """The identity of ``image``."""
    return BaseIdentity(image.time_date_stamp, image.checksum, image.size_of_image, digest(image), image.sha256)


def digest(image: Image) -> str:
    """SHA-256, hexadecimal, over :func:`normalise` of the image as mapped at its preferred base."""
    return hashlib.sha256(normalise(image, image.mapped, image.preferred_base)).hexdigest()


def read_only_sections(image: Image) -> tuple[Section, ...]:
    """Sections that a process never changes and always has: neither writable nor discardable."""
    return tuple(section for section in image.sections if not int(section.flags) & _CHANGING)


def normalise(image: Image, memory: bytes, va: Va) -> bytes:
    """The read-only sections of ``memory``, one after the other, as they would be at the preferred base, before the loader bound anything.

    ``memory`` is the whole mapped image (``size_of_image`` bytes) as it stands at ``va``. Relocated fields are brought back to the
    preferred base; import address tables and the fields that the loader writes (:attr:`LoadConfiguration.loader_written`) are zeroed.
    """
    parts = [section.range for section in read_only_sections(image)]
    delta = va - image.preferred_base
    volatile = _volatile(image)
    if not delta and not volatile:
        return b"".join([memory[start:end] for start, end in parts])
    view = bytearray(memory)
    if delta:
        for site in image.relocations:
            value = int.from_bytes(view[site : site + _FIELD], "little") - delta
            view[site : site + _FIELD] = (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(_FIELD, "little")
    for start, size in volatile:
        view[start : start + size] = bytes(size)
    return b"".join([view[start:end] for start, end in parts])


def _volatile(image: Image) -> list[tuple[Rva, int]]:
    fields = [(entry.slot, _FIELD) for entry in image.imports]
    fields += [(table.start, table.size) for table in image.import_address_tables]
    if image.load_configuration is not None:
        fields += [(rva, _FIELD) for rva in image.load_configuration.loader_written]
    return [(rva, min(size, image.size_of_image - rva)) for rva, size in fields]
