"""Every case, patched and unpatched: at every instruction of its calls and programs a walk finds what a shadow stack has recorded.

See ``followed.py`` for the shadow stack. The plain run follows the beginning of each and compares a sample; the rest is behind the marker
exhaustive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import case_names, find_case
from hotpatch.cli.arguments import parse_argument
from hotpatch.engine import Consistency, PatchState
from tests.unwind.followed import Followed

CASES = [find_case(name) for name in case_names()]
PROGRAMS = [(case.name, number) for case in CASES for number in range(len(case.manifest.program))]
HOSTED = [(case.name, number) for case in CASES for number in range(len(case.manifest.hosted))]
CALLED = [case.name for case in CASES if case.manifest.call]
BEGINNING, SAMPLE = 900, 29
each_machine = pytest.mark.parametrize("machine", list(Machine))
thoroughly = pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)])


@cache
def built(case: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Patch | None]:
    found = find_case(case)
    base, fixed = (hotpatch.open(found.image(machine, side)) for side in ("base", "fixed"))
    return base, hotpatch.build(hotpatch.diff(base, fixed)) if found.manifest.expect.outcome == "patched" else None


@cache
def length(case: str, number: int, machine: Machine) -> int:
    program = find_case(case).manifest.program[number]
    process = hotpatch.Process(built(case, machine)[0], args=program.args, stdin=program.stdin.encode())
    process.start()
    return process.run().instructions


def modes(patch: hotpatch.Patch | None) -> Iterator[Consistency | None]:
    """Not patched; then patched, thread by thread where that can be: dispatchers come, then slots lead straight on, then all goes back."""
    yield None
    if patch is not None:
        slots = all(function.redirect is Redirect.HPAT for function in patch.functions)
        yield Consistency.PER_THREAD if slots else Consistency.IMMEDIATE


def follow(process: hotpatch.Process, whole: bool) -> Followed:
    return Followed(process, 1 if whole else SAMPLE)


def check(followed: Followed, executed: int) -> None:
    assert followed.problems == []
    assert followed.executed >= executed
    assert followed.compared >= followed.executed // followed.stride > 0


@thoroughly
@each_machine
@pytest.mark.parametrize(("name", "number"), PROGRAMS)
def test_programs(name: str, number: int, machine: Machine, whole: bool) -> None:
    """A third of the way the patch goes in, after two thirds it comes out again."""
    base, patch = built(name, machine)
    program = find_case(name).manifest.program[number]
    total = length(name, number, machine) if whole else BEGINNING
    every = list(modes(patch))
    for seed, model in enumerate(every if whole else every[-1:]):
        process = hotpatch.Process(base, args=program.args, stdin=program.stdin.encode(), seed=seed)
        process.start()
        if patch is not None and model is not None:
            process.apply_at(total // 3, patch, model)
            process.revert_at(total * 2 // 3, patch)
        followed = follow(process, whole)
        run = process.run(None if whole else total)
        check(followed, run.instructions)
        assert run.fault is None


HALTED = "delay-import"
"""The linker's code that calls the helper of delayed imports moves the stack and has no unwind data: a walk ends there and says so, or
takes it for a leaf. That helper's caller ends in a jump through a register, which no epilogue ends in."""
TAIL = "__tailMerge_"
WALKED = re.compile(r"thread \d+ at (0x\w+), complete=\w+: \[(.*?)\] for ")
"""Where a walk began, and what it found."""


def is_at_the_linkers_code(problem: str, base: hotpatch.Image, va: int) -> bool:
    """Whether a walk that went wrong had come to code of the image at ``va`` that has no unwind data, or to the helper's caller."""
    began, found = WALKED.match(problem).groups()
    inside = [int(place, 16) - va for place in (began, *re.findall(r"0x\w+", found))]
    return any(is_the_linkers(base, rva) for rva in inside)


def is_the_linkers(base: hotpatch.Image, rva: int) -> bool:
    section, function = base.section_at(rva), base.function_at(rva)
    is_tail = function is not None and any(name.startswith(TAIL) for name in function.names)
    return section is not None and section.executable and (is_tail or base.unwind_entry_at(rva) is None)


@thoroughly
@each_machine
@pytest.mark.parametrize("name", CALLED)
def test_calls(name: str, machine: Machine, whole: bool) -> None:
    """Unpatched, patched in the middle of each call, and patched before it."""
    base, patch = built(name, machine)
    calls = [(call.function, [parse_argument(text) for text in call.args]) for call in find_case(name).manifest.call]
    for at in (None, 3, 0) if whole and patch is not None else (None if patch is None else 3,):
        executed = 0
        for function, arguments in calls if whole else calls[:2]:
            process = hotpatch.Process(base)
            if patch is not None and at is not None:
                process.apply_at(at, patch)
            followed = follow(process, whole)
            with suppress(hotpatch.EmulatedFault):
                process.call_details(function, *arguments, budget=100_000 if whole else BEGINNING)
            executed += followed.executed
            va = process.load_base
            told = [problem for problem in followed.problems if name != HALTED or not is_at_the_linkers_code(problem, base, va)]
            assert told == []
        assert executed > 0


@thoroughly
@each_machine
@pytest.mark.parametrize(("name", "number"), HOSTED)
def test_hosted(name: str, number: int, machine: Machine, whole: bool) -> None:
    """The module comes patched, is patched while it is there, or stays as it is."""
    base, patch = built(name, machine)
    case = find_case(name)
    program = case.manifest.hosted[number]
    for way in ("not", "registered", "in between") if whole else ("registered",):
        args = [case.image(machine).name, *program.args]
        process = hotpatch.Process(hotpatch.open(case.host(machine)), available=[base], args=args, stdin=program.stdin.encode())
        process.start()
        if way == "registered":
            applied = process.register(patch)
        elif way == "in between":
            process.apply_at(500, patch, Consistency.PER_THREAD)
        followed = follow(process, whole)
        run = process.run(None if whole else BEGINNING)
        check(followed, run.instructions)
        assert run.fault is None
        assert way != "registered" or not whole or applied.state in (PatchState.APPLIED, PatchState.REGISTERED)


@each_machine
def test_a_wrong_walk_is_noticed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the comparison would prove nothing: one return address in a hundred is another."""
    base, _ = built("callback", machine)
    process = hotpatch.Process(base)
    process.start()
    followed = Followed(process)
    real, count = process.guest._suspended, 0

    def forgetful(thread: object) -> object:
        nonlocal count
        count += 1
        return () if count % 100 == 0 else real(thread)

    monkeypatch.setattr(process.guest, "_suspended", forgetful)
    process.run()
    assert followed.problems
