"""Every case under every consistency model: no thread runs old and new functions of one patch mixed, whatever the schedule.

Checked at every entry into a version of a patched function (``tests/mixing.py``), and behind the marker exhaustive at every step, too, from
where a patch goes in until nothing of it stands (``tests/stepping.py``).
"""

from __future__ import annotations

import random

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import case_names, find_case
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import Consistency, PatchState, transition
from hotpatch.errors import Rule
from tests.mixing import Watch
from tests.stepping import Steps, mixed_threads

CASES = [find_case(name) for name in case_names()]
PATCHED = [case for case in CASES if case.manifest.expect.outcome == "patched"]
PROGRAMS = [(case.name, number) for case in PATCHED for number in range(len(case.manifest.program))]
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
each_machine = pytest.mark.parametrize("machine", Machine)
each_model = pytest.mark.parametrize("model", list(Consistency))
each_program = pytest.mark.parametrize(("name", "number"), PROGRAMS)


@each_machine
def test_the_cases_with_threads_are_those(machine) -> None:
    found = set()
    for case in PATCHED:
        for program in case.manifest.program:
            process = hotpatch.Process(hotpatch.open(case.image(machine)), args=program.args, stdin=program.stdin.encode())
            process.start()
            found |= {case.name} if process.run().threads > 1 else set()
    assert found == OF_THREADS


def all_seeds(name: str, number: int) -> range:
    """Of the scheduler seeds of a case, those of one of its programs, which take turns."""
    programs = sum(of == name for of, _ in PROGRAMS)
    return (FULL_THREADS if name in OF_THREADS else FULL)[number::programs]


def test_each_case_has_all_its_seeds() -> None:
    seeds = {name: [seed for of, number in PROGRAMS if of == name for seed in all_seeds(of, number)] for name, _ in PROGRAMS}
    assert {name for name, own in seeds.items() if sorted(own) == list(range(200))} == OF_THREADS
    assert {name for name, own in seeds.items() if sorted(own) == list(range(5))} == seeds.keys() - OF_THREADS


class Run:
    """A case's program, watched, to be run again and again."""

    def __init__(self, given, number: int) -> None:
        self.given = given
        self.program = given.case.manifest.program[number]
        self.process = hotpatch.Process(given.image("base"), args=self.program.args, stdin=self.program.stdin.encode())
        self.watch, self.steps = Watch(self.process, given.patch), Steps(self.process)
        self.process.start()
        self.start = self.process.snapshot()
        self.steps.reset(on=False)
        self.total = self.process.run().instructions
        self.all_hpat = all(function.redirect is Redirect.HPAT for function in given.patch.functions)

    def begin(self, seed: int, *, stepping: bool = False) -> random.Random:
        self.process.restore(self.start)
        self.watch.reset()
        self.steps.reset(on=stepping)
        self.process.guest.kernel.schedule = SeededSchedule(seed)
        return random.Random(repr((self.given.case.name, self.given.machine.value, seed)))

    def reach(self, seed: int) -> None:
        """Run to the point that a seed draws, where :meth:`again` begins: before it nothing depends on the model, or what is done then."""
        rng = self.begin(seed)
        self.seed, self.point, self.later = seed, rng.randrange(self.total), rng.choice((50, 400, 3000))
        self.process.run_until(self.point)
        self.there = self.process.snapshot(), self.watch.noted()

    def again(self, *, stepping: bool = False) -> None:
        moment, noted = self.there
        self.process.restore(moment)
        self.watch.put_back(noted)
        self.steps.reset(on=stepping)

    def check(self, model: Consistency, changes: int) -> None:
        """No fault; no mixing unless ``immediate``; no thread changes sides more often than it was asked to."""
        assert self.process.fault is None
        if model is not Consistency.IMMEDIATE:
            assert not self.watch.mixed
            assert not self.steps.mixed
            assert all(len(sides) <= changes + 1 for sides in self.watch.sides.values()), dict(self.watch.sides)


def apply_somewhere(run: Run, model: Consistency) -> None:
    run.again()
    run.process.apply_at(run.point, run.given.patch, model)
    result = run.process.run()
    if model is not Consistency.IMMEDIATE and not run.all_hpat:
        assert {refusal.rule for refusal in run.process.refused} == {Rule.CONSISTENCY_NEEDS_HPAT}
        return
    assert {refusal.rule for refusal in run.process.refused} <= {Rule.NOT_QUIESCENT}
    run.check(model, 1)
    consistent = model is not Consistency.IMMEDIATE
    problem = run.program.problem_anywhere(result.exit_code, result.output, consistent=consistent)
    assert problem is None, f"{model}, seed {run.seed}, after {run.point} instructions: {problem}"


def change_twice(run: Run, model: Consistency, *, stepping: bool = False) -> None:
    """Applied, and taken back at a later point, which may be in the middle of waiting or of the transition."""
    run.again(stepping=stepping)
    run.process.apply_at(run.point, run.given.patch, model)
    run.process.revert_at(run.point + run.later, run.given.patch)
    run.process.run()
    assert {refusal.rule for refusal in run.process.refused} <= {Rule.NOT_QUIESCENT, Rule.CONSISTENCY_NEEDS_HPAT, Rule.NOT_APPLIED}
    run.check(model, 2)


