"""`hotpatch demo` of every case plays what its manifest says, fits 80 columns, and is right in every step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import msgspec
import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.builder import build_patch
from hotpatch.cases import LATER_PHASES, PHASES, Case, case_names, find_case, fixtures_folder, story_program
from hotpatch.cases.story import Step, StepKind, Teller
from hotpatch.cases.tell import bug_is_fixed, is_as_told, tell
from hotpatch.engine import AppliedPatch, Consistency
from hotpatch.patch import Patch
from hotpatch.process import Process
from hotpatch.report import story
from tests.cases.sabotage import new_code_stays, old_entries_stay


@cache
def told(name: str, machine: Machine) -> tuple[Step, ...]:
    return tuple(tell(name, machine, seed=0, cache=Path("unused")))


def phases(case: Case) -> tuple[str, ...]:
    """Those in which the case's calls must be made, in order."""
    expect = case.manifest.expect
    if expect.outcome != "patched":
        return PHASES[:2]
    again = PHASES[1:2] * bool(expect.overwritten)
    later = LATER_PHASES[:1] if expect.then_rule else LATER_PHASES if expect.then else ()
    return (*PHASES[:2], *again, *PHASES[2:], *later)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", case_names())
def test_the_story_is_the_case_s(name: str, machine: Machine) -> None:
    case = find_case(name)
    expect, steps = case.manifest.expect, told(name, machine)
    assert {step.machine for step in steps} == {machine}
    assert all(step.details.get("right", True) for step in steps), [step.text for step in steps if not step.details.get("right", True)]
    rules = {str(step.details["rule"]) for step in steps if "rule" in step.details}
    assert rules >= {str(rule) for rule in (expect.rule, expect.then_rule) if rule is not None}
    assert ("redirect-changed" in rules) == bool(expect.overwritten)
    assert ("callback-veto" in rules) == bool(expect.busy)
    assert is_as_told(steps)
    marked = any(step.kind in ("bug", "good") for step in steps)
    assert bug_is_fixed(steps) is (True if marked else None)
    if case.manifest.demo is not None:
        assert marked
        return
    assert [step.details["hosted"] for step in steps if "hosted" in step.details] == [
        program.title for program in case.manifest.hosted for _ in range(2)
    ]
    assert steps[-1].kind == "end"
    assert steps[-1].details.get("outcome", "patched") == {"apply-refused": "refused"}.get(expect.outcome, expect.outcome)
    assert [step.details["phase"] for step in steps if "phase" in step.details] == [
        phase for phase in phases(case) for _ in case.manifest.call
    ]
    assert any("hooks" in step.text for step in steps if step.kind == "act") == bool(expect.hooked)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", [name for name in case_names() if find_case(name).manifest.program])
def test_programs_are_patched_by_every_consistency_that_the_case_speaks_of(name: str, machine: Machine) -> None:
    case = find_case(name)
    if case.manifest.demo is not None:
        pytest.skip("told by one run, patched at once")
    steps = told(name, machine)
    models = [step.details["consistency"] for step in steps if "consistency" in step.details]
    wanted = [list(Consistency) if program.consistent else [Consistency.IMMEDIATE] for program in case.manifest.program]
    assert models == [model for part in wanted for model in part]
    assert [step.text for step in steps if step.kind == "say" and step.text.startswith("exit code")]
    called_off = [step for step in steps if step.details.get("stage") == "reverse"]
    assert len(called_off) == sum(program.called_off for program in case.manifest.program)
    if name == "never-quiescent":
        assert "not-quiescent" in {step.details.get("rule") for step in steps}


@pytest.mark.parametrize("machine", Machine)
def test_no_line_is_wider_than_a_slide(machine: Machine) -> None:
    for name in case_names():
        for step in told(name, machine):
            lines = story.line(step).plain.split("\n")
            assert all(len(line) <= story.WIDTH for line in lines), (name, lines)
            assert not any(line.endswith("-") for line in lines), (name, lines)
            assert str(fixtures_folder()) not in step.text


