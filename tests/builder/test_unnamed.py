"""Live data that PDBs leave out, whose address code takes: compilers name only the first of those that they put together."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reaches, reads
from tests.builder.test_type_records import takes
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

START, TAKEN = DATA + 0x100, DATA + 0x128
AS_IT_WAS = {"first": 0, "second": 0x28, "third": 0x30}
LAID = {
    "as-it-was": (AS_IT_WAS, True),
    "what-is-behind-moved": ({**AS_IT_WAS, "third": 0x38}, False),
    "what-is-before-moved-though-it-is-far": ({**AS_IT_WAS, "first": -8}, False),
    "changed-places-with-what-is-behind": ({**AS_IT_WAS, "second": 0x30, "third": 0x28}, False),
}


def image(machine: Machine, places: dict[str, int], *, changed: bool, wide: tuple[int, int] | None = None):
    """``f`` returns the address of ``second``, others read one of the data each, by distances from ``START``; ``first`` alone has a name.

    ``wide``: one more goes over what is at a distance from a place by an index.
    """
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    more = b"\x83\xc0\x07" if machine is Machine.X64 else struct.pack("<I", 0x11001C21)  # add eax, 7; add w1, w1, #7
    pe.put(TEXT, takes(machine, TEXT, TAKEN) + (more if changed else b"") + RETURNS[machine])
    entries = [("f", TEXT)]
    for number, (name, place) in enumerate(places.items(), 1):
        pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, START + place, number))
        entries.append((f"reads_{name}", TEXT + 0x40 * number))
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
