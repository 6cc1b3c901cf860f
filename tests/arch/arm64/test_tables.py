"""Jump tables in the forms of clang and MSVC; the sequences are theirs."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine, architecture

ARM64 = architecture(Machine.ARM64)
BASE, TABLE = 0x1000, 0x2000
NOP, RET = 0xD503201F, 0xD65F03C0


def code_of(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def tables(code: bytes, table: bytes, address: int = TABLE):
    def read(at: int, size: int) -> bytes:
        for base, content in ((BASE, code), (address, table)):
            if base <= at < base + len(content):
                return content[at - base : at - base + size]
        return b""

    return ARM64.jump_tables(code, BASE, read)


# cmp w0, #3; b.hi +0x28; mov w8, w0; adrp x9, table; add x9, x9, #0; adr x10, +0x14; <load>; <add>; <spare>; br x10
HEAD = (0x71000C1F, 0x54000148, 0x2A0003E8, 0xB0000009, 0x91000129, 0x100000AA)
CASES = (RET,) * 8
ANCHOR = BASE + 0x28

CLANG = {
    "halfwords": ((0x7868792B, 0x8B0B094A, NOP, 0xD61F0140), "<4H", (0, 1, 2, 3), 2, 2, False),
    "bytes": ((0x3868692B, 0x8B0B094A, NOP, 0xD61F0140), "<4B", (0, 3, 1, 3), 1, 2, False),
    "words": ((0xB8A8792B, 0x8B0B014A, NOP, 0xD61F0140), "<4i", (0, 4, -8, 12), 4, 0, True),
    "sign given by the addition": ((0xB868792B, 0x8B2BC14A, NOP, 0xD61F0140), "<4i", (0, 4, -8, 12), 4, 0, True),
    "bytes, sign given by the addition": ((0x3868692B, 0x8B2B894A, NOP, 0xD61F0140), "<4b", (0, 3, -1, 1), 1, 2, True),
    "scheduled apart": ((0x7868792B, NOP, 0x8B0B094A, 0xD61F0140), "<4H", (3, 2, 1, 0), 2, 2, False),
}


@pytest.mark.parametrize("name", CLANG)
def test_clang(name: str):
    tail, layout, entries, size, shift, signed = CLANG[name]
    content = struct.pack(layout, *entries) + b"\0" * 8  # what follows belongs to others
    (table,) = tables(code_of(*HEAD, *tail, *CASES), content)
    assert (table.jump, table.address, table.entry_size, table.shift, table.signed, table.anchor) == (
        0x24,
        TABLE,
        size,
        shift,
        signed,
        ANCHOR,
    )
    assert table.targets == tuple(ANCHOR + (entry << shift) for entry in entries)
    assert table.size == size * 4


BOUNDS = {
    "b.hi": ((0x71000C1F, 0x54000148), 4),
    "b.hs": ((0x7100101F, 0x54000142), 4),
    "b.ls over a jump": ((0x71000C1F, 0x54000049, 0x1400000F), 4),
    "b.lo over a jump": ((0x7100101F, 0x54000043, 0x1400000F), 4),
    "b.gt": ((0x71000C1F, 0x5400014C), 4),
    "b.ge": ((0x7100101F, 0x5400014A), 4),
    "b.le over a jump": ((0x71000C1F, 0x5400004D, 0x1400000F), 4),
    "b.lt over a jump": ((0x7100101F, 0x5400004B, 0x1400000F), 4),
    "b.gt and a smaller number": ((0x7100103F, 0x5400014C, 0x51000420), 4),
    "and": ((0x12000400,), 4),
    "ubfx": ((0x53020C00,), 4),
    "lsr": ((0x531E7C00,), 4),
    "subs": ((0x71000C1F, 0xD503201F, 0x54000148), 4),
    "ccmp, made where the first held": ((0x7100041F, 0x7A43280A, 0x54000148), 4),  # cmp w0, #1; ccmp w0, #3, #0xa, hs; b.hi
    "ccmp, b.ls over a jump": ((0x7100041F, 0x7A43280A, 0x54000049, 0x1400000F), 4),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_number_of_entries_comes_from(name: str):
    check, count = BOUNDS[name]
    rest = (0x2A0003E8, 0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
    content = struct.pack("<8H", *range(8))  # more than the bound lets through
    (table,) = tables(code_of(*check, *rest, *CASES), content)
    assert len(table.targets) == count


@pytest.mark.parametrize("between", [0x6A02003F, 0xEA02003F, 0x7A421820, 0x7A432800, 0x7A432804, 0x1E612000, 0x94000100, 0xD63F0100])
def test_flags_of_something_else_give_no_bound(between: int):
    # cmp w0, #3; then tst, ccmp, fcmp, a call or another cmp; b.hi. Two ccmp leave flags on which b.hi falls through
    words = (0x71000C1F, between, 0x54000148, 0x2A0003E8, 0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
    (table,) = tables(code_of(*words, *CASES), struct.pack("<8H", 0, 1, 2, 3, 4, 5, 200, 0))
    assert len(table.targets) != 4


@pytest.mark.parametrize("last_bound", [1000, 5])
def test_a_bound_of_something_else_that_does_not_fit_the_table_is_not_believed(last_bound: int):
    # cmp w1, #bound; b.hi: the index is w0
    words = (0x7100003F | last_bound << 10, 0x54000148, 0x2A0003E8, 0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
    (table,) = tables(code_of(*words, *CASES), struct.pack("<6H", 0, 1, 2, 200, 1, 1))
    assert len(table.targets) == 3


def test_without_a_bound_the_targets_stay_in_the_function():
    rest = (0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
    (table,) = tables(code_of(*rest, *CASES), struct.pack("<6H", 0, 1, 2, 200, 1, 1))
    assert len(table.targets) == 3


def test_an_index_that_went_through_memory_takes_the_last_bound():
    # clang -O0: subs x8, x8, #3; b.hi; ldr x11, [sp, #8]; adrp, add table; adr x8, .; ldrsw x9, [x10, x11, lsl #2]; add x8, x8, x9; br x8
    words = (0xF1000D08, 0x54000168, 0xF94007EB, 0xB000000A, 0x9100014A, 0x10000008, 0xB8AB7949, 0x8B090108, 0xD61F0100)
    (table,) = tables(code_of(*words, *CASES), struct.pack("<6i", 16, 20, 24, 28, 16, 16))
    assert table.anchor == BASE + 0x14
    assert table.targets == (0x1024, 0x1028, 0x102C, 0x1030)


MSVC = {
    # cmp w0, #3; b.hi; adr x9, table (behind the code); load; add x8, x9, x8, lsl #2; br x8
    "bytes": ((0x38A04928,), "<4b", 1, (-8, -7, -6, -5)),
    "halfwords": ((0x78A05928,), "<4h", 2, (-8, -7, -6, -5)),
    "words": ((0xB8A05928,), "<4i", 4, (-8, -7, -6, -5)),
}


@pytest.mark.parametrize("name", MSVC)
def test_msvc(name: str):
    load, layout, size, entries = MSVC[name]
    code = code_of(0x71000C1F, 0x54000148, 0x100001C9, *load, 0x8B080928, 0xD61F0100, *(RET,) * 10) + struct.pack(layout, *entries)
    (table,) = tables(code, b"")
    assert (table.jump, table.address, table.entry_size, table.shift, table.signed) == (20, 0x1040, size, 2, True)
    assert table.anchor == table.address
    assert table.targets == tuple(0x1040 + 4 * entry for entry in entries)


def test_msvc_with_a_label_of_its_own():
    # adr x11, table; ldrsw x8, [x11, w12, uxtw #2]; adr x11, label; add x8, x11, x8, lsl #2; br x8
    words = (0x71000D9F, 0x54000148, 0x1000020B, 0xB8AC5968, 0x1000008B, 0x8B080968, 0xD61F0100, *(RET,) * 11)
    code = code_of(*words) + struct.pack("<4i", 0, -1, 1, 2)
    (table,) = tables(code, b"")
    assert (table.address, table.anchor) == (0x1048, 0x1020)
    assert table.targets == (0x1020, 0x101C, 0x1024, 0x1028)


def test_msvc_behind_the_function():
    words = (0x71000C1F, 0x54000148, 0x100001C9, 0x38A04928, 0x8B080928, 0xD61F0100, *(RET,) * 9)
    (table,) = tables(code_of(*words), struct.pack("<4b", -8, -7, -6, -5), 0x1040)
    assert table.address == 0x1040


def test_a_switch_in_a_case_of_another():
    # each: cmp, b.hi 0x1038, adr table, ldrsb entry, add, br
    outer = (0x7100041F, 0x540001A8, 0x100001EA, 0x38A04948, 0x8B080948, 0xD61F0100)
    inner = (0x7100043F, 0x540000E8, 0x10000109, 0x38A14928, 0x8B080928, 0xD61F0100, RET, RET)
    default = (RET, RET)
    inner_table, outer_table = struct.pack("<bbxx", -4, -3), struct.pack("<bbxx", (0x18 - 0x44) // 4, (0x38 - 0x44) // 4)
    code = code_of(*outer, *inner, *default) + inner_table + outer_table + code_of(RET)
    found = tables(code, b"")
    assert [(table.jump, table.address, table.targets) for table in found] == [
        (0x14, 0x1044, (0x1018, 0x1038)),
        (0x2C, 0x1040, (0x1030, 0x1034)),
    ]


def test_a_table_of_whole_addresses():
    # cmp w0, #1; b.hi; adrp, add table; ldr x9, [x9, w0, uxtw #3]; br x9
    code = code_of(0x7100041F, 0x540000C8, 0xB0000009, 0x91000129, 0xF8605929, 0xD61F0120, RET, RET)
    (table,) = tables(code, struct.pack("<2Q", 0x1018, 0x101C))
    assert (table.entry_size, table.anchor, table.shift, table.targets) == (8, 0, 0, (0x1018, 0x101C))
    assert tables(code, struct.pack("<2Q", 0x5000, 0x101C)) == ()  # function pointers


NONE = {
    "tail call through an import": (0xB0000008, 0xF9400108, 0xD61F0100),
    "tail call through an argument": (0xF9400008, 0xD61F0100),
    "return address": (RET,),
    "no branch": (NOP,),
}


@pytest.mark.parametrize("name", NONE)
def test_no_table(name: str):
    assert tables(code_of(*NONE[name]), bytes(64)) == ()


def test_a_table_that_cannot_be_read_is_none():
    assert tables(code_of(*HEAD, 0x7868792B, 0x8B0B094A, NOP, 0xD61F0140, *CASES), b"\0\0") == ()


NO_CHECK = (0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
MASK_OF_FOUR = (0x12000408,)  # and w8, w0, #3


@pytest.mark.parametrize(("check", "room", "count"), [((), 3, 3), ((), 100, 6), (MASK_OF_FOUR, 3, 3), (MASK_OF_FOUR, 5, 4)])
def test_without_a_comparison_a_table_ends_where_the_image_says(check: tuple[int, ...], room: int, count: int):
    code = code_of(*check, *NO_CHECK, *CASES)
    content = struct.pack("<6H", *range(6))

    def read(at: int, size: int) -> bytes:
        return content[at - TABLE : at - TABLE + size] if at >= TABLE else b""

    (table,) = ARM64.jump_tables(code, BASE, read, limit=lambda address, entry_size: address + room * entry_size)
    assert (len(table.targets), table.exact) == (count, False)


def test_a_comparison_is_believed_before_the_image():
    code = code_of(*HEAD, *CLANG["halfwords"][0], *CASES)
    (table,) = ARM64.jump_tables(code, BASE, lambda _at, size: bytes(8)[:size], limit=lambda address, _: address + 2)
    assert (len(table.targets), table.exact) == (4, True)


@pytest.mark.parametrize(("room", "count"), [(8, 8), (3, 3), (2, 2)])
def test_the_last_bound_is_not_believed_where_the_image_says_otherwise(room: int, count: int):
    # cmp w1, #2; b.hi: the index is w0
    code = code_of(0x7100083F, 0x54000148, 0x2A0003E8, *NO_CHECK, *CASES)
    content = struct.pack("<8H", *range(8))
    (table,) = ARM64.jump_tables(
        code,
        BASE,
        lambda _at, size: content[:size] if _at == TABLE else content[_at - TABLE :][:size],
        limit=lambda at, size: at + room * size,
    )
    assert len(table.targets) == count


def test_without_a_bound_a_table_ends_where_the_next_begins():
    """They lie behind each other, and what the second holds would lead into the function from the first as well."""
    # adr x9, table; ldrsw x8, [x9, w0, uxtw #2]; add x8, x9, x8, lsl #2; br x8
    first = (0x10000000 | 26 << 5 | 9, 0xB8A05928, 0x8B080928, 0xD61F0100)
    second = (0x10000000 | 25 << 5 | 9, 0xB8A05928, 0x8B080928, 0xD61F0100)
    code = code_of(*first, *second, *(RET,) * 18) + struct.pack("<3i", -22, -18, -10) + struct.pack("<2i", -9, -8)
    one, two = tables(code, b"")
    assert (one.address, two.address) == (BASE + 0x68, BASE + 0x74)
    assert one.targets == (BASE + 0x10, BASE + 0x20, BASE + 0x40)
    assert two.targets == (BASE + 0x50, BASE + 0x54)


def test_a_page_is_completed_where_a_table_that_ends_at_the_next_would_lead_past_it():
    """The second table's entry, taken for one of the first, leads between the two instructions."""
    # adr x9, table; ldrsw x8, [x9, w0, uxtw #2]; add x8, x9, x8, lsl #2; br x8
    first = (0x10000000 | 26 << 5 | 9, 0xB8A05928, 0x8B080928, 0xD61F0100)
    second = (0x10000000 | 17 << 5 | 9, 0xB8A05928, 0x8B080928, 0xD61F0100)
    adrp_add = (0x90000008, 0x91004100)
    code = code_of(*first, *adrp_add, *(RET,) * 6, *second, *(RET,) * 10) + struct.pack("<3i", -22, -22, -14) + struct.pack("<2i", -21, -22)
    one, two = tables(code, b"")
    assert (len(one.targets), len(two.targets)) == (3, 2)
    pages = [found.target for found in ARM64.references(code, BASE) if found.kind.value == "pagebase-rel21"]
    assert pages == [BASE + 0x10]


