"""What two other readers say of the same files: pefile for the tables, the PDB for the functions that are found without it."""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise

import pefile

from hotpatch.image import FunctionSource, SectionFlags, open_image
from tests.checksum import checksum
from tests.image.conftest import FIXTURES

EXECUTE = 0x20000000


def test_headers_and_tables_as_pefile_reads_them(built):
    other = pefile.PE(data=built.data)
    optional = other.OPTIONAL_HEADER
    assert built.time_date_stamp == other.FILE_HEADER.TimeDateStamp
    assert (built.checksum, built.size_of_image, built.preferred_base) == (optional.CheckSum, optional.SizeOfImage, optional.ImageBase)
    assert built.checksum in {0, checksum(built.data)}
    assert (built.entry_point or 0) == optional.AddressOfEntryPoint
    assert built.is_dll == other.is_dll()
    assert (built.subsystem, built.dll_characteristics) == (optional.Subsystem, optional.DllCharacteristics)
    assert [(s.name, s.rva, s.virtual_size, s.raw_size, s.offset, int(s.flags)) for s in built.sections] == [
        (
            s.Name.rstrip(b"\0").decode(),
            s.VirtualAddress,
            s.Misc_VirtualSize,
            s.SizeOfRawData,
            s.PointerToRawData,
            s.Characteristics,
        )
        for s in other.sections
    ]
    sites = {
        entry.rva
        for block in getattr(other, "DIRECTORY_ENTRY_BASERELOC", [])
        for entry in block.entries
        if entry.type == pefile.RELOCATION_TYPE["IMAGE_REL_BASED_DIR64"]
    }
    assert list(built.relocations) == sorted(sites)
    imports = [
        (library.dll.decode(), entry.name and entry.name.decode(), entry.address - optional.ImageBase)
        for library in getattr(other, "DIRECTORY_ENTRY_IMPORT", [])
        for entry in library.imports
    ]
    assert [(entry.library, entry.name, entry.slot) for entry in built.imports if not entry.delay] == imports
    exports = (
        [(e.name and e.name.decode(), e.ordinal, e.address) for e in getattr(other, "DIRECTORY_ENTRY_EXPORT", None).symbols]
        if (hasattr(other, "DIRECTORY_ENTRY_EXPORT"))
        else []
    )
    assert sorted((e.name, e.ordinal, e.rva) for e in built.exports) == sorted(exports)


def test_the_tests_own_checksum_is_pefiles(basic):
    """Of lengths that leave a byte, a word and nothing over, and with every carry."""
    data = basic.read_bytes()
    for tail in (b"", b"\x01", b"\x01\x02", b"\x01\x02\x03", b"\xff" * 0x2000):
        assert checksum(data + tail) == pefile.PE(data=data + tail, fast_load=True).generate_checksum()


def test_bytes_as_pefile_maps_them(built):
    mapped = pefile.PE(data=built.data).get_memory_mapped_image()
    assert len(built.mapped) == built.size_of_image
    for section in built.sections:
        size = min(section.virtual_size, section.raw_size)
        assert built.read(section.rva, size) == mapped[section.rva : section.rva + size]
        assert built.mapped[section.rva : section.rva + size] == mapped[section.rva : section.rva + size]
        assert built.read(section.rva + size, section.virtual_size - size) == bytes(section.virtual_size - size)


def test_every_function_of_the_pdb_is_found_without_it(built):
    bare = open_image(built.path, pdb=None)
    assert not bare.has_symbols
    assert built.has_symbols
    known = {function.entry: function for function in built.functions}
    found = {function.entry: function for function in bare.functions}
    missing = {function.label for entry, function in known.items() if entry not in found and _is_referred_to(built, function)}
    assert missing == set()
    for entry in known.keys() & found.keys():
        if found[entry].source & FunctionSource.PDATA:
            assert found[entry].ranges == known[entry].ranges, known[entry].label
        else:
            assert found[entry].ranges[0].start == known[entry].ranges[0].start
            assert found[entry].ranges[0].end <= known[entry].ranges[0].end, known[entry].label
    invented = found.keys() - known.keys()
    assert not {hex(entry) for entry in invented if built.function_at(entry) is not None}


def _is_referred_to(image, function):
    """Whether anything in the image leads to the function: what nothing refers to cannot be found, nor called."""
    code = any(
        reference.target == function.entry
        for other in image.functions
        if other is not function
        for part in image.references(other)
        for reference in part
    )
    return code or any(image.u64(site) - image.preferred_base == function.entry for site in image.relocations)


def test_ranges_are_code_and_never_overlap(built):
    parts = sorted(part for function in built.functions for part in function.ranges)
    for part, following in pairwise(parts):
        assert part.end <= following.start
    for function in built.functions:
        assert function.ranges[0].start == function.entry
        assert built.function_at(function.entry) is function
        assert built.function_of_entry(function.entry) is function
        for part in function.ranges:
            assert built.function_at(part.end - 1) is function
            assert built.section_at(part.start).flags & EXECUTE


def test_function_table_of_x64_word_for_word(built):
    directory = pefile.PE(data=built.data, fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[3]
    raw = built.read(directory.VirtualAddress, directory.Size)
    size = 4 * len(built.unwind_entries[0].words) if built.unwind_entries else 8
    layout = struct.Struct(f"<{size // 4}I")
    assert [entry.words for entry in built.unwind_entries] == [row for row in layout.iter_unpack(raw) if row[0]]
    for entry in built.unwind_entries:
        assert built.unwind_entry_at(entry.range.start) is entry
        assert built.unwind_entry_at(entry.range.end - 1) is entry


def test_digest_of_a_file_is_that_of_its_sections(built):
    assert built.sha256 == hashlib.sha256(built.data).hexdigest()
    assert len(built.identity.digest) == 64
    assert any(not section.flags & SectionFlags.WRITE for section in built.sections)


def test_fixtures_are_there():
    assert (FIXTURES / "basic").is_dir()
