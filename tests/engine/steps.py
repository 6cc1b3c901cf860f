"""Every step of an operation on an emulated process fails in turn, in every way that it can; what stands afterwards is compared whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from hotpatch.address import Va
from hotpatch.emulator.guest import Guest
from hotpatch.engine import Engine
from hotpatch.engine.collect import candidates
from hotpatch.engine.registry import Ended, Registry
from hotpatch.engine.transaction import Transaction
from hotpatch.errors import ApplyRefused, EmulatedFault, Fault, FaultKind, HotpatchError, Refusal, Refused, Rule

from .real import CALLS, TOLD_BEFORE, InjectedError, moment_of, whole

Result = TypeVar("Result")
LIMIT = 1000
MEMORY = ("map", "unmap", "write", "flush")
"""What the emulator's memory is asked to do; a call of the target fails with some of that done."""


@dataclass(frozen=True)
class Kind:
    """A way to fail: what is raised, at which calls of the target or (``inside``) of the emulator's memory, before or after the work."""

    failure: Callable[[], BaseException]
    calls: tuple[str, ...] = CALLS
    late: bool = False
    inside: bool = False
    lasting: bool = False
    """Whether all calls after the failing one fail too: another try would be the same."""


def no_address_space() -> BaseException:
    return ApplyRefused([Refusal(Rule.NO_ADDRESS_SPACE, None, None, "nothing is free")])


def callback_fault() -> BaseException:
    return EmulatedFault(Fault(FaultKind.ILLEGAL_INSTRUCTION, Va(0), Va(0), None, None, (), "injected"))


KINDS = {
    "target": Kind(lambda: InjectedError("injected")),
    "interrupt": Kind(lambda: KeyboardInterrupt()),
    "interrupt-late": Kind(lambda: KeyboardInterrupt(), TOLD_BEFORE, late=True),
    "memory": Kind(lambda: InjectedError("injected"), MEMORY, inside=True),
    "host-memory": Kind(lambda: MemoryError("of the host"), MEMORY, inside=True),
    "no-address-space": Kind(no_address_space, ("find_room",), lasting=True),
    "callback-fault": Kind(callback_fault, ("call_between",)),
}


class Recorded(Engine):
    """An engine whose registries are remembered, one after the other."""

    registries: list[Registry]

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "_registry":
            assert isinstance(value, Registry)
            self.__dict__.setdefault("registries", []).append(value.copy())


