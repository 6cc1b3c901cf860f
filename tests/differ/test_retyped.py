"""Live data of the same size whose types lay something else where, by their PDBs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hotpatch import build
from hotpatch.arch import Machine
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable
from hotpatch.image import open_image
from hotpatch.image.pdb_layouts import FLOATING, INTEGER, Layout, Run, layout_difference

compiled = [
    pytest.mark.compiler,
    pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'"),
]

RETYPED = {
    "swapped": "its member low lies at byte 0 in the base and at byte 4 in the fixed image",
    "joined": "at byte 0 it has an integer of 4 bytes in the base and an integer of 8 bytes in the fixed image",
    "real": "at byte 0 it has an integer of 8 bytes in the base and a floating-point number of 8 bytes in the fixed image",
    "many": "its member [].a lies at byte 0 in the base and at byte 4 in the fixed image",
    "flags": "its member on lies at byte 0 in the base and at byte 0, bit 4 in the fixed image",
    "address": "at byte 8 it has a pointer of 8 bytes in the base and an integer of 8 bytes in the fixed image",
}
"""Datum of the pair ``live-data-of-other-types`` → what is said of it."""


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", [pytest.param("live-data-of-other-types", marks=compiled)])
def test_what_differs_is_told_of_each_datum(built, name, machine):
    paths = built(name, machine)
    diff = diff_images(*(open_image(path) for path in paths))
    found = {finding.function: finding.reason for finding in diff.findings}
    assert found.keys() == RETYPED.keys()
    assert all(words in found[datum] for datum, words in RETYPED.items()), found
    assert all({"base_rva", "fixed_rva", "base_bytes", "fixed_bytes", "offset"} <= finding.evidence.keys() for finding in diff.findings)
    with pytest.raises(NotHotpatchable, match="data-layout"):
        build(diff)
    assert build(diff, allow=["data-layout"]).functions


def test_runs_that_part_after_some_equal_ones():
    words = Layout((Run(0, 32, INTEGER, 4),), {})
    mixed = Layout((Run(0, 32, INTEGER, 2), Run(64, 32, FLOATING, 2)), {})
    found = layout_difference(words, mixed)
    assert found is not None
    assert (found.offset, found.before) == (8, "an integer of 4 bytes")
    assert layout_difference(mixed, mixed) is None
