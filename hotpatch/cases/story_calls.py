"""The story of a case that is not told by one run: its calls in every phase that its manifest has, or its refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hotpatch.arguments import parse_argument
from hotpatch.builder import build_patch
from hotpatch.cases.story import StepKind, Teller
from hotpatch.cases.story_runs import tell_hosted, tell_runs
from hotpatch.differ import diff_images
from hotpatch.errors import NothingToDo, Refused
from hotpatch.image import Image, open_image
from hotpatch.process import Process
from hotpatch.process.foreign import crowd, hook, overwritten

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from hotpatch.arch import Machine
    from hotpatch.cases.model import Call, Case, Expectation, Phase, Side
    from hotpatch.cases.story import Step
    from hotpatch.engine import AppliedPatch
    from hotpatch.patch import Patch

_Done = TypeVar("_Done")
_LONGEST = 28
"""Characters of an argument that are shown."""


def tell_calls(case: Case, machine: Machine, seed: int = 0) -> Iterator[Step]:
    """Build the case's patch; show the case before it, with it and without it again, or what it is refused for."""
    tell = Teller(machine)
    yield tell.step(StepKind.TITLE, f"{case.manifest.title} [{machine}]", case=case.name)
    yield tell.step(StepKind.SAY, case.manifest.shows)
    base, fixed = open_image(case.image(machine)), open_image(case.image(machine, "fixed"))
    try:
        found = diff_images(base, fixed)
        patch = build_patch(found)
    except NothingToDo:
        yield from _untouched(tell, case, Process(base, seed=seed))
        yield tell.step(StepKind.END, "nothing to do: the two builds do not differ in function", outcome="nothing")
        return
    except Refused as refused:
        yield from tell.refused(refused)
        yield from _untouched(tell, case, Process(base, seed=seed))
        yield tell.step(StepKind.END, "the builder refuses; no patch was written", outcome="refused")
        return
    yield from tell.built(found, patch)
    side = case.manifest.expect.apply_to
    # Under the base's name, as another build of it would be met in the field: names are not what the engine goes by.
    running = base if side == "base" else Image.from_bytes(case.image(machine, side).read_bytes(), name=base.name)
    if case.manifest.program:
        yield from tell_runs(tell, case, running, patch, seed)
    else:
        yield from tell_hosted(tell, case, running, patch, seed)
        yield from _Phases(tell, case, Process(running, seed=seed)).told(patch)


def _untouched(tell: Teller, case: Case, process: Process) -> Iterator[Step]:
    """The calls of a case whose process is never changed."""
    phases = _Phases(tell, case, process)
    yield tell.step(StepKind.ACT, "the program, as it was")
    yield from phases.calls("before")
    yield tell.step(StepKind.ACT, "and it goes on")
    yield from phases.calls("patched")


