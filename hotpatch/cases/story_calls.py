"""The story of a case that is not told by one run: its calls, or its programs, before, patched and reverted; or its refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arguments import parse_argument
from hotpatch.builder import build_patch
from hotpatch.cases.story import StepKind, Teller
from hotpatch.differ import diff_images
from hotpatch.errors import NothingToDo, Refused
from hotpatch.image import Image, open_image
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch import Machine
    from hotpatch.cases.model import Call, Case, Phase
    from hotpatch.cases.story import Step
    from hotpatch.patch import Patch


def tell_calls(case: Case, machine: Machine, seed: int = 0) -> Iterator[Step]:
    """Build the case's patch; where that is not refused, show the case before it, with it, and without it again."""
    tell = Teller(machine)
    yield tell.step(StepKind.TITLE, f"{case.manifest.title} [{machine}]", case=case.name)
    yield tell.step(StepKind.SAY, case.manifest.shows)
    base, fixed = open_image(case.image(machine)), open_image(case.image(machine, "fixed"))
    try:
        found = diff_images(base, fixed)
        patch = build_patch(found)
    except NothingToDo as outcome:
        yield tell.step(StepKind.END, f"nothing to do: {outcome}", outcome="nothing")
        return
    except Refused as refused:
        yield from _refused(tell, refused, "the builder refuses; no patch was written")
        return
    yield from tell.built(found, patch)
    side = case.manifest.expect.apply_to
    # Under the base's name, as another build of it would be met in the field: names are not what the engine goes by.
    running = base if side == "base" else Image.from_bytes(case.image(machine, side).read_bytes(), name=base.name)
    if case.manifest.program:
        yield from _programs(tell, case, running, patch, seed)
    else:
        yield from _phases(tell, case, Process(running, seed=seed), patch)


def _phases(tell: Teller, case: Case, process: Process, patch: Patch) -> Iterator[Step]:
    calls = case.manifest.call
    if calls:
        yield tell.step(StepKind.ACT, "before")
        yield from _calls(tell, process, calls, "before")
    yield tell.step(StepKind.ACT, "the patch goes in")
    since = len(process.events)
    try:
        applied = process.apply(patch)
    except Refused as refused:
        yield from _refused(tell, refused, "the engine refuses; the process is as it was")
        return
    yield from tell.writes(process, since)
    yield from _calls(tell, process, calls, "patched")
    yield tell.step(StepKind.ACT, "the patch is taken back")
    since = len(process.events)
    applied.revert()
    yield from tell.writes(process, since)
    yield from _calls(tell, process, calls, "reverted")
    yield tell.step(StepKind.END, f"{process.instructions} instructions in one process, never restarted", instructions=process.instructions)


def _calls(tell: Teller, process: Process, calls: tuple[Call, ...], phase: Phase) -> Iterator[Step]:
    for call in calls:
        expected = call.expected(phase)
        got = process.call_details(call.function, *map(parse_argument, call.args))
        value = got.float_value if isinstance(expected, float) else got.value
        kind = StepKind.OUTPUT
        if call.before != call.patched and call.reverted is None:
            kind = StepKind.GOOD if phase == "patched" else StepKind.BUG
        right = expected is None or value == expected
        note = "" if right else f"   (expected {expected})"
        yield tell.step(
            kind,
            f"{call.function}({', '.join(call.args)}) = {value}{note}",
            function=call.function,
            value=value,
            expected=expected,
            right=right,
        )


def _programs(tell: Teller, case: Case, image: Image, patch: Patch, seed: int) -> Iterator[Step]:
    for program in case.manifest.program:
        yield tell.step(StepKind.ACT, f"{program.title}: as shipped")
        first = _run(image, program.args, program.stdin, seed)
        yield from _output(tell, first)
        at = first.instructions // 2
        yield tell.step(StepKind.ACT, f"{program.title}: the patch goes in after {at} instructions", at=at)
        process = _started(image, program.args, program.stdin, seed)
        process.run_until(at)
        since = len(process.events)
        process.apply(patch)
        yield from tell.writes(process, since)
        process.run()
        yield from _output(tell, process)
    yield tell.step(StepKind.END, "the program ran to its end each time, never restarted")


def _started(image: Image, args: tuple[str, ...], stdin: str, seed: int) -> Process:
    process = Process(image, seed=seed, stdin=stdin.encode(), args=args)
    process.start()
    return process


def _run(image: Image, args: tuple[str, ...], stdin: str, seed: int) -> Process:
    process = _started(image, args, stdin, seed)
    process.run()
    return process


def _output(tell: Teller, process: Process) -> Iterator[Step]:
    for line in process.output.splitlines():
        yield tell.step(StepKind.OUTPUT, line)
    yield tell.step(StepKind.SAY, f"exit code {process.exit_code} after {process.instructions} instructions on {process.threads} threads")


def _refused(tell: Teller, refused: Refused, what: str) -> Iterator[Step]:
    for item in refused.refusals:
        yield tell.step(
            StepKind.CALL,
            f"{item.rule}: {item.function or ''} {item.reason}",
            rule=item.rule.value,
            function=item.function,
            evidence=dict(item.evidence),
        )
    yield tell.step(StepKind.END, what, outcome="refused")
