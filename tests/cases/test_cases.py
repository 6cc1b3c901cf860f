"""Every case, before, patched, reverted and patched again, on both machines, with PDBs and without, at three load bases."""

from __future__ import annotations

import shutil

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import LATER_PHASES, case_names, find_case
from hotpatch.cli.arguments import parse_argument

PREFERRED, LOW, HIGH = None, 0x1_0000_0000, 0x7FF5_1234_0000
CASES = [find_case(name) for name in case_names()]
WITH_CALLS = [case.name for case in CASES if case.manifest.call]
PROGRAMS = [(case.name, number) for case in CASES for number in range(len(case.manifest.program))]

each_machine = pytest.mark.parametrize("machine", Machine)
each_pdb = pytest.mark.parametrize("pdb", [True, False], ids=["pdb", "no-pdb"])
each_base = pytest.mark.parametrize("load_base", [PREFERRED, LOW, HIGH], ids=["preferred", "low", "high"])
each_program = pytest.mark.parametrize(("name", "number"), PROGRAMS)


def unpatchable(given) -> bool:
    """Whether the builder gives no patch: rightly so, as another test says."""
    return given.case.expected(pdb=given.pdb)[0] not in {"patched", "apply-refused"}


def image_to_patch(given, folder) -> hotpatch.Image:
    """What the process runs: the base, or another build under the base's name, as builds of one product have it."""
    side = given.case.manifest.expect.apply_to
    if side == "base":
        return given.image("base")
    return hotpatch.open(shutil.copy(given.paths[side], folder / given.paths["base"].name))


def check_calls(process: hotpatch.Process, given, phase: str) -> None:
    """Make every call of the case and compare results and buffers."""
    for number, call in enumerate(given.case.manifest.call, 1):
        result = process.call_details(call.function, *map(parse_argument, call.args))
        expected = call.expected(phase)
        got = result.float_value if isinstance(expected, float) else result.value
        assert got == expected, f"{phase}, call {number}: {call.function}({', '.join(call.args)})"
        buffers = call.expected_buffers(phase)
        assert buffers is None or result.buffers == buffers, f"{phase}, call {number}: buffers"


@each_base
@each_pdb
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls(given, name, machine, pdb, load_base, tmp_path) -> None:
    one = given(name, machine, pdb)
    expect = one.case.manifest.expect
    process = hotpatch.Process(image_to_patch(one, tmp_path), load_base=load_base)
    check_calls(process, one, "before")
    if unpatchable(one):
        check_calls(process, one, "patched")
        return
    if expect.outcome == "apply-refused":
        with pytest.raises(hotpatch.ApplyRefused) as refused:
            process.apply(one.patch)
        assert refused.value.refusals[0].rule == expect.rule
        check_calls(process, one, "patched")
        return
    applied = process.apply(one.patch)
    check_calls(process, one, "patched")
    applied.revert()
    check_calls(process, one, "reverted")
    process.apply(one.patch)
    check_calls(process, one, "again")
    if expect.then is not None:
        later = process.apply(hotpatch.build(hotpatch.diff(one.image("base"), one.image(expect.then)), sequence=2))
        check_calls(process, one, LATER_PHASES[0])
        later.revert()
        check_calls(process, one, LATER_PHASES[1])


@pytest.mark.parametrize("redirect", ["direct", "inline"])
@each_machine
@pytest.mark.parametrize("name", [name for name in WITH_CALLS if find_case(name).manifest.expect.outcome == "patched"])
def test_calls_with_other_redirects(given, name, machine, redirect) -> None:
    one = given(name, machine, True)
    patch = hotpatch.build(one.diff, redirect=redirect)
    process = hotpatch.Process(one.image("base"))
    check_calls(process, one, "before")
    applied = process.apply(patch)
    check_calls(process, one, "patched")
    applied.revert()
    check_calls(process, one, "reverted")
    process.apply(patch)
    check_calls(process, one, "again")


@pytest.mark.parametrize("patching", ["not", "applied", "reverted", "again"])
@each_base
@each_pdb
@each_machine
@each_program
def test_programs(given, name, number, machine, pdb, load_base, patching) -> None:
    one = given(name, machine, pdb)
    program = one.case.manifest.program[number]
    process = hotpatch.Process(one.image("base"), load_base=load_base, args=program.args, stdin=program.stdin.encode())
    if patching != "not":
        applied = process.apply(one.patch)
        if patching != "applied":
            applied.revert()
        if patching == "again":
            process.apply(one.patch)
    process.start()
    run = process.run()
    expected = program.patched if patching in {"applied", "again"} else program.before
    assert (run.fault, run.exit_code, run.output) == (None, expected.exit_code, expected.output)


@pytest.mark.parametrize("seed", range(1, 6))
@each_machine
@each_program
def test_programs_come_out_the_same_under_any_schedule(given, name, number, machine, seed) -> None:
    one = given(name, machine, True)
    program = one.case.manifest.program[number]
    for side, expected in (("base", program.before), ("fixed", program.patched)):
        process = hotpatch.Process(one.image(side), args=program.args, stdin=program.stdin.encode(), seed=seed)
        process.start()
        run = process.run()
        assert (run.fault, run.exit_code, run.output) == (None, expected.exit_code, expected.output)
