"""The load configuration and the public hot patch structures of a patch, as bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind, Machine
from hotpatch.patch.layout import (
    BASE,
    HASHES_SIZE,
    INFO,
    INFO_VERSION,
    LOAD_CONFIG_HOT_PATCH_TABLE_OFFSET,
    LOAD_CONFIG_SIZE,
    BaseFlags,
    ChunkType,
    InfoFlags,
)
from hotpatch.patch.model import CarriedKind, Space
from hotpatch.patch.records import record, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.address import Rva
    from hotpatch.patch.model import Carried, Fixup, PatchedFunction, Terms
    from hotpatch.patch.pe import PatchContents
    from hotpatch.patch.records import Record

MACHINE_FLAGS = {Machine.X64: BaseFlags.MACHINE_AMD64, Machine.ARM64: BaseFlags.MACHINE_ARM64}
_FIXUP_RECORDS = {FixupKind.REL32: ChunkType.REL32, FixupKind.ADDR64: ChunkType.ABSOLUTE}


def table_records(functions: Iterable[PatchedFunction], carried: Iterable[Carried], fixups: Iterable[Fixup]) -> tuple[Record, ...]:
    """What of a patch the public records can express, in the order in which we write it.

    FUNCTION: base entry → patch entry. REL32 and ABSOLUTE: field in the patch → place in the base, for fixups without addend.
    CALL_TARGET: functions of the patch that may be called through a pointer.
    """
    functions = tuple(functions)
    replaced = [record(ChunkType.FUNCTION, source=row.base_rva, target=row.patch_rva) for row in functions]
    bound = [
        record(kind, source=row.site, target=row.target)
        for kind in (ChunkType.REL32, ChunkType.ABSOLUTE)
        for row in fixups
        if _FIXUP_RECORDS.get(row.kind) is kind and row.space is Space.BASE and not row.addend
    ]
    entries = {row.patch_rva for row in functions} | {row.patch_rva for row in carried if row.kind is CarriedKind.FUNCTION}
    return (*replaced, *bound, *(record(ChunkType.CALL_TARGET, target=rva) for rva in sorted(entries)))


def base_flags(machine: Machine, terms: Terms) -> BaseFlags:
    """What the public structure says of a patch for ``machine`` under ``terms``."""
    flags = MACHINE_FLAGS[machine]
    flags |= BaseFlags.OBLIGATORY if terms.obligatory else BaseFlags(0)
    return flags | (BaseFlags.CAN_ROLL_BACK if terms.can_roll_back else BaseFlags(0))


def public_structures(contents: PatchContents, rva: Rva) -> tuple[bytes, int]:
    """The bytes of a section at ``rva`` that begins with the load configuration, and the size of that in bytes."""
    info_at = LOAD_CONFIG_SIZE
    list_at = INFO.size
    base_at = list_at + 4
    hashes_at = base_at + BASE.size
    table_at = hashes_at + HASHES_SIZE
    info = INFO.pack(
        version=INFO_VERSION,
        size=INFO.size,
        sequence_number=contents.sequence,
        base_image_list=list_at,
        base_image_count=1,
        min_sequence_number=1,
        flags=InfoFlags.HOTSWAP,
    )
    base = BASE.pack(
        sequence_number=contents.sequence,
        flags=base_flags(contents.machine, contents.terms),
        original_time_date_stamp=contents.base.time_date_stamp,
        original_checksum=contents.base.checksum,
        code_integrity_info=hashes_at,
        code_integrity_size=HASHES_SIZE,
        patch_table=table_at,
    )
    table = write_table(table_records(contents.functions, contents.carried, contents.fixups))
    load_config = bytearray(LOAD_CONFIG_SIZE)
    struct.pack_into("<I", load_config, 0, LOAD_CONFIG_SIZE)
    struct.pack_into("<I", load_config, LOAD_CONFIG_HOT_PATCH_TABLE_OFFSET, rva + info_at)
    return bytes(load_config) + info + struct.pack("<I", base_at) + base + contents.base_hashes + table, LOAD_CONFIG_SIZE
