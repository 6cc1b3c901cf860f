"""What makes a number a line number, and a text one of a version or date; what must never be taken for either."""

import struct

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ.cosmetic import Number, Parameter, are_lines
from hotpatch.differ.texts import differ_in_provenance, version_numbers, versions
from tests.emulator.pe import TEXT, Pe

PROVENANCE = (
    ("3.53.0", "3.53.1"),
    ("codec 1.2.3 (stable)", "codec 1.3.0 (stable)"),
    ("_cython_3_1_1", "_cython_3_1_4"),
    ("_cython_3_1_1.cython_function_or_method", "_cython_3_1_4.cython_function_or_method"),
    ("_cython_3_1_1._common_types_metatype", "_cython_3_1_4._common_types_metatype"),
    ("_cython_3_1_2._common_types_metatype", "_cython_3_1_4._common_types_metatype"),
    ("built Apr  9 2026 11:41:38", "built May 15 2026 10:34:17"),
    ("2026-04-09 11:41:38 4525003a53a7fc63ca75", "2026-05-05 10:34:17 c88b22011a54b4f6fbd1"),
    ("version 1.4", "version 1.5"),
    ("1.0.0rc1", "1.0.0rc2"),
    (r"C:\Users\RUNNER~1\Temp\.tmp-13k2ep66\src\codec.c", r"D:\b\src\codec.c"),
    ("/rustc/4d91de4e/library/core/src/str.rs", "/rustc/17067e9a/library/core/src/str.rs"),
    ("failed: C:/a b/codec.cpp, line 12", "failed: C:/c/codec.cpp, line 12"),
)
FUNCTIONAL = (
    ("same 1.2.3", "same 1.2.3"),
    ("limit 64", "limit 32"),
    ("0.5", "0.7"),
    ("%5.2f", "%6.2f"),
    ("127.0.0.1", "10.0.0.1"),
    ("HTTP/1.0", "HTTP/1.1"),
    ("1.3.6.1.4", "1.3.6.1.5"),
    ("4525003a53a7fc63ca75", "c88b22011a54b4f6fbd1"),
    ("codec 1.2.3", "codecs 1.2.4"),
    ("layer_1_2_3", "layer_1_2_4"),
    ("_cython_3_1_1", "_cython_3_1_4_limited"),
    ("_cython_3_1", "_cython_3_2"),
    ("1.2.3 at most 5", "1.2.4 at most 6"),
    (r"C:\a\codec.c", r"C:\a\coder.c"),
    (r"C:\a\codec.dll", r"C:\b\codec.dll"),
    ("src/one/codec.c", "src/two/codec.c"),
    ("https://one/a/codec.c", "https://two/a/codec.c"),
    ("C:/a/codec.c: 5", "C:/b/codec.c: 6"),
)
PARAMETER = frozenset([Parameter(0x9000, "rcx")])


def numbers(pairs):
    return [Number(0x1000 + 64 * place, 0x1010 + 64 * place, old, new, PARAMETER) for place, (old, new) in enumerate(pairs)]


@pytest.mark.parametrize("texts", PROVENANCE)
def test_texts_of_versions_and_dates(texts):
    assert differ_in_provenance(*texts)
    assert differ_in_provenance(*texts[::-1])


@pytest.mark.parametrize("texts", FUNCTIONAL)
def test_texts_that_may_mean_something(texts):
    assert not differ_in_provenance(*texts)


def test_numbers_of_a_version():
    old, new = versions("lib 3.53.0", "lib 3.53.1")
    assert version_numbers(old)[0] == 3_053_000
    assert version_numbers(new) == (3_053_001, 35_301, 3 << 16 | 53 << 8 | 1)