@pytest.mark.parametrize("machine", Machine)
def test_callbacks_are_told(machine: Machine) -> None:
    moments = [step.details["moment"] for step in told("hooks", machine) if "moment" in step.details]
    there, back = ["before-apply", "after-apply"], ["before-revert", "after-revert"]
    assert moments == [*there, *back, *there]


@pytest.mark.parametrize("machine", Machine)
def test_a_superseding_patch_rewrites_pointers(machine: Machine) -> None:
    steps = told("superseded", machine)
    acts = [number for number, step in enumerate(steps) if step.kind == "act"]
    (on_top,) = (number for number in acts if "on top" in steps[number].text)
    written = [step for step in steps[on_top : acts[acts.index(on_top) + 1]] if step.kind == "write"]
    assert sum("before" in step.details and "pointer" in step.details for step in written) == 2
    assert sum("entry of" in step.text for step in written) == 1


def counted(steps: Iterable[Step]) -> list[tuple[object, ...]]:
    """Of each function, before the patch, with it and after it: calls that took the new code, and the old."""
    found = [step for step in steps if step.kind == "call"]
    assert all(f"{step.details['new']} took the new code, {step.details['old']} the old" in step.text for step in found)
    return [(step.details["function"], step.details["new"], step.details["old"]) for step in found]


ECHO, NAME = ("ECHO 52 hi", "echo"), ("NAME AAAAAAAAAAAAAAAAAAAA", "set_name")
"""Attacks on the demo's server, and the function that each gets into."""
SHIPPED = [("echo", 0, 2), ("set_name", 0, 1)]


def ran(steps: Iterable[Step]) -> list[str]:
    """Which code ran for each attack."""
    attacks = [step.details for step in steps if step.kind == "request" and step.details["hostile"]]
    codes = [code for details in attacks for code in details["ran"]]
    assert [(details["request"], code["function"]) for details, code in zip(attacks, codes, strict=True)] == [ECHO, ECHO, NAME, ECHO, NAME]
    return [code["code"] for code in codes]


@pytest.mark.parametrize("redirect", Redirect)
@pytest.mark.parametrize("machine", Machine)
def test_calls_are_counted_by_the_code_that_they_take(machine: Machine, redirect: Redirect, monkeypatch: pytest.MonkeyPatch) -> None:
    def again() -> tuple[Step, ...]:
        return tuple(tell("overflow-check", machine, seed=0, cache=Path("unused")))

    monkeypatch.setattr(story_program, "build_patch", partial(build_patch, redirect=redirect))
    steps = again()
    assert counted(steps) == [*SHIPPED, ("echo", 2, 0), ("set_name", 1, 0), ("echo", 0, 1), ("set_name", 0, 1)]
    assert ran(steps) == ["old", "new", "new", "old", "old"]
    with monkeypatch.context() as behind:
        old_entries_stay(behind)
        steps = again()
    assert counted(steps) == [*SHIPPED, ("echo", 0, 2), ("set_name", 0, 1), ("echo", 0, 1), ("set_name", 0, 1)]
    assert ran(steps) == ["old"] * 5
    assert bug_is_fixed(steps) is False
    assert not is_as_told(steps)
    with monkeypatch.context() as behind:
        new_code_stays(behind)
        steps = again()
    assert counted(steps) == [*SHIPPED, ("echo", 2, 0), ("set_name", 1, 0), ("echo", 1, 0), ("set_name", 1, 0)]
    assert ran(steps) == ["old", *["new"] * 4]
    assert bug_is_fixed(steps) is False


