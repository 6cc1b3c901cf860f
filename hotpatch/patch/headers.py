"""The PE headers that a patch image has, declared as data (PE format, "PE File Headers"), for writing; :mod:`hotpatch.image` reads them."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """A packed little-endian structure: field names with their :mod:`struct` codes."""

    fields: tuple[tuple[str, str], ...]

    @property
    def code(self) -> str:
        """The :mod:`struct` format."""
        return "<" + "".join(code for _, code in self.fields)

    @property
    def size(self) -> int:
        """In bytes."""
        return struct.calcsize(self.code)

    def offset(self, field: str) -> int:
        """Of ``field`` from the start, in bytes."""
        codes = [code for name, code in self.fields[: [name for name, _ in self.fields].index(field)]]
        return struct.calcsize("<" + "".join(codes))

    def pack(self, **values: int | bytes) -> bytes:
        """The structure with ``values``; fields that are not given are 0."""
        return struct.pack(self.code, *(values.get(name, b"" if code.endswith("s") else 0) for name, code in self.fields))


DOS = Header((("e_magic", "2s"), ("e_rest", "58s"), ("e_lfanew", "I")))
DOS_MAGIC = b"MZ"
PE_MAGIC = b"PE\0\0"

COFF = Header(
    (
        ("machine", "H"),
        ("number_of_sections", "H"),
        ("time_date_stamp", "I"),
        ("pointer_to_symbol_table", "I"),
        ("number_of_symbols", "I"),
        ("size_of_optional_header", "H"),
        ("characteristics", "H"),
    )
)

OPTIONAL64 = Header(
    (
        ("magic", "H"),
        ("major_linker_version", "B"),
        ("minor_linker_version", "B"),
        ("size_of_code", "I"),
        ("size_of_initialized_data", "I"),
        ("size_of_uninitialized_data", "I"),
        ("address_of_entry_point", "I"),
        ("base_of_code", "I"),
        ("image_base", "Q"),
        ("section_alignment", "I"),
        ("file_alignment", "I"),
        ("major_operating_system_version", "H"),
        ("minor_operating_system_version", "H"),
        ("major_image_version", "H"),
        ("minor_image_version", "H"),
        ("major_subsystem_version", "H"),
        ("minor_subsystem_version", "H"),
        ("win32_version_value", "I"),
        ("size_of_image", "I"),
        ("size_of_headers", "I"),
        ("checksum", "I"),
        ("subsystem", "H"),
        ("dll_characteristics", "H"),
        ("size_of_stack_reserve", "Q"),
        ("size_of_stack_commit", "Q"),
        ("size_of_heap_reserve", "Q"),
        ("size_of_heap_commit", "Q"),
        ("loader_flags", "I"),
        ("number_of_rva_and_sizes", "I"),
    )
)
PE32_PLUS = 0x20B

DIRECTORY = Header((("rva", "I"), ("size", "I")))
DIRECTORIES = 16
DIRECTORY_IMPORT = 1
DIRECTORY_EXCEPTION = 3
DIRECTORY_SECURITY = 4
DIRECTORY_RELOCATION = 5
DIRECTORY_LOAD_CONFIG = 10
DIRECTORY_IAT = 12

SECTION = Header(
    (
        ("name", "8s"),
        ("virtual_size", "I"),
        ("rva", "I"),
        ("raw_size", "I"),
        ("offset", "I"),
        ("pointer_to_relocations", "I"),
        ("pointer_to_line_numbers", "I"),
        ("number_of_relocations", "H"),
        ("number_of_line_numbers", "H"),
        ("characteristics", "I"),
    )
)

SYMBOL = Header((("name", "8s"), ("value", "I"), ("section", "h"), ("type", "H"), ("storage_class", "B"), ("number_of_aux_symbols", "B")))
SYMBOL_TYPE_FUNCTION = 0x20
SYMBOL_CLASS_EXTERNAL = 2

IMPORT = Header((("lookup_table", "I"), ("time_date_stamp", "I"), ("forwarder_chain", "I"), ("name", "I"), ("address_table", "I")))
IMPORT_BY_ORDINAL = 1 << 63

RELOCATION_BLOCK = Header((("page", "I"), ("size", "I")))
RELOCATION_DIR64 = 10

SECTION_NAME = ".hpfix"
"""Of our own section, which no other image has."""

LFANEW = 0x40
"""Where our files have the PE signature: right behind the DOS header."""
COFF_AT = LFANEW + len(PE_MAGIC)
OPTIONAL_AT = COFF_AT + COFF.size
DIRECTORIES_AT = OPTIONAL_AT + OPTIONAL64.size
SECTIONS_AT = DIRECTORIES_AT + DIRECTORIES * DIRECTORY.size

TIME_DATE_STAMP_AT = COFF_AT + COFF.offset("time_date_stamp")
CHECKSUM_AT = OPTIONAL_AT + OPTIONAL64.offset("checksum")
SECURITY_AT = DIRECTORIES_AT + DIRECTORY_SECURITY * DIRECTORY.size


def pe_checksum(data: bytes, at: int = CHECKSUM_AT) -> int:
    """``CheckSum`` as ``CheckSumMappedFile`` computes it: the 16-bit one's complement sum without the field at ``at``, plus the length."""
    padded = data[:at] + bytes(4) + data[at + 4 :]
    padded += bytes(len(padded) % 2)
    total: int = sum(struct.unpack(f"<{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(data)
