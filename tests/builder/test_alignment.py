"""A constant that the base has where the instruction cannot access it, for want of alignment, travels."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Image
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

CONTENT = struct.pack("<2d", 1.5, 2.5)
RETURNS = {Machine.X64: b"\xc3", Machine.ARM64: b"\xc0\x03\x5f\xd6"}


def loads(machine: Machine, at: int, target: int, *, aligned: bool) -> bytes:
    """Code that loads 16 bytes, which must be ``aligned`` or may lie anywhere."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return (b"\x0f\x28\x05" if aligned else b"\x0f\x10\x05") + arch.bind(FixupKind.REL32, bytes(4), at + 3, target)
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, target)
    if aligned:
        return page + arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", 0x3DC00100), at + 4, target)
    return page + arch.bind(FixupKind.PAGEOFFSET_12A, struct.pack("<I", 0x91000108), at + 4, target) + struct.pack("<I", 0x3DC00100)


def image(machine: Machine, constant: int, *, aligned: bool) -> Image:
    pe = Pe(machine)
    pe.put(constant, CONTENT + struct.pack("<2d", 3.5, 4.5))
    pe.put(TEXT, loads(machine, TEXT, constant, aligned=aligned) + RETURNS[machine])
    pe.put(TEXT + 0x40, loads(machine, TEXT + 0x40, constant + len(CONTENT), aligned=False) + RETURNS[machine])
    pe.exports("vector.dll", [("load", TEXT), ("next", TEXT + 0x40)])
    return pe.build("vector.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("place", "carried"), [(0x808, True), (0x820, False)])
def test_a_vector_is_the_bases_where_it_is_aligned(machine: Machine, place: int, carried: bool) -> None:
    base, fixed = image(machine, RDATA + place, aligned=False), image(machine, RDATA + 0x800, aligned=True)
    patch = build(diff_images(base, fixed))
    assert [(row.size >= len(CONTENT), row.patch_rva % len(CONTENT)) for row in patch.carried] == [(True, 0)] * carried


def table(machine: Machine, first: float) -> Image:
    """A function that walks over numbers from an odd multiple of eight on, and loads two of them as a vector."""
    pe, numbers = Pe(machine), RDATA + 0x808
    pe.pointer(numbers - 8, TEXT)
    pe.put(numbers, struct.pack("<4d", first, 2.5, 3.5, 4.5))
    code = takes(machine, TEXT, numbers)
    end = pe.put(TEXT, code) + len(code)
    pe.put(end, loads(machine, end, numbers + 8, aligned=True) + RETURNS[machine])
    pe.exports("vector.dll", [("load", TEXT)])
    return pe.build("vector.dll")


@pytest.mark.parametrize("machine", Machine)
def test_a_vector_in_an_array_that_travels_keeps_its_alignment(machine: Machine) -> None:
    patch = build(diff_images(table(machine, 1.5), table(machine, 9.5)))
    (row,) = patch.carried
    assert row.patch_rva % 16 == 8


def live(machine: Machine, datum: int, *, aligned: bool) -> Image:
    """Functions that load 16 bytes of live data, the first by an instruction that wants them ``aligned`` or not, and what follows them."""
    pe = Pe(machine)
    pe.put(datum, CONTENT)
    functions = {"load": (datum, aligned), "other": (datum, False), "next": (datum + len(CONTENT), False)}
    places = {name: TEXT + 0x40 * number for number, name in enumerate(functions)}
    for name, (target, wanted) in functions.items():
        pe.put(places[name], loads(machine, places[name], target, aligned=wanted) + RETURNS[machine])
    pe.exports("vector.dll", list(places.items()))
    return pe.build("vector.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("place", "fits"), [(0x108, False), (0x120, True)])
def test_live_data_that_the_base_has_unaligned_are_refused(machine: Machine, place: int, fits: bool) -> None:
    found = diff_images(live(machine, DATA + place, aligned=False), live(machine, DATA + 0x100, aligned=True))
    if fits:
        assert build(found).carried == ()
        return
    with pytest.raises(NotHotpatchable) as refused:
        build(found)
    assert {(refusal.rule, "not aligned" in refusal.reason) for refusal in refused.value.refusals} == {(Rule.UNRESOLVED_REFERENCE, True)}
