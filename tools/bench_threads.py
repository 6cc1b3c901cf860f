"""The lines of the benchmark that say what a change costs the program's threads: who is held, who waits for a turn, how long calls take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hotpatch
from hotpatch.arch import Redirect
from hotpatch.cases import find_case
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import Consistency
from hotpatch.image import open_image
from tools.bench_rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hotpatch.arch import Machine
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.process import ProcessSnapshot

SEEDS = 20
CALL_LIMIT = 1000
"""Instructions within which a redirected call must have reached the new function."""


class Held:
    """What the threads of a process are kept from, measured whenever the emulator's kernel chooses who runs, or serves a system call.

    Attributes:
        held: Instructions that other threads executed while a thread that has neither ended nor waits by itself was not to run at all.
        longest: The most instructions that others executed in a row while a thread was ready to run and had no turn.
        between: Instructions that were executed while all threads stood still: of a patch's callbacks.
    """

    def __init__(self, process: hotpatch.Process) -> None:
        """Measure from now on; :meth:`stop` ends it."""
        self.held = self.longest = self.between = 0
        self._kernel, self._system = process.guest.kernel, process.guest.system
        self._real, self._step = self._kernel.on_slice, self._kernel.step
        self._executed = {thread.id: thread.executed for thread in self._system.living()}
        self._kept: set[int] = set()
        self._without: dict[int, int] = {}
        self._kernel.on_slice, self._kernel.step = self._look, self._between  # type: ignore[method-assign]
        self._note()

    def stop(self) -> None:
        """Measure no more."""
        self._note()
        self._kernel.on_slice, self._kernel.step = self._real, self._step  # type: ignore[method-assign]

    def _look(self) -> bool:
        self._note()
        return self._real is not None and self._real()

    def _between(self, thread: GuestThread, count: int) -> int:
        executed = self._step(thread, count)
        self.between += executed
        return executed

    def _note(self) -> None:
        """Add what has been executed since the last time to what each thread had to stand by for."""
        living = [thread for thread in self._system.living() if not thread.host]
        ran = {thread.id: thread.executed - self._executed.get(thread.id, 0) for thread in living}
        total = sum(ran.values())
        if any(total - ran.get(number, 0) for number in self._kept):
            self.held += total
        self._without = {
            thread.id: 0 if ran[thread.id] or thread.state is not ThreadState.READY else self._without.get(thread.id, 0) + total
            for thread in living
        }
        self.longest = max(self.longest, *self._without.values(), 0)
        self._executed = {thread.id: thread.executed for thread in living}
        self._kept = {thread.id for thread in living if thread.state not in (ThreadState.READY, ThreadState.BLOCKED)}


def consistency_rows(machine: Machine) -> Iterator[Row]:
    """What the models cost the program: threads held, turns missed, length of a change."""
    case = find_case("reversal-mid-transition")
    base = open_image(case.image(machine))
    patch = hotpatch.build(hotpatch.diff(base, open_image(case.image(machine, "fixed"))))
    process = hotpatch.Process(base)
    process.start()
    start, total = process.snapshot(), process.run().instructions
    for model in Consistency:
        held, lengths, longest, without = 0, [], 0, 0
        for seed in range(SEEDS):
            length, span, watch = _change(process, start, seed, total, lambda: process.apply(patch, model))  # noqa: B023  used at once
            held, longest = max(held, watch.held + watch.between), max(longest, watch.longest)
            lengths.append(length)
            without = max(without, _change(process, start, seed, total, None, span)[2].longest)
        yield Row(f"instructions for which a thread is held, {model}", machine, str(held), "1 instruction", float(held), "= 0")
        if without:
            what = f"most instructions for which a ready thread had no turn, {model}"
            yield Row(what, machine, str(longest), f"without the patch, {without}", longest / without, "–")
        mean = sum(lengths) / len(lengths)
        what = f"instructions until all calls are new, four threads, {model}"
        yield Row(what, machine, f"mean {mean:.0f}, most {max(lengths)}", f"the program, {total}", mean / total, "–")
    yield callback_row(machine)
    yield from dispatch_rows(machine)


def _change(
    process: hotpatch.Process,
    start: ProcessSnapshot,
    seed: int,
    total: int,
    apply: Callable[[], hotpatch.AppliedPatch] | None,
    span: int = 0,
) -> tuple[int, int, Held]:
    """Run the program to some place, apply and wait, or just go on for ``span`` instructions.

    How long it took until all calls were new, for how long it was measured, and what.
    """
    process.restore(start)
    process.guest.kernel.schedule = SeededSchedule(seed)
    process.run_until(total * (seed + 1) // (SEEDS + 2))
    before, watch = process.instructions, Held(process)
    if apply is None:
        process.run_until(before + span)
    else:
        process.wait(apply())
    watch.stop()
    ends = [event.at for event in process.events if event.kind == "redirect" or event.details.get("stage") == "finish"]
    return (ends[-1] - before if ends else 0), process.instructions - before, watch


def callback_row(machine: Machine) -> Row:
    """What a patch's callbacks execute while every thread stands still: the only code that runs meanwhile."""
    case = find_case("hooks")
    base = open_image(case.image(machine))
    process = hotpatch.Process(base)
    process.call("add_metres", 5)
    watch = Held(process)
    process.apply(hotpatch.build(hotpatch.diff(base, open_image(case.image(machine, "fixed"))))).revert()
    watch.stop()
    what = "instructions of callbacks, for which all are held, apply and revert of hooks"
    return Row(what, machine, str(watch.between), "4 callbacks", watch.between / 4, "–")


def dispatch_rows(machine: Machine) -> Iterator[Row]:
    """Instructions between a call and the new function's first, during a transition and after it."""
    base, patches = basic(machine)
    process = hotpatch.Process(base)
    entry = process.address_of("clamp")
    inside = process.spawn("total", 11)
    while next(thread.pc for thread in process.guest.threads() if thread.id == inside) != entry:
        process.guest.step(inside, 1)
    applied = process.apply(patches[Redirect.HPAT], Consistency.PER_THREAD)
    if applied.settled:
        raise SystemExit("the thread that stands in the function does not hold the transition")
    counts = []
    for _ in range(2):
        caller = process.spawn("clamp", 1)
        destination, count = applied.functions[0].destination, 0
        while next(thread.pc for thread in process.guest.threads() if thread.id == caller) != destination and count < CALL_LIMIT:
            count += process.guest.step(caller, 1)
        counts.append(count)
        process.wait(applied)
    during, after = counts
    yield Row("instructions per redirected call, during a transition", machine, str(during), f"after it, {after}", during / after, "–")
    yield Row("instructions per redirected call, after a transition", machine, str(after), "3 by design", after / 3, "= 1")


def basic(machine: Machine) -> tuple[Image, dict[Redirect, Patch]]:
    """The case ``basic``, with a patch of each strategy."""
    case = find_case("basic")
    base = open_image(case.image(machine))
    found = hotpatch.diff(base, open_image(case.image(machine, "fixed")))
    patches = {strategy: hotpatch.build(found, redirect=strategy) for strategy in Redirect}
    return base, {strategy: patch for strategy, patch in patches.items() if patch.functions[0].redirect is strategy}
