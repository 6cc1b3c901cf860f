"""Exceptions on patched code, on both machines: across patched frames, in trampolines, in and out of vectored handlers."""

from __future__ import annotations

from functools import cache

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import Case, find_case

ACCESS_VIOLATION = 0xC000_0005
each_machine = pytest.mark.parametrize("machine", list(Machine))
each_redirect = pytest.mark.parametrize("redirect", list(Redirect))


@cache
def case(name: str) -> Case:
    return find_case(name)


@cache
def images(name: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image]:
    return hotpatch.open(case(name).image(machine, "base")), hotpatch.open(case(name).image(machine, "fixed"))


def run(process: hotpatch.Process) -> str:
    process.start()
    result = process.run()
    assert result.fault is None
    return result.output


def raised_at(process: hotpatch.Process) -> list[int]:
    """Where access violations happened."""
    found = [event.details for event in process.events if event.kind == "exception"]
    return [details["pc"] for details in found if details["code"] == ACCESS_VIOLATION]


@each_redirect
@each_machine
def test_an_exception_crosses_a_patched_frame_and_its_finally_block(machine: Machine, redirect: Redirect) -> None:
    """Raised below the patched function, caught above it; the block that the patch brings along gives the lock back."""
    base, fixed = images("exception", machine)
    process = hotpatch.Process(base)
    process.apply(hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect))
    assert run(process) == case("exception").manifest.program[0].patched.output


@each_machine
def test_an_exception_in_a_trampoline_is_caught_by_its_caller_or_repaired(machine: Machine) -> None:
    """A newer patch gives ``peek`` back, so that its first instruction, which is the one that fails, runs in the trampoline."""
    base, fixed = images("vectored", machine)
    diff = hotpatch.diff(base, fixed)
    program = case("vectored").manifest.program[0]
    process = hotpatch.Process(base)
    original = process.apply(hotpatch.build(diff)).original("peek")
    process.apply(hotpatch.build(diff, only=["weigh"], sequence=2))
    output = run(process)
    old, new = program.before.output.splitlines(), program.patched.output.splitlines()
    assert output.splitlines() == [*old[:-1], new[-1]]
    assert raised_at(process) == [original] * 4


@each_redirect
@each_machine
def test_an_exception_in_new_code_is_repaired_there(machine: Machine, redirect: Redirect) -> None:
    """The older build as the fix: what fails is the patch's own instruction, and a handler changes its register."""
    fixed, base = images("vectored", machine)  # the other way round: the bug goes in
    process = hotpatch.Process(base)
    applied = process.apply(hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect))
    assert run(process) == case("vectored").manifest.program[0].before.output
    (new,) = (function.destination for function in applied.functions if function.name == "peek")
    assert raised_at(process) == [new] * 4


@each_machine
def test_a_patched_program_gives_the_same_whenever_the_patch_comes(machine: Machine) -> None:
    base, fixed = images("exception", machine)
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    process = hotpatch.Process(base)
    process.start()
    start = process.snapshot()
    total = process.run().instructions
    program = case("exception").manifest.program[0]
    for point in range(0, total, total // 40):
        process.restore(start)
        process.apply_at(point, patch)
        result = process.run()
        assert result.fault is None, point
        assert program.problem_anywhere(result.exit_code, result.output) is None, point
