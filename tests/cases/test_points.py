"""The patch goes in at seeded points of the running program: every call is wholly old or wholly new, whatever the instruction.

With consistency ``immediate`` a call that has begun finishes in old code, so nothing happens between two entries of patched functions:
going in at any instruction must give what going in right before the next such entry gives. Where the entries are comes from plain Unicorn
(``tests/fixtures/plain.py``), which knows nothing of patches.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import fields
from functools import cache

import pytest
import unicorn

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import case_names, find_case
from hotpatch.cli.arguments import parse_argument
from hotpatch.emulator.threads import GuestThread
from tests.fixtures.plain import PlainProcess
from tools.fixture_code import FixtureImage

POINTS = 50
PDB, STRIPPED = True, False
CONTEXT_HEADER = 40
"""Bytes of a thread's registers as Unicorn keeps them that are none: sizes, and where its own structures are."""
PREFERRED, LOW, HIGH = None, 0x1_0000_0000, 0x7FF5_1234_0000
PLACES = ((PDB, PREFERRED), (STRIPPED, LOW), (PDB, HIGH), (STRIPPED, PREFERRED), (PDB, LOW), (STRIPPED, HIGH))
"""Whether there are PDBs, and where the image lies: the points of a program go through all of them in turn."""
PARTS = {"hpat": PLACES[:3], "direct": PLACES[3:], "inline": (PLACES[5], PLACES[0], PLACES[1])}
"""The same for the points of calls: one for each third of a run, so that the calls' reference runs are few."""
CASES = [find_case(name) for name in case_names()]
WITH_CALLS = [
    case.name
    for case in CASES
    if case.manifest.call
    and case.manifest.expect.outcome == "patched"
    and not case.build_options(Machine.X64, "base").kernel32
    and not (case.folder / "hotpatch.def").is_file()  # originals and callbacks: not what plain Unicorn knows
]
PROGRAMS = [(case.name, number) for case in CASES for number in range(len(case.manifest.program))]
each_machine = pytest.mark.parametrize("machine", Machine)


class Calls:
    """All calls of a case, made in order on one process."""

    def __init__(self, given, redirect: str, load_base: int | None = PREFERRED) -> None:
        self.calls = given.case.manifest.call
        self.patch = given.redirected(redirect)
        self.process = hotpatch.Process(given.image("base"), load_base=load_base)
        self.start = self.process.snapshot()
        self.entries, self.total = entries(given.case.name, given.machine)

    def results(self, point: int) -> list[tuple[int, float, tuple[bytes, ...]]]:
        """What every call gives where the patch goes in after ``point`` instructions."""
        process = self.process
        process.restore(self.start)
        process.apply_at(point, self.patch)
        rows = list(map(self.make, range(len(self.calls))))
        assert not process.refused, process.refused
        assert len(process.applied) == (point < self.total)
        return rows

    def make(self, number: int) -> tuple[int, float, tuple[bytes, ...]]:
        """One call, and what it gives."""
        call = self.calls[number]
        row = self.process.call_details(call.function, *map(parse_argument, call.args))
        return row.value, row.float_value, row.buffers

    def state(self) -> tuple[object, ...]:
        """All that calls to come depend on, patches apart; where two are equal, and have the same patches, so will be what follows."""
        now = self.process.guest.snapshot()
        memory = [(region.va, region.rights, *content[1:]) for region, content in now.memory.parts]
        told = [field.name for field in fields(GuestThread) if field.name != "context"]
        threads = [([getattr(thread, name) for name in told], bytes(thread.context)[CONTEXT_HEADER:]) for thread in now.threads]
        return memory, threads, now.counters, now.handles, now.heap, now.shadows, now.loading, now.tls, now.gates, now.schedule, now.alarms


@cache
def entries(name: str, machine: Machine) -> tuple[list[int], int]:
    """After how many instructions each call of a patched function begins, and how many instructions all calls take."""
    case = find_case(name)
    image = FixtureImage(case.image(machine, "base"))
    plain = PlainProcess(image, machine)
    patched = {plain.base + image.functions[function].rva for function in case.manifest.expect.travels}
    found, executed = [], 0

    def count(_engine, address, _size, _data) -> None:
        nonlocal executed
        if address in patched:
            found.append(executed)
        executed += 1

    plain.engine.hook_add(unicorn.UC_HOOK_CODE, count)
    for call in case.manifest.call:
        plain.call(call.function, call.args)
    return found, executed


def seeded(total: int, *what: object) -> list[int]:
    """Points among ``total`` instructions; the same ones each time."""
    return sorted(random.Random(repr(what)).sample(range(total), min(POINTS, total)))


def placed(given, name: str, machine: Machine, pdb: bool):
    """The case, without PDBs where that is asked for and it says what then happens."""
    bare = find_case(name).expected(pdb=False)[0] == "patched"
    return given(name, machine, pdb or not bare)


