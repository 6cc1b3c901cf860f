"""Cases whose program loads the patched DLL while it runs."""

from __future__ import annotations

import random
from itertools import product

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import Program, case_names, find_case
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.engine import Consistency, PatchState
from tests.mixing import Watch
from tests.stepping import Steps

CASES = [find_case(name) for name in case_names()]
HOSTED = [(case.name, number) for case in CASES for number in range(len(case.manifest.hosted))]

each_hosted = pytest.mark.parametrize(("name", "number"), HOSTED)
each_machine = pytest.mark.parametrize("machine", Machine)


def process_of(given, number: int, **settings: object) -> tuple[hotpatch.Process, Program]:
    program = given.case.manifest.hosted[number]
    image = hotpatch.open(given.case.host(given.machine))
    args = [given.paths["base"].name, *program.args]
    process = hotpatch.Process(image, available=[given.image("base")], args=args, stdin=program.stdin.encode(), **settings)
    process.start()
    return process, program


def test_both_cases_are_there() -> None:
    assert {name for name, _ in HOSTED} == {"late-module", "unloaded-module"} == {case.name for case in CASES if case.has_host}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("patching", "how", "pdb"),
    [("not", Consistency.IMMEDIATE, True), *product(["registered", "called-off", "again"], Consistency, [True, False])],
)
@each_machine
@each_hosted
def test_hosted_programs(given, name, number, machine, pdb, how, patching, seed) -> None:
    one = given(name, machine, pdb)
    process, program = process_of(one, number, seed=seed, consistency=how)
    if patching != "not":
        applied = process.register(one.patch)
        if patching != "registered":
            process.revert(applied)
        if patching == "again":
            applied = process.register(one.patch)
    run = process.run()
    expected = program.patched if patching in {"registered", "again"} else program.before
    assert (run.fault, run.exit_code, run.output) == (None, expected.exit_code, expected.output)
    assert not process.refused
    if patching in {"registered", "again"}:
        loaded = name == "late-module"  # ends with the DLL loaded
        assert (applied.state, process.status().kept) == (PatchState.APPLIED if loaded else PatchState.REGISTERED, ())


def seeds_of(name: str, full: bool) -> range:
    """Scheduler seeds that a case is tried with: more behind the marker exhaustive, and more where it has threads."""
    return range((200 if name == "unloaded-module" else 5) if full else 2)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("how", Consistency)
@each_machine
@each_hosted
def test_hosted_programs_in_and_out_under_every_seed(given, name, number, machine, how, full) -> None:
    """At two points of a run; no thread runs old and new code mixed unless that was asked for, and each line is of one of the two.

    Where it is ``full``, at every step from where the patch goes in until it is gone, too.
    """
    one = given(name, machine, True)
    process, program = process_of(one, number)
    watch, steps, start = Watch(process), Steps(process), process.snapshot()
    steps.reset(on=False)
    length = process.run().instructions
    lines = [[line for line in form.output.splitlines() if "step" not in line] for form in (program.before, program.patched)]
    for seed in seeds_of(name, full):
        process.restore(start)
        watch.reset()
        steps.reset(on=full and how is not Consistency.IMMEDIATE)
        process.guest.kernel.schedule = SeededSchedule(seed)
        rng = random.Random(repr((name, machine, seed)))
        first, second = sorted((rng.randrange(length), rng.randrange(length)))
        process.apply_at(first, one.patch, how)
        process.revert_at(second, one.patch)
        run = process.run()
        assert (run.fault, run.exit_code) == (None, 0), seed
        assert not process.refused, seed
        assert how is Consistency.IMMEDIATE or not (watch.mixed or steps.mixed), seed
        told = [line for line in run.output.splitlines() if "step" not in line]
        assert all(line in pair for line, *pair in zip(told, *lines, strict=True)), (seed, run.output)
        assert not process.status().patches
        assert not process.status().registered


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.exhaustive)])
@each_machine
@each_hosted
def test_hosted_programs_patched_at_any_instruction(given, name, number, machine, stride) -> None:
    """Each line is as before or as patched would be, and once it is patched nothing goes back: not by an unload either."""
    one = given(name, machine, True)
    process, program = process_of(one, number)
    here = process.snapshot()
    process.run()
    length = process.instructions
    assert 100 < length < 20_000
    for at in range(0, length, stride):
        process.restore(here)
        process.run_until(at)
        assert process.instructions == at
        here = process.snapshot()
        process.apply_at(at, one.patch)
        run = process.run()
        assert (run.fault, run.exit_code) == (None, 0), at
        assert not process.refused
        before, patched = program.before.output.splitlines(), program.patched.output.splitlines()
        lines = run.output.splitlines()
        assert len(lines) == len(before)
        if name == "late-module":
            assert all(line in pair for line, *pair in zip(lines, before, patched, strict=True)), (at, run.output)
            new = [line == after for line, old, after in zip(lines, before, patched, strict=True) if old != after]
            assert new == sorted(new), (at, run.output)
        else:
            second = [index for index, line in enumerate(lines) if line.startswith("attach")][1]
            if process.applied and process.applied[0].at <= at:
                inside = run.output.splitlines()[second:] == patched[second:]
                loaded_again = [event.at for event in process.events if event.kind == "load"][-1]
                assert inside or at > loaded_again, (at, run.output)
