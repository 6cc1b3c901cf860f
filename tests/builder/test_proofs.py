"""Live data that lost their names though both images have PDBs: what shows where the base has them."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.test_reaches import RETURNS, reads
from tests.builder.test_type_records import takes
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

START = DATA + 0x100
NOBODY = "no function that did not change uses both"


class Layout(NamedTuple):
    """Distances from ``START``, in the base and in the fixed image.

    Attributes:
        read: What ``f`` reads, which changed.
        twin: What ``g`` reads, which did not change, if there is one.
        new: What ``h`` reads, which only the fixed image has, if it does.
        last: Where the last datum is, which has a name, as has the first, at ``START``.
    """

    read: tuple[int, int]
    twin: tuple[int, int] | None = None
    new: int | None = None
    last: tuple[int, int] = (0x40, 0x40)


CASES = {
    "an unchanged function has it there": (Layout((0x20, 0x20), twin=(0x20, 0x20)), None),
    "an unchanged function has it elsewhere, too": (Layout((0x20, 0x28), twin=(0x20, 0x28)), None),
    "nothing else uses it, and all is as it was": (Layout((0x20, 0x20)), None),
    "nothing else uses it, and it moved with all": (Layout((0x20, 0x28), last=(0x40, 0x48)), NOBODY),
    "nothing else uses it, and it moved": (Layout((0x20, 0x28)), NOBODY),
    "nothing else uses it, and what is behind it moved": (Layout((0x20, 0x20), last=(0x40, 0x48)), NOBODY),
    "nothing else uses it, and something new is beside it": (Layout((0x20, 0x20), new=0x28), NOBODY),
}


def image(machine: Machine, layout: Layout, *, fixed: bool):
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    places = {"f": layout.read[fixed], "last": layout.last[fixed], "first": 0}
    if layout.twin is not None:
        places["g"] = layout.twin[fixed]
    if layout.new is not None and fixed:
        places["h"] = layout.new
    numbers = {"f": 7 if fixed else 1, "last": 2, "first": 3, "g": 4, "h": 5}
    entries = [(name, TEXT + 0x40 * number) for number, name in enumerate(places)]
    for name, at in entries:
        pe.put(at, reads(machine, at, START + places[name], numbers[name]))
    pe.exports("proofs.dll", entries)
    return named(pe.build("proofs.dll"), {"first": (START, 8), "last_datum": (START + layout.last[fixed], 8)})


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_what_shows_where_the_base_has_it(case, machine) -> None:
    layout, why = CASES[case]
    diff = diff_images(image(machine, layout, fixed=False), image(machine, layout, fixed=True))
    assert [row.name for row in diff.functions if row.verdict is Verdict.CHANGED] == ["f"]
    if why is None:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    assert why in " ".join(refusal.reason for refusal in refused.value.refusals)


@pytest.mark.parametrize("machine", Machine)
def test_an_address_that_is_only_made_may_be_an_end(machine) -> None:
    """An unchanged function has it at both places, but may mean what is before it: new data took the place of what ``f`` read."""
    images = []
    for fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        code = {
            "f": reads(machine, TEXT, START + 0x20, 7 if fixed else 1),
            "g": takes(machine, TEXT + 0x40, START + 0x20) + RETURNS[machine],
        }
        code["h"] = reads(machine, TEXT + 0x80, START + (0x28 if fixed else 0x20), 2)
        for number, (_name, made) in enumerate(code.items()):
            pe.put(TEXT + 0x40 * number, made)
        pe.exports("proofs.dll", [(name, TEXT + 0x40 * number) for number, name in enumerate(code)])
        images.append(named(pe.build("proofs.dll"), {"first": (START, 8)}))
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff_images(*images))
    assert {str(refusal.rule) for refusal in refused.value.refusals} <= {"unresolved-reference", "contradicting-votes"}


@pytest.mark.parametrize("machine", Machine)
def test_a_name_that_one_image_has_objects(machine) -> None:
    """Of two places that changed functions used before, one has a name that is lost: what they use now may be either."""
    images = []
    for fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        places = {"first": 0, "f": 0x28 if fixed else 0x20, "g": 0x28 if fixed else 0x30}
        for number, (name, place) in enumerate(places.items()):
            pe.put(
                TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, START + place, number + (10 if fixed and name != "first" else 1))
            )
        pe.exports("proofs.dll", [(name, TEXT + 0x40 * number) for number, name in enumerate(places)])
        lost = {} if fixed else {"lost": (START + 0x20, 8)}
        images.append(named(pe.build("proofs.dll"), {"first_datum": (START, 8), **lost}))
    diff = diff_images(*images)
    (finding,) = [finding for finding in diff.findings if finding.rule is Rule.CONTRADICTING_VOTES and "votes" in finding.evidence]
    assert {(vote["base_rva"], vote["fixed_rva"]) for vote in finding.evidence["votes"]} == {
        (START + 0x20, START + 0x28),
        (START + 0x30, START + 0x28),
    }


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("read", [False, True], ids=["only-an-end", "read-in-the-base"])
def test_what_only_an_address_tells_of_without_symbols(machine, read) -> None:
    """Nothing of the base reads or writes there, but an unchanged function has the address: of the end of what is before it, perhaps."""
    images = []
    for fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        code = {
            "f": reads(machine, TEXT, START + (0x20 if fixed or read else 0), 7 if fixed else 1),
            "g": takes(machine, TEXT + 0x40, START + 0x20) + RETURNS[machine],
            "h": reads(machine, TEXT + 0x80, START, 2),
            "i": reads(machine, TEXT + 0xC0, START + 0x40, 3),
        }
        for number, made in enumerate(code.values()):
            pe.put(TEXT + 0x40 * number, made)
        pe.exports("proofs.dll", [(name, TEXT + 0x40 * number) for number, name in enumerate(code)])
        images.append(pe.build("proofs.dll"))
    diff = diff_images(*images)
    if read:
        assert [row.name for row in build_patch(diff).functions] == ["f"]
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    assert "may be new, for nothing in the base reads or writes at" in " ".join(refusal.reason for refusal in refused.value.refusals)