@pytest.mark.parametrize("redirect", ["hpat", "direct", "inline"])
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_are_wholly_old_or_wholly_new(given, name, machine, redirect) -> None:
    total = entries(name, machine)[1]
    points = seeded(total, name, machine.value, redirect)
    for number, (pdb, load_base) in enumerate(PARTS[redirect]):
        part = points[number * len(points) // len(PARTS[redirect]) : (number + 1) * len(points) // len(PARTS[redirect])]
        if part:
            wholly_old_or_wholly_new(Calls(placed(given, name, machine, pdb), redirect, load_base), part)


def wholly_old_or_wholly_new(calls: Calls, points: list[int]) -> None:
    assert calls.entries
    references = {}
    for point in points:
        index = bisect_left(calls.entries, point)
        entry = calls.entries[index] if index < len(calls.entries) else calls.total
        if entry not in references:
            references[entry] = calls.results(entry)
        assert calls.results(point) == references[entry], f"after {point} instructions; the next patched call begins after {entry}"


@pytest.mark.exhaustive
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_at_every_instruction(given, name, machine) -> None:
    """From each call on: what came before it is the same wherever the patch goes in later.

    And to the end of that call, where the process is then as it is where the patch goes in before the same entry: what follows is the same.
    """
    calls = Calls(given(name, machine, True), "hpat")
    reference, states = cache(calls.results), {}
    process, here, before, tried = calls.process, calls.start, [], 0
    for number in range(len(calls.calls)):
        process.restore(here)
        begun, row = process.instructions, calls.make(number)
        ended, behind = process.instructions, process.snapshot()
        for point in range(begun, ended):
            index = bisect_left(calls.entries, point)
            entry = calls.entries[index] if index < len(calls.entries) else calls.total
            process.restore(here)
            process.apply_at(point, calls.patch)
            results = [*before, calls.make(number)]
            state = calls.state() if process.applied else None
            assert not process.refused
            if state is not None and state == states.get((number, entry)):
                assert results == reference(entry)[: number + 1], f"after {point} instructions; the next patched call begins after {entry}"
                continue
            results += map(calls.make, range(number + 1, len(calls.calls)))
            assert not process.refused
            if state is not None and results == reference(entry):
                states[number, entry] = state
            assert results == reference(entry), f"after {point} instructions; the next patched call begins after {entry}"
        before.append(row)
        here, tried = behind, tried + ended - begun
    assert tried == calls.total


@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_the_ends_are_before_and_patched(given, name, machine) -> None:
    """Where nothing carries over from call to call but what the manifest says, the first and the last point are its phases."""
    one = given(name, machine, True)
    calls = Calls(one, "hpat")
    assert [row[0] for row in calls.results(calls.total)] == [expected(call, "before", row) for call, row in rows(calls, calls.total)]
    if all(call.reverted is None and call.again is None for call in calls.calls):
        assert [row[0] for row in calls.results(0)] == [expected(call, "patched", row) for call, row in rows(calls, 0)]


def rows(calls: Calls, point: int):
    return zip(calls.calls, calls.results(point), strict=True)


def expected(call, phase: str, row: tuple[int, float, tuple[bytes, ...]]) -> int:
    """The integer result; where the case states a float, that is compared and the integer register taken as it is."""
    value = call.expected(phase)
    if isinstance(value, float):
        assert row[1] == value
        return row[0]
    return value


REDIRECTS = ("hpat", *(pytest.param(redirect, marks=pytest.mark.exhaustive) for redirect in ("direct", "inline")))


class Programs:
    """One program of a case in every place, to be run again and again from points that only grow."""

    def __init__(self, given, name: str, number: int, machine: Machine) -> None:
        self.program = find_case(name).manifest.program[number]
        self.started = [self._start(placed(given, name, machine, pdb), load_base) for pdb, load_base in PLACES]
        self.total = self.started[0][1].run().instructions

    def _start(self, one, load_base: int | None):
        process = hotpatch.Process(one.image("base"), load_base=load_base, args=self.program.args, stdin=self.program.stdin.encode())
        process.start()
        return one, process, process.snapshot()

    def reached(self, turn: int, point: int, redirect: str):
        """Patch and process of a place, which has executed ``point`` instructions: from the last point on, which was none later."""
        place = turn % len(self.started)
        one, process, last = self.started[place]
        process.restore(last)
        process.run_until(point)
        self.started[place] = one, process, process.snapshot()
        return one.redirected(redirect), process


@pytest.mark.parametrize("redirect", REDIRECTS)
@each_machine
@pytest.mark.parametrize(("name", "number"), PROGRAMS)
def test_programs_hold_what_holds_anywhere(given, name, number, machine, redirect) -> None:
    programs = Programs(given, name, number, machine)
    for turn, point in enumerate(seeded(programs.total, name, number, machine.value)):
        patch, process = programs.reached(turn, point, redirect)
        process.apply_at(point, patch)
        run = process.run()
        assert not process.refused, process.refused
        assert len(process.applied) == 1
        assert run.fault is None, f"after {point} instructions: {run.fault}"
        problem = programs.program.problem_anywhere(run.exit_code, run.output)
        assert problem is None, f"after {point} instructions: {problem}"


@each_machine
@pytest.mark.parametrize(("name", "number"), PROGRAMS)
def test_programs_may_be_patched_reverted_and_patched_again_anywhere(given, name, number, machine) -> None:
    """At three points of a run, by each redirect in turn. What is taken back may bring old answers back, so only ``either`` lines tell."""
    programs = Programs(given, name, number, machine)
    points = seeded(programs.total, "revert", name, number, machine.value)
    for turn, (first, second) in enumerate(zip(points[::2], points[1::2], strict=False)):
        third = (second + programs.total) // 2
        # Shifted by one each time that the places have come round, so that each place has them all.
        patch, process = programs.reached(turn, first, ("hpat", "direct", "inline")[(turn + turn // len(PLACES)) % 3])
        process.apply_at(first, patch)
        process.revert_at(second, patch)
        process.apply_at(third, patch)
        run = process.run()
        where = f"applied after {first}, reverted after {second}, applied again after {third} instructions"
        assert not process.refused, process.refused
        assert run.fault is None, f"{where}: {run.fault}"
        # What was taken back stays listed, and a patched run may be shorter than the plain one that the points were drawn from.
        assert len(process.applied) == (2 if third < run.instructions else 1), where
        if programs.program.anywhere.lines == "either":
            assert programs.program.problem_anywhere(run.exit_code, run.output) is None, where