@pytest.mark.parametrize(("case", "exact"), [(NOP, True), (0x2A0303E0, False)], ids=["as it was", "another"])
def test_a_case_that_dispatches_again(case: int, exact: bool):
    """The third case leads back with its index, or with w3."""
    tail, layout, _, *_ = CLANG["halfwords"]
    code = code_of(*HEAD, *tail, RET, RET, case, 0x17FFFFF5, RET, RET, RET, RET)
    (table,) = tables(code, struct.pack(layout, 2, 0, 1, 4) + b"\0" * 8)
    assert (table.targets[0], table.exact) == (ANCHOR + 8, exact)


# mov w8, #0; adrp x9, table; add x9, x9, #0; adr x10, +0x10; ldrh w11, [x9, x8, lsl #1]; add x10, x10, x11, lsl #2; br x10
LOOP = (0x52800008, 0xB0000009, 0x91000129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)
ROUND = (0x11000508, 0x7100151F, 0x54FFFF0B, RET)  # add w8, w8, #1; cmp w8, #5; b.lt to the second adr; ret
LOOPS = {
    "the end of the loop": ((NOP, NOP, *ROUND), 5),
    "numbers that code puts there": ((0x52800048, 0x17FFFFFB, 0x52800028, 0x17FFFFF9), 3),  # mov w8, #2; b; mov w8, #1; b
}


