"""An interrupt at any instruction of a transaction, and any line of what it calls, leaves all of an operation or nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.emulator.guest import Guest
from hotpatch.engine import Consistency, Engine
from hotpatch.patch import Patch

from .interrupts import chosen, interrupted, places
from .late import images, patch_of
from .real import InjectedError, moment_of, whole
from .synthetic import Recipe, base_image, entry, make

Result = TypeVar("Result")
SAMPLE = 61
each_machine = pytest.mark.parametrize("machine", list(Machine), ids=lambda machine: machine.value)
thoroughly = pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.exhaustive)])


class Scene:
    """A process with an engine on it."""

    def __init__(self, guest: Guest, engine: Engine, every: int) -> None:
        self.guest = guest
        self.engine = engine
        self.every = every
        self.begun = 0

    def state(self) -> tuple[object, ...]:
        """All of the process but what watchers were told, what Unicorn shows of it, and what the engine knows."""
        found = whole(self.guest)
        del found["events"]
        kernel = self.guest.kernel
        return found, self.guest.system.cpu.shown(), self.engine.snapshot(), kernel.on_slice, kernel.call_ended

    def interrupt(self, deed: Callable[[], Result], *, transactions: int = 1) -> Result:
        """Interrupt ``deed`` everywhere; then let it be done. It is made of so many transactions."""
        before, back = self.state(), moment_of(self.guest, self.engine)
        states = [before]
        know = self.engine._know

        def known(registry: object) -> None:
            know(registry)
            states.append(self.state())

        self.engine._know = known
        deed()
        self.engine._know = know
        after = self.state()
        assert len(states) == 1 + transactions
        assert states[-1] == after
        back()
        assert self.state() == before
        met = places(deed)
        self.begun += 7
        for number in chosen(met)[self.begun % self.every :: self.every]:
            back()
            error = interrupted(deed, number)
            assert isinstance(error, KeyboardInterrupt | type(None)), met[number]
            assert self.state() in states, met[number]
            assert error is not None or self.state() == after, met[number]
        back()
        return deed()


class Made(Scene):
    """A process whose thread stands inside of a function."""

    def __init__(self, machine: Machine, every: int) -> None:
        self.base = base_image(machine)
        guest = Guest(self.base)
        super().__init__(guest, Engine(guest), every)
        self.thread = guest.spawn(Va(guest.module.va + entry(1)), 0)
        guest.step(self.thread, 2)

    def patch(self, numbers: dict[int, int], sequence: int = 1) -> Patch:
        return make(Recipe(self.base, numbers, sequence, name=f"fix{sequence}.dll"))


@thoroughly
@each_machine
def test_apply_supersede_revert_and_collect(machine: Machine, every: int) -> None:
    here = Made(machine, every)
    patches = here.patch({1: 111, 2: 222}), here.patch({2: 2222, 3: 3333}, 2)
    first = here.interrupt(lambda: here.engine.apply(patches[0]))
    second = here.interrupt(lambda: here.engine.apply(patches[1]))
    here.interrupt(second.revert)
    here.interrupt(first.revert)
    here.guest.step(here.thread, 100)
    mapped = len(here.engine.status().kept)
    assert mapped >= 4
    here.interrupt(here.engine.collect, transactions=mapped)


@thoroughly
@each_machine
def test_a_transition_begins_goes_on_and_ends(machine: Machine, every: int) -> None:
    here = Made(machine, every)
    patch = here.patch({1: 111, 2: 222})
    applied = here.interrupt(lambda: here.engine.apply(patch, Consistency.PER_THREAD))
    assert not applied.settled
    here.interrupt(applied.reverse)
    here.interrupt(applied.reverse)
    here.guest.step(here.thread, 100)
    here.interrupt(here.engine.poll, transactions=3)
    assert applied.settled


@thoroughly
@each_machine
def test_callbacks(machine: Machine, every: int) -> None:
    process = hotpatch.Process(images("hooks", machine)[0])
    process.call("add_metres", 5)
    here = Scene(process.guest, process.engine, every)
    assert process.guest.kernel.on_slice is not None
    applied = here.interrupt(lambda: process.engine.apply(patch_of("hooks", machine)))
    assert process.call("stored") == 500
    here.interrupt(applied.revert)
    assert process.call("stored") == 5


@thoroughly
@pytest.mark.parametrize("operation", ["apply", "supersede", "revert", "collect"])
@each_machine
def test_a_roll_back_that_is_interrupted_comes_to_its_end(machine: Machine, operation: str, every: int) -> None:
    """The target fails last of all, and then an interrupt comes at each place of the roll-back."""
    here = Made(machine, every)
    patches = here.patch({1: 111, 2: 222}), here.patch({2: 2222, 3: 3333}, 2)
    deeds: dict[str, Callable[[], object]] = {
        "apply": lambda: here.engine.apply(patches[0]),
        "supersede": lambda: here.engine.apply(patches[1]),
        "revert": lambda: applied.revert(),
        "collect": here.engine.collect,
    }
    if operation != "apply":
        applied = here.engine.apply(patches[0])
    if operation == "collect":
        applied.revert()
        here.guest.step(here.thread, 100)

    def failing(deed: Callable[[], object]) -> None:
        """Do it; what is to be known afterwards cannot be."""
        known = here.engine._know

        def know(registry: object) -> None:
            known(registry)
            if registry is not before[-1] and not told:
                told.append(registry)
                raise InjectedError("injected")

        told: list[object] = []
        here.engine._know = know
        try:
            deed()
        finally:
            here.engine._know = known

    before, back = here.state(), moment_of(here.guest, here.engine)

    def caught() -> None:
        with pytest.raises(InjectedError):
            failing(deeds[operation])

    for within in ("__exit__", "_roll_back"):
        met = places(caught, within)
        assert met
        assert here.state() == before
        for number in chosen(met)[::every]:
            back()
            error = interrupted(lambda: failing(deeds[operation]), number, within)
            assert isinstance(error, KeyboardInterrupt), met[number]
            assert InjectedError in map(type, chain(error)), met[number]
            assert here.state() == before, met[number]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised for."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
