"""The story of a case with programs: each as shipped, then patched in the middle of its run, as its manifest says by every consistency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.cases.story import StepKind
from hotpatch.engine import Consistency, PatchState
from hotpatch.errors import Refused, counted
from hotpatch.image import open_image
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from hotpatch.cases.model import Case, Program, Run
    from hotpatch.cases.story import Step, Teller
    from hotpatch.image import Image
    from hotpatch.patch import Patch

_HOW = {
    Consistency.IMMEDIATE: "at once",
    Consistency.QUIESCENT: "when no thread is inside",
    Consistency.PER_THREAD: "thread by thread",
}
_APART, _ATTEMPTS = 37, 60
"""Instructions between points, and how many are tried, until a change is one that takes a while."""


def tell_runs(tell: Teller, case: Case, image: Image, patch: Patch, seed: int) -> Iterator[Step]:
    """Every program of the case, as shipped and with ``patch`` going in when a third of that is done."""
    for program in case.manifest.program:
        story = _Runs(tell, program, image, patch, seed)
        yield tell.step(StepKind.ACT, f"{program.title}: as shipped")
        at = yield from story.shipped()
        for model in Consistency if program.consistent is not None else (Consistency.IMMEDIATE,):
            what = f"{program.title}: after {at} instructions the patch goes in, {_HOW[model]} ({model})"
            yield tell.step(StepKind.ACT, what, at=at, consistency=model.value)
            yield from story.patched(at, model)
        if program.called_off:
            yield tell.step(StepKind.ACT, f"{program.title}: the patch goes in thread by thread, and is called off in the middle of that")
            yield from story.called_off(at)
    yield tell.step(StepKind.END, "the program ran to its end each time")


def tell_hosted(tell: Teller, case: Case, image: Image, patch: Patch, seed: int) -> Iterator[Step]:
    """Every program that loads the case's DLL while it runs: as shipped, and with ``patch`` registered before that."""
    for program in case.manifest.hosted:
        for registered in (None, patch):
            process = Process(
                open_image(case.host(tell.machine)),
                available=[image],
                args=[image.name, *program.args],
                stdin=program.stdin.encode(),
                seed=seed,
            )
            process.start()
            since = len(process.events)
            what = "as shipped" if registered is None else "the patch is registered, and waits for its module"
            yield tell.step(StepKind.ACT, f"{program.title}, by a program that loads {image.name}: {what}", hosted=program.title)
            if registered is not None:
                process.register(registered)
            process.run()
            yield from tell.changes(process, since)
            yield from _ended(tell, process, _other_than(program.before if registered is None else program.patched, process))


class _Runs:
    """Runs of one program."""

    def __init__(self, tell: Teller, program: Program, image: Image, patch: Patch, seed: int) -> None:
        self._tell, self._program, self._image, self._patch, self._seed = tell, program, image, patch, seed

    def shipped(self) -> Generator[Step, None, int]:
        """The program without a patch; a third of its instructions."""
        process = self._started()
        process.run()
        yield from _ended(self._tell, process, _other_than(self._program.before, process))
        return process.instructions // 3

    def patched(self, at: int, model: Consistency) -> Iterator[Step]:
        """The program with the patch going in after ``at`` instructions."""
        process = self._started()
        process.run_until(at)
        since = len(process.events)
        # No longer than the program goes on for, so that it is still there when the engine gives up.
        wait = at if model is Consistency.QUIESCENT else None
        try:
            process.apply(self._patch, model, wait=wait)
        except Refused as refused:
            yield from self._tell.refused(refused)
        yield from self._tell.changes(process, since)
        since = len(process.events)
        process.run()
        yield from self._tell.changes(process, since)
        if process.refused:
            yield from self._tell.refused(Refused(process.refused))
        yield from _ended(self._tell, process, self._problem(process, model))

    def called_off(self, at: int) -> Iterator[Step]:
        """The program with a change that begins at ``at`` or as soon after it as it takes a while, and is called off before its end."""
        process = self._started()
        for attempt in range(_ATTEMPTS):
            process.run_until(at + attempt * _APART)
            standing = process.snapshot()
            since = len(process.events)
            applied = process.apply(self._patch, Consistency.PER_THREAD)
            begun, since = tuple(self._tell.changes(process, since)), len(process.events)
            process.run(_APART)
            if applied.state is PatchState.TRANSITION:
                applied.reverse()
                yield from begun
                break
            process.restore(standing)
        process.run()
        yield from self._tell.changes(process, since)
        yield from _ended(self._tell, process, self._problem(process, Consistency.PER_THREAD))

    def _problem(self, process: Process, model: Consistency) -> str | None:
        return self._program.problem_anywhere(process.exit_code, process.output, consistent=model is not Consistency.IMMEDIATE)

    def _started(self) -> Process:
        process = Process(self._image, seed=self._seed, stdin=self._program.stdin.encode(), args=self._program.args)
        process.start()
        return process


def _other_than(expected: Run, process: Process) -> str | None:
    """What is wrong with a run that should have ended as ``expected``."""
    return None if (process.exit_code, process.output) == (expected.exit_code, expected.output) else "not what the case says"


def _ended(tell: Teller, process: Process, problem: str | None) -> Iterator[Step]:
    for line in process.output.splitlines():
        yield tell.step(StepKind.OUTPUT, line)
    how = f"exit code {process.exit_code} after {process.instructions} instructions on {counted(process.threads, 'thread')}"
    yield tell.step(StepKind.SAY, how if problem is None else f"{how}   ({problem})", right=problem is None)
