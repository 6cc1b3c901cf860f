"""Every case under every consistency model: no thread runs old and new functions of one patch mixed, whatever the schedule.

Checked at every entry into a version of a patched function (``tests/mixing.py``), and at every instruction behind the marker exhaustive.
"""

from __future__ import annotations

import random
from functools import cache

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import case_names, find_case
from hotpatch.cli.arguments import parse_argument
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import Consistency, PatchState, occupancy
from hotpatch.errors import Rule
from tests.mixing import Watch

CASES = [find_case(name) for name in case_names()]
PATCHED = [case for case in CASES if case.manifest.expect.outcome == "patched"]
PROGRAMS = [(case.name, number) for case in PATCHED for number in range(len(case.manifest.program))]
WITH_CALLS = [case.name for case in PATCHED if case.manifest.call]
OF_THREADS = {
    "busy-caller",
    "busy-leaf",
    "callback",
    "cookie",
    "lock-held",
    "many-threads",
    "never-quiescent",
    "overflow-check",
    "page-rights",
    "reversal-mid-transition",
    "thread-born-during-apply",
    "thread-inside",
    "tls",
    "unwind",
}
FEW = range(2)
FULL_THREADS, FULL = range(200), range(5)
STEPPED_THREADS = range(6)
each_machine = pytest.mark.parametrize("machine", Machine)
each_model = pytest.mark.parametrize("model", list(Consistency))
each_program = pytest.mark.parametrize(("name", "number"), PROGRAMS)


def test_the_cases_with_threads_are_there() -> None:
    assert set(case_names()) >= OF_THREADS


class Run:
    """A case's program, watched, to be run again and again."""

    def __init__(self, given, number: int) -> None:
        self.given = given
        self.program = given.case.manifest.program[number]
        self.process = hotpatch.Process(given.image("base"), args=self.program.args, stdin=self.program.stdin.encode())
        self.watch = Watch(self.process, given.patch)
        self.process.start()
        self.start = self.process.snapshot()
        self.total = self.process.run().instructions
        self.all_hpat = all(function.redirect is Redirect.HPAT for function in given.patch.functions)

    def begin(self, seed: int) -> random.Random:
        self.process.restore(self.start)
        self.watch.reset()
        self.process.guest.kernel.schedule = SeededSchedule(seed)
        return random.Random(repr((self.given.case.name, self.given.machine.value, seed)))

    def check(self, model: Consistency, changes: int) -> None:
        """No fault; no mixing unless ``immediate``; no thread changes sides more often than it was asked to."""
        assert self.process.fault is None
        if model is not Consistency.IMMEDIATE:
            assert not self.watch.mixed
            assert all(len(sides) <= changes + 1 for sides in self.watch.sides.values()), dict(self.watch.sides)


def apply_somewhere(run: Run, model: Consistency, seed: int) -> None:
    point = run.begin(seed).randrange(run.total)
    run.process.apply_at(point, run.given.patch, model)
    result = run.process.run()
    if model is not Consistency.IMMEDIATE and not run.all_hpat:
        assert {refusal.rule for refusal in run.process.refused} == {Rule.CONSISTENCY_NEEDS_HPAT}
        return
    assert {refusal.rule for refusal in run.process.refused} <= {Rule.NOT_QUIESCENT}
    run.check(model, 1)
    consistent = model is not Consistency.IMMEDIATE
    problem = run.program.problem_anywhere(result.exit_code, result.output, consistent=consistent)
    assert problem is None, f"seed {seed}, after {point} instructions: {problem}"


def change_twice(run: Run, model: Consistency, seed: int) -> None:
    """Applied, and taken back at a later point, which may be in the middle of waiting or of the transition."""
    rng = run.begin(seed)
    first = rng.randrange(run.total)
    run.process.apply_at(first, run.given.patch, model)
    run.process.revert_at(first + rng.choice((50, 400, 3000)), run.given.patch)
    run.process.run()
    assert {refusal.rule for refusal in run.process.refused} <= {Rule.NOT_QUIESCENT, Rule.CONSISTENCY_NEEDS_HPAT, Rule.NOT_APPLIED}
    run.check(model, 2)


