"""Functions of the same bytes that refer to something else, as only what they do with an address shows."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.listing import Listings
from hotpatch.image import Datum, DatumSource
from tests.builder.test_reaches import INDEXED, RETURNS, reaches, reads
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.image import Image

each_machine = pytest.mark.parametrize("machine", Machine)
END = RDATA + 0x110
TAKERS = {
    "back": {Machine.X64: "8b41fc", Machine.ARM64: "00c05fb8"},  # mov eax, [rcx - 4]; ldur w0, [x0, #-4]
    "onward": {Machine.X64: "8b01", Machine.ARM64: "000040b9"},  # mov eax, [rcx]; ldr w0, [x0]
    "both": {Machine.X64: "8b41fc0301", Machine.ARM64: "01c05fb8000040b9"},
    "by-an-index": {Machine.X64: "8b0491", Machine.ARM64: "007861b8"},  # mov eax, [rcx + rdx*4]; ldr w0, [x0, x1, lsl #2]
    "back-by-an-index": {  # from zero down; [rcx + r8*2 - 2], [x0 - 2 + x8*2]
        Machine.X64: "4531c0420fb74441fe4983c0ff",
        Machine.ARM64: "080080d2090800d120796878080500d1",
    },
    "onward-by-an-index": {  # the same from one up
        Machine.X64: "41b801000000420fb74441fe4983c001",
        Machine.ARM64: "280080d2090800d12079687808050091",
    },
    "the-second": {Machine.X64: "8b02", Machine.ARM64: "200040b9"},  # mov eax, [rdx]; ldr w0, [x1]
    "up-to-the-second": {Machine.X64: "8b01483bca", Machine.ARM64: "000040b91f0001eb"},  # … and cmp rcx, rdx; cmp x0, x1
    "only-the-first": {Machine.X64: "8b01ba01000000", Machine.ARM64: "000040b921008052"},  # and mov edx, 1; mov w1, #1
    "before-the-second": {Machine.X64: "8b42fc", Machine.ARM64: "20c05fb8"},
    "not-at-all": {Machine.X64: "488bc1", Machine.ARM64: "e00300aa"},
}


def named(image: Image, data: dict[str, tuple[int, int]]) -> Image:
    """The same image as if a PDB named data: name → RVA and size."""
    rows = sorted((Datum(Rva(rva), size, name, DatumSource.PDB) for name, (rva, size) in data.items()), key=lambda item: item.rva)
    found = type(image).from_bytes(image.data, image.name)
    found.__dict__.update({"pdb_path": Path("a.pdb"), "data_symbols": tuple(rows), "_source_lines": ((), ())})
    return found


def handing(machine: Machine, taker: str, numbers: bytes, data: dict[str, tuple[int, int]], way: str = "call") -> Image:
    """``f`` hands ``g`` the address at which 16 bytes of ``numbers`` end and others begin; ``g`` does what ``taker`` says.

    It calls it, or goes there for good (``jump``), or calls another that does (``thunk``).
    """
    pe, arch = Pe(machine), architecture(machine)
    pe.cursor = RDATA + 0x800
    pe.put(END - 16, numbers)
    pe.put(END, bytes(range(1, 17)))
    if machine is Machine.X64:
        code = b"\x48\x8d\x0d" + arch.bind(FixupKind.REL32, bytes(4), TEXT + 3, END)
        code += (b"\xe9" if way == "jump" else b"\xe8") + struct.pack("<i", (0x80 if way == "thunk" else 0x40) - 12) + b"\xc3"
        pe.put(TEXT + 0x80, b"\xe9" + struct.pack("<i", -0x45))
    else:
        page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000), TEXT, END)
        code = page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000), TEXT + 4, END)
        code += struct.pack("<I", (0x14000000 if way == "jump" else 0x94000000) | ((0x80 if way == "thunk" else 0x40) - 8) // 4)
        code += RETURNS[machine]
        pe.put(TEXT + 0x80, struct.pack("<I", 0x17FFFFF0))
    pe.put(TEXT, code)
    pe.put(TEXT + 0x40, bytes.fromhex(TAKERS[taker][machine]) + RETURNS[machine])
    pe.exports("ends.dll", [("f", TEXT), ("g", TEXT + 0x40)])
    return named(pe.build("ends.dll"), data)


def row_of(diff: ImageDiff, name: str = "f") -> FunctionMatch:
    return next(row for row in diff.functions if row.name == name)


SYMBOLS = {"numbers": (END - 16, 16), "others": (END, 16)}


@each_machine
@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("content", ["same", "other"])
def test_the_end_of_a_constant_with_a_name_is_meant_where_what_gets_it_goes_back(machine, taker, content) -> None:
    numbers = bytes(range(50, 66)), bytes(range(50, 66)) if content == "same" else bytes(range(70, 86))
    diff = diff_images(*(handing(machine, taker, one, SYMBOLS) for one in numbers))
    row, differs = row_of(diff), taker.startswith("back") and content == "other"
    assert (row.verdict is Verdict.CHANGED) == differs
    assert row_of(diff, "g").verdict is not Verdict.CHANGED
    if differs:
        assert [note for note in row.notes if "takes the end of numbers" in note]
        (line,) = [line for line in Listings(diff).of(row).lines if line.kind != "same"]
        assert line.fixed_rva == row.elsewhere.fixed
        assert line.fixed.endswith("(it takes the end of numbers, which is another one than in the base)")


@each_machine
@pytest.mark.parametrize("taker", ["back", "onward"])
@pytest.mark.parametrize("way", ["jump", "thunk"])
def test_the_end_of_a_constant_is_meant_where_what_gets_it_for_good_goes_back(machine, way, taker) -> None:
    diff = diff_images(*(handing(machine, taker, bytes(range(first, first + 16)), SYMBOLS, way) for first in (50, 70)))
    assert (row_of(diff).verdict is Verdict.CHANGED) == (taker == "back")


@each_machine
def test_what_ends_before_the_address_is_not_meant(machine) -> None:
    numbers = bytes(range(50, 66)), bytes(range(70, 86))
    symbols = {"numbers": (END - 16, 12), "others": (END, 16)}
    diff = diff_images(*(handing(machine, "back", one, symbols) for one in numbers))
    assert row_of(diff).verdict is not Verdict.CHANGED


START = DATA + 0x100


def goes_to_an_import(machine: Machine, at: int, slot: int, *, loads: bool) -> bytes:
    """A tail call: through the slot itself (x64), or where it ``loads`` it, through a register."""
    arch = architecture(machine)
    if machine is Machine.X64:
        code = b"\x48\x8b\x05" if loads else b"\xff\x25"  # mov rax, [rip + …]; jmp [rip + …]
        return code + arch.bind(FixupKind.REL32, bytes(4), at + len(code), slot) + (b"\xff\xe0" if loads else b"")
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, slot)
    load = arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", 0xF9400108), at + 4, slot)
    return page + load + struct.pack("<I", 0xD61F0100)  # br x8


def reaching(
    machine: Machine,
    places: dict[str, int],
    data: dict[str, int] | None,
    *,
    walks: bool = False,
    indexed: bool = False,
    loads: bool | None = None,
) -> Image:
    """``f`` takes the address of ``first`` and loads what is 16 bytes behind it; others read each of the data, at ``places`` from it.

    ``loads``: where given, ``f`` ends in a tail call of an import, see :func:`goes_to_an_import`.
    """
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    code = reaches(machine, TEXT, START, 16, changed=False, walks=walks, indexed=indexed)
    if loads is not None:
        code = code.removesuffix(RETURNS[machine])
        code += goes_to_an_import(machine, TEXT + len(code), pe.imports({"other.dll": ["other"]})["other"], loads=loads)
    pe.put(TEXT, code)
    entries = [("f", TEXT)]
    for number, (name, place) in enumerate(places.items(), 1):
        at = TEXT + 0x40 * number
        pe.put(at, reads(machine, at, START + place, number))
        entries.append((f"reads_{name}", at))
    pe.exports("reach.dll", entries)
    image = pe.build("reach.dll")
    return image if data is None else named(image, {name: (START + place, 8) for name, place in data.items()})


ORDER = {"first": 0, "second": 8, "third": 16, "fourth": 24}
SWAPPED = {"first": 0, "second": 16, "third": 8, "fourth": 24}


@each_machine
@pytest.mark.parametrize("pdb", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize(
    ("places", "form", "differs"),
    [
        (ORDER, {}, False),
        (SWAPPED, {}, True),
        (SWAPPED, {"indexed": True}, False),
        (SWAPPED, {"walks": True}, True),
        (SWAPPED, {"loads": False}, True),
        (SWAPPED, {"loads": True}, True),
    ],
    ids=["in-place", "swapped", "by-an-index", "walked-besides", "before-a-tail-call", "before-one-through-a-register"],
)
def test_another_datum_at_the_same_distance(machine, pdb, places, form, differs) -> None:
    """The code is the same, but what it reaches changed places with what is next to it, as names or those say who read it."""
    diff = diff_images(*(reaching(machine, one, one if pdb else None, **form) for one in (ORDER, places)))
    row = row_of(diff)
    assert (row.verdict is Verdict.CHANGED) == differs
    assert all(one.verdict is not Verdict.CHANGED for one in diff.functions if one is not row)
    if differs:
        why = (
            "reaches second at the distance at which it reached third"
            if pdb
            else f"reaches what is at 0x{START + 16:x}, which is another one than in the base"
        )
        assert row.elsewhere.why == why
        (line,) = [line for line in Listings(diff).of(row).lines if line.kind != "same"]
        assert line.fixed_rva == row.elsewhere.fixed
        assert line.fixed.endswith(f"(it {why})")


@each_machine
def test_the_first_of_which_a_pdb_names_tells_what_is_reached(machine) -> None:
    """Compilers leave out the names of others that they merged with it."""
    known = ({"third": 16}, {"third": 8})
    diff = diff_images(*(reaching(machine, one, data) for one, data in zip((ORDER, SWAPPED), known, strict=True)))
    assert row_of(diff).verdict is Verdict.CHANGED


def going_on(
    machine: Machine,
    distance: int,
    second: bytes,
    *,
    begins: bool,
    data: dict[str, tuple[int, int]] | None,
    pe: Pe | None = None,
    led: bool = False,
    readers: Sequence[tuple[str, int]] = (),
    taker: str = "up-to-the-second",
) -> Image:
    """``f`` makes the address of 16 bytes from that of others, ``distance`` before it, and hands it to ``g``: both, if it ``begins``.

    ``led``: ``h`` names the 16 bytes. No ``data``: no symbols. ``readers``: further functions that ``pe`` holds. ``g`` does what ``taker``
    says.
    """
    pe, arch = pe or Pe(machine), architecture(machine)
    pe.cursor = RDATA + 0x800
    pe.put(END, bytes(range(1, 13)))
    pe.put(END + distance, second)
    if machine is Machine.X64:
        code = (
            b"\x48\x8d\x0d" + arch.bind(FixupKind.REL32, bytes(4), TEXT + 3, END) + bytes([0x48, 0x8D, 0x51, distance])
        )  # lea rdx, [rcx + …]
        code += b"" if begins else b"\x33\xc9"  # xor ecx, ecx
        code += b"\xe8" + struct.pack("<i", 0x40 - len(code) - 5) + b"\xc3"
    else:
        page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000), TEXT, END)
        code = page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000), TEXT + 4, END)
        code += struct.pack("<I", 0x91000001 | distance << 10)  # add x1, x0, #…
        code += b"" if begins else struct.pack("<I", 0xD2800000)  # mov x0, #0
        code += struct.pack("<I", 0x94000000 | (0x40 - len(code)) // 4) + RETURNS[machine]
    pe.put(TEXT, code)
    pe.put(TEXT + 0x40, bytes.fromhex(TAKERS[taker][machine]) + RETURNS[machine])
    entries = [("f", TEXT), ("g", TEXT + 0x40), *readers]
    if led:
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, END + distance, 1))
        entries.append(("h", TEXT + 0x80))
    pe.exports("beyond.dll", entries)
    image = pe.build("beyond.dll")
    return named(image, data) if data is not None else image


# how far on the second constant is, whether the first is handed over too, whether the second is meant for certain
BEYOND = [
    pytest.param(16, False, True, id="with-a-gap"),
    pytest.param(16, True, True, id="with-a-gap-and-the-first"),
    pytest.param(12, False, True, id="right-behind"),
    pytest.param(12, True, False, id="where-the-first-ends"),
]


@each_machine
@pytest.mark.parametrize(("distance", "begins", "meant"), BEYOND)
@pytest.mark.parametrize("content", ["same", "other"])
@pytest.mark.parametrize("led", [False, True], ids=["alone", "named-too"])
def test_a_constant_that_is_reached_from_another(machine, distance, begins, meant, content, led) -> None:
    symbols = {"first": (END, 12), "second": (END + distance, 16)}
    sides = (b"a" * 16, b"a" * 16 if content == "same" else b"b" * 16)
    diff = diff_images(*(going_on(machine, distance, side, begins=begins, data=symbols, led=led) for side in sides))
    row, differs = row_of(diff), meant and content == "other"
    assert (row.verdict is Verdict.CHANGED) == differs
    assert row_of(diff, "g").verdict is not Verdict.CHANGED
    if differs:
        assert any("reaches second, which is another one than in the base" in note for note in row.notes)


@each_machine
@pytest.mark.parametrize(
    ("distance", "begins"), [(16, False), (12, False), (16, True)], ids=["with-a-gap", "right-behind", "may-be-an-end"]
)
@pytest.mark.parametrize("content", ["same", "other"])
def test_a_constant_that_is_reached_from_another_without_names(machine, distance, begins, content) -> None:
    """Something else leads to it, so that it is not compared with what is in front; what begins and ends an array may be handed on."""
    sides = (b"a" * 16, b"a" * 16 if content == "same" else b"b" * 16)
    diff = diff_images(*(going_on(machine, distance, side, begins=begins, data=None, led=True) for side in sides))
    changed = {row.name for row in diff.functions if row.verdict is Verdict.CHANGED}
    assert changed == (set() if content == "same" else {"h"} if begins else {"f", "h"})


@each_machine
@pytest.mark.parametrize("pdb", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize(("taker", "meant"), [("the-second", True), ("before-the-second", False), ("up-to-the-second", False)])
def test_what_gets_two_constants_that_touch_tells_whether_the_second_is_an_end(machine, pdb, taker, meant) -> None:
    symbols = {"first": (END, 12), "second": (END + 12, 16)} if pdb else None
    sides = (going_on(machine, 12, text, begins=True, data=symbols, led=True, taker=taker) for text in (b"a" * 16, b"b" * 16))
    assert {row.name for row in diff_images(*sides).functions if row.verdict is Verdict.CHANGED} == ({"f", "h"} if meant else {"h"})


@each_machine
@pytest.mark.parametrize(("taker", "meant"), [("the-second", True), ("only-the-first", False)])
def test_what_is_left_in_an_argument_register_is_not_meant(machine, taker, meant) -> None:
    """Another constant's address stays in the register of the second argument, at a call of what has only one."""
    symbols = {"first": (END, 12), "second": (END + 16, 16)}
    sides = (going_on(machine, 16, text, begins=True, data=symbols, taker=taker) for text in (b"a" * 16, b"b" * 16))
    assert {row.name for row in diff_images(*sides).functions if row.verdict is Verdict.CHANGED} == ({"f"} if meant else set())


