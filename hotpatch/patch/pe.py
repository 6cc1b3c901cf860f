"""Writing the patch image: an ordinary PE file, the same bytes for the same contents.

The builder's sections come first, at the RVAs that it linked them for. Behind them stand what follows from the contents: base relocations,
the load configuration with the public hot patch structures (``.hpinfo``), the section of our own (``.hpfix``), and a COFF symbol
table with the names, which every PE tool reads.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine
from hotpatch.image.headers import MACHINES
from hotpatch.image.model import SectionFlags
from hotpatch.patch import headers as pe
from hotpatch.patch.container import DIGEST_OFFSET, HEADER_SIZE, content_digest, encode_body, time_stamp, write_section
from hotpatch.patch.model import CarriedKind, Space, Terms
from hotpatch.patch.public import public_structures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.image.model import BaseIdentity, Range
    from hotpatch.patch.model import Callback, Carried, Fixup, PatchedFunction, PatchImport, Provenance

IMAGE_BASE = 0x180000000
SECTION_ALIGNMENT = 0x1000
FILE_ALIGNMENT = 0x200
INFO_SECTION = ".hpinfo"

_CHARACTERISTICS = 0x2022
"""Executable image, large address aware, DLL."""
_DLL_CHARACTERISTICS = 0x0160
"""High-entropy VA, dynamic base, NX compatible."""
_SUBSYSTEM = 2
"""Windows GUI, as DLLs have."""
READ_ONLY = SectionFlags.INITIALIZED_DATA | SectionFlags.READ
_MACHINE_NUMBERS = {machine: number for number, machine in MACHINES.items()}


_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class PatchSection:
    """A section that the builder linked: ``data`` is its raw part, the rest up to ``virtual_size`` (bytes) is zero."""

    name: str
    rva: Rva
    virtual_size: int
    data: bytes
    flags: SectionFlags


@dataclass(frozen=True, slots=True)
class PatchContents:
    """Everything that a patch file says.

    Attributes:
        sections: By RVA, from ``SECTION_ALIGNMENT`` on.
        pdata: The function table, within a section.
        import_directory: Import descriptors, within a section (:mod:`hotpatch.patch.imports` makes them).
        import_addresses: The import address table, within a section.
        base_hashes: SHA-256 and SHA-1 of the base file.
    """

    machine: Machine
    base: BaseIdentity
    base_hashes: bytes
    sequence: int
    functions: tuple[PatchedFunction, ...]
    carried: tuple[Carried, ...]
    fixups: tuple[Fixup, ...]
    imports: tuple[PatchImport, ...]
    provenance: Provenance
    overrides: tuple[str, ...]
    sections: tuple[PatchSection, ...]
    pdata: Range | None = None
    import_directory: Range | None = None
    import_addresses: Range | None = None
    callbacks: tuple[Callback, ...] = ()
    terms: Terms = _TERMS


def aligned(value: int, alignment: int) -> int:
    """``value`` rounded up."""
    return -(-value // alignment) * alignment


def write_patch(contents: PatchContents) -> bytes:
    """The patch file's bytes."""
    sections = list(contents.sections)
    directories = dict.fromkeys(range(pe.DIRECTORIES), (0, 0))
    for index, part in (
        (pe.DIRECTORY_EXCEPTION, contents.pdata),
        (pe.DIRECTORY_IMPORT, contents.import_directory),
        (pe.DIRECTORY_IAT, contents.import_addresses),
    ):
        if part is not None:
            directories[index] = (part.start, part.size)
    relocations = _relocations(contents.fixups)
    if relocations:
        sections.append(PatchSection(".reloc", _next_rva(sections), len(relocations), relocations, READ_ONLY | SectionFlags.DISCARDABLE))
        directories[pe.DIRECTORY_RELOCATION] = (sections[-1].rva, len(relocations))
    rva = _next_rva(sections)
    public, load_config = public_structures(contents, rva)
    sections.append(PatchSection(INFO_SECTION, rva, len(public), public, READ_ONLY))
    directories[pe.DIRECTORY_LOAD_CONFIG] = (rva, load_config)
    body = encode_body(contents)
    own_size = HEADER_SIZE + len(body)
    sections.append(PatchSection(pe.SECTION_NAME, _next_rva(sections), own_size, bytes(own_size), READ_ONLY | SectionFlags.DISCARDABLE))
    return _assemble(contents, sections, directories, body)


def _assemble(contents: PatchContents, sections: list[PatchSection], directories: dict[int, tuple[int, int]], body: bytes) -> bytes:
    header_size = aligned(pe.SECTIONS_AT + len(sections) * pe.SECTION.size, FILE_ALIGNMENT)
    offsets = []
    end = header_size
    for section in sections:
        offsets.append(end)
        end += aligned(len(section.data), FILE_ALIGNMENT)
    symbols, count = _symbols(contents, sections)
    content_size = aligned(end + len(symbols), 8)
    sections[-1] = replace(sections[-1], data=write_section(body, content_size))
    file = bytearray(_headers(contents, sections, offsets, header_size, directories, (end, count) if count else (0, 0)))
    for section, offset in zip(sections, offsets, strict=True):
        file = file.ljust(offset, b"\0") + section.data
    file = (file.ljust(end, b"\0") + symbols).ljust(content_size, b"\0")
    return seal(bytes(file), offsets[-1])


