"""Elements of a table that the fixed image names, and that the base's code reaches from what is before them."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import reaches, reads
from tests.emulator.pe import DATA, TEXT, Pe

START, ELEMENT, BEHIND = DATA + 0x100, DATA + 0x148, DATA + 0x180
each_machine = pytest.mark.parametrize("machine", Machine)


def pair(machine: Machine, *, reached: int = ELEMENT, filled: bool = True, changed: int = 0) -> ImageDiff:
    """A function that reads an element of a table: by its name in the fixed image, at a distance from the table's start in the base.

    ``reached``: what it reads in the base. ``filled``: whether the table holds numbers. ``changed``: what is added to the element.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        numbers = [0x0101 * number + 7 if filled else 0 for number in range(16)]
        numbers[(ELEMENT - START) // 8] += changed * is_fixed
        pe.put(START, struct.pack("<16Q", *numbers))
        at = TEXT + 0x40
        pe.put(at, reads(machine, at, ELEMENT, 5) if is_fixed else reaches(machine, at, START, reached - START, changed=False))
        others = {TEXT + 0x80: START, TEXT + 0xC0: BEHIND, TEXT + 0x100: BEHIND + 0x10}
        for number, (place, target) in enumerate(others.items()):
            pe.put(place, reads(machine, place, target, 6 + number))
        pe.exports("element.dll", [("user", at), *((f"g{place:x}", place) for place in others)])
        images.append(pe.build("element.dll"))
    return diff_images(*images)


@each_machine
def test_what_the_base_reaches_is_the_bases(machine: Machine) -> None:
    assert build_patch(pair(machine)).carried == ()


@each_machine
@pytest.mark.parametrize("apart", [{"reached": START + 8}, {"filled": False}, {"changed": 1}], ids=lambda item: next(iter(item)))
def test_what_nothing_shows_to_be_there_is_refused(machine: Machine, apart: dict[str, int]) -> None:
    with pytest.raises(NotHotpatchable):
        build_patch(pair(machine, **apart))
