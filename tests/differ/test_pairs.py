"""One difference in the source, and exactly the verdicts and findings that follow from it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import Verdict, diff_images
from hotpatch.image import SectionFlags, open_image
from tests.differ.pairs import PAIRS

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'"),
]

_SAME = {Verdict.IDENTICAL, Verdict.RELOCATED}


def _names(path) -> dict[int, str]:
    """Function names by RVA from the PDB, whether or not the comparison has it."""
    return {function.entry: function.name for function in open_image(path).functions}


@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", PAIRS)
def test_pair(built, name, machine, pdb) -> None:
    pair, paths = PAIRS[name], built(name, machine)
    names = [_names(path) for path in paths]
    diff = diff_images(*(open_image(path, pdb=pdb) for path in paths))
    found = {}
    for row in diff.functions:
        called = row.name if pdb else names[0].get(row.base.entry) if row.base else names[1].get(row.fixed.entry)
        if row.verdict not in _SAME:
            found[called] = row.verdict.value
    wanted = dict(pair.changed)
    rules = pair.rules
    if pdb is None:
        found = {name: verdict for name, verdict in found.items() if name not in pair.with_pdb_only}
        wanted = {name: verdict for name, verdict in wanted.items() if name not in pair.with_pdb_only}
        rules = pair.rules if pair.rules_without is None else pair.rules_without
    assert found == wanted
    cosmetic = pair.cosmetic if pdb or pair.cosmetic_without is None else pair.cosmetic_without
    assert sorted(names[0][row.base.entry] for row in diff.functions if row.is_cosmetic) == sorted(cosmetic)
    rules_found = {finding.rule.value for finding in (*diff.findings, *(datum.refusal for datum in diff.texts))}
    if pdb is None and pair.cautious:
        rules_found.discard("contradicting-votes")
    assert rules_found == set(rules), list(map(str, diff.findings))


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if "data-layout" not in pair.rules])
def test_live_data_without_symbols_are_right_or_refused(built, name, machine) -> None:
    """What matches without PDBs is what the PDBs say; what a changed function needs and nothing matches is new, or is found."""
    paths = built(name, machine)
    named = [open_image(path) for path in paths]
    there, here = ({datum.name: datum.rva for datum in image.data_symbols} for image in named)
    diff = diff_images(*(open_image(path, pdb=None) for path in paths))
    live = {match.fixed: match for match in diff.data if match.writable and match.matched_by != "import"}
    for name_of, rva in here.items():
        found = diff.base_datum(rva)
        if rva in live or found is not None:
            assert found == there.get(name_of) or diff.findings, name_of
        elif name_of in there and diff.fixed.section_at(rva).flags & SectionFlags.WRITE and _used_by_changed(diff, rva):
            assert diff.findings, name_of


def _used_by_changed(diff, rva: int) -> bool:
    functions = [row.fixed for row in diff.functions if row.fixed and row.verdict in (Verdict.CHANGED, Verdict.ADDED)]
    return any(reference.target == rva for function in functions for part in diff.fixed.references(function) for reference in part)
