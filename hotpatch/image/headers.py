"""The first look at a file's bytes: is it a PE32+ image for a machine that the project takes, and are its headers whole.

Done before LIEF sees the file, so that what is wrong can be named, and so that no size in a damaged header costs memory or time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hotpatch.arch import Machine
from hotpatch.errors import InputError, InputRule

MAX_IMAGE_SIZE = 1 << 30
"""Largest ``SizeOfImage`` taken, in bytes."""

MAX_SECTIONS = 1000
"""Sections taken at most: LIEF reads no more. (The description of the format says 96, which is the limit of Windows before Vista.)"""

MACHINES = {0x8664: Machine.X64, 0xAA64: Machine.ARM64}
"""``IMAGE_FILE_MACHINE_*`` of the images that are taken (PE format, "Machine Types")."""

HYBRID_MACHINES = {0xA641: "Arm64EC", 0xA64E: "Arm64X"}
_OTHER_MACHINES = {
    0x14C: "32-bit x86",
    0x1C0: "32-bit Arm",
    0x1C4: "32-bit Arm",
    0x200: "Itanium",
    0x5064: "RISC-V 64",
    0x6264: "LoongArch 64",
}

_GET_ANEW = "get it anew"
_GIVE = "give a DLL or an exe for x64 or Arm64"
"""What to do about a file that cannot be used."""

_DOS = struct.Struct("<2s58xI")
DOS_HEADER_SIZE = _DOS.size
_COFF = struct.Struct("<4sHHIIIHH")
_OPTIONAL = struct.Struct("<HBBIIIIIQII6HIIIIHHQQQQII")
"""``IMAGE_OPTIONAL_HEADER64`` up to the data directories (winnt.h)."""
_DIRECTORY = struct.Struct("<II")
_SECTION = struct.Struct("<8sIIIIIIHHI")

_PE32_PLUS = 0x20B
_PE32 = 0x10B
_ROM = 0x107


@dataclass(frozen=True, slots=True)
class RawSection:
    """A section header's fields that are needed before LIEF reads the file."""

    name: str
    rva: int
    virtual_size: int
    raw_size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Headers:
    """What the headers say of sizes; all in bytes."""

    machine_value: int
    characteristics: int
    subsystem: int
    dll_characteristics: int
    size_of_image: int
    size_of_headers: int
    section_alignment: int
    directories: tuple[tuple[int, int], ...]
    sections: tuple[RawSection, ...]


def damaged(subject: str, problem: str) -> InputError:
    """A file that contradicts itself or ends too early: what is wrong with it, and what to do."""
    return InputError(subject, f"{problem}; the file is damaged or incomplete: {_GET_ANEW}", InputRule.DAMAGED)


