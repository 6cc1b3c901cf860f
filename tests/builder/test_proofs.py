"""Live data that lost their names though both images have PDBs: what shows where the base has them."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import reads
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