@each_machine
@pytest.mark.parametrize("data", [{"first": (END, 12), "second": (END + 16, 16)}, None], ids=["named", "nameless"])
def test_a_text_of_a_version_that_is_reached_from_another_constant(machine, data) -> None:
    texts = (b"release 1.2.3\0\0\0", b"release 1.2.4\0\0\0")
    row = row_of(diff_images(*(going_on(machine, 16, text, begins=False, data=data, led=True) for text in texts)))
    assert (row.verdict, row.notes[0]) == (Verdict.CHANGED, "cosmetic")


@each_machine
@pytest.mark.parametrize("pdb", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize("order", ["kept", "swapped"])
def test_constants_that_have_changed_places(machine, pdb, order) -> None:
    """Each is the same as ever, and code that names one is: only what is reached from another at the same distance is not."""

    def side(places: tuple[int, int]) -> Image:
        pe, texts = Pe(machine), (b"a" * 16, b"b" * 16)
        readers = [("reads_second", TEXT + 0x80), ("reads_third", TEXT + 0xC0)]
        for number, ((_, at), place, text) in enumerate(zip(readers, places, texts, strict=True), 1):
            pe.put(at, reads(machine, at, END + place, number))
            pe.put(END + place, text)
        data = {"first": (END, 12), "second": (END + places[0], 16), "third": (END + places[1], 16)}
        return going_on(machine, 16, texts[places.index(16)], begins=False, data=data if pdb else None, pe=pe, readers=readers)

    diff = diff_images(side((16, 32)), side((16, 32) if order == "kept" else (32, 16)))
    assert {row.name for row in diff.functions if row.verdict is Verdict.CHANGED} == (set() if order == "kept" else {"f"})


@each_machine
@pytest.mark.parametrize("between", [False, True], ids=["next", "behind-another"])
def test_what_lies_behind_another_constant_is_no_end(machine, between) -> None:
    """A call gets both addresses: of 16 bytes that something refers to, and of what may end 32 bytes on, or begin behind others there."""

    def side(text: bytes) -> Image:
        pe = Pe(machine)
        pe.put(TEXT + 0xC0, reads(machine, TEXT + 0xC0, END + 16 if between else END, 3))
        return going_on(machine, 32, text, begins=True, data=None, led=True, pe=pe, readers=[("k", TEXT + 0xC0)])

    diff = diff_images(*(side(text) for text in (b"a" * 16, b"b" * 16)))
    assert {row.name for row in diff.functions if row.verdict is Verdict.CHANGED} == ({"f", "h"} if between else {"h"})


LIST = RDATA + 0x100


def listing(machine: Machine, numbers: list[int], others: tuple[int, ...]) -> Image:
    """``f`` loads from a list by an index; others read what lies at a distance from its start."""
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    pe.put(LIST, struct.pack(f"<{len(numbers)}i", *numbers))
    pe.put(TEXT, takes(machine, TEXT, LIST) + INDEXED[machine] + RETURNS[machine])
    entries = [("f", TEXT)]
    for number, place in enumerate(others, 1):
        at = TEXT + 0x40 * number
        pe.put(at, reads(machine, at, LIST + place, number))
        entries.append((f"g{number}", at))
    pe.exports("list.dll", entries)
    return pe.build("list.dll")


FIRST = [1, 2, 3, 4]


@each_machine
@pytest.mark.parametrize(
    ("base", "fixed", "differs"),
    [
        (([*FIRST, *[5] * 8, 9], (16, 48)), ([*FIRST, *[0] * 8, 9], (48, 48)), True),
        (([*FIRST, 5, 9], (24, 24)), ([*FIRST, 0, 5, 9], (28, 28)), True),
        (([1, 2, 3, 9], (12, 12)), ([1, 2, 3, 0, 9], (16, 16)), False),
    ],
    ids=["zeros-instead", "a-zero-more", "alignment"],
)
def test_zeros_that_alignment_does_not_explain(machine, base, fixed, differs) -> None:
    """Without names, what lies up to the next thing that code refers to is compared, wherever that begins in the other image."""
    diff = diff_images(*(listing(machine, *one) for one in (base, fixed)))
    assert (row_of(diff).verdict is Verdict.CHANGED) == differs


@each_machine
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)], ids=["one-more", "one-less"])
@pytest.mark.parametrize("what", ["functions", "texts"])
def test_a_table_of_pointers_with_another_number_of_them(machine, counts, what) -> None:
    """A pointer is no zeros, and the last of a table belongs to it."""
    images = []
    for count in counts:
        pe, end = Pe(machine), LIST + 8 + 8 * count
        pe.cursor = RDATA + 0x800
        pe.put(TEXT, takes(machine, TEXT, LIST) + INDEXED[machine] + RETURNS[machine])
        for number, place in enumerate((end, end + 8), 1):
            pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, place, number))
        for number in range(count):
            pe.pointer(LIST + 8 + 8 * number, TEXT + 0x40 + 0x40 * number if what == "functions" else RDATA + 0x600 + 8 * number)
        if what == "texts":
            pe.put(RDATA + 0x600, b"text a\0\0text b\0\0")
        pe.exports("pointers.dll", [("f", TEXT), ("g1", TEXT + 0x40), ("g2", TEXT + 0x80)])
        images.append(pe.build("pointers.dll"))
    diff = diff_images(*images)
    assert {row.name: row.verdict is Verdict.CHANGED for row in diff.functions} == {"f": True, "g1": False, "g2": False}


