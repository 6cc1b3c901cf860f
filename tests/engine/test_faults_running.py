"""Programs with threads, patched while they run, with every step of every operation failing in turn; see ``steps.py``."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import AppliedPatch, Consistency, PatchState

from . import late
from .late import images, patch_of
from .steps import Stepped

CASE = "reversal-mid-transition"
START, STRIDE = 420, 150
"""Instructions before the first operation, and from one poll to the next."""
SAMPLE = 97
MODELS = [Consistency.QUIESCENT, Consistency.PER_THREAD]
each_machine = pytest.mark.parametrize("machine", list(Machine))
each_model = pytest.mark.parametrize("model", MODELS)
thoroughly = pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.exhaustive)])


class Running:
    """A program with five threads that has begun; what is done to it is failed at every step."""

    def __init__(self, machine: Machine, every: int) -> None:
        self.process = hotpatch.Process(images(CASE, machine)[0])
        self.process.guest.kernel.on_slice = None
        self.process.start()
        self.here = Stepped(self.process.guest, every)
        self.engine = self.here.engine
        self.run(START)
        assert len(self.process.guest.threads()) == 5

    def run(self, instructions: int = STRIDE) -> None:
        self.process.run(instructions)
        assert not self.process.finished

    def apply(self, patch: hotpatch.Patch, model: Consistency, wait: int | None = None) -> AppliedPatch:
        return self.here.fail(lambda: self.engine.apply(patch, model, wait=wait))

    def settle(self, applied: AppliedPatch) -> PatchState:
        """Run on until nothing of a patch is under way."""
        while not applied.settled:
            self.run()
            self.here.fail(self.engine.poll)
        return applied.state

    def end(self, *, mixed: bool = False) -> None:
        """Everything is given back, and the program goes on to its end; no thread ran old and new functions ``mixed``."""
        self.here.fail(self.engine.collect)
        self.process.run()
        assert (self.process.fault, self.process.exit_code) == (None, 0)
        assert "visits 24" in self.process.output
        assert mixed or "torn 0" in self.process.output


@thoroughly
@each_model
@each_machine
def test_apply_supersede_and_revert(machine: Machine, model: Consistency, every: int) -> None:
    here = Running(machine, every)
    first = here.apply(patch_of(CASE, machine), model)
    assert not first.settled
    assert here.settle(first) is PatchState.APPLIED
    second = here.apply(patch_of(CASE, machine, sequence=2), model)
    assert here.settle(second) is PatchState.APPLIED
    for applied in (second, first):
        here.here.fail(applied.revert)
        assert here.settle(applied) is PatchState.REVERTED
    here.end()


@thoroughly
@each_machine
def test_a_transition_is_reversed_and_that_too(machine: Machine, every: int) -> None:
    here = Running(machine, every)
    applied = here.apply(patch_of(CASE, machine), Consistency.PER_THREAD)
    for _ in range(2):
        here.here.fail(applied.reverse)
    while len({thread.side for thread in here.engine.status().changes[0].threads}) == 1:
        here.run(20)
        here.here.fail(here.engine.poll)
    here.here.fail(applied.reverse)
    assert here.settle(applied) is PatchState.REVERSED
    here.end()


@thoroughly
@each_machine
def test_a_revert_is_called_off(machine: Machine, every: int) -> None:
    here = Running(machine, every)
    applied = here.engine.apply(patch_of(CASE, machine))
    while applied.state is not PatchState.REVERTING:
        here.run(20)
        back = here.here.moment()
        applied.revert(Consistency.PER_THREAD)
        if applied.settled:
            back()
    back()
    here.here.fail(lambda: applied.revert(Consistency.PER_THREAD))
    here.here.fail(applied.reverse)
    assert here.settle(applied) is PatchState.APPLIED
    here.here.fail(applied.revert)
    here.end(mixed=True)


@thoroughly
@each_model
@each_machine
def test_a_wait_is_given_up(machine: Machine, model: Consistency, every: int) -> None:
    here = Running(machine, every)
    applied = here.apply(patch_of(CASE, machine), model, wait=STRIDE)
    assert not applied.settled
    assert here.settle(applied) is PatchState.REFUSED
    assert not here.engine.snapshot().sites
    here.end()


class Hooked:
    """A DLL whose patch has callbacks, loaded by a program, with a thread in the function that is patched."""

    def __init__(self, machine: Machine, every: int, *aside: str) -> None:
        self.late = late.Late("hooks", machine)
        self.process = self.late.process
        self.late.load()
        self.late.call("add_metres", 5)
        self.thread = self.late.stand("add_metres", 1)
        self.process.guest.kernel.on_slice = None
        self.here = Stepped(self.process.guest, every, frozenset(aside))
        self.engine = self.here.engine

    def leave(self) -> None:
        self.process.guest.step(self.thread, 1000)


@thoroughly
@each_model
@each_machine
def test_callbacks_fail_at_either_end_of_a_wait_and_of_a_transition(machine: Machine, model: Consistency, every: int) -> None:
    here = Hooked(machine, every)
    applied = here.here.fail(lambda: here.engine.apply(here.late.patch, model))
    assert not applied.settled
    here.leave()
    here.here.fail(here.engine.poll)
    assert (applied.state, here.late.call("stored")) == (PatchState.APPLIED, 600)
    here.thread = here.process.spawn("base!add_metres", 2)
    while True:
        here.process.guest.step(here.thread, 1)
        back = here.here.moment()
        applied.revert()
        if not applied.settled:
            break
        back()
    back()
    here.here.fail(applied.revert)
    here.leave()
    here.here.fail(here.engine.poll)
    assert (applied.state, here.late.call("stored")) == (PatchState.REVERTED, 8)
    assert {("callback-fault", "call_between"), ("target", "call_between"), ("target", "checkpoint")} <= here.here.failures or every > 1


@thoroughly
@each_model
@each_machine
def test_the_module_goes_in_the_middle(machine: Machine, model: Consistency, every: int) -> None:
    """By FreeLibrary, while its patch waits or is in transition; the patch waits for the module again."""
    here = Hooked(machine, every, "threads", "counters", "loading")
    guest = here.process.guest
    applied = here.engine.apply(here.late.patch, model)
    assert not applied.settled
    here.late.kill(here.thread)
    module = here.late.module()
    gate = guest.system.gates.provided("FreeLibrary")
    assert module is not None and gate is not None
    guest.begin_call(gate, [module.va])
    host = next(thread for thread in guest.system.threads.values() if thread.host)

    def go_on() -> None:
        guest.kernel.step(host, 10_000)
        assert (guest.fault, host.state) == (None, ThreadState.IDLE)

    here.here.fail(go_on, lambda: here.late.module() is None and applied.state is PatchState.REGISTERED)
    assert here.late.module() is None
    assert applied.state is PatchState.REGISTERED
    assert not here.engine.collect().kept
