"""Programs with threads, patched while they run by each redirect: at every instruction a walk finds what a shadow stack has recorded.

So a walk has to be right in the old code, on its way through padding, slots and dispatchers, in trampolines and in the new code, whoever
called whom.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import hotpatch
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import find_case
from hotpatch.engine.locate import Locator

from .followed import Followed

CASES = ("unwind", "many-threads", "tls", "cookie", "guarded-call", "overflow-check", "thread-inside", "busy-caller", "lock-held")
STEPS_BEFORE, STEPS = 350, 1100
each_machine = pytest.mark.parametrize("machine", list(Machine))


@cache
def built(case: str, machine: Machine, redirect: Redirect) -> tuple[hotpatch.Image, hotpatch.Patch]:
    base, fixed = (hotpatch.open(find_case(case).image(machine, side)) for side in ("base", "fixed"))
    return base, hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect)


class Shadow(Followed):
    """A process whose shadow stacks are compared, and the kinds of places that its threads and their callers stood at."""

    def __init__(self, process: hotpatch.Process) -> None:
        super().__init__(process)
        self.places: set[str] = set()

    def _compare(self, thread: Any, path: Any, pc: int, registers: dict[str, int]) -> None:
        super()._compare(thread, path, pc, registers)
        for va in (pc, *(call.back for call in path.calls)):
            where = self.process.engine.locate(va)
            if where is not None:
                self.places.add("base" if where.va == self.process.load_base else "patch")
                if where.original is not None:
                    self.places.add("on the way")  # padding, slot, dispatcher or trampoline


def begin(case: str, machine: Machine, redirect: Redirect) -> tuple[Shadow, hotpatch.Patch]:
    base, patch = built(case, machine, redirect)
    program = find_case(case).manifest.program[0]
    process = hotpatch.Process(base, args=program.args, stdin=program.stdin.encode(), seed=7)
    process.start()
    shadow = Shadow(process)
    process.run(STEPS_BEFORE)
    return shadow, patch


def finish(shadow: Shadow, steps: int) -> None:
    shadow.process.run(steps)
    assert shadow.process.fault is None
    assert shadow.problems == []
    assert shadow.compared > 300


@pytest.mark.parametrize("redirect", list(Redirect))
@each_machine
@pytest.mark.parametrize("case", CASES)
def test_immediate(case: str, machine: Machine, redirect: Redirect) -> None:
    shadow, patch = begin(case, machine, redirect)
    shadow.process.apply(patch)
    finish(shadow, STEPS)
    if case in ("unwind", "many-threads", "tls"):
        assert "patch" in shadow.places
        if redirect is not Redirect.INLINE or machine is Machine.X64:
            assert "on the way" in shadow.places or redirect is not Redirect.HPAT


@each_machine
def test_originals_by_their_trampolines(machine: Machine) -> None:
    """The original runs by its trampoline while the patch stands, and what it calls is walked down to the thread's start."""
    base, patch = built("basic", machine, Redirect.INLINE)
    process = hotpatch.Process(base)
    applied = process.apply(patch)
    shadow = Shadow(process)
    process.spawn(applied.original("clamp"), 11)
    process.run(100)
    assert process.finished
    assert shadow.compared
    assert shadow.problems == []
    assert "on the way" in shadow.places


@each_machine
def test_a_wrong_walk_is_noticed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the comparison would prove nothing: new code whose unwind data nobody knows."""
    shadow, patch = begin("unwind", machine, Redirect.HPAT)
    start = shadow.process.apply(patch).functions[0].destination
    new = range(start, start + patch.functions[0].size)
    real = Locator.locate
    monkeypatch.setattr(Locator, "locate", lambda locator, va, modules: None if va in new else real(locator, va, modules))
    shadow.process.run(400)
    assert shadow.problems
