"""Live data that lost their names though both images have PDBs: what shows where the base has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, Verdict, diff_images
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.test_reaches import RETURNS, reads
from tests.builder.test_type_records import takes
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.image import Image

START = DATA + 0x100
NOBODY = "no function that did not change uses both"


class Layout(NamedTuple):
    """Distances from ``START``, in the base and in the fixed image.

    Attributes:
        read: What ``f`` reads, which changed.
        twin: What ``g`` reads, which did not change, if there is one.
        new: What ``h`` reads, which only the fixed image has, if it does.
        last: Where the last datum is, which has a name, as has the first, at ``START``.
        makes: Whether ``g`` only makes the address.
    """

    read: tuple[int, int]
    twin: tuple[int, int] | None = None
    new: int | None = None
    last: tuple[int, int] = (0x40, 0x40)
    makes: bool = False


AS_IT_WAS = (0x20, 0x20)
CASES = {
    "an unchanged function reads it": (Layout(AS_IT_WAS, twin=AS_IT_WAS), None),
    "an unchanged function reads it elsewhere, too": (Layout((0x20, 0x28), twin=(0x20, 0x28)), None),
    "an unchanged function reads it, and something new is beside it": (Layout(AS_IT_WAS, twin=AS_IT_WAS, new=0x28), None),
    "an unchanged function makes the address, perhaps of an end": (Layout(AS_IT_WAS, twin=AS_IT_WAS, new=0x28, makes=True), NOBODY),
    "nothing else uses it, and all is as it was": (Layout(AS_IT_WAS), None),
    "nothing else uses it, and it moved with all": (Layout((0x20, 0x28), last=(0x40, 0x48)), NOBODY),
    "nothing else uses it, and it moved": (Layout((0x20, 0x28)), NOBODY),
    "nothing else uses it, and what is behind it moved": (Layout(AS_IT_WAS, last=(0x40, 0x48)), NOBODY),
    "nothing else uses it, and something new is beside it": (Layout(AS_IT_WAS, new=0x28), NOBODY),
}


def built(machine: Machine, code: Mapping[str, tuple[int, int]], data: Mapping[str, int] | None = None) -> Image:
    """Functions by what they read and a number of their own, 0 for one that only makes the address, by distances from ``START``.

    ``data``: what a PDB names, eight bytes each; without it there is none.
    """
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    entries = [(name, TEXT + 0x40 * slot) for slot, name in enumerate(code)]
    for name, at in entries:
        distance, number = code[name]
        made = takes(machine, at, START + distance) + RETURNS[machine]
        pe.put(at, reads(machine, at, START + distance, number) if number else made)
    pe.exports("proofs.dll", entries)
    image = pe.build("proofs.dll")
    return image if data is None else named(image, {name: (START + distance, 8) for name, distance in data.items()})


def image(machine: Machine, layout: Layout, *, fixed: bool) -> Image:
    code = {"f": (layout.read[fixed], 7 if fixed else 1), "last": (layout.last[fixed], 2), "first": (0, 3)}
    if layout.twin is not None:
        code["g"] = layout.twin[fixed], 0 if layout.makes else 4
    if layout.new is not None and fixed:
        code["h"] = layout.new, 5
    return built(machine, code, {"first": 0, "last_datum": layout.last[fixed]})


def refused(diff: ImageDiff) -> str:
    with pytest.raises(NotHotpatchable) as found:
        build_patch(diff)
    return " ".join(refusal.reason for refusal in found.value.refusals)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_what_shows_where_the_base_has_it(case, machine) -> None:
    layout, why = CASES[case]
    diff = diff_images(image(machine, layout, fixed=False), image(machine, layout, fixed=True))
    assert [row.name for row in diff.functions if row.verdict is Verdict.CHANGED] == ["f"]
    if why is None:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
    else:
        assert why in refused(diff)


@pytest.mark.parametrize("machine", Machine)
def test_a_name_that_one_image_has_objects(machine) -> None:
    """Of two places that changed functions used before, one has a name that is lost: what they use now may be either."""
    base = built(machine, {"first": (0, 1), "f": (0x20, 2), "g": (0x30, 3)}, {"first_datum": 0, "lost": 0x20})
    fixed = built(machine, {"first": (0, 1), "f": (0x28, 11), "g": (0x28, 12)}, {"first_datum": 0})
    findings = diff_images(base, fixed).findings
    (votes,) = [item.evidence["votes"] for item in findings if item.rule is Rule.CONTRADICTING_VOTES and "votes" in item.evidence]
    assert {(vote["base_rva"], vote["fixed_rva"]) for vote in votes} == {(START + 0x20, START + 0x28), (START + 0x30, START + 0x28)}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("before", [0, 0x20], ids=["only-an-end", "read-in-the-base"])
def test_what_only_an_address_tells_of_without_symbols(machine, before) -> None:
    """Nothing of the base reads or writes there, but an unchanged function has the address: of the end of what is before it, perhaps."""
    others = {"g": (0x20, 0), "h": (0, 2), "i": (0x40, 3)}
    diff = diff_images(built(machine, {"f": (before, 1), **others}), built(machine, {"f": (0x20, 7), **others}))
    if before:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
    else:
        assert "may be new, for nothing in the base reads or writes at" in refused(diff)