def seal(file: bytes, own_section: int) -> bytes:
    """Fill in what depends on all the rest: digest (in the section at file offset ``own_section``), time stamp, checksum."""
    out = bytearray(file)
    digest = content_digest(file, own_section + DIGEST_OFFSET, len(file))
    out[own_section + DIGEST_OFFSET : own_section + HEADER_SIZE] = digest
    out[pe.TIME_DATE_STAMP_AT : pe.TIME_DATE_STAMP_AT + 4] = struct.pack("<I", time_stamp(digest))
    out[pe.CHECKSUM_AT : pe.CHECKSUM_AT + 4] = struct.pack("<I", pe.pe_checksum(bytes(out)))
    return bytes(out)


def _headers(
    contents: PatchContents,
    sections: list[PatchSection],
    offsets: list[int],
    header_size: int,
    directories: dict[int, tuple[int, int]],
    symbols: tuple[int, int],
) -> bytes:
    code = [section for section in sections if section.flags & SectionFlags.CODE]
    data = [section for section in sections if section.flags & SectionFlags.INITIALIZED_DATA]
    out = pe.DOS.pack(e_magic=pe.DOS_MAGIC, e_lfanew=pe.LFANEW) + pe.PE_MAGIC
    out += pe.COFF.pack(
        machine=_MACHINE_NUMBERS[contents.machine],
        number_of_sections=len(sections),
        pointer_to_symbol_table=symbols[0],
        number_of_symbols=symbols[1],
        size_of_optional_header=pe.SECTIONS_AT - pe.OPTIONAL_AT,
        characteristics=_CHARACTERISTICS,
    )
    out += pe.OPTIONAL64.pack(
        magic=pe.PE32_PLUS,
        major_linker_version=1,
        size_of_code=sum(aligned(len(section.data), FILE_ALIGNMENT) for section in code),
        size_of_initialized_data=sum(aligned(len(section.data), FILE_ALIGNMENT) for section in data),
        base_of_code=code[0].rva if code else 0,
        image_base=IMAGE_BASE,
        section_alignment=SECTION_ALIGNMENT,
        file_alignment=FILE_ALIGNMENT,
        major_operating_system_version=6,
        major_subsystem_version=6,
        size_of_image=_next_rva(sections),
        size_of_headers=header_size,
        subsystem=_SUBSYSTEM,
        dll_characteristics=_DLL_CHARACTERISTICS,
        size_of_stack_reserve=0x100000,
        size_of_stack_commit=0x1000,
        size_of_heap_reserve=0x100000,
        size_of_heap_commit=0x1000,
        number_of_rva_and_sizes=pe.DIRECTORIES,
    )
    out += b"".join(pe.DIRECTORY.pack(rva=rva, size=size) for rva, size in directories.values())
    for section, offset in zip(sections, offsets, strict=True):
        out += pe.SECTION.pack(
            name=section.name.encode("ascii"),
            virtual_size=section.virtual_size,
            rva=section.rva,
            raw_size=aligned(len(section.data), FILE_ALIGNMENT),
            offset=offset if section.data else 0,
            characteristics=int(section.flags),
        )
    return out


def _next_rva(sections: list[PatchSection]) -> Rva:
    if not sections:
        return Rva(SECTION_ALIGNMENT)
    return Rva(aligned(sections[-1].rva + max(sections[-1].virtual_size, 1), SECTION_ALIGNMENT))


def _relocations(fixups: Iterable[Fixup]) -> bytes:
    """Base relocations of the absolute addresses that stay within the patch image."""
    sites = sorted(item.site for item in fixups if item.kind is FixupKind.ADDR64 and item.space is Space.PATCH)
    out = b""
    for page, group in groupby(sites, key=lambda site: site & ~0xFFF):
        entries = [pe.RELOCATION_DIR64 << 12 | site & 0xFFF for site in group]
        entries += [0] * (len(entries) % 2)
        out += pe.RELOCATION_BLOCK.pack(page=page, size=pe.RELOCATION_BLOCK.size + 2 * len(entries))
        out += struct.pack(f"<{len(entries)}H", *entries)
    return out


def _symbols(contents: PatchContents, sections: list[PatchSection]) -> tuple[bytes, int]:
    """The COFF symbol table with its string table, and the number of symbols."""
    named = [(row.patch_rva, row.name, True) for row in contents.functions if row.name]
    named += [(row.patch_rva, row.name, row.kind is CarriedKind.FUNCTION) for row in contents.carried if row.name]
    rows, strings = b"", b""
    for rva, name, is_function in sorted(named):
        number, section = next(
            (index, section) for index, section in enumerate(sections, 1) if section.rva <= rva < section.rva + section.virtual_size
        )
        text = name.encode()
        if len(text) <= 8:
            spelt = text
        else:
            spelt = struct.pack("<II", 0, 4 + len(strings))
            strings += text + b"\0"
        rows += pe.SYMBOL.pack(
            name=spelt,
            value=rva - section.rva,
            section=number,
            type=pe.SYMBOL_TYPE_FUNCTION if is_function else 0,
            storage_class=pe.SYMBOL_CLASS_EXTERNAL,
        )
    return (rows + struct.pack("<I", 4 + len(strings)) + strings, len(named)) if named else (b"", 0)