@pytest.mark.parametrize("machine", Machine)
def test_requests_stand_beside_their_replies(machine: Machine) -> None:
    demo = find_case("overflow-check").manifest.demo
    assert demo is not None
    replies = [step for step in told("overflow-check", machine) if step.text.startswith("#")]
    asked = demo.stdin.splitlines()
    assert [step.details.get("request", request) for step, request in zip(replies, asked, strict=True)] == asked
    lines = [story.line(step).plain for step in replies]
    assert lines[0] == "    PUT milk two bottles │ #1 OK"
    assert "    GET milk             │ #9 OK two bottles  ← state from before the patch" in lines
    assert [step.text.split()[0] for step in replies if step.kind == "kept"] == ["#9", "#16"]
    long = Step(machine, StepKind.OUTPUT, "#1 OK", {"request": "GET a key that is too long for its column"})
    assert story.line(long).plain.split("\n") == ["    GET a key that is too long for its column", f"{'│':>26} #1 OK"]


@pytest.mark.parametrize("machine", Machine)
def test_code_that_ran_again_and_again_is_told_with_its_count(machine: Machine) -> None:
    asked = {step.details["request"]: step for step in told("interpreter", machine) if step.kind is StepKind.REQUEST}
    assert asked["sum(14)"].text == "sum(14)   thread 2 ran the old code of execute 16 times"
    assert asked["host(2)"].text == "host(2)   hostile: thread 2 ran the old code of execute, the old code of host"


@pytest.mark.parametrize("machine", Machine)
def test_what_a_change_waits_for_and_state_that_is_lost_are_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Process.apply

    def waiting(process: Process, patch: Patch) -> AppliedPatch:
        """With a thread inside of what is replaced."""
        entry = process.load_base + patch.functions[0].base_rva
        while (process.position or (0, 0))[1] != entry:
            process.run(1)
        process.run(1)
        applied = apply(process, patch, Consistency.QUIESCENT)
        process.wait(applied)
        return applied

    monkeypatch.setattr(Process, "apply", waiting)
    case = find_case("overflow-check")
    assert case.manifest.demo is not None
    demo = msgspec.structs.replace(case.manifest.demo, kept=("#9 OK two bottles", "OK a note that nobody wrote", "client alice"))
    steps = tuple(story_program.tell_program(case, machine, demo))
    (said,) = (step for step in steps if "waited" in step.details)
    assert said.details["waited"] == 1
    assert said.text == f"while it went in, {said.details['held']} instructions ran, and 1 thread had to be waited for"
    assert steps[-1].text.endswith("; of the state from before the patch was not seen: OK a note that nobody wrote")
    assert not is_as_told(steps)


def test_what_is_written_stands_in_columns_however_long_the_names() -> None:
    tell = Teller(Machine.X64)
    process = Process(hotpatch.open(find_case("superseded").image(Machine.X64)))
    patch = build_patch(hotpatch.diff(process.base, hotpatch.open(find_case("superseded").image(Machine.X64, "fixed"))))
    nameless = replace(patch, functions=tuple(replace(each, name=None) if each.name == "price" else each for each in patch.functions))
    process.apply(nameless)
    lines = [step.text.partition(" of ")[2] for step in tell.changes(process, 0)]
    assert {line[:11] for line in lines} == {"rva:0x1010 ", "discount   "}
    assert {line[11:].split()[0] for line in lines} == {"cccccccccc", "4883", "4889", "jmp"}


@pytest.mark.parametrize("machine", Machine)
def test_nothing_is_said_of_old_code_that_cannot_be_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A return where the redirect stands: the old code may never get behind it."""
    returns = {Machine.X64: bytes.fromhex("c390"), Machine.ARM64: bytes.fromhex("c0035fd6")}[machine]
    displaced = story_program._displaced
    monkeypatch.setattr(story_program, "_displaced", lambda process, since: dict.fromkeys(displaced(process, since), returns))
    steps = [step for step in tell("overflow-check", machine, seed=0, cache=Path("unused")) if step.kind == "call"]
    assert [(step.details["new"], step.details["old"]) for step in steps] == [(0, 2), (0, 1), (2, None), (1, None), (0, None), (0, None)]
    assert not any("old" in step.text for step in steps[2:])