def check(data: bytes, subject: str) -> Headers:
    """Read the headers of ``data``.

    Raises:
        InputError: It is not a PE32+ image, is for another machine, is truncated, or its headers contradict each other.
    """
    if not data:
        raise InputError(subject, f"the file is empty; {_GET_ANEW}", InputRule.DAMAGED)
    if len(data) < _DOS.size or data[:2] != b"MZ":
        raise InputError(subject, f"not a PE file (it does not begin with an MZ header); {_GIVE}", InputRule.NO_IMAGE)
    at = _DOS.unpack_from(data)[1]
    if at + _COFF.size > len(data):
        raise damaged(subject, f"truncated, or not a PE file: the PE header would stand at 0x{at:x}, the file has 0x{len(data):x} bytes")
    signature, machine, section_count, _, _, _, optional_size, characteristics = _COFF.unpack_from(data, at)
    if signature != b"PE\0\0":
        raise InputError(subject, f"not a PE file (signature {signature.hex()}, expected 50450000); {_GIVE}", InputRule.NO_IMAGE)
    _check_machine(machine, subject)
    at += _COFF.size
    if optional_size < _OPTIONAL.size:
        raise damaged(subject, f"the optional header has {optional_size} bytes, and a 64-bit image needs {_OPTIONAL.size}")
    if at + optional_size > len(data):
        raise damaged(subject, "truncated in the optional header")
    optional = _OPTIONAL.unpack_from(data, at)
    if optional[0] != _PE32_PLUS:
        what = {_PE32: "a 32-bit image (PE32)", _ROM: "a ROM image"}.get(optional[0], f"an image of unknown kind (magic 0x{optional[0]:x})")
        raise InputError(subject, f"{what}; only 64-bit images (PE32+) are taken", InputRule.UNSUPPORTED)
    section_alignment, size_of_image, size_of_headers, directory_count = optional[9], optional[18], optional[19], optional[-1]
    subsystem, dll_characteristics = optional[21], optional[22]
    if not 0 < section_count <= MAX_SECTIONS:
        raise damaged(subject, f"{section_count} sections, where 1 to {MAX_SECTIONS} are taken")
    if not 0 < size_of_image <= MAX_IMAGE_SIZE:
        raise damaged(subject, f"SizeOfImage 0x{size_of_image:x} is not between 1 and 0x{MAX_IMAGE_SIZE:x}")
    if section_alignment == 0 or section_alignment & (section_alignment - 1):
        raise damaged(subject, f"SectionAlignment 0x{section_alignment:x} is not a power of two")
    if size_of_headers > min(len(data), size_of_image):
        raise damaged(subject, f"truncated: SizeOfHeaders 0x{size_of_headers:x} is past the end of the file or image")
    directories = _directories(data, at, optional_size, min(directory_count, 16), size_of_image, subject)
    at += optional_size
    if at + section_count * _SECTION.size > len(data):
        raise damaged(subject, "truncated in the section table")
    sections = tuple(_section(data, at + i * _SECTION.size) for i in range(section_count))
    _check_sections(sections, len(data), size_of_image, subject)
    return Headers(
        machine,
        characteristics,
        subsystem,
        dll_characteristics,
        size_of_image,
        size_of_headers,
        section_alignment,
        directories,
        sections,
    )


def _check_machine(machine: int, subject: str) -> None:
    if machine not in MACHINES and machine not in HYBRID_MACHINES:
        name = _OTHER_MACHINES.get(machine, "an unknown machine")
        raise InputError(subject, f"an image for {name} (0x{machine:x}); only x64 and Arm64 are taken", InputRule.UNSUPPORTED)


def _directories(data: bytes, at: int, size: int, count: int, size_of_image: int, subject: str) -> tuple[tuple[int, int], ...]:
    if _OPTIONAL.size + count * _DIRECTORY.size > size:
        raise damaged(subject, f"{count} data directories do not fit into an optional header of {size} bytes")
    found = []
    for index in range(count):
        rva, length = _DIRECTORY.unpack_from(data, at + _OPTIONAL.size + index * _DIRECTORY.size)
        is_file_offset = index == 4  # the certificate table's "address" is one (PE format, "Optional Header Data Directories")
        if rva and not is_file_offset and rva + length > size_of_image:
            raise damaged(subject, f"data directory {index} (0x{rva:x}, 0x{length:x} bytes) is past the end of the image")
        found.append((rva, length))
    return tuple(found)


def _section(data: bytes, at: int) -> RawSection:
    name, virtual_size, rva, raw_size, offset, *_ = _SECTION.unpack_from(data, at)
    return RawSection(name.rstrip(b"\0").decode("ascii", "backslashreplace"), rva, virtual_size, raw_size, offset)


def _check_sections(sections: tuple[RawSection, ...], file_size: int, size_of_image: int, subject: str) -> None:
    end = 0
    for section in sections:
        if section.raw_size and section.offset + section.raw_size > file_size:
            raise damaged(
                subject,
                f"truncated: section {section.name} needs 0x{section.offset + section.raw_size:x} bytes of file, there are 0x{file_size:x}",
            )
        if section.rva < end:
            raise damaged(subject, f"section {section.name} at 0x{section.rva:x} overlaps the one before it, or is out of order")
        end = section.rva + (section.virtual_size or section.raw_size)
        if end > size_of_image:
            raise damaged(subject, f"section {section.name} ends at 0x{end:x}, past the end of the image (0x{size_of_image:x})")
