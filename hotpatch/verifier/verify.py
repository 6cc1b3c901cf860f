"""Verification of calls: base, patch and fixed image side by side, then the patch at every instruction boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import FaultKind, InputError, counted
from hotpatch.verifier.agreement import Agreement
from hotpatch.verifier.boundaries import HORIZON, Refusals, chosen, try_boundaries
from hotpatch.verifier.judge import Judge
from hotpatch.verifier.model import VIOLATIONS, Action, CallReport, Kind, VerifyReport, Violation
from hotpatch.verifier.oracle import prepare, versions_of
from hotpatch.verifier.runs import Scene, Surroundings, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.verifier.model import Call, Outcome

PATIENCE = 8
"""A run that takes this many times the instructions of the base and the fixed image (and :data:`SLACK` more) is given up; where one of
these is given up itself, it gets no more than they."""
SLACK = 100_000
ENDLESS_HORIZON = 1000
"""Boundaries behind are not tried of a call that is given up."""


def verify_calls(
    base: Image,
    patch: Patch,
    *,
    fixed: Image,
    calls: Sequence[Call],
    bound: int = 100_000,
    surroundings: Surroundings | None = None,
) -> VerifyReport:
    """Apply ``patch`` at every instruction boundary of each call, and revert it at every boundary of the patched call; compare every run.

    Each call is made in a fresh process: by the base alone, with the patch from before it, and by the fixed image. The last two must agree
    in result registers, buffers, output, writable data that both images have, and how they end. Then the run at each boundary must give
    what :class:`Kind` says: old, new, or per call. Patch image, slots and trampolines are mapped before the call; what happens at a
    boundary is that calls change over.

    Results that depend on how many instructions were executed (a clock) are reported as violations: the redirect itself takes some.

    Args:
        base: The image that the patch is for.
        patch: The patch.
        fixed: The image that it was built from.
        calls: ``(function, argument, …)`` tuples; they must not start threads.
        bound: Largest number of boundaries tried for each call and action, at least 1; where there are more, the first half of the bound
            and a seeded even sample of the rest.
        surroundings: Of every process.

    Raises:
        ApplyRefused: The patch does not go in even before the call.
        RevertRefused: It does not come out again even then.
        Refused: There is no such function (no-such-function).
        InputError: A call cannot be made, or starts threads.
    """
    if bound < 1:
        raise InputError(f"bound {bound}", "is none; give the number of boundaries to try, at least 1")
    if not calls:
        raise InputError("calls", "none given; verification needs at least one call")
    verification = _Verification(base, patch, fixed, bound, surroundings or Surroundings())
    for call in calls:
        verification.verify(call)
    return verification.report()


class _Verification:
    """The calls so far."""

    def __init__(self, base: Image, patch: Patch, fixed: Image, bound: int, surroundings: Surroundings) -> None:
        self._base, self._patch, self._fixed = base, patch, fixed
        self._bound, self._surroundings = bound, surroundings
        self._agreement = Agreement(base, fixed)
        self._refusals = Refusals()
        self._reports: list[CallReport] = []
        self._violations: list[Violation] = []

    def verify(self, call: Call) -> None:
        """One call: its three pure outcomes, then both actions at the boundaries."""
        old, old_length, _ = self._pure(self._base, call, self._surroundings.budget)
        fixed, fixed_length, fixed_scene = self._pure(self._fixed, self._agreement.translated(call), self._surroundings.budget)
        given_up = FaultKind.BUDGET in (old.fault, fixed.fault)
        budget = self._surroundings.budget if given_up else PATIENCE * max(old_length, fixed_length) + SLACK
        new, new_length, new_scene = self._pure(self._base, call, budget, patched=True)
        problem = self._agreement.problem(new, new_scene.process, fixed, fixed_scene.process)
        for action, length, ends in ((Action.APPLY, old_length, old), (Action.REVERT, new_length, new)):
            self._try(call, action, length + (ends.fault is not None), old, new, budget, problem if action is Action.APPLY else None)

    def _pure(self, image: Image, call: Call, budget: int, *, patched: bool = False) -> tuple[Outcome, int, Scene]:
        """A call in a fresh process: outcome, instructions, the process."""
        scene = Scene(image, call, self._surroundings, budget)
        if patched:
            scene.process.apply(self._patch)
        scene.begin()
        outcome = scene.finish()
        return outcome, scene.executed, scene

    def _try(self, call: Call, action: Action, count: int, old: Outcome, new: Outcome, budget: int, problem: str | None) -> None:
        scene = Scene(self._base, call, self._surroundings, budget)
        functions = prepare(scene, self._patch)
        scene.begin()
        start, thread, text = scene.snapshot(), scene.thread, describe(call)
        endless = FaultKind.BUDGET in (old.fault, new.fault)
        boundaries = chosen(min(count, ENDLESS_HORIZON if endless else HORIZON), self._bound, self._surroundings.seed)
        trials, entries = try_boundaries(scene, start, self._patch, functions, action, boundaries, self._refusals, text, to_end=not endless)
        wanted = {0, *(begun for trial in trials for begun in trial.allowed), *(() if entries is None else (entries,))}
        judge = Judge(action, old, new, versions_of(scene, start, self._patch, functions, action, wanted), entries)
        outcomes = dict.fromkeys(Kind, 0)
        versions = judge.checks() if problem is None else [(Kind.WRONG, problem), *judge.checks()]
        for trial in trials:
            kind = judge.kind(trial)
            found = [(kind, f"the call {judge.why(trial)}")] if kind in VIOLATIONS else []
            if trial.boundary == 0:
                found = [*versions, *found]
                kind = found[0][0] if found else kind
            outcomes[kind] += 1
            self._violations += [
                Violation(trial.boundary, thread, trial.pc, trial.function, f"{text}, {action.value}: {what}", kind) for kind, what in found
            ]
        if versions and not any(trial.boundary == 0 for trial in trials):
            scene.restore(start)
            function = scene.process.guest.function_name(scene.pc)
            self._violations += [
                Violation(0, thread, scene.pc, function, f"{text}, {action.value}: {what}", kind) for kind, what in versions
            ]
        refused = len(boundaries) - len(trials)
        began = entries if entries is not None else max((trial.begun for trial in trials), default=0)
        ended = (old if action is Action.APPLY else new).fault
        every = len(boundaries) == count and ended is not FaultKind.BUDGET
        self._reports.append(CallReport(text, action, count, began, len(boundaries), outcomes, refused, every, ended))

    def report(self) -> VerifyReport:
        """Everything found."""
        outcomes = {kind: sum(report.outcomes[kind] for report in self._reports) for kind in Kind}
        exhaustive = all(report.exhaustive for report in self._reports)
        calls = len(self._reports) // len(Action)
        return VerifyReport(
            sum(report.tried for report in self._reports),
            calls,
            outcomes,
            tuple(self._violations),
            exhaustive,
            self._covered(calls, exhaustive=exhaustive),
            self._refusals.collected(),
            tuple(self._reports),
        )

    def _covered(self, calls: int, *, exhaustive: bool) -> str:
        what = f"{counted(calls, 'call')} on one thread each, the patch applied and reverted"
        given_up = sorted({report.call for report in self._reports if report.fault is FaultKind.BUDGET})
        if exhaustive:
            return f"{what} at every instruction boundary"
        if given_up and all(report.tried == report.instructions for report in self._reports):
            return f"{what} at every instruction boundary up to where {counted(len(given_up), 'call')} had used up the budget"
        return (
            f"{what} at up to {self._bound} instruction boundaries a call: the first {(self._bound + 1) // 2}, and a sample "
            f"(seed {self._surroundings.seed}) spread evenly over the rest of its first {HORIZON} (of an endless one, {ENDLESS_HORIZON})"
        )
