"""Live data of the same size whose types lay something else where, by their PDBs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hotpatch import build
from hotpatch.arch import Machine
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import open_image
from hotpatch.image.pdb_layouts import FLOATING, INTEGER, POINTER, Layout, Run, layout_difference
from tests.unwind.test_walk import TARGETS

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


CLASSES = {
    "bounded": "its member low lies at byte 0 in the base and at byte 4 in the fixed image",
    "marked": "its member key lies at byte 0 in the base and at byte 8 in the fixed image",
    "plain": "its member one lies at byte 0 in the base and at byte 8 in the fixed image",
}
"""Objects of ``classes.cpp`` → what is said of each; nothing of the others."""


@pytest.fixture(scope="module", params=Machine)
def classes(request, tmp_path_factory):
    folder, zig = tmp_path_factory.mktemp("classes"), [sys.executable, "-m", "ziglang"]
    options = ["-O1", "-g", "-gcodeview", "-ffreestanding", "-fno-rtti", "-fno-exceptions", "-fno-sanitize=all", "-fno-stack-protector"]
    for change, name in enumerate(("base", "fixed"), 1):
        compile_it = [*zig, "cc", "-x", "c++", "-target", TARGETS[request.param], *options, f"-DCHANGE={change}"]
        subprocess.run([*compile_it, "-c", Path(__file__).with_name("classes.cpp"), "-o", folder / f"{name}.obj"], check=True)
        link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", "/debug", f"/out:{folder / name}.dll", folder / f"{name}.obj"]
        subprocess.run([*zig, "lld-link", *link], check=True)
    return [open_image(folder / f"{name}.dll") for name in ("base", "fixed")]


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
def test_base_classes_and_tables_of_functions_lie_in_objects(classes):
    diff = diff_images(*classes)
    found = {finding.function: finding.reason for finding in diff.findings if finding.rule is Rule.DATA_LAYOUT}
    assert found.keys() == CLASSES.keys()
    assert all(words in found[name] for name, words in CLASSES.items()), found
    told = {datum.name: datum.type.layout() for datum in classes[1].data_symbols if datum.type is not None}
    assert told["remote"] is None
    assert [(run.start, run.kind) for run in told["square"].runs] == [(0, POINTER), (64, INTEGER)]
    assert told["square"].names == {"width": 64, "height": 128}
