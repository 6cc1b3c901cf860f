"""Every case builds as it says, or is refused by the rule that it names, on both machines, with PDBs and without."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.arguments import parse_argument
from hotpatch.cases import case_names, find_case

each_pdb = pytest.mark.parametrize("pdb", [True, False], ids=["pdb", "no-pdb"])
each_machine = pytest.mark.parametrize("machine", Machine)
BUILT = {"patched", "apply-refused"}


def outcome(given) -> tuple[str, list[str]]:
    """What building leads to: an outcome, and the rules of all refusals in order."""
    try:
        given.patch  # noqa: B018  made on first use
    except hotpatch.NothingToDo:
        return "nothing", []
    except hotpatch.NotHotpatchable as refused:
        assert not [item.reason for item in refused.refusals if item.reason.endswith(".")]
        return "refused", [item.rule for item in refused.refusals]
    return "patched", []


def results(given) -> bool:
    """Whether the patched base gives what the fixed image gives, call by call."""
    patched, fixed = hotpatch.Process(given.image("base")), hotpatch.Process(given.image("fixed"))
    patched.apply(given.patch)
    rows = [(call.function, *map(parse_argument, call.args)) for call in given.case.manifest.call]
    return bool(rows) and all(patched.call(*row) == fixed.call(*row) for row in rows)


@each_pdb
@each_machine
@pytest.mark.parametrize("name", case_names())
def test_outcome(given, name, machine, pdb) -> None:
    case = find_case(name)
    expected, rule = case.expected(pdb=pdb)
    if expected == "any":
        assert outcome(given(name, machine, pdb))[0] == "refused" or results(given(name, machine, pdb))
    elif expected in BUILT:
        assert outcome(given(name, machine, pdb)) == ("patched", [])
    else:
        found, rules = outcome(given(name, machine, pdb))
        assert (found, rules[0] if rules else None) == (expected, case.rules(machine, pdb=pdb)[0] if rule else None)
        assert len(case.rules(machine, pdb=pdb)) < 2 or set(rules) == set(case.rules(machine, pdb=pdb))


@each_pdb
@each_machine
@pytest.mark.parametrize("name", [name for name in case_names() if find_case(name).manifest.expect.outcome in BUILT])
def test_what_travels_and_how(given, name, machine, pdb) -> None:
    case = find_case(name)
    expected = dict.fromkeys(case.manifest.expect.travels, Redirect.HPAT) | case.redirects(machine)
    assert given(name, machine, pdb).travelling() == expected


@each_machine
@pytest.mark.parametrize("name", [name for name in case_names() if find_case(name).manifest.expect.carried])
def test_what_comes_along(given, name, machine) -> None:
    carried = {one.name for one in given(name, machine, True).patch.carried}
    assert set(find_case(name).manifest.expect.carried) <= carried


@each_machine
@pytest.mark.parametrize("name", [name for name in case_names() if find_case(name).manifest.expect.outcome in BUILT])
def test_what_it_imports(given, name, machine) -> None:
    assert sorted(one.name for one in given(name, machine, True).patch.imports) == sorted(find_case(name).manifest.expect.imports)


@pytest.mark.parametrize("name", ["overflow-check", "new-constant", "parameters"])
@each_machine
def test_the_same_inputs_give_the_same_bytes(given, name, machine) -> None:
    one = given(name, machine, True)
    again = hotpatch.build(hotpatch.diff(hotpatch.open(one.paths["base"]), hotpatch.open(one.paths["fixed"])))
    assert again.data == one.patch.data