class Stepped:
    """``guest`` as a target with an engine on it; one step of what is done with them can be made to fail."""

    def __init__(self, guest: Guest, stride: int = 1, aside: frozenset[str] = frozenset()) -> None:
        """Of each operation every ``stride``-th step fails, from another one on in each.

        ``aside``: what of the process does not stand still between the transactions of an operation, since the program makes it.
        """
        self.aside = aside
        self.guest = guest
        self.stride = stride
        self.begun = 0
        self.deep = 0
        """Calls of the target that are being made."""
        self.machine = guest.machine
        self.thread_flags = guest.thread_flags
        self.kind: Kind | None = None
        self.left = 0
        self.failed: str | None = None
        self.made: set[str] = set()
        self.failures: set[tuple[str, str]] = set()
        """Which calls have failed, in which ways."""
        memory = guest.system.memory
        for name in MEMORY:
            setattr(memory, name, self._counted(name, getattr(memory, name), inside=True))
        self.engine = Recorded(self)

    @property
    def clock(self) -> int:
        return self.guest.clock

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            raise AttributeError(name)
        return self._counted(name, getattr(self.guest, name), inside=False)

    def _counted(self, name: str, real: Callable[..., object], *, inside: bool) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            kind, failing = self.kind, False
            if not inside:
                self.made.add(name)
            if kind is not None and kind.inside is inside and name in kind.calls and (self.deep or not inside):
                self.left -= 1
                failing = self.left <= 0 if kind.lasting else self.left == 0
            self.deep += not inside
            try:
                if not failing or kind is None:
                    return real(*args, **named)
                self.failed = name
                if kind.late:
                    real(*args, **named)
                raise kind.failure()
            finally:
                self.deep -= not inside

        return call

    # what there is -----------------------------------------------------------------------------------------------------------------------

    def process(self) -> dict[str, object]:
        """All of the process but what watchers have been told."""
        found = whole(self.guest)
        del found["events"]
        return found

    def between(self) -> dict[str, object]:
        """Of the process what an operation of the engine changes."""
        return {name: value for name, value in self.process().items() if name not in self.aside}

    def moment(self) -> Callable[[], None]:
        """What takes process and registry back to now."""
        return moment_of(self.guest, self.engine)

    def undisturbed(self, deed: Callable[[], Result]) -> tuple[Result, list[dict[str, object]], list[Registry]]:
        """Do it, with every state that the process and the registry stand in between two transactions."""
        states = [self.between()]
        self.engine.registries[:] = [self.engine.snapshot()]
        with pytest.MonkeyPatch.context() as patched:
            commit = Transaction.commit

            def committed(step: Transaction, *known: Any) -> None:
                commit(step, *known)
                states.append(self.between())

            patched.setattr(Transaction, "commit", committed)
            result = deed()
        return result, [*states, self.between()], list(self.engine.registries)

    def settle(self) -> tuple[dict[str, object], Registry]:
        """Go on while nothing runs, give back what nothing standing needs; what is then."""
        before = None
        while before != (before := self.engine.snapshot()) and self.engine.poll().busy:
            pass
        for mapping in candidates(self.engine.snapshot()):  # collect() would spare what a stale word leads to
            self.engine._give_back(mapping)
        registry = self.engine.snapshot()
        # Whom to look at first, and what is said of stacks, depend on what could be read.
        registry.waiting = {va: replace(waiting, holder=0) for va, waiting in registry.waiting.items()}
        registry.transitions = {va: replace(going, refusals=()) for va, going in registry.transitions.items()}
        registry.ended = dict.fromkeys(registry.ended, Ended())
        return self.process(), registry

    # failing -----------------------------------------------------------------------------------------------------------------------------

    def fail(self, deed: Callable[[], Result], given_up: Callable[[], bool] | None = None) -> Result:
        """Let each step of ``deed`` fail in each way, each time from the same moment; then let it succeed.

        After a failure that ends it, process and registry are in one of the states that lie between the transactions of the undisturbed
        deed, and doing it again ends where that ends. After one that it goes on from, going on leads there. Where it gives up what it was
        to do, the process is in such a state too, or as ``given_up`` says.
        """
        back = self.moment()
        _, states, registries = self.undisturbed(deed)
        final = self.process(), registries[-1]
        settled = self.settle()
        for name in KINDS:
            self.begun += 1
            for count in range(1 + self.begun % self.stride, LIMIT, self.stride):
                back()
                problem = self._problem(deed, name, count)
                where = f"{self.failed} ({name} {count})"
                if self.failed is None:
                    assert problem is None and (self.process(), self.engine.snapshot()) == final, where
                    break
                self.failures.add((name, self.failed))
                if problem is not None:
                    assert self.between() in states, where
                    assert self.engine.snapshot() in registries, where
                    untouched = self.between() == states[0] and self.engine.snapshot() == registries[0]
                    deed()
                    found = (self.process(), self.engine.snapshot())
                    assert found == final or (not untouched and self.settle() == settled), where
                elif isinstance(KINDS[name].failure(), Refused | EmulatedFault) and self._given_up(registries):
                    assert self.between() in states or (given_up is not None and given_up()), where
                else:
                    assert self.settle() == settled, where
            else:
                raise AssertionError("no end")
        back()
        return deed()

    @contextmanager
    def failing(self, name: str, count: int) -> Iterator[None]:
        """The step of that number fails in that way."""
        self.kind, self.left, self.failed = KINDS[name], count, None
        try:
            yield
        finally:
            self.kind = None

    def _problem(self, deed: Callable[[], object], name: str, count: int) -> BaseException | None:
        try:
            with self.failing(name, count):
                deed()
        except (HotpatchError, MemoryError, KeyboardInterrupt) as error:
            return error
        return None

    def _given_up(self, registries: list[Registry]) -> bool:
        """Whether what was under way was given up or called off, and the registry says nothing else that it would not have said anyway."""
        found = self.engine.snapshot()
        blank = {"waiting": {}, "transitions": {}, "ended": {}, "registered": {}, "untold": ()}
        registered = {number: replace(each, refusals=()) for number, each in found.registered.items()}
        assert registered in [each.registered for each in registries]
        assert replace(found, **blank) in [replace(each, **blank) for each in registries]
        return found not in registries
