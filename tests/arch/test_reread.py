"""Code is read again by an outline only where that is sure to give what decoding gives."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine, Outline, Outlines, architecture

X64, ARM64 = architecture(Machine.X64), architecture(Machine.ARM64)
BASE, ELSEWHERE = 0x140001000, 0x180005000


def rel32(opcode: str, distance: int) -> bytes:
    return bytes.fromhex(opcode) + struct.pack("<i", distance)


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def adrp(register: int, pages: int) -> int:
    return 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | register


def add(register: int, low: int) -> int:
    return 0x91000000 | low << 10 | register << 5 | register


def load(register: int, low: int) -> int:
    return 0xF9400000 | low // 8 << 10 | register << 5 | register


RET = 0xD65F03C0

AGREE = {
    "x64 call and data": (
        X64,
        rel32("e8", 0x100) + rel32("488b05", 0x3000) + b"\xc3",
        rel32("e8", -0x700) + rel32("488b05", 0x9000) + b"\xc3",
    ),
    "x64 short branch inside": (
        X64,
        bytes.fromhex("7405") + rel32("e8", 0x50) + b"\xc3",
        bytes.fromhex("7405") + rel32("e8", 0x77) + b"\xc3",
    ),
    "arm64 two pages": (
        ARM64,
        words(adrp(0, 3), add(0, 0x10), adrp(1, 4), load(1, 0x20), RET),
        words(adrp(0, 9), add(0, 0x14), adrp(1, 2), load(1, 0x28), RET),
    ),
    "arm64 page used as it is": (ARM64, words(adrp(0, 3), RET), words(adrp(0, 7), RET)),
}
DIFFER = {
    "x64 call that leads into the code": (X64, rel32("e8", 0x100) + b"\x90\xc3", rel32("e8", 0) + b"\x90\xc3"),
    "arm64 pages that were one": (
        ARM64,
        words(adrp(0, 3), add(0, 8), adrp(1, 3), add(1, 8), RET),
        words(adrp(0, 3), add(0, 8), adrp(1, 4), add(1, 8), RET),
    ),
    "arm64 pages that become one": (
        ARM64,
        words(adrp(0, 3), add(0, 8), adrp(1, 4), add(1, 8), RET),
        words(adrp(0, 3), add(0, 8), adrp(1, 3), add(1, 8), RET),
    ),
    "arm64 one page's two uses part": (
        ARM64,
        words(adrp(0, 3), 0x91002001, 0xF9400402, RET),
        words(adrp(0, 3), 0x91002001, 0xF9400802, RET),
    ),
}


@pytest.mark.parametrize("case", AGREE)
def test_reads_what_decoding_finds(case):
    arch, code, other = AGREE[case]
    outline = Outline.of(arch, code, BASE, arch.references(code, BASE))
    assert arch.is_exemplary(outline)
    assert Outlines(arch, [outline]).find(other, ELSEWHERE) is outline
    leads = arch.reread(outline, other, ELSEWHERE)
    decoded = Outline.of(arch, other, ELSEWHERE, arch.rows(other, ELSEWHERE))
    assert leads == decoded.leads
    assert (outline.forms, outline.inner, outline.masked) == (decoded.forms, decoded.inner, decoded.masked)


@pytest.mark.parametrize("case", DIFFER)
def test_leaves_to_decoding_what_relates_otherwise(case):
    arch, code, other = DIFFER[case]
    outline = Outline.of(arch, code, BASE, arch.references(code, BASE))
    assert Outlines(arch, [outline]).find(other, BASE) is outline
    assert arch.reread(outline, other, BASE) is None


@pytest.mark.parametrize(
    ("arch", "code"),
    [
        pytest.param(X64, bytes.fromhex("ffe0"), id="x64 jump through a register"),
        pytest.param(X64, rel32("488d05", -0x1007) + b"\xc3", id="x64 image base"),
        pytest.param(ARM64, words(0x10000040, 0xB8607801, 0x8B010000, 0xD61F0000), id="arm64 jump through a table"),
    ],
)
def test_no_example_where_more_than_the_code_decides(arch, code):
    assert not arch.is_exemplary(Outline.of(arch, code, 0x1000, arch.references(code, 0x1000)))


def test_the_image_base_is_left_to_decoding():
    code = rel32("488d05", 0x2000) + b"\xc3"
    outline = Outline.of(X64, code, 0x1000, X64.references(code, 0x1000))
    assert X64.is_exemplary(outline)
    assert X64.reread(outline, rel32("488d05", -0x1007) + b"\xc3", 0x1000) is None


def test_outlines_are_found_by_what_they_keep():
    code = rel32("e8", 0x100) + b"\x90\xc3"
    outline = Outline.of(X64, code, BASE, X64.references(code, BASE))
    for address in (BASE, ELSEWHERE):
        known = Outlines(X64, [outline])
        assert known.find(rel32("e8", 0x999) + b"\x90\xc3", address) is outline
        assert known.find(rel32("e8", 0x999) + b"\xcc\xc3", address) is None
        assert known.find(rel32("e8", 0x999) + b"\x90", address) is None


def test_outlines_may_come_one_after_the_other():
    short, long = (Outline.of(X64, code, BASE, X64.references(code, BASE)) for code in (b"\xc3", rel32("e8", 0x100) + b"\xc3"))
    known = Outlines(X64)
    assert known.find(short.code, ELSEWHERE) is None
    known.add(short, BASE)
    assert known.find(short.code, ELSEWHERE) is short
    assert known.find(long.code, ELSEWHERE) is None
    known.add(long, BASE)
    known.add(Outline.of(X64, long.code, ELSEWHERE, X64.references(long.code, ELSEWHERE)), ELSEWHERE)
    assert known.find(rel32("e8", 0x999) + b"\xc3", 0x1000) is long, "the first of those that are alike"


def test_of_outlines_that_are_alike_the_one_in_the_expected_place_is_found():
    code = rel32("e8", 0x100) + b"\x90\xc3"
    unlike = code + b"\xcc"
    outlines = [Outline.of(X64, code, BASE + at, X64.references(code, BASE + at)) for at in (0, 0x10, 0x20)]
    outlines.append(Outline.of(X64, unlike, BASE + 0x30, X64.references(unlike, BASE + 0x30)))
    known = Outlines(X64, outlines)
    other = rel32("e8", 0x999) + b"\x90\xc3"
    assert known.find(other, BASE + 0x20) is outlines[2]
    assert known.find(other, BASE + 0x1010) is outlines[0], "nothing tells how far code moved"
    assert known.find(rel32("e8", 0x999) + b"\x90\xc3\xcc", BASE + 0x1030) is outlines[3]
    assert known.find(other, BASE + 0x1010) is outlines[1], "as far as the code before it"