@each_model
@each_machine
@each_program
def test_programs(given, name, number, machine, model) -> None:
    run = Run(given(name, machine, True), number)
    for seed in FEW:
        apply_somewhere(run, model, seed)
        change_twice(run, model, seed)


@pytest.mark.exhaustive
@each_model
@each_machine
@each_program
def test_programs_under_every_seed(given, name, number, machine, model) -> None:
    run = Run(given(name, machine, True), number)
    for seed in FULL_THREADS if name in OF_THREADS else FULL:
        apply_somewhere(run, model, seed)
        change_twice(run, model, seed)


CALL_ORIGINALS = ("original-called",)
"""Cases whose new functions call the original that they replace, which is no mixing."""
CONVERT = ("hooks",)
"""Cases whose callbacks convert data, which with ``immediate`` a call that is inside may store in the old form afterwards."""


class Calls:
    """A case's calls, made again and again; what they give when the patch goes in and out between them is what they may give."""

    def __init__(self, one) -> None:
        self.one, self.process = one, hotpatch.Process(one.image("base"))
        self.watch, self.start = Watch(self.process, one.patch), self.process.snapshot()
        self.calls = [(call.function, call.args) for call in one.case.manifest.call]
        self.between = cache(self._between)
        self.total = self.process.instructions
        self.between(len(self.calls), len(self.calls))
        self.total = self.process.instructions - self.total

    def _between(self, first: int, second: int) -> tuple[int, ...]:
        """Results where the patch goes in before call ``first`` and out before call ``second``; neither where they are the same."""
        process = self.process
        process.restore(self.start)
        applied, results = None, []
        for number, (function, arguments) in enumerate(self.calls):
            if number == first < second:
                applied = process.apply(self.one.patch)
            if number == second and applied is not None:
                applied.revert()
            results.append(process.call(function, *map(parse_argument, arguments)))
        return tuple(results)

    def somewhere(self, model: Consistency, seed: int) -> None:
        """The patch goes in at one instruction and out at another."""
        process, watch = self.process, self.watch
        process.restore(self.start)
        watch.reset()
        rng = random.Random(repr((self.one.case.name, seed)))
        first, second = sorted((rng.randrange(self.total), rng.randrange(self.total)))
        process.apply_at(process.instructions + first, self.one.patch, model)
        process.revert_at(process.instructions + second, self.one.patch)
        results, pending, whole = [], [], True
        for function, arguments in self.calls:
            results.append(process.call(function, *map(parse_argument, arguments)))
            pending.append(len(process.pending))
            whole = whole and len(set().union(*watch.sides.values())) < 2
            watch.sides.clear()
            watch.called()
        assert {refusal.rule for refusal in process.refused} <= {Rule.CONSISTENCY_NEEDS_HPAT, Rule.NOT_APPLIED}
        assert not process.engine.poll().busy
        assert not process.status().changes
        stayed_out = Rule.CONSISTENCY_NEEDS_HPAT in {refusal.rule for refusal in process.refused}
        name = self.one.case.name
        assert model is Consistency.IMMEDIATE or name in CALL_ORIGINALS or not watch.mixed
        if whole and (model is not Consistency.IMMEDIATE or name not in CONVERT):
            went_in, came_out = sum(left == 2 for left in pending), sum(left > 0 for left in pending)
            points = [(a, b) for a in (went_in, went_in + 1) for b in (came_out, came_out + 1) if a <= b and not stayed_out] or [(0, 0)]
            assert tuple(results) in {self.between(*pair) for pair in points}, (seed, results, points)


@each_model
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls(given, name, machine, model) -> None:
    calls = Calls(given(name, machine, True))
    for seed in FULL:
        calls.somewhere(model, seed)


