"""Verdicts are right on every case, with PDBs and without."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import case_names, find_case


@pytest.mark.parametrize("pdb", [True, False], ids=["pdb", "no-pdb"])
@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", case_names())
def test_verdicts(given, name, machine, pdb) -> None:
    assert given(name, machine, pdb).verdicts() == find_case(name).verdicts(machine, pdb=pdb)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", case_names())
def test_every_function_of_the_pdb_has_a_row(given, name, machine) -> None:
    one = given(name, machine, True)
    rows = {row.base.entry for row in one.diff.functions if row.base}
    assert set(one.names["base"]) <= rows
