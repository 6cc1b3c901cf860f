"""Whatever the words are, the Arm64 instruction set answers or refuses; it never fails otherwise."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from hotpatch.arch import FixupKind, Machine, Redirect, architecture
from hotpatch.arch import arm64_words as a64
from hotpatch.errors import CannotRelocate

ARM64 = architecture(Machine.ARM64)
AT = 0x140001000

# Words that refer to something nearby come up more often than chance would have it.
TOPS = st.sampled_from([top for form in a64.PC_RELATIVE for top in form.tops])
NEARBY = st.builds(lambda top, low, far: top << 24 | (low << 5 | far) & 0xFFFFFF, TOPS, st.integers(0, 32), st.integers(0, 31))
PAGES = st.builds(lambda rd, page: 0x90000000 | page << 29 | rd, st.integers(7, 10), st.integers(0, 3))
USES = st.builds(
    lambda base, rd, rn, imm: base | imm << 10 | rn << 5 | rd,
    st.sampled_from([0x91000000, 0x91400000, 0xF9400000, 0xB9000000, 0x3DC00000, 0xA9400000, 0x38604800, 0x8B000800, 0xD61F0000]),
    st.integers(7, 10),
    st.integers(7, 10),
    st.sampled_from([0, 1, 7, 0xFFF]),
)
WORDS = st.lists(st.one_of(NEARBY, PAGES, USES, st.integers(0, 2**32 - 1)), max_size=24)
CODE = st.builds(lambda words, odd: struct.pack(f"<{len(words)}I", *words) + odd, WORDS, st.binary(max_size=3))


@given(CODE)
@settings(max_examples=300, deadline=None)
def test_reading(code: bytes):
    lines = list(ARM64.disassemble(code, AT))
    assert sum(line.size for line in lines) <= len(code)
    found = ARM64.references(code, AT, image_base=AT - 0x1000)
    assert [one.offset for one in found] == sorted(one.offset for one in found)
    for one in found:
        field = code[one.field : one.field + 4]
        resolved = ARM64.resolve(one.kind, field, AT + one.field, image_base=AT - 0x1000)
        if one.kind in (FixupKind.PAGEOFFSET_12A, FixupKind.IMAGEREL_LOW12A):
            assert resolved == (one.target - (0 if one.kind is FixupKind.PAGEOFFSET_12A else AT - 0x1000)) % 0x1000
        elif one.kind not in (
            FixupKind.PAGEBASE_REL21,
            FixupKind.PAGEOFFSET_12L,
            FixupKind.IMAGEREL_HIGH12A,
            FixupKind.IMAGEREL_LOW12L,
        ):
            assert resolved == one.target
            assert ARM64.bind(one.kind, field, AT + one.field, resolved) == field
    completed = {one.target for one in found if one.kind in (FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L)}
    assert completed <= {one.target for one in found if one.kind is FixupKind.PAGEBASE_REL21}
    masked = ARM64.mask(code, found)
    assert len(masked) == len(code)
    assert ARM64.mask(masked, found) == masked


@given(CODE, st.binary(min_size=64, max_size=256))
@settings(max_examples=300, deadline=None)
def test_tables(code: bytes, data: bytes):
    for table in ARM64.jump_tables(code, AT, lambda address, size: data[address % 61 :][: size % 200]):
        assert table.targets


@given(CODE, st.integers(1, 24), st.sampled_from([AT + 0x100000, AT - 0x7000000, AT + 2**40]))
@settings(max_examples=300, deadline=None)
def test_moving(code: bytes, displaced: int, trampoline: int):
    try:
        moved = ARM64.trampoline(code, source_va=AT, trampoline_va=trampoline, displaced=displaced)
    except CannotRelocate as refused:
        assert refused.refusals
        return
    assert moved.resume_va == AT + -(-displaced // 4) * 4
    assert list(moved.offsets) == list(range(0, moved.resume_va - AT, 4))
    decoded = sum(line.size for line in ARM64.disassemble(moved.code, trampoline))
    assert all(offset < decoded for offset in moved.offsets.values())


@given(st.binary(max_size=40), st.binary(max_size=8))
@settings(max_examples=300, deadline=None)
def test_jumps(code: bytes, pointer: bytes):
    def read(address: int, size: int) -> bytes:
        return code[:size] if address == AT else pointer[:size]

    ARM64.foreign_jump(AT, read)
    for strategy in Redirect:
        ARM64.redirect_destination(strategy, AT, read)