@each_machine
@each_program
def test_programs(given, name, number, machine) -> None:
    run = Run(given(name, machine, True), number)
    for seed in FEW:
        run.reach(seed)
        for model in Consistency:
            apply_somewhere(run, model)
            change_twice(run, model)


@pytest.mark.exhaustive
@each_machine
@each_program
def test_programs_under_every_seed(given, name, number, machine) -> None:
    """At every step while there are two versions, but with ``immediate``, which may mix them."""
    run = Run(given(name, machine, True), number)
    for seed in all_seeds(name, number):
        run.reach(seed)
        for model in Consistency:
            apply_somewhere(run, model)
            change_twice(run, model, stepping=model is not Consistency.IMMEDIATE)


@each_machine
@pytest.mark.parametrize("name", ["thread-inside", "callback", "busy-caller"])
def test_immediate_mixes_and_that_is_seen(given, name, machine) -> None:
    """Or the watch would prove nothing."""
    run = Run(given(name, machine, True), 0)
    mixed = 0
    for seed in range(12):
        run.reach(seed)
        apply_somewhere(run, Consistency.IMMEDIATE)
        mixed += bool(run.watch.mixed)
    assert mixed


def let_go_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads change sides that have only callers in what they are to leave."""

    def stands_in(target, locator, modules, thread, code) -> bool:
        return code.at(thread.pc) is not None

    monkeypatch.setattr(transition, "is_inside", stands_in)


def in_and_out(run: Run, model: Consistency, seed: int) -> int:
    """Have the patch go in after so many instructions, and out soon after."""
    rng = run.begin(seed, stepping=True)
    first = rng.randrange(run.total)
    run.process.apply_at(first, run.given.patch, model)
    run.process.revert_at(first + rng.choice((50, 100, 400)), run.given.patch)
    return first


def walk_plainly(run: Run, first: int) -> int:
    """Single steps from ``first`` on, at each of which the plain walk must see the same; at how many it sees threads mixed."""
    process, steps, mixed = run.process, run.steps, 0
    process.run(first)
    while not process.finished and process.fault is None and (process.pending or steps.standing):
        process.run(1)
        plainly = mixed_threads(process)
        assert steps.now() == plainly, process.instructions
        mixed += bool(plainly)
    process.run()
    return mixed


@pytest.mark.parametrize("model", [*Consistency, "too-early"])
@each_machine
@pytest.mark.parametrize("name", ["busy-caller", "reversal-mid-transition"])
def test_each_step_is_seen_as_a_plain_walk_of_every_stack_sees_it(given, monkeypatch, name, machine, model) -> None:
    """Where threads are mixed, and where a model is broken, too; and without single steps the same is seen at the same instructions."""
    broken = model not in list(Consistency)
    if broken:
        let_go_too_early(monkeypatch)
    run, mixed = Run(given(name, machine, True), 0), 0
    for seed in (0, 5):
        model = Consistency.PER_THREAD if broken else model
        mixed += walk_plainly(run, in_and_out(run, model, seed))
        seen = list(run.steps.mixed)
        in_and_out(run, model, seed)
        run.process.run()
        assert run.steps.mixed == seen
    assert bool(mixed) is (broken or model is Consistency.IMMEDIATE)


@pytest.mark.exhaustive
@each_machine
@each_program
def test_each_step_of_each_program_is_seen_as_a_plain_walk_sees_it(given, name, number, machine) -> None:
    run = Run(given(name, machine, True), number)
    walk_plainly(run, in_and_out(run, Consistency.PER_THREAD if run.all_hpat else Consistency.IMMEDIATE, 1))


@each_machine
def test_threads_that_a_patch_mixes_where_they_stand_are_seen(given, machine) -> None:
    """One that drops a caller gives its original back: on the other side from then on are old frames of what it still replaces."""
    whole = given("busy-caller", machine, True)
    run, part = Run(whole, 0), hotpatch.build(whole.diff, only=["visit"], sequence=2)
    run.begin(1, stepping=True)
    run.process.run(run.total // 2)
    seen = []
    for patch in (whole.patch, part):
        run.process.apply(patch)
        seen.append(run.steps.now())
        assert seen[-1] == mixed_threads(run.process)
    assert not seen[0]
    assert seen[1]


@each_machine
def test_immediate_mixes_at_some_step_and_that_is_seen(given, machine) -> None:
    """Or the steps would prove nothing; the watch sees it too."""
    run = Run(given("callback", machine, True), 0)
    seen = []
    for seed in range(12):
        point = run.begin(seed, stepping=True).randrange(run.total)
        run.process.apply_at(point, run.given.patch)
        run.process.run(point + 400)
        seen += [bool(run.watch.mixed)] if run.steps.mixed else []
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