LINES = {
    "all-moved-alike": [(line, line + 29) for line in (1001, 1020, 1077, 1301, 1500, 1717)],
    "two-insertions": [
        (11, 11),
        (40, 40),
        *((line, line + 3) for line in (101, 120, 177)),
        *((line, line + 8) for line in (301, 500, 717)),
    ],
    "one-inlined-copy-out-of-order": [(line, line + 5) for line in (101, 120, 177, 301, 110, 500, 717, 800, 901)],
}
OTHERS = {
    "too-few": [(line, line + 29) for line in (1001, 1020, 1077, 1301, 1500)],
    "sizes": [(size, size + 16) for size in (64, 80, 128, 160, 192, 256, 320)],
    "one-limit-in-many-places": [(65, 33)] * 9,
    "one-value-that-moved-here-and-stayed-there": [(line, line + 29) for line in (1001, 1020, 1077, 1301, 1500, 1717)] + [(1077, 1077)],
    "order-not-kept": [(101, 131), (103, 133), (107, 90), (109, 139), (113, 143), (127, 157), (131, 161)],
    "each-moved-by-another-amount": [(101, 102), (203, 207), (307, 331), (409, 500), (513, 700), (627, 900), (731, 1300)],
    "addresses-say-nothing": [(line, line + 29) for line in (1717, 1001, 1500, 1020, 1301, 1077, 1033)],
    "too-large": [(line, line + 29) for line in (1001, 1020, 1077, 1301, 1500, 0xC8952E00)],
}


@pytest.mark.parametrize("name", LINES)
def test_lines(name):
    assert are_lines(numbers(LINES[name]))


@pytest.mark.parametrize("name", OTHERS)
def test_other_numbers(name):
    assert not are_lines(numbers(OTHERS[name]))


LINKED, NEXT_LINKED = 1_772_000_000, 1_779_000_000
DAY = 86_400


def stamped(machine, number, linked, *, is_hash=False):
    """``built`` gives a number of 32 bits; the header says when the image was linked, or has a hash (``IMAGE_DEBUG_TYPE_REPRO``)."""
    pe = Pe(machine, time_date_stamp=linked)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x100)
    loads = f"mov eax, {number}" if machine is Machine.X64 else f"mov w0, #{number & 0xFFFF}; movk w0, #{number >> 16}, lsl #16"
    pe.put(TEXT + 0x20, assemble(machine, f"{loads}; ret", TEXT))
    pe.exports("stamped.dll", [("built", TEXT + 0x20)])
    if is_hash:
        pe.directories["debug"] = (pe.add(struct.pack("<IIHHIIII", 0, linked, 0, 0, 16, 0, 0, 0)), 28)
    return pe.build("stamped.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("old", "new", "headers", "is_cosmetic"),
    [
        (LINKED, NEXT_LINKED, {}, True),
        (LINKED - DAY, NEXT_LINKED - 12, {}, True),
        (LINKED + 1, NEXT_LINKED, {}, False),
        (LINKED, NEXT_LINKED + 1, {}, False),
        (LINKED - DAY - 1, NEXT_LINKED, {}, False),
        (LINKED, NEXT_LINKED - DAY - 1, {}, False),
        (NEXT_LINKED, LINKED, {}, False),
        (LINKED, NEXT_LINKED, {"is_hash": True}, False),
        (0, 5, {"linked": (0, 0)}, False),
        (5, 6, {"linked": (0x1234, 0x1235)}, False),
    ],
    ids=[
        "linked",
        "compiled-before",
        "after",
        "fixed-after",
        "long-before",
        "fixed-long-before",
        "other-images",
        "hash",
        "no-time",
        "no-date",
    ],
)
def test_a_time_stamp_is_from_the_day_before_its_own_image_was_linked(machine, old, new, headers, is_cosmetic):
    is_hash, linked = headers.get("is_hash", False), headers.get("linked", (LINKED, NEXT_LINKED))
    images = [stamped(machine, number, at, is_hash=is_hash) for number, at in zip((old, new), linked, strict=True)]
    diff = hotpatch.diff(*images)
    (row,) = diff.functions
    assert (row.verdict.value, row.is_cosmetic) == ("changed", is_cosmetic)
    assert [image.linked_at for image in images] == [None if is_hash or not at else at for at in linked]
    if is_cosmetic:
        with pytest.raises(hotpatch.NothingToDo):
            hotpatch.build(diff)
        assert [one.name for one in hotpatch.build(diff, only=["built"]).functions] == ["built"]