@each_machine
@pytest.mark.parametrize("named_configuration", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize(("field", "differs"), [(0x18, True), (0x20, False)], ids=["this-field", "another-field"])
def test_a_field_of_the_load_configuration_read_from_where_it_begins(machine, named_configuration, field, differs) -> None:
    images = []
    for value in (1, 2):
        pe = Pe(machine)
        pe.load_configuration(cookie=DATA + 0x10, check=RDATA + 0x700, dispatch=RDATA + 0x708)
        pe.cursor = max(pe.cursor, RDATA + 0x800)
        start, size = pe.directories["load_config"]
        pe.put(start + field, struct.pack("<I", value))
        code = takes(machine, TEXT, start)
        code += b"\x8b\x40\x18" if machine is Machine.X64 else struct.pack("<I", 0xB9401800)  # mov eax, [rax + 0x18]; ldr w0, [x0, #0x18]
        pe.put(TEXT, code + RETURNS[machine])
        pe.exports("fields.dll", [("f", TEXT)])
        image = pe.build("fields.dll")
        images.append(named(image, {"_load_config_used": (start, size)}) if named_configuration else image)
    assert (row_of(diff_images(*images)).verdict is Verdict.CHANGED) == differs


DOWN = {
    Machine.X64: bytes.fromhex("03104883e804ffc975f6c3"),  # add edx, [rax]; sub rax, 4; dec ecx; jne; ret
    Machine.ARM64: struct.pack("<IIII", 0xB85FC409, 0x0B090042, 0xF1000421, 0x54FFFFA1) + RETURNS[Machine.ARM64],  # ldr w9, [x0], #-4; …
}


@each_machine
@pytest.mark.parametrize("first", [1, 9])
def test_a_loop_that_begins_with_the_last_of_an_array(machine, first) -> None:
    """Without names, nothing but the loop leads to the others."""
    images = []
    for number in (1, first):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        pe.put(LIST, struct.pack("<4i", number, 2, 3, 4) + bytes(range(1, 17)))
        pe.put(TEXT, takes(machine, TEXT, LIST + 12) + DOWN[machine])
        pe.put(TEXT + 0x40, reads(machine, TEXT + 0x40, LIST + 16, 1))
        pe.exports("down.dll", [("f", TEXT), ("g", TEXT + 0x40)])
        images.append(pe.build("down.dll"))
    diff = diff_images(*images)
    assert {row.name: row.verdict is Verdict.CHANGED for row in diff.functions} == {"f": first != 1, "g": False}


@each_machine
@pytest.mark.parametrize("text", [b"old text", b"new text"])
def test_a_constant_that_is_reached_so_leads_to_something_else(machine, text) -> None:
    """Its own bytes are the same but for where its pointer leads."""
    images = []
    for content in (b"old text", text):
        pe = Pe(machine)
        pe.put(RDATA + 0x600, content + bytes(8))
        pe.pointer(END + 16, RDATA + 0x600)
        symbols = {"first": (END, 10), "second": (END + 16, 16), "text": (RDATA + 0x600, 9)}
        images.append(going_on(machine, 16, b"", begins=False, data=symbols, pe=pe))
    row = row_of(diff_images(*images))
    assert (row.verdict is Verdict.CHANGED) == (text == b"new text")
