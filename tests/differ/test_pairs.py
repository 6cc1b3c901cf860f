"""One difference in the source, and exactly the verdicts and findings that follow from it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import Verdict, diff_images
from hotpatch.image import open_image
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
    assert sorted({finding.rule.value for finding in diff.findings}) == sorted(rules), list(map(str, diff.findings))
