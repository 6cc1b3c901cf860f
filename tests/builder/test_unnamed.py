"""Live data that PDBs leave out, whose address code takes: compilers name only the first of those that they put together."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reaches, reads
from tests.builder.test_type_records import takes
from tests.differ.test_elsewhere import TAKERS, named
from tests.emulator.pe import DATA, RDATA, RELOC, TEXT, Pe

START, TAKEN = DATA + 0x100, DATA + 0x128
AS_IT_WAS = {"first": 0, "second": 0x28, "third": 0x30}
LAID = {
    "as-it-was": (AS_IT_WAS, True),
    "what-is-behind-moved": ({**AS_IT_WAS, "third": 0x38}, False),
    "what-is-before-moved-though-it-is-far": ({**AS_IT_WAS, "first": -8}, False),
    "changed-places-with-what-is-behind": ({**AS_IT_WAS, "second": 0x30, "third": 0x28}, False),
}


def put_readers(pe: Pe, machine: Machine, places: dict[str, int], first: int) -> list[tuple[str, int]]:
    """Functions that read one of the data each, by distances from ``START``: from the slot ``first`` on, of 0x40 bytes each."""
    entries = [(f"reads_{name}", TEXT + 0x40 * number) for number, name in enumerate(places, first)]
    for number, ((_, at), place) in enumerate(zip(entries, places.values(), strict=True), first):
        pe.put(at, reads(machine, at, START + place, number))
    return entries


def image(machine: Machine, places: dict[str, int], *, changed: bool, wide: tuple[int, int] | None = None):
    """``f`` returns the address of ``second``, others read one of the data each, by distances from ``START``; ``first`` alone has a name.

    ``wide``: one more goes over what is at a distance from a place by an index.
    """
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    more = b"\x83\xc0\x07" if machine is Machine.X64 else struct.pack("<I", 0x11001C21)  # add eax, 7; add w1, w1, #7
    pe.put(TEXT, takes(machine, TEXT, TAKEN) + (more if changed else b"") + RETURNS[machine])
    entries = [("f", TEXT), *put_readers(pe, machine, places, 1)]
    if wide is not None:
        at, (start, distance) = TEXT + 0x40 * len(entries), wide
        pe.put(at, reaches(machine, at, START + start, distance, changed=False, indexed=True))
        entries.append(("reads_by_index", at))
    pe.exports("unnamed.dll", entries)
    return named(pe.build("unnamed.dll"), {"first": (START + places["first"], 8)})


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", LAID)
def test_the_address_of_what_has_no_name(case, machine) -> None:
    places, built = LAID[case]
    diff = diff_images(image(machine, AS_IT_WAS, changed=False), image(machine, places, changed=True))
    assert [row.name for row in diff.functions if row.verdict is Verdict.CHANGED] == ["f"]
    if built:
        (row,) = build_patch(diff).functions
        assert row.name == "f"
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    assert "unresolved-reference" in {str(refusal.rule) for refusal in refused.value.refusals}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("places", "built"), [((-0x40, -0x40), True), ((-0x40, -0x48), False)], ids=["in-both", "in-the-base-alone"])
def test_what_a_function_goes_over_that_did_not_change(machine, places, built) -> None:
    """By an index from what may have moved: what it means is not certain, so that the function is not called changed."""
    images = (image(machine, AS_IT_WAS, changed=changed, wide=(place, 0x68)) for changed, place in zip((False, True), places, strict=True))
    diff = diff_images(*images)
    assert [row.name for row in diff.functions if row.verdict is Verdict.CHANGED] == ["f"]
    if built:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
        return
    with pytest.raises(NotHotpatchable, match="reads_by_index, which did not change, uses only one of the two"):
        build_patch(diff)


def refused(diff) -> str:
    with pytest.raises(NotHotpatchable) as found:
        build_patch(diff)
    return " ".join(refusal.reason for refusal in found.value.refusals)


def handing(machine: Machine, taker: str, symbols: dict[str, tuple[int, int]], others: dict[str, int], *, changed: bool, jumps: bool):
    """``f`` hands ``g`` the address of ``next``, by a call or by a jump, and others read data, at distances from ``START``."""
    pe, arch, target = Pe(machine), architecture(machine), START + symbols["next"][0]
    pe.cursor = RDATA + 0x800
    if machine is Machine.X64:
        code = b"\x83\xc2\x07" if changed else b""  # add edx, 7
        code += b"\x48\x8d\x0d" + arch.bind(FixupKind.REL32, bytes(4), TEXT + len(code) + 3, target)
        code += (b"\xe9" if jumps else b"\xe8") + struct.pack("<i", 0x40 - len(code) - 5) + b"\xc3"
    else:
        code = struct.pack("<I", 0x11001C21) if changed else b""  # add w1, w1, #7
        page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000), TEXT + len(code), target)
        code += page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000000), TEXT + len(code) + 4, target)
        code += struct.pack("<I", (0x14000000 if jumps else 0x94000000) | (0x40 - len(code)) // 4) + RETURNS[machine]
    pe.put(TEXT, code)
    pe.put(TEXT + 0x40, bytes.fromhex(TAKERS[taker][machine]) + RETURNS[machine])
    pe.exports("unnamed.dll", [("f", TEXT), ("g", TEXT + 0x40), *put_readers(pe, machine, others, 2)])
    return named(pe.build("unnamed.dll"), {name: (START + at, size) for name, (at, size) in symbols.items()})


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("taker", ["back", "onward"])
@pytest.mark.parametrize("jumps", [False, True], ids=["by-a-call", "by-a-jump"])
def test_the_end_of_what_has_lost_its_name(machine, taker, jumps) -> None:
    """The one that begins there moved, and what ends there is another in the base, as its name said there."""
    base = handing(machine, taker, {"array": (0, 0x10), "next": (0x18, 8)}, {"next": 0x18}, changed=False, jumps=jumps)
    fixed = handing(machine, taker, {"next": (0x10, 8)}, {"next": 0x10}, changed=True, jumps=jumps)
    diff = diff_images(base, fixed)
    if taker == "back":
        assert "0x3110 is handed on as the end of what is before it" in refused(diff)
    else:
        assert [row.name for row in build_patch(diff).functions] == ["f"]


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("distance", "doubted"), [(0x20, True), (0x28, False)], ids=["nobody", "somebody"])
def test_what_an_index_goes_over_that_no_function_of_the_base_uses(machine, distance, doubted) -> None:
    """Another datum of the base has lost its name; a function that is gone, too, is refused in either case."""
    images = []
    for changed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        entries = [("f", TEXT), ("reads_first", TEXT + 0x80), ("reads_second", TEXT + 0xC0)]
        pe.put(TEXT, reaches(machine, TEXT, START, distance if changed else 0x28, changed=changed, indexed=True))
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, START, 1))
        pe.put(TEXT + 0xC0, reads(machine, TEXT + 0xC0, START + 0x30, 2))
        if not changed:  # it may have lost its name, and have come to the others
            pe.put(TEXT + 0x40, reads(machine, TEXT + 0x40, START + 0x60, 3))
            entries.append(("gone", TEXT + 0x40))
        pe.exports("unnamed.dll", entries)
        images.append(named(pe.build("unnamed.dll"), {"first": (START, 8), **({} if changed else {"old": (START + 0x60, 8)})}))
    assert ("no function of the base goes over 0x3120" in refused(diff_images(*images))) == doubted


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("place", "built"), [(-0x10, True), (-0x18, False)], ids=["in-place", "elsewhere"])
def test_the_end_of_the_last_datum_of_a_section(machine, place, built) -> None:
    """Nothing lies at that address, but what ends there must end at the same distance in the base."""
    images, end = [], RELOC
    for changed, at in ((False, place), (True, -0x10)):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        add = b"\x48\x83\xc0\x20" if machine is Machine.X64 else struct.pack("<I", 0x91008000)  # add rax, 0x20; add x0, x0, #0x20
        more = b"\x83\xc2\x07" if machine is Machine.X64 else struct.pack("<I", 0x11001C21)  # add edx, 7; add w1, w1, #7
        pe.put(TEXT, takes(machine, TEXT, end - 0x20) + add + (more if changed else b"") + RETURNS[machine])
        pe.put(TEXT + 0x40, reads(machine, TEXT + 0x40, end - 0x20, 1))
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, end + at, 2))
        pe.exports("unnamed.dll", [("f", TEXT), ("reads_first", TEXT + 0x40), ("reads_last", TEXT + 0x80)])
        images.append(named(pe.build("unnamed.dll"), {"first": (end - 0x20, 8), "last": (end + at, 0x10)}))
    diff = diff_images(*images)
    if built:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
    else:
        assert f"nothing shows that what ends at 0x{end:x} ends at 0x{end:x} there" in refused(diff)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("distance", "is_new"), [(8, False), (0, True)], ids=["behind-another", "nowhere"])
def test_what_has_a_name_of_its_own_now(machine, distance, is_new) -> None:
    """The base may have put it behind another, whose name alone it kept: a copy would lose its state."""
    images = []
    for changed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        if changed:
            pe.put(TEXT, reads(machine, TEXT, START + 0x40, 7))
        else:
            pe.put(TEXT, reaches(machine, TEXT, START, distance, changed=False))
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, START, 1))
        pe.exports("unnamed.dll", [("f", TEXT), ("reads_first", TEXT + 0x80)])
        images.append(named(pe.build("unnamed.dll"), {"first": (START, 8), **({"second": (START + 0x40, 8)} if changed else {})}))
    diff = diff_images(*images)
    if is_new:
        assert [row.name for row in build_patch(diff).carried] == ["second"]
    else:
        assert "the writable datum at 0x3140 may be new or one that the base has (at 0x3108)" in refused(diff)


def at_the_edge(machine: Machine, place: int, *, changed: bool):
    """``f`` returns the address ``place``; what lies there and what lies behind it has no name, and one function each reads it."""
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    more = b"\x83\xc0\x07" if machine is Machine.X64 else struct.pack("<I", 0x11001C21)
    pe.put(TEXT, takes(machine, TEXT, place) + (more if changed else b"") + RETURNS[machine])
    entries = [("f", TEXT)]
    for number, target in enumerate((place, place + 8, DATA + 0x400), 1):
        pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, target, number))
        entries.append((f"g{number}", TEXT + 0x40 * number))
    pe.exports("edge.dll", entries)
    return named(pe.build("edge.dll"), {"far": (DATA + 0x400, 8)})


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("place", "built"), [(DATA + 0x10, True), (DATA, False)], ids=["behind-the-edge", "where-another-section-ends"])
def test_what_begins_a_section_may_be_the_end_of_the_one_before(machine, place, built) -> None:
    diff = diff_images(at_the_edge(machine, place, changed=False), at_the_edge(machine, place, changed=True))
    if built:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
        return
    with pytest.raises(NotHotpatchable, match="no symbol covers"):
        build_patch(diff)
