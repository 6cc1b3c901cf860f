"""Functions that are exported without a name, and of which nothing else tells which is which."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.differ import Verdict
from hotpatch.differ.matching import Evidence
from tests.builder.applied import Applied
from tests.differ.test_evidence import CLOSING, OPENING, matched, nameless

KEPT = tuple(("sub", number) for number in (401, 403, 407, 411, 413))
BASE = {"one": OPENING, "two": OPENING[:4], "kept": KEPT, "more": CLOSING[:3] + KEPT}
FIXED = {"one": CLOSING, "two": CLOSING[:4], "kept": KEPT, "new": CLOSING[1:5], "more": CLOSING[:3] + KEPT}
NONE = None, None
each_machine = pytest.mark.parametrize("machine", Machine)


@each_machine
@pytest.mark.parametrize(
    ("there", "here", "found"),
    [
        (("one", "two", "kept"), ("one", "two", "kept"), ((Evidence.ORDINAL, "one"), (Evidence.ORDINAL, "two"))),
        (("one", "kept", "two"), ("one", "kept", "two"), ((Evidence.ORDINAL, "one"), None)),
        (("one", "two", "kept"), ("one", "two", "new", "kept"), NONE),
        (("one", "two", "kept", "more"), ("one", "two", "more", "kept"), NONE),
        (("one", "two"), ("one", "two"), NONE),
    ],
    ids=["same-ordinals", "nothing-bears-out-the-last", "one-is-new", "two-changed-places", "nothing-bears-them-out"],
)
def test_ordinals_that_others_bear_out(machine, there, here, found):
    """No place tells: the kept ones stand behind the others, and now in front of them."""
    kept = tuple(name for name in ("kept", "more") if name in there)
    others = tuple(name for name in there if name not in kept)
    behind = tuple(name for name in reversed(here) if name not in kept)
    pair = nameless(machine, others + kept, BASE, there), nameless(machine, kept + behind, FIXED, here)
    got = matched(pair)
    assert (got["one"], got["two"]) == found


@each_machine
def test_two_that_became_one_are_that_one(machine):
    """What was fixed became the same as another, with which the linker folded it: two ordinals lead to one function."""
    bodies = {"one": OPENING, "two": OPENING[:4], "kept": KEPT}
    base, entries = nameless(machine, ("one", "two", "kept"), bodies)
    fixed, _ = nameless(machine, ("one", "kept"), bodies, ("one", "one", "kept"))
    diff = hotpatch.diff(base, fixed)
    rows = {row.base.entry: row for row in diff.functions if row.base is not None}
    assert (rows[entries["two"]].matched_by, rows[entries["two"]].verdict) == (Evidence.FOLDED, Verdict.CHANGED)
    assert rows[entries["one"]].verdict in (Verdict.IDENTICAL, Verdict.RELOCATED)
    assert diff.findings == ()
    patch = hotpatch.build(diff)
    results = [Applied(base, patch if is_patched else None).call_at(entries[name], 0) for name, is_patched in (("one", 0), ("two", 1))]
    assert [row.base_rva for row in patch.functions] == [entries["two"]]
    assert Applied(base).call_at(entries["two"], 0) != results[0]
    assert results[0] == results[1]
