import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.address import Rva
from hotpatch.patch.layout import BASE, CHUNK_TYPE_BITS, INFO, Chunk, ChunkType
from hotpatch.patch.records import UNREAD, read_table, record, write_table

rvas = st.integers(0, 0xFFFFFFFF).map(Rva)


@st.composite
def records(draw):
    kind = draw(st.sampled_from([kind for kind in ChunkType if kind is not ChunkType.NONE]))
    bits = CHUNK_TYPE_BITS[kind]
    return record(
        kind,
        source=draw(rvas) if bits & Chunk.SOURCE_RVA else None,
        target=draw(rvas) if bits & Chunk.TARGET_RVA else None,
        flags=draw(st.sampled_from([Chunk(0), Chunk.OBLIGATORY, Chunk.INVERSE | Chunk.OBLIGATORY])),
    )


@given(st.lists(records(), max_size=40))
def test_what_is_written_is_read(rows):
    assert read_table(write_table(rows)) == tuple(rows)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read_and_none_before_the_end_mark_is_lost(data):
    found = read_table(data)
    told = sum(len(row.raw) for row in found)
    assert told <= len(data)
    if found and found[-1].type_name == UNREAD:
        assert data.endswith(found[-1].raw)


@pytest.mark.parametrize(
    ("kind", "bits", "source", "target"),
    [
        (ChunkType.FUNCTION, 0x1C000, True, True),
        (ChunkType.ABSOLUTE, 0x2C000, True, True),
        (ChunkType.REL32, 0x3C000, True, True),
        (ChunkType.CALL_TARGET, 0x44000, False, True),
        (ChunkType.INDIRECT, 0x5C000, True, True),
        (ChunkType.NO_CALL_TARGET, 0x64000, False, True),
        (ChunkType.DYNAMIC_VALUE, 0x78000, True, False),
    ],
)
def test_the_published_constants_say_which_rvas_a_record_has(kind, bits, source, target):
    assert kind.value_bits == bits
    row = record(kind, source=Rva(1) if source else None, target=Rva(2) if target else None)
    assert (row.source_rva is not None, row.target_rva is not None) == (source, target)
    with pytest.raises(ValueError, match="RVA"):
        record(kind, source=None if source else Rva(1), target=None if target else Rva(2))


def test_a_table_byte_for_byte():
    rows = [record(ChunkType.FUNCTION, source=Rva(0x1010), target=Rva(0x2020)), record(ChunkType.CALL_TARGET, target=Rva(0x2020))]
    assert write_table(rows) == struct.pack("<3I 2I I", 0x40000000 | 0x1C000 | 12, 0x1010, 0x2020, 0x40000000 | 0x44000 | 8, 0x2020, 0)


def test_a_chunk_is_split_where_its_size_field_ends():
    rows = [record(ChunkType.REL32, source=Rva(index), target=Rva(0)) for index in range(1200)]
    table = write_table(rows)
    (first,) = struct.unpack_from("<I", table)
    assert first & Chunk.SIZE == 4 + 511 * 8
    assert read_table(table) == tuple(rows)


def test_an_unknown_type_is_shown_raw():
    chunk = struct.pack("<3I", 0xFC000 | 12, 1, 2)
    (row,) = read_table(chunk + bytes(4))
    assert (row.type_name, row.source_rva, row.target_rva, row.raw) == ("0xfc000", None, None, chunk)


def test_what_is_no_chunk_is_kept_to_the_last_byte():
    odd = struct.pack("<I", 0x1C000 | 3) + b"rest"
    (row,) = read_table(odd)
    assert (row.type_name, row.raw) == (UNREAD, odd)


def test_layouts_are_those_of_the_sdk():
    assert (INFO.size, INFO.offset("base_image_list"), INFO.offset("min_sequence_number"), INFO.offset("flags")) == (0x24, 0x0C, 0x1C, 0x20)
    assert (BASE.size, BASE.offset("original_checksum"), BASE.offset("patch_table"), BASE.offset("buffer_offset")) == (
        0x20,
        0x0C,
        0x18,
        0x1C,
    )
