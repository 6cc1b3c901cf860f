"""The story of a program that is patched while it runs, and given its old code back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hotpatch.builder import build_patch
from hotpatch.cases.story import StepKind, Teller
from hotpatch.differ import diff_images
from hotpatch.errors import InputError
from hotpatch.image import open_image
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.address import Va
    from hotpatch.arch import Machine
    from hotpatch.cases.model import Case, Demo
    from hotpatch.cases.story import Step
    from hotpatch.engine import AppliedPatch

_INSTRUCTION_LIMIT = 2_000_000
"""More than any shipped story takes."""


def tell_program(case: Case, machine: Machine, demo: Demo, seed: int = 0) -> Iterator[Step]:
    """Run the case's program; patch it, and take the patch back, in the middle.

    Raises:
        InputError: The program ended before the patch could go in or be taken back.
    """
    tell = Teller(machine)
    base, fixed = open_image(case.image(machine)), open_image(case.image(machine, "fixed"))
    yield tell.step(StepKind.TITLE, f"{case.manifest.title} [{machine}]", case=case.name)
    found = diff_images(base, fixed)
    patch = build_patch(found)
    yield from tell.built(found, patch)

    process = Process(base, seed=seed, stdin=demo.stdin.encode(), args=demo.args)
    process.start()
    yield tell.step(StepKind.ACT, f"the program runs, as it was shipped, in an emulated process at 0x{process.load_base:x}")
    watch = _Watch(tell, process, demo)
    yield from watch.until(demo.apply_after)
    before = process.instructions

    threads = len(process.guest.threads())
    yield tell.step(StepKind.ACT, f"after {before} instructions the patch goes in; {threads} threads are at work")
    yield from watch.threads()
    since = len(process.events)
    applied = process.apply(patch)
    yield from tell.changes(process, since)
    held = process.instructions - before
    yield tell.step(StepKind.SAY, f"no thread was held: {held} instructions passed meanwhile, none was waited for", held=held)
    watch.patched(applied)

    yield tell.step(StepKind.ACT, "the program goes on: the same threads, the same memory, new code")
    yield from watch.until(demo.revert_after)
    yield from watch.calls()

    yield tell.step(StepKind.ACT, f"after {process.instructions} instructions the patch is taken back")
    since = len(process.events)
    applied.revert()
    yield from tell.changes(process, since)
    watch.patched(None)
    yield from watch.until(None)
    yield from watch.calls()
    result = process.result()
    yield tell.step(
        StepKind.END,
        f"exit code {result.exit_code} after {result.instructions} instructions on {result.threads} threads, never restarted",
        exit_code=result.exit_code,
        instructions=result.instructions,
        threads=result.threads,
    )


class _Watch:
    """Runs the program one instruction at a time: what it writes, and which code its calls reach."""

    def __init__(self, tell: Teller, process: Process, demo: Demo) -> None:
        self._tell, self._process, self._demo = tell, process, demo
        self._lines = 0
        self._old: dict[Va, str] = {}
        self._new: dict[Va, str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._entries: dict[Va, str] = {}

    def patched(self, applied: AppliedPatch | None) -> None:
        """From now on calls of the patched functions reach the code of ``applied``, or the base's again."""
        if applied is not None:
            self._entries = {item.va: item.name or f"rva:0x{item.rva:x}" for item in applied.functions}
            self._new = {item.destination: item.name or f"rva:0x{item.rva:x}" for item in applied.functions}
            self._old = {}
        else:
            self._old, self._new = self._entries, {}
        self._counts.clear()

    def until(self, prefix: str | None) -> Iterator[Step]:
        """Go on until a line that begins with ``prefix`` has been written; to the end where it is ``None``."""
        process = self._process
        while process.instructions < _INSTRUCTION_LIMIT:
            process.run(1)
            self._count()
            for line in self._fresh():
                yield self._tell.step(*self._shown(line), at=process.instructions)
                if prefix is not None and line.startswith(prefix):
                    return
            if process.finished or process.fault is not None:
                if prefix is None:
                    return
                break
        raise InputError(self._process.base.name, f"the program ended before it wrote {prefix!r}")

    def threads(self) -> Iterator[Step]:
        """Where each thread stands."""
        for view in self._process.stop_view():
            names = [frame.function or "?" for frame in view.stack]
            where = " ← ".join(dict.fromkeys([view.function or "?", *names]))
            state = f"waits for {view.waits_for}" if view.waits_for else view.state
            yield self._tell.step(
                StepKind.THREAD,
                f"thread {view.id}  {where}\n          at 0x{view.pc:x}, {state}",
                thread=view.id,
                pc=view.pc,
                stack=names,
                state=view.state,
            )

    def calls(self) -> Iterator[Step]:
        """How many calls of each patched function reached which code."""
        for name in dict.fromkeys(self._entries.values()):
            old, new = self._counts[name, "old"], self._counts[name, "new"]
            yield self._tell.step(
                StepKind.CALL, f"calls of {name} meanwhile: {new} took the new code, {old} the old", function=name, old=old, new=new
            )

    def _count(self) -> None:
        position = self._process.position
        if position is None:
            return
        for code, which in ((self._old, "old"), (self._new, "new")):
            if position[1] in code:
                self._counts[code[position[1]], which] += 1

    def _fresh(self) -> list[str]:
        text = self._process.output
        complete = text[: text.rfind("\n") + 1].splitlines()
        fresh, self._lines = complete[self._lines :], len(complete)
        return fresh

    def _shown(self, line: str) -> tuple[StepKind, str]:
        kinds = ((StepKind.BUG, self._demo.bug), (StepKind.GOOD, self._demo.repaired))
        return next((kind for kind, texts in kinds if any(text in line for text in texts)), StepKind.OUTPUT), line
