"""One difference in the source: what travels, what comes along, and that the patched base does what the fixed build does."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable
from hotpatch.image import open_image
from tests.builder.applied import Applied
from tests.builder.pairs import BUILT, TRIALS

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'"),
]

each_machine = pytest.mark.parametrize("machine", Machine)
LEVELS = {"O0": ("-O0", "-fno-sanitize=undefined"), "O1": ("-O1",), "Os": ("-Os",), "O3": ("-O3",)}


def patch_of(paths, pdb):
    return build_patch(diff_images(*(open_image(path, pdb=pdb) for path in paths)))


def run(applied, calls):
    return [applied.call(name, *arguments) for name, *arguments in calls]


def check(paths, patch, calls):
    """Results after the patch are those of the fixed build, and not those of the base."""
    base, fixed = (open_image(path) for path in paths)
    expected, before = run(Applied(fixed), calls), run(Applied(base), calls)
    assert run(Applied(base, patch), calls) == expected
    assert not calls or before != expected, "the calls do not show the difference"


@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@each_machine
@pytest.mark.parametrize("name", TRIALS)
def test_trial(built, name, machine, pdb) -> None:
    trial, paths = TRIALS[name], built(name, machine)
    rule = trial.refused if pdb else trial.refused_without or trial.refused
    if rule not in (None, BUILT) and machine in trial.refused_on:
        with pytest.raises(NotHotpatchable) as refused:
            patch_of(paths, pdb)
        assert rule in [refusal.rule for refusal in refused.value.refusals]
        return
    patch = patch_of(paths, pdb)
    names = {function.entry: function.name for function in open_image(paths[0]).functions}
    assert sorted(names[row.base_rva] for row in patch.functions) == sorted(trial.travels)
    kinds = sorted(row.kind.value for row in patch.carried)
    sure = [item for item in trial.carried if not item.startswith("maybe")]
    maybe = [item.split()[1] for item in trial.carried if item not in sure]
    if not any(item.startswith("any") for item in sure):
        assert kinds in (sorted(item.split()[0] for item in sure), sorted([item.split()[0] for item in sure] + maybe))
    if pdb:
        told = {row.name for row in patch.carried}
        assert {item.split()[1] for item in sure if "[" not in item} <= told
    assert sorted(row.name for row in patch.imports) == sorted(trial.imports)
    check(paths, patch, trial.calls)


@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@each_machine
def test_a_call_of_a_new_function_in_the_place_of_one_that_stays(built, machine, pdb) -> None:
    diff = diff_images(*(open_image(path, pdb=pdb) for path in built("another-function-in-the-place-of-a-lost-one", machine)))
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff, only=("f",))
    assert [refusal.rule for refusal in refused.value.refusals] == ["unresolved-reference"]


@each_machine
def test_what_is_doubted_to_be_the_bases_may_be_another_that_seems_new(built, machine) -> None:
    name = "a-new-count-before-one-that-another-function-goes-on-with-and-more-behind"
    base, fixed = (open_image(path) for path in built(name, machine))
    entry = next(function.entry for function in base.functions if function.name == "g")
    diff = diff_images(*(open_image(image.path, pdb=None) for image in (base, fixed)))
    with pytest.raises(NotHotpatchable, match="may be new or one that the base has"):
        build_patch(diff, only=(f"rva:0x{entry:x}",))


def test_an_address_of_code_that_stays_and_is_out_of_reach(built) -> None:
    """Cases of a switch that nothing shows to belong to it look like functions, to one of which an ``adr`` leads."""
    paths = built("cases-that-look-like-functions", Machine.ARM64)
    with pytest.raises(NotHotpatchable) as refused:
        patch_of(paths, None)
    assert "which stays in the base" in refused.value.refusals[0].reason
    assert patch_of(paths, "auto").functions


@each_machine
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [name for name, trial in TRIALS.items() if trial.calls and trial.refused is None])
def test_other_optimisation(built, name, level, machine) -> None:
    """Whatever the compiler makes of it: the patch is right, or refused."""
    paths = built(name, machine, LEVELS[level])
    check(paths, patch_of(paths, "auto"), TRIALS[name].calls)
