"""The import table of a patch image, for what the base does not import."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.model import Range
from hotpatch.patch.headers import IMPORT, IMPORT_BY_ORDINAL
from hotpatch.patch.model import PatchImport

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOT_SIZE = 8


@dataclass(frozen=True, slots=True)
class ImportTable:
    """The bytes of a section, where the directory and the address table stand in it, and the imports with their slots."""

    data: bytes
    directory: Range
    addresses: Range
    imports: tuple[PatchImport, ...]


def import_table(rva: Rva, wanted: Iterable[tuple[str, str | None, int | None]]) -> ImportTable:
    """An import table at ``rva`` for every ``(library, name, ordinal)``, sorted, each once.

    Order of the section: address tables, lookup tables, descriptors, strings.
    """
    rows = sorted(set(wanted), key=lambda row: (row[0].lower(), row[1] or "", row[2] or 0))
    libraries = [(library, list(group)) for library, group in groupby(rows, key=lambda row: row[0])]
    table_size = SLOT_SIZE * (len(rows) + len(libraries))
    descriptors_at = 2 * table_size
    directory_size = IMPORT.size * (len(libraries) + 1)
    strings = bytearray()
    table, descriptors = bytearray(), bytearray()
    imports = []

    def place(text: bytes) -> int:
        at = descriptors_at + directory_size + len(strings)
        strings.extend(text + b"\0" * (1 + (len(text) + 1) % 2))
        return rva + at

    for library, group in libraries:
        first = len(table)
        for _, name, ordinal in group:
            imports.append(PatchImport(library, name, ordinal, Rva(rva + len(table))))
            entry = place(b"\0\0" + name.encode()) if name is not None else IMPORT_BY_ORDINAL | (ordinal or 0)
            table += struct.pack("<Q", entry)
        table += bytes(SLOT_SIZE)
        descriptors += IMPORT.pack(lookup_table=rva + table_size + first, name=place(library.encode()), address_table=rva + first)
    descriptors += IMPORT.pack()
    data = bytes(table + table + descriptors + strings)
    directory = Range(Rva(rva + descriptors_at), Rva(rva + descriptors_at + directory_size))
    return ImportTable(data, directory, Range(rva, Rva(rva + table_size)), tuple(imports))
