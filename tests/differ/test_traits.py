"""What functions are matched by that nothing stronger tells apart: texts and imports, callers and callees, the shape of their flow."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.differ.alignments import Alignments
from hotpatch.differ.correlate import _Correlator
from hotpatch.differ.traits import callees, callers, flow_shape, mentions, neighbours
from hotpatch.differ.view import view_of
from hotpatch.image import open_image

each_machine = pytest.mark.parametrize("machine", Machine)


def view(name, machine, side="base"):
    image = open_image(find_case(name).image(machine, side))
    return view_of(image), {function.name: function.entry for function in image.functions}


@each_machine
def test_mentions_are_imports_and_texts(machine):
    of, entries = view("delay-import", machine)
    assert mentions(of, entries["__delayLoadHelper2"]) == {"kernel32.dll!LoadLibraryA", "kernel32.dll!GetProcAddress"}
    assert mentions(of, entries["upper"]) is None, "one import tells too little"


@each_machine
def test_callers_and_callees(machine):
    of, entries = view("cold-part", machine)
    assert callees(of, entries["both"]) == {entries["total"], entries["plain"]}
    assert callers(of)[entries["refer"]] == {entries["total"], entries["plain"]}
    known = {entry: entry for entry in entries.values()}
    assert neighbours(of, entries["refer"], known, callers(of)) == ({entries["total"], entries["plain"]}, frozenset())
    assert neighbours(of, entries["refer"], {}, callers(of)) is None


@each_machine
def test_the_shape_of_flow_stays_where_instructions_move_and_changes_with_a_branch(machine):
    (old, there), (new, here) = view("cold-part", machine), view("cold-part", machine, "fixed")
    shape = flow_shape(old, there["plain"])
    assert shape is not None
    assert shape == flow_shape(new, here["plain"])
    assert flow_shape(old, there["total"]) != flow_shape(new, here["total"])
    assert flow_shape(old, there["reference_count"]) is None


@each_machine
@pytest.mark.parametrize(
    ("case", "name", "step"), [("delay-import", "__delayLoadHelper2", "_mentions"), ("image-parser", "read_chunk", "_flow_graph")]
)
def test_each_trait_pairs_alone_what_it_tells_apart(machine, case, name, step):
    (old, there), (new, here) = view(case, machine), view(case, machine, "fixed")
    correlator = _Correlator(old, new, Alignments(old, new))
    assert getattr(correlator, step)()
    right = {there[name]: here[name] for name in there.keys() & here.keys()}
    assert correlator.matching.forward.items() <= right.items()
    assert correlator.matching.forward[there[name]] == here[name]


@each_machine
def test_the_place_in_the_call_graph_pairs_what_is_called_by_the_same(machine):
    (old, there), (new, here) = view("cold-part", machine), view("cold-part", machine, "fixed")
    correlator = _Correlator(old, new, Alignments(old, new))
    for name in ("total", "plain", "both", "reference_count"):
        correlator.matching.pair(there[name], here[name], "name")
    assert correlator._call_graph()
    assert correlator.matching.forward[there["refer"]] == here["refer"]