@pytest.mark.parametrize("name", ["the end of the loop", "numbers that code puts there"])
def test_number_of_entries_of_a_loop_comes_from(name: str):
    cases, count = LOOPS[name]
    (table,) = tables(code_of(*LOOP, *cases), struct.pack("<12H", *(0, 1) * 6))
    assert (len(table.targets), table.exact) == (count, True)


UNBOUNDED = {
    "another way into it": (NOP, 0x2A0003E8, 0x17FFFFFA, *ROUND[:2], 0x54FFFEEB, RET),  # mov w8, w0; b to the adr
    "a jump to where nobody knows": (0xF8687863, 0xD61F0060, *ROUND),  # ldr x3, [x3, x8, lsl #3]; br x3
    "counted on behind the check": (NOP, NOP, 0x7100151F, 0x11000508, 0x54FFFF0B, RET),  # cmp w8, #5; add w8, w8, #1; b.lt
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_loop_gives_no_bound_where_something_else_may_be_the_index(name: str):
    found = tables(code_of(*LOOP, *UNBOUNDED[name]), struct.pack("<12H", *(0, 1) * 6))
    assert [table.exact for table in found] == [False]
    assert len(found[0].targets) > 5


def test_a_bound_on_one_way_of_several_to_a_second_table_counts_all_of_them():
    """The second jump is come to from a case of the first, with the largest index of the loop, and of two tables each has its own."""
    second = (0x91004129, 0x1000008A, 0x7868792B, 0x8B0B094A, 0xD61F0140)  # add x9, x9, #16; adr x10, +0x10; ldrh; add; br x10
    end = (0x11000508, 0x7100151F, 0x54FFFE4B, RET)
    code = code_of(*LOOP[:2], 0x9100012C, 0x91000189, *LOOP[3:], *second, NOP, NOP, *end)  # add x12, x9, #0; add x9, x12, #0
    found = tables(code, struct.pack("<16H", *(0,) * 8, *(0, 1) * 4))
    assert [(len(table.targets), table.exact) for table in found] == [(5, True), (5, True)]