@each_machine
@pytest.mark.parametrize("name", ["thread-inside", "callback", "busy-caller"])
def test_immediate_mixes_and_that_is_seen(given, name, machine) -> None:
    """Or the watch would prove nothing."""
    run = Run(given(name, machine, True), 0)
    mixed = 0
    for seed in range(12):
        apply_somewhere(run, Consistency.IMMEDIATE, seed)
        mixed += bool(run.watch.mixed)
    assert mixed


class Stacks:
    """The engine's own walk of every thread's stack, step by step; one that stands as it stood, under the same patches, is left out."""

    def __init__(self, process: hotpatch.Process) -> None:
        self.process = process
        self.registry: object = None
        self.walked: dict[int, dict[str, int]] = {}

    def mixed(self) -> list[int]:
        """Threads with frames on both sides of what stands."""
        engine, target = self.process.engine, self.process.guest
        if engine._registry is not self.registry:
            self.registry = engine._registry
            self.walked.clear()
        if not engine._registry.applications:
            return []
        threads = [thread for thread in target.threads() if self.walked.get(thread.id) != thread.registers]
        self.walked |= {thread.id: thread.registers for thread in threads}
        return mixed_stacks(self.process, threads) if threads else []


def mixed_stacks(process: hotpatch.Process, threads) -> list[int]:
    """Those of ``threads`` with frames on both sides of what stands."""
    engine, target = process.engine, process.guest
    modules, found = target.modules(), []
    for application in engine._registry.applications.values():
        sides = occupancy.versions_of(engine._registry, modules, application)
        for thread in threads:
            met = set()
            for frame, called in occupancy.walk(target, engine._locate, modules, thread)[0]:
                where = frame.pc - called
                under, over = sides.under.at(where) is not None, sides.over.at(where) is not None
                if under is not over:
                    met.add("old" if under else "new")
            if len(met) > 1:
                found.append(thread.id)
    return found


def in_play(process: hotpatch.Process) -> bool:
    """Whether a patch stands, or is on its way."""
    registry = process.engine._registry
    return bool(registry.applications or registry.waiting)


def step_through(run: Run, model: Consistency, seed: int, first: int) -> None:
    """The patch goes in at ``first`` and out later; every step from there until nothing of it stands or is under way any more.

    Before and after that there is one version only; entries are watched to the end.
    """
    rng = run.begin(seed)
    process = run.process
    process.apply_at(first, run.given.patch, model)
    process.revert_at(first + rng.choice((100, 400)), run.given.patch)
    process.run(first)
    stacks = Stacks(process)
    while not process.finished and process.fault is None and (process.pending or in_play(process)):
        process.run(1)
        assert not stacks.mixed(), process.instructions
        assert not run.watch.mixed
    process.run()
    run.check(model, 2)


