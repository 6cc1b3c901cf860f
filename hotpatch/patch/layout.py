"""The public hot patch structures and constants, as the Windows SDK declares them, and nothing of our own.

Source: ``winnt.h`` of Windows SDK 10.0.26100. All fields are unsigned 32-bit, little endian. Where the header names a thing
but gives no layout (the chunks of a patch table), :mod:`hotpatch.patch.records` gives our reading
(``docs/patch-format.md``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag, StrEnum

WORD = 4
"""Bytes of every field of the public structures."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A run of u32 fields.

    Attributes:
        name: As the header spells it.
        fields: In order, our spelling.
    """

    name: str
    fields: tuple[str, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return WORD * len(self.fields)

    def offset(self, field: str) -> int:
        """Of ``field`` from the start, in bytes."""
        return WORD * self.fields.index(field)

    def pack(self, **values: int) -> bytes:
        """The structure with ``values``; fields that are not given are 0."""
        unknown = set(values) - set(self.fields)
        if unknown:
            raise ValueError(f"{self.name} has no field {sorted(unknown)}")
        return struct.pack(f"<{len(self.fields)}I", *(values.get(field, 0) for field in self.fields))

    def unpack(self, data: bytes) -> tuple[int, ...]:
        """The fields' values, in order; 0 for those past the end of ``data`` (older versions are shorter)."""
        return struct.unpack(f"<{len(self.fields)}I", data[: self.size].ljust(self.size, b"\0"))


INFO = Structure(
    "IMAGE_HOT_PATCH_INFO",
    (
        "version",
        "size",
        "sequence_number",
        "base_image_list",
        "base_image_count",
        "buffer_offset",
        "extra_patch_size",
        "min_sequence_number",
        "flags",
    ),
)
"""``buffer_offset`` from version 2 on, ``extra_patch_size`` from version 3 on. Offsets: from the structure's start."""

BASE = Structure(
    "IMAGE_HOT_PATCH_BASE",
    (
        "sequence_number",
        "flags",
        "original_time_date_stamp",
        "original_checksum",
        "code_integrity_info",
        "code_integrity_size",
        "patch_table",
        "buffer_offset",
    ),
)
"""``buffer_offset`` from version 2 on."""

INFO_VERSION = 3
"""The version that we write: with every field of :data:`INFO`."""

SHA256_SIZE = 32
SHA1_SIZE = 20
HASHES_SIZE = SHA256_SIZE + SHA1_SIZE
"""``IMAGE_HOT_PATCH_HASHES``: SHA-256, then SHA-1."""

LOAD_CONFIG_HOT_PATCH_TABLE_OFFSET = 0xF0
"""Of ``HotPatchTableOffset`` in ``IMAGE_LOAD_CONFIG_DIRECTORY64``."""

LOAD_CONFIG_SIZE = 0x140
"""Of the ``IMAGE_LOAD_CONFIG_DIRECTORY64`` that we write, up to ``GuardMemcpyFunctionPointer``."""


class BaseFlags(IntFlag):
    """``IMAGE_HOT_PATCH_BASE.Flags``."""

    OBLIGATORY = 0x1
    CAN_ROLL_BACK = 0x2
    MACHINE_I386 = 0x4
    MACHINE_ARM64 = 0x8
    MACHINE_AMD64 = 0x10


class InfoFlags(IntFlag):
    """``IMAGE_HOT_PATCH_INFO.Flags``."""

    HOTSWAP = 0x2


class Chunk(IntFlag):
    """Bits of a chunk's first word (``IMAGE_HOT_PATCH_CHUNK_…``)."""

    INVERSE = 0x80000000
    OBLIGATORY = 0x40000000
    RESERVED = 0x3FF03000
    TYPE = 0x000FC000
    SOURCE_RVA = 0x00008000
    TARGET_RVA = 0x00004000
    SIZE = 0x00000FFF


class ChunkType(StrEnum):
    """``IMAGE_HOT_PATCH_…``: what a chunk's records say."""

    NONE = "none"
    FUNCTION = "function"
    ABSOLUTE = "absolute"
    REL32 = "rel32"
    CALL_TARGET = "call-target"
    INDIRECT = "indirect"
    NO_CALL_TARGET = "no-call-target"
    DYNAMIC_VALUE = "dynamic-value"

    @property
    def value_bits(self) -> int:
        """The header's constant: bits of :attr:`Chunk.TYPE`."""
        return CHUNK_TYPE_BITS[self]


CHUNK_TYPE_BITS = {
    ChunkType.NONE: 0x00000,
    ChunkType.FUNCTION: 0x1C000,
    ChunkType.ABSOLUTE: 0x2C000,
    ChunkType.REL32: 0x3C000,
    ChunkType.CALL_TARGET: 0x44000,
    ChunkType.INDIRECT: 0x5C000,
    ChunkType.NO_CALL_TARGET: 0x64000,
    ChunkType.DYNAMIC_VALUE: 0x78000,
}
CHUNK_TYPE_OF_BITS = {bits: kind for kind, bits in CHUNK_TYPE_BITS.items()}
