"""Operands that name addresses, found across blocks, calls, joins and copies."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, Use, architecture
from hotpatch.arch.assembly import assemble

ARM64 = architecture(Machine.ARM64)
BASE = 0x1000
K = FixupKind
NOP, RET = 0xD503201F, 0xD65F03C0
ADRP_X8_3000 = 0xD0000008  # at 0x1000 to 0x1fff
ADRP_X9_3000, ADRP_X8_4000, ADRP_X19_3000 = 0xD0000009, 0xF0000008, 0xD0000013
LDR_W9_X8_10 = 0xB9401109  # ldr w9, [x8, #0x10]
ADD_X8_X8_20 = 0x91008108


def found(*values: int, image_base: int = 0) -> list[tuple[int, str, int]]:
    code = struct.pack(f"<{len(values)}I", *values)
    references = ARM64.references(code, BASE, image_base=image_base)
    assert all(one.size == 4 and one.field == one.offset and one.addend == 0 for one in references)
    return [(one.offset, str(one.kind), one.target) for one in references]


FORMS = {
    "b": (0x14000004, K.BRANCH26, Use.JUMP, 0x1010),
    "bl": (0x97FFFFFF, K.BRANCH26, Use.CALL, 0xFFC),
    "b.eq": (0x54000080, K.BRANCH19, Use.BRANCH, 0x1010),
    "bc.eq": (0x54000090, K.BRANCH19, Use.BRANCH, 0x1010),
    "cbz": (0x34000083, K.BRANCH19, Use.BRANCH, 0x1010),
    "cbnz": (0xB5000083, K.BRANCH19, Use.BRANCH, 0x1010),
    "tbz": (0x36080083, K.BRANCH14, Use.BRANCH, 0x1010),
    "tbnz": (0xB7080083, K.BRANCH14, Use.BRANCH, 0x1010),
    "ldr w literal": (0x18000081, K.LITERAL19, Use.DATA, 0x1010),
    "ldr x literal": (0x58000081, K.LITERAL19, Use.DATA, 0x1010),
    "ldrsw literal": (0x98000081, K.LITERAL19, Use.DATA, 0x1010),
    "prfm literal": (0xD8000080, K.LITERAL19, Use.DATA, 0x1010),
    "ldr s literal": (0x1C000081, K.LITERAL19, Use.DATA, 0x1010),
    "ldr d literal": (0x5C000081, K.LITERAL19, Use.DATA, 0x1010),
    "ldr q literal": (0x9C000081, K.LITERAL19, Use.DATA, 0x1010),
    "adr": (0x30000081, K.REL21, Use.DATA, 0x1011),
    "adrp": (0xB0000001, K.PAGEBASE_REL21, Use.PARTIAL, 0x2000),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str):
    word, kind, use, target = FORMS[name]
    (reference,) = ARM64.references(struct.pack("<I", word), BASE)
    assert (reference.kind, reference.use, reference.target) == (kind, use, target)


COMPLETED = {
    "add": (0x91004108, K.PAGEOFFSET_12A, 0x3010),
    "add into another register": (0x91004101, K.PAGEOFFSET_12A, 0x3010),
    "add of nothing": (0x91000108, K.PAGEOFFSET_12A, 0x3000),
    "ldr w at the page itself": (0xB9400109, K.PAGEOFFSET_12L, 0x3000),
    "ldr x": (0xF9400909, K.PAGEOFFSET_12L, 0x3010),
    "ldr x over the page": (0xF9400908, K.PAGEOFFSET_12L, 0x3010),
    "str w": (0xB9001109, K.PAGEOFFSET_12L, 0x3010),
    "strb": (0x3905DD0B, K.PAGEOFFSET_12L, 0x3177),
    "ldrb": (0x3945DD0C, K.PAGEOFFSET_12L, 0x3177),
    "ldrh": (0x7943E509, K.PAGEOFFSET_12L, 0x31F2),
    "ldrsw": (0xB9801109, K.PAGEOFFSET_12L, 0x3010),
    "ldrsb w": (0x39C00509, K.PAGEOFFSET_12L, 0x3001),
    "ldr s": (0xBD401100, K.PAGEOFFSET_12L, 0x3010),
    "ldr d": (0xFD40A101, K.PAGEOFFSET_12L, 0x3140),
    "str d": (0xFD00A101, K.PAGEOFFSET_12L, 0x3140),
    "ldr q": (0x3DC00500, K.PAGEOFFSET_12L, 0x3010),
    "str q": (0x3D800500, K.PAGEOFFSET_12L, 0x3010),
    "ldr b": (0x3D400500, K.PAGEOFFSET_12L, 0x3001),
    "ldr h": (0x7D400500, K.PAGEOFFSET_12L, 0x3002),
    "prfm": (0xF9800900, K.PAGEOFFSET_12L, 0x3010),
}


@pytest.mark.parametrize("name", COMPLETED)
def test_a_page_is_completed_by(name: str):
    word, kind, target = COMPLETED[name]
    assert found(ADRP_X8_3000, NOP, word) == [(0, "pagebase-rel21", target), (8, str(kind), target)]


ESCAPES = {
    "ldp": 0xA9400909,  # ldp x9, x2, [x8]
    "stp": 0xA9000909,
    "register offset": 0xB8696909,  # ldr w9, [x8, x9]
    "sub": 0xD1004108,
    "add shifted": 0x91400508,
    "add register": 0x8B080020,
    "ldur": 0xB8404109,
    "post-index": 0xB8404509,
    "stored": 0xF9000048,  # str x8, [x2]
    "nothing": NOP,
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_page_that_escapes_is_named_itself(name: str):
    assert found(ADRP_X8_3000, ESCAPES[name]) == [(0, "pagebase-rel21", 0x3000)]


PAIR = (0, "pagebase-rel21", 0x3010)
KILLED = [(0, "pagebase-rel21", 0x3000)]
OVERWRITTEN = {
    "mov immediate": 0xD2800008,
    "mov register": 0xAA0103E8,
    "add": 0x8B010048,
    "csel": 0x9A820028,
    "ldr": 0xF9400028,
    "ldrsw": 0xB9800028,
    "ldp second": 0xA9402021,
    "post-index base": 0xF8408501,
    "stp pre-index base": 0xA9BF0901,
    "ldxr": 0xC85F7C28,
    "stxr status": 0xC8087C22,
    "swp": 0xF8218048,
    "cas": 0xC8A87C22,
    "mrs": 0xD53BD048,
    "fmov": 0x9E660008,
    "umov": 0x0E013C08,
    "fcvtzs": 0x9E780008,
    "blr": 0xD63F0020,
    "madd": 0x9B020C28,
    "movk": 0xF2A00028,
}


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_a_page_ends_where_its_register_is_overwritten_by(name: str):
    references = [row for row in found(ADRP_X8_3000, OVERWRITTEN[name], LDR_W9_X8_10) if row[1] != "branch26"]
    assert references == KILLED


KEPT = {
    "cmp": 0xEB01011F,
    "ccmp": 0x7A480808,  # its low bits are flags
    "str of another": 0xF9000041,
    "prfm": 0xF9800048,  # its target field is an operation
    "fadd": 0x1E622828,
    "ldr q8": 0x3DC00048,
    "stlr": 0xC89FFC48,
    "msr": 0xD51BD048,
    "scvtf": 0x9E620028,
    "cbz": 0xB4000028,
    "nop": NOP,
}


@pytest.mark.parametrize("name", KEPT)
def test_a_page_lives_through(name: str):
    references = [row for row in found(ADRP_X8_3000, KEPT[name], LDR_W9_X8_10) if row[1] != "branch19"]
    assert (8, "pageoffset-12l", 0x3010) in references
    assert PAIR in references


def test_a_call_keeps_preserved_registers():
    assert found(ADRP_X19_3000, 0x94000040, 0xB9401269) == [
        (0, "pagebase-rel21", 0x3010),
        (4, "branch26", 0x1104),
        (8, "pageoffset-12l", 0x3010),
    ]


def test_a_whole_address_is_completed_once():
    assert found(ADRP_X8_3000, ADD_X8_X8_20, LDR_W9_X8_10) == [(0, "pagebase-rel21", 0x3020), (4, "pageoffset-12a", 0x3020)]


def test_one_page_with_several_targets_names_each_first_user_first():
    assert found(ADRP_X8_3000, LDR_W9_X8_10, 0xB9000909, LDR_W9_X8_10) == [
        (0, "pagebase-rel21", 0x3010),
        (0, "pagebase-rel21", 0x3008),
        (4, "pageoffset-12l", 0x3010),
        (8, "pageoffset-12l", 0x3008),
        (12, "pageoffset-12l", 0x3010),
    ]


def test_a_page_is_followed_through_copies():
    mov_x20_x8, ldr_x20 = 0xAA0803F4, 0xB9401289
    assert found(ADRP_X8_3000, mov_x20_x8, 0xD2800008, ldr_x20) == [PAIR, (12, "pageoffset-12l", 0x3010)]


def test_a_32_bit_copy_is_no_copy():
    assert found(ADRP_X8_3000, 0x2A0803F4, 0xB9401289) == KILLED


def test_at_a_join_both_ways_must_agree():
    cbz_skip = 0xB4000042  # cbz x2, +8
    references = found(ADRP_X8_3000, cbz_skip, 0xD2800008, LDR_W9_X8_10)
    assert [row for row in references if row[1].startswith("page")] == KILLED


def test_two_loads_of_one_page_meet_at_a_join():
    # cbz x2, else; adrp x8; b join; else: adrp x8; join: ldr
    references = found(0xB4000062, ADRP_X8_3000, 0x14000002, ADRP_X8_3000, LDR_W9_X8_10, RET)
    assert [row for row in references if row[1].startswith("page")] == [
        (4, "pagebase-rel21", 0x3010),
        (12, "pagebase-rel21", 0x3010),
        (16, "pageoffset-12l", 0x3010),
    ]


def test_two_pages_do_not_meet_at_a_join():
    references = found(0xB4000062, ADRP_X8_4000, 0x14000002, ADRP_X8_3000, LDR_W9_X8_10, RET)
    assert [row for row in references if row[1].startswith("page")] == [(4, "pagebase-rel21", 0x4000), (12, "pagebase-rel21", 0x3000)]


def test_a_loop_keeps_what_it_does_not_overwrite():
    # adrp x19; loop: ldr w9, [x19, #0x10]; bl; cbnz w9, loop
    references = found(ADRP_X19_3000, 0xB9401269, 0x94000040, 0x35FFFFC9, RET)
    assert [row for row in references if row[1].startswith("page")] == [PAIR, (4, "pageoffset-12l", 0x3010)]


def test_a_loop_drops_what_its_end_overwrites():
    # adrp x8; loop: ldr w9, [x8, #0x10]; mov x8, #0; cbnz w9, loop
    references = found(ADRP_X8_3000, LDR_W9_X8_10, 0xD2800008, 0x35FFFFC9, RET)
    assert [row for row in references if row[1].startswith("page")] == KILLED


def test_distance_does_not_matter():
    references = found(ADRP_X8_3000, *[NOP] * 900, LDR_W9_X8_10)
    assert references == [PAIR, (3604, "pageoffset-12l", 0x3010)]


def test_pages_before_the_code_and_before_zero():
    assert found(0xF0FFFFE8, LDR_W9_X8_10)[0] == (0, "pagebase-rel21", 0x10)
    assert found(0xD0FFFFE8, 0xB9400109)[0] == (0, "pagebase-rel21", -0x1000)


def test_image_relative_arithmetic():
    # adrp x9, image base; add x9, x9, 0; add x8, x9, x8; add x9, x8, #0x120, lsl #12; ldr w0, [x9, #0x3450] as clang splits it
    words = (0xF0FFFFE9, 0x91000129, 0x8B080128, 0x91448109, 0xB9745120)
    assert found(*words) == [
        (0, "pagebase-rel21", 0),
        (4, "pageoffset-12a", 0),
        (12, "imagerel-high12a", 0x123450),
        (16, "imagerel-low12l", 0x123450),
    ]
    assert [row[1] for row in found(*words, image_base=0x1000)] == ["pagebase-rel21", "pageoffset-12a"]


def test_image_relative_add():
    words = (0xF0FFFFE9, 0x91000129, 0x91400928, 0x91004108)
    assert found(*words)[2:] == [(8, "imagerel-high12a", 0x2010), (12, "imagerel-low12a", 0x2010)]


# adrp x8, image base; add x8, x8, 0; add x9, x8, #5, lsl #12
IMAGE_PAGE_IN_X9 = (0xF0FFFFE8, 0x91000108, 0x91401509)
IMAGE_PAGE_ON_ONE_WAY = {
    # cbz x2, page; mov x9, x1; b join; page: …; join: ldr w0, [x9, #0x10]
    "taken": (0xB4000062, 0xAA0103E9, 0x14000004, *IMAGE_PAGE_IN_X9, 0xB9401120, RET),
    # cbz x2, other; …; b join; other: mov x9, x1; join: ldr w0, [x9, #0x10]
    "straight on": (0xB40000A2, *IMAGE_PAGE_IN_X9, 0x14000002, 0xAA0103E9, 0xB9401120, RET),
}


@pytest.mark.parametrize("way", IMAGE_PAGE_ON_ONE_WAY)
def test_image_relative_arithmetic_on_one_of_two_ways_is_none(way: str):
    assert [row for row in found(*IMAGE_PAGE_ON_ONE_WAY[way]) if row[1].startswith("imagerel")] == []


def test_fields_of_the_headers_are_no_image_relative_references():
    # adrp x8, image base; add x11, x8, 0; ldrh w8, [x11]; ldr w8, [x11, #0x3c]
    assert found(0xF0FFFFE8, 0x9100010B, 0x79400168, 0xB9403D68) == [(0, "pagebase-rel21", 0), (4, "pageoffset-12a", 0)]


def test_literals_are_no_instructions():
    # ldr x1, +8; ret; .quad whose halves look like bl and adrp
    assert found(0x58000041, RET, 0x94000010, 0xD0000008) == [(0, "literal19", 0x1008)]


def test_tables_inside_the_code_are_no_instructions():
    # MSVC: cmp w0, #1; b.hi; adr x9, table; ldrsb x8, [x9, w0, uxtw]; add x8, x9, x8, lsl #2; br x8; cases; table
    words = (0x7100041F, 0x540000E8, 0x10000109, 0x38A04928, 0x8B080928, 0xD61F0100, 0x52800020, RET, 0xD2800000, RET, 0x1400FEFC)
    references = found(*words)
    assert references == [(4, "branch19", 0x1020), (8, "rel21", 0x1028)]


@pytest.mark.parametrize("start", range(0x1004, 0x1008))
def test_holes_begin_at_any_byte(start: int):
    code = struct.pack("<5I", NOP, *[0x94000010] * 3, RET)
    assert [one.offset for one in ARM64.references(code, BASE, holes=[(start, 0x100C)])] == [12]


def test_a_page_hoisted_over_a_switch_reaches_the_cases():
    # clang: adrp x21; cmp w0, #1; b.hi default; adrp/add table; adr; ldrh; add; br; case: ldr w9, [x21, #0x10]; ret; default: ret
    words = (
        *(0xD0000015, 0x7100041F, 0x54000128, 0xB0000009, 0x91000129, 0x1000008A, 0x7860792B, 0x8B0B094A, 0xD61F0140),
        *(0xB94012A9, RET, RET),
    )
    assert (36, "pageoffset-12l", 0x3010) in found(*words)


def test_order_and_odd_ends():
    offsets = [row[0] for row in found(ADRP_X8_3000, ADRP_X9_3000, 0xB9401129, LDR_W9_X8_10, 0x94000001)]
    assert offsets == sorted(offsets)
    assert ARM64.references(b"", BASE) == ()
    assert ARM64.references(b"\1\2\3", BASE) == ()
    assert len(ARM64.references(struct.pack("<I", 0x14000004) + b"\0\0", BASE)) == 1


def test_a_direct_call_loses_results_and_nothing_that_code_still_completes():
    """MSVC keeps pages in x2 to x15 over calls of functions that it knows to leave them alone (apsw's sqlite3_tool, in a loop)."""
    call = 0x94000040
    assert (8, "pageoffset-12l", 0x3010) in found(ADRP_X8_3000, call, LDR_W9_X8_10)
    # adrp x8; loop: ldr; bl; cbnz w0, loop
    assert (4, "pageoffset-12l", 0x3010) in found(ADRP_X8_3000, LDR_W9_X8_10, call, 0x35FFFFC0)
    adrp_x0, ldr_w9_x0 = 0xD0000000, 0xB9401009
    assert not [row for row in found(adrp_x0, call, ldr_w9_x0) if row[1].startswith("pageoffset")]


UNREAD = (
    ("overwritten", "x0; mov x0, x19; ret", True),
    ("overwritten-behind-a-call", "x20; bl 0x2000; mov x20, #0; ret", True),
    ("kept-over-a-call", "x8; bl 0x2000; eor x1, x8, x1; ret", False),
    ("handed-to-a-call", "x0; bl 0x2000; ret", False),
    ("returned", "x0; ret", False),
    ("added", "x8; add x0, x8, x1; ret", False),
    ("where-code-leaves", "x20; b.eq 0x2000; mov x20, #0; ret", False),
)


@pytest.mark.parametrize(("name", "text", "unused"), UNREAD, ids=[row[0] for row in UNREAD])
def test_pages_that_nothing_reads(name, text, unused):
    """ADRP of the page at 0x5000 in front of ``text``."""
    register, _, rest = text.partition("; ")
    code = struct.pack("<I", 0x90000020 | int(register[1:])) + assemble(Machine.ARM64, rest, BASE + 4)
    uses = [reference.use for reference in ARM64.references(code, BASE) if reference.kind is K.PAGEBASE_REL21]
    assert uses == [Use.UNUSED if unused else Use.PARTIAL]


def page_uses(text: str) -> list[tuple[int, Use]]:
    """What the ADRP of the page at 0x5000 in x8 in front of ``text`` is completed to, with how it is used; and the last instruction."""
    code = struct.pack("<I", 0x90000028) + assemble(Machine.ARM64, text, BASE + 4)
    references = ARM64.references(code, BASE)
    return [(one.target, one.use) for one in references if one.kind is K.PAGEBASE_REL21 or one.offset == len(code) - 8]


WHOLE, PARTIAL = (0x5010, Use.DATA), (0x5000, Use.PARTIAL)
SPILLS = {
    "kept": ("str x8, [sp, #8]; blr x1; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [WHOLE, WHOLE]),
    "kept-in-a-register-too": ("str x8, [sp, #8]; ldr w1, [x8, #0x10]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [WHOLE, WHOLE]),
    "kept-over-other-stores": (
        "str x8, [sp, #8]; str x1, [sp, #0x10]; strb w1, [sp, #7]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret",
        [WHOLE] * 2,
    ),
    "over-a-loop": ("str x8, [sp, #8]; ldr x9, [sp, #8]; cbnz w1, 0x1008; ldr w0, [x9, #0x10]; ret", [WHOLE, WHOLE]),
    "overwritten": ("str x8, [sp, #8]; str x1, [sp, #8]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "overwritten-in-part": ("str x8, [sp, #8]; strb w1, [sp, #15]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "overwritten-by-a-pair": ("str x8, [sp, #8]; stp x1, x2, [sp]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "loaded-as-a-pair": ("str x8, [sp, #8]; ldp x9, x10, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "stack-moved": ("str x8, [sp, #8]; sub sp, sp, #16; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "on-one-way-only": ("cbz x2, 0x100c; str x8, [sp, #8]; ldr x9, [sp, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "elsewhere": ("str x8, [x2, #8]; ldr x9, [x2, #8]; ldr w0, [x9, #0x10]; ret", [PARTIAL]),
    "elsewhere-unscaled": ("stur x8, [x2, #1]; ldr w0, [x8, #0x10]; ret", [PARTIAL, WHOLE, WHOLE]),
    "elsewhere-beside-a-whole-at-its-start": ("str x8, [x2, #8]; ldr w0, [x8]; ret", [PARTIAL, (0x5000, Use.DATA), (0x5000, Use.DATA)]),
}


@pytest.mark.parametrize("name", SPILLS)
def test_a_page_that_is_kept_on_the_stack(name: str):
    text, expected = SPILLS[name]
    assert page_uses(text) == expected


JOINS = {
    "certain-elsewhere": ("ldr w1, [x8, #0x10]; cbnz w1, 0x1014; mov x8, x2; bl 0x2000; add x0, x8, #0x10; ret", [WHOLE, WHOLE]),
    "certain-elsewhere-and-again": (
        "ldr w1, [x8, #0x10]; cbnz w1, 0x1014; mov x8, x2; bl 0x2000; add x0, x8, #0x10; bl 0x2000; ldr w0, [x8, #0x10]; ret",
        [WHOLE, WHOLE],
    ),
    "saved-behind-a-trap": ("ldr w1, [x8, #0x10]; cbnz w1, 0x1010; ret; brk #1; stp x8, x9, [sp, #-16]!; ret", [WHOLE]),
    "saved-behind-another-trap": ("ldr w1, [x8, #0x10]; cbnz w1, 0x1010; ret; brk #0xf000; stp x8, x9, [sp, #-16]!; ret", [WHOLE, PARTIAL]),
    "read-behind-a-trap": ("ldr w1, [x8, #0x10]; brk #1; ldr w0, [x8, #0x20]; ret", [WHOLE, PARTIAL]),
    "certain-elsewhere-read-behind-a-trap": ("ldr w1, [x8, #0x10]; brk #1; ldr w0, [x8, #0x10]; ret", [WHOLE, WHOLE]),
    "on-the-way-without-a-call": (
        "ldr w1, [x8, #0x10]; cbnz w1, 0x1014; mov x8, x2; bl 0x2000; add x0, x8, #0x20; ret",
        [WHOLE, (0x5020, Use.DATA), (0x5020, Use.DATA)],
    ),
    "on-the-way-through-a-call": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x1018; ldr x8, [x2]; b 0x101c; nop; bl 0x2000; ldr w0, [x8, #0x20]; ret",
        [WHOLE],
    ),
    "on-the-way-through-a-call-by-a-register": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x1018; blr x3; mov x8, x0; b 0x101c; bl 0x2000; ldr w0, [x8, #0x20]; ret",
        [WHOLE],
    ),
    "on-the-way-through-a-call-and-a-copy": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x101c; bl 0x2000; mov x8, x0; b 0x1024; nop; bl 0x2000; nop; ldr w0, [x8, #0x20]; ret",
        [WHOLE],
    ),
    "on-the-way-through-a-call-read-where-it-is-certain-elsewhere": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x1018; ldr x8, [x2]; b 0x101c; nop; bl 0x2000; ldr w0, [x8, #0x10]; ret",
        [WHOLE],
    ),
    "something-unknown-on-the-other-way": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x1018; ldr x8, [sp]; b 0x101c; nop; bl 0x2000; ldr w0, [x8, #0x20]; ret",
        [WHOLE, PARTIAL],
    ),
    "on-two-ways-without-calls": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x1018; ldr x8, [x2]; b 0x101c; nop; mov w1, #0; ldr w0, [x8, #0x20]; ret",
        [WHOLE, PARTIAL],
    ),
    "on-two-ways-through-calls": (
        "ldr w1, [x8, #0x10]; cbz w1, 0x101c; cbz w2, 0x1020; ldr x8, [x2]; bl 0x2000; b 0x1020; bl 0x2000; ldr w0, [x8, #0x20]; ret",
        [WHOLE, PARTIAL],
    ),
    "of-two-pages": (
        "ldr w1, [x8, #0x10]; cbnz w1, 0x1014; adrp x8, 0x6000; bl 0x2000; add x0, x8, #0x20; ret",
        [WHOLE, PARTIAL, (0x6000, Use.PARTIAL)],
    ),
    "never-read": ("ldr w1, [x8, #0x10]; cbnz w1, 0x1014; mov x8, x2; bl 0x2000; mov w0, #1; ret", [WHOLE]),
}


CHOICES = {
    "not-taken": ("csel x8, x2, x8, hi; b.hi 0x1018; add x0, x8, #0x20; ret", [WHOLE, (0x5020, Use.DATA), (0x5020, Use.DATA)]),
    "not-taken-the-other-way-round": (
        "csel x8, x8, x2, ls; b.hi 0x1018; add x0, x8, #0x20; ret",
        [WHOLE, (0x5020, Use.DATA), (0x5020, Use.DATA)],
    ),
    "taken": ("csel x8, x8, x2, hi; b.hi 0x1018; ret; add x0, x8, #0x20; ret", [WHOLE, (0x5020, Use.DATA), (0x5020, Use.DATA)]),
    "into-another-register": ("csel x9, x2, x8, eq; b.eq 0x1018; add x0, x9, #0x20; ret", [WHOLE, (0x5020, Use.DATA), (0x5020, Use.DATA)]),
    "overwritten-on-that-way": ("csel x8, x2, x8, hi; b.hi 0x1018; mov x8, x3; str x8, [x1]; ret", [WHOLE]),
    "stored-on-that-way": ("csel x8, x2, x8, hi; b.hi 0x1018; str x8, [x1]; mov x0, #1; ret", [WHOLE, PARTIAL]),
    "by-another-condition": ("csel x8, x2, x8, hi; b.eq 0x1018; mov x8, x3; str x8, [x1]; ret", [WHOLE, PARTIAL]),
    "with-something-between": ("csel x8, x2, x8, hi; mov x3, x4; b.hi 0x101c; mov x8, x3; str x8, [x1]; ret", [WHOLE, PARTIAL]),
}
"""What becomes of a page that a conditional select takes or not, where the branch behind it tells which."""


@pytest.mark.parametrize("name", CHOICES)
def test_a_page_that_is_selected_by_what_a_branch_goes_by(name: str):
    text, expected = CHOICES[name]
    assert page_uses("ldr w1, [x8, #0x10]; cmp w1, w3; " + text) == expected


@pytest.mark.parametrize("name", JOINS)
def test_a_page_on_one_of_two_ways(name: str):
    """A call that never returns leaves a way that no run takes; where the page is read behind it, the address must not be lost."""
    text, expected = JOINS[name]
    assert page_uses(text) == expected


FRAMES = {
    "makes-one": ("stp x19, x30, [sp, #-32]!", False),
    "makes-one-by-a-sum": ("sub sp, sp, #32", False),
    "has-one": ("stp x19, x30, [sp, #16]", True),
}


@pytest.mark.parametrize("name", FRAMES)
def test_an_argument_on_the_other_way(name: str):
    """What a function is called with is no page; code without a frame of its own may be a part of another function."""
    first, escapes = FRAMES[name]
    text = "; mov x19, x0; cbz x1, 0x1018; adrp x19, 0x5000; add x1, x19, #0x10; bl 0x2000; ldr w0, [x19, #0x10]; add x1, x19, #0x20; ret"
    references = ARM64.references(assemble(Machine.ARM64, first + text, BASE), BASE)
    uses = [(one.target, one.use) for one in references if one.kind is K.PAGEBASE_REL21]
    assert uses == ([WHOLE, PARTIAL] if escapes else [WHOLE])


def test_literals_behind_a_table_are_no_instructions():
    """MSVC puts a switch's table behind the function's code and 64-bit literals behind that; the words of one may look like a branch."""
    code = struct.pack("<6I", 0x58000081, RET, 0x94000010, 0x94000010, 0x17EEF2FC, 0x00003DE0)
    found = ARM64.references(code, 0x1000, holes=[(0x1008, 0x1010)])
    assert [(one.offset, one.kind, one.target) for one in found] == [(0, K.LITERAL19, 0x1010)]