@pytest.mark.parametrize("model", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@each_machine
@pytest.mark.parametrize("name", ["callback", "lock-held"])
def test_at_every_step_of_a_transition(given, name, machine, model) -> None:
    run = Run(given(name, machine, True), 0)
    step_through(run, model, 3, run.total // 3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@each_machine
@each_program
def test_at_every_step(given, name, number, machine, model) -> None:
    run = Run(given(name, machine, True), number)
    for seed in STEPPED_THREADS if name in OF_THREADS else FULL:
        point = run.begin(seed).randrange(run.total)
        step_through(run, model, seed, point)


@each_machine
def test_immediate_mixes_at_some_step_and_that_is_seen(given, machine) -> None:
    """Or the steps would prove nothing; the watch sees it too."""
    run = Run(given("callback", machine, True), 0)
    seen = []
    for seed in range(12):
        point = run.begin(seed).randrange(run.total)
        process, stacks = run.process, Stacks(run.process)
        process.apply_at(point, run.given.patch)
        process.run(point)
        for _ in range(300):
            process.run(1)
            if stacks.mixed():
                process.run(100)  # the watch sees an entry when its first instruction runs
                seen.append(bool(run.watch.mixed))
                break
    assert seen
    assert all(seen)


@each_machine
def test_a_function_that_never_returns_is_said_to(given, machine) -> None:
    run = Run(given("never-quiescent", machine, True), 0)
    run.begin(1)
    before = run.process.engine.snapshot()
    run.process.apply_at(600, run.given.patch, "quiescent", wait=500)
    run.process.run()
    refusals = {refusal.function: refusal for refusal in run.process.refused}
    assert refusals
    (refusal,) = refusals.values()
    assert refusal.rule is Rule.NOT_QUIESCENT
    assert refusal.evidence["reachable"] is False
    assert "serve" in refusal.evidence["stack"]
    assert "--consistency immediate" in refusal.reason
    after = run.process.engine.snapshot()
    assert (after.images, after.tables, after.slots, after.chunks, after.sites) == (
        before.images,
        before.tables,
        before.slots,
        before.chunks,
        before.sites,
    )
    assert not run.process.applied
    assert run.process.exit_code == 0


@pytest.mark.parametrize("model", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@each_machine
def test_a_snapshot_in_the_middle_goes_on_the_same(given, machine, model) -> None:
    run = Run(given("reversal-mid-transition", machine, True), 0)
    process = run.process
    run.begin(5)
    process.apply_at(800, run.given.patch, model)
    process.run(801)
    assert process.status().changes
    middle = process.snapshot()
    ends = []
    for _ in range(2):
        process.restore(middle)
        process.run()
        ends.append((process.output, process.instructions, process.events, process.status()))
    assert ends[0] == ends[1]
    assert not process.status().changes


@each_machine
def test_waiting_runs_the_process(given, machine) -> None:
    run = Run(given("reversal-mid-transition", machine, True), 0)
    process = run.process
    run.begin(5)
    process.run(801)
    applied = process.apply(run.given.patch, "per-thread")
    assert applied.state is PatchState.TRANSITION
    assert process.wait(applied, 1) is PatchState.TRANSITION
    assert process.wait(applied) is PatchState.APPLIED
    assert not process.finished
    stages = [event.details["stage"] for event in process.events if event.kind == "transition"]
    assert (stages[0], stages[-1]) == ("begin", "finish")


def served(given, machine) -> tuple[hotpatch.Process, int]:
    """A server that waits for input, but for a worker that is suspended in ``echo``; the worker's number."""
    process = hotpatch.Process(given("overflow-check", machine, True).image("base"), args=["1"], stdin=b"ECHO 5 hello\n", more_input=True)
    process.start()
    entry = process.address_of("echo")
    for _ in range(5000):
        process.run(1)
        if process.position is not None and entry < process.position[1] < entry + 32:
            break
    thread, _ = process.position
    record = process.guest.system.threads[thread]
    record.suspended, record.state = 1, ThreadState.SUSPENDED
    return process, thread


@each_machine
def test_waiting_for_quiescence_is_given_up_where_nothing_runs(given, machine) -> None:
    process, thread = served(given, machine)
    applied = process.apply(given("overflow-check", machine, True).patch, "quiescent")
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.wait(applied)
    (refusal,) = refused.value.refusals
    assert process.waits_for_input
    assert (refusal.rule, refusal.function, refusal.evidence["thread"]) == (Rule.NOT_QUIESCENT, "echo", thread)
    assert refusal.evidence["stack"][0] == "echo"
    assert len(refusal.evidence["stack"]) > 1
    assert (refusal.evidence["reachable"], refusal.evidence["stands"]) == (True, True)
    assert "nothing of the process can run on" in refusal.reason
    assert (applied.state, process.refused, process.status().changes) == (PatchState.REFUSED, (refusal,), ())
    going = process.apply(given("overflow-check", machine, True).patch, "per-thread")
    assert process.wait(going) is PatchState.TRANSITION  # its threads change over when they can