class _Phases:
    """One process in which a case's calls are made in phase after phase."""

    def __init__(self, tell: Teller, case: Case, process: Process) -> None:
        self._tell, self._case, self._process = tell, case, process

    @property
    def _expect(self) -> Expectation:
        return self._case.manifest.expect

    def told(self, patch: Patch) -> Iterator[Step]:
        """All of them."""
        yield from self._phase("before", "before")
        if self._expect.hooked:
            where = hook(self._process, self._expect.hooked)
            yield self._tell.step(
                StepKind.ACT, f"another product hooks {self._expect.hooked}: calls go by its code at 0x{where:x}", va=where
            )
        if self._expect.crowded:
            crowd(self._process)
            yield self._tell.step(StepKind.ACT, "another product reserves all address space that a branch of the module can reach")
        if self._expect.busy:
            yield from self._vetoed(patch, self._expect.busy)
        applied = yield from self._change("the patch goes in", lambda: self._process.apply(patch))
        if applied is None:
            yield from self._phase("patched", "the program goes on, untouched")
            yield self._tell.step(StepKind.END, "the engine refuses; the process is as it was", outcome="refused")
            return
        yield from self.calls("patched")
        if self._expect.overwritten:
            yield from self._overwritten(applied, self._expect.overwritten)
        yield from self._change("the patch is taken back", applied.revert)
        yield from self.calls("reverted")
        yield from self._change("the patch goes in again", lambda: self._process.apply(patch))
        yield from self.calls("again")
        if self._expect.then is not None:
            yield from self._later(self._expect.then)
        count = self._process.instructions
        yield self._tell.step(StepKind.END, f"{count} instructions in one process", instructions=count)

    def _later(self, side: Side) -> Iterator[Step]:
        """A newer patch on top, and off again."""
        case, machine = self._case, self._tell.machine
        base, newer = open_image(case.image(machine)), open_image(case.image(machine, side))
        found = diff_images(base, newer)
        patch = build_patch(found, sequence=2)
        yield self._tell.step(StepKind.ACT, "a later build: its patch, sequence 2, is made against the base as well")
        yield from self._tell.built(found, patch)
        applied = yield from self._change("the second patch goes on top of the first", lambda: self._process.apply(patch))
        if applied is None:
            yield from self._phase("then", "it is refused; the first one stays in force")
            return
        yield from self.calls("then")
        yield from self._change("the second patch is taken back; the first one is in force again", applied.revert)
        yield from self.calls("popped")

    def _vetoed(self, patch: Patch, function: str) -> Iterator[Step]:
        self._process.call(function, 1)
        yield from self._change(f"{function}(1), then the patch is offered", lambda: self._process.apply(patch))
        self._process.call(function, 0)
        yield self._tell.step(StepKind.SAY, f"nothing was changed; {function}(0)")

    def _overwritten(self, applied: AppliedPatch, function: str) -> Iterator[Step]:
        with overwritten(self._process, function) as target:
            what = f"another product jumps from {function} to 0x{target:x}; the patch is to be taken back"
            yield from self._change(what, applied.revert)
        yield self._tell.step(StepKind.SAY, "nothing was touched; the other product takes its jump away")
        yield from self.calls("patched")

    def _change(self, act: str, change: Callable[[], _Done]) -> Generator[Step, None, _Done | None]:
        """An act in which the engine does something; what that gave, or ``None`` where it is refused."""
        yield self._tell.step(StepKind.ACT, act)
        since = len(self._process.events)
        try:
            done = change()
        except Refused as refused:
            yield from self._tell.refused(refused)
            return None
        yield from self._tell.changes(self._process, since)
        return done

    def _phase(self, phase: Phase, act: str) -> Iterator[Step]:
        yield self._tell.step(StepKind.ACT, act)
        yield from self.calls(phase)

    def calls(self, phase: Phase) -> Iterator[Step]:
        """The case's calls, with what is expected of each in ``phase``."""
        for call in self._case.manifest.call:
            yield self._call(call, phase)

    def _call(self, call: Call, phase: Phase) -> Step:
        expected, shipped = call.expected(phase), call.expected("before")
        got = self._process.call_details(call.function, *map(parse_argument, call.args))
        value = got.float_value if isinstance(expected, float) else got.value
        buffers = call.expected_buffers(phase)
        right = (expected is None or value == expected) and (buffers is None or got.buffers == buffers)
        kind = StepKind.OUTPUT
        if call.reverted is None and call.before != call.patched:
            kind = StepKind.BUG if value == shipped else StepKind.GOOD
        note = "" if right else f"   (expected {expected})"
        return self._tell.step(
            kind,
            f"{call.function}({', '.join(map(_short, call.args))}) = {value}{note}",
            function=call.function,
            args=list(call.args),
            phase=phase,
            value=value,
            expected=expected,
            right=right,
        )


def _short(argument: str) -> str:
    return argument if len(argument) <= _LONGEST else f"{argument[:_LONGEST]}…"
