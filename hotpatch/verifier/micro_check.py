"""Micro-execution of a whole patch: for ``build --check``, and for ``verify`` without calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.errors import ApplyRefused, InputError, Refusal, Rule, counted
from hotpatch.verifier.micro import MicroExecution
from hotpatch.verifier.micro_model import MicroOutcome
from hotpatch.verifier.micro_trials import FUNCTION_BUDGET
from hotpatch.verifier.model import Kind, VerifyReport, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.address import Rva
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.verifier.micro_model import MicroReport

SAMPLE = 24
"""Functions said to be only relocated that are run for a patch."""
_SAMPLE_SEEDS = 12
_NOTED = 200
"""Changed functions that are looked at for :data:`NO_DIFFERENCE`."""
_NOTEWORTHY = 0.8
"""Share of a function's instructions that must have run for that note."""
NO_DIFFERENCE = "no-difference-found"
"""Note on a changed function whose code in the base and in the fixed image did the same: it may differ by code generation only."""


@dataclass(frozen=True, slots=True)
class MicroCheck:
    """What the check of a patch has run.

    Attributes:
        travelling: Its functions, patched base against fixed image: those that replace one by base RVA, then those carried by patch RVA.
        relocated: A sample of functions said to be only relocated, base against fixed image, by base RVA.
        alike: Entries in the base of travelling functions that did the same in the base as it is (:data:`NO_DIFFERENCE`).
    """

    travelling: tuple[MicroReport, ...]
    relocated: tuple[MicroReport, ...]
    alike: frozenset[Rva]


def check_patch(base: Image, fixed: Image, patch: Patch, diff: ImageDiff | None = None) -> MicroCheck:
    """Run the functions of a patch, and a seeded sample of those said to be only relocated, on made-up state.

    Raises:
        ApplyRefused: Two that must do the same do not (rule micro-execution, with seed and values).
    """
    execution = MicroExecution(base, fixed, patch, diff=diff)
    travelling = execution.travelling()
    relocated = execution.unpatched(execution.sample(SAMPLE), seeds=_SAMPLE_SEEDS)
    refusals = [_refusal(report) for report in (*travelling, *relocated) if report.difference is not None]
    if refusals:
        raise ApplyRefused(refusals)
    entries = {report.base_rva for report in travelling if report.base_rva is not None}
    rows = [row for row in execution.diff.functions if row.base and row.base.entry in entries][:_NOTED]
    alike = frozenset(
        report.base_rva
        for report in execution.unpatched(rows)
        if report.base_rva is not None and report.outcome is MicroOutcome.AGREE and report.coverage >= _NOTEWORTHY
    )
    return MicroCheck(travelling, relocated, alike)


def verify_functions(
    base: Image,
    patch: Patch,
    *,
    fixed: Image,
    functions: Sequence[str] = (),
    seeds: int | None = None,
    seed: int = 0,
    diff: ImageDiff | None = None,
) -> VerifyReport:
    """Run functions that travel in the patched base and in the fixed image on the same made-up state; see :mod:`hotpatch.verifier.micro`.

    Changed functions that the patch leaves as they are, and that are seen to do something else than the fixed image's, are counterexamples
    as well, unless ``functions`` are named.

    Args:
        base: The image that the patch is for.
        patch: The patch.
        fixed: The image that it was built from.
        functions: Names, or ``rva:0x…`` of the base; all that travel when empty.
        seeds: States tried for each function, at least 1; by default 48, fewer for patches of many functions.
        seed: The first of them.
        diff: Of the two images, where it is there already.

    Raises:
        ApplyRefused: The patch does not go in.
        Refused: There is no such function (no-such-function).
        InputError: A function does not travel, or ``seeds`` is less than 1.
    """
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds {seeds}", "is no number of seeds; give at least 1")
    travelling = {function.base_rva for function in patch.functions}
    only = {name: base.function_named(name).entry for name in functions}
    for name, entry in only.items():
        if entry not in travelling:
            raise InputError(name, "does not travel in this patch, so that there is nothing to compare; hotpatch inspect lists what does")
    execution = MicroExecution(base, fixed, patch, diff=diff, seed=seed)
    reports = execution.travelling(frozenset(only.values()) if functions else None, seeds=seeds)
    if not functions:
        reports += tuple(report for report in execution.unpatched(execution.left_out()) if report.difference is not None)
    violations = tuple(
        Violation(0, 0, Va(execution.load_base + report.rva), report.name, _counterexample(report), Kind.WRONG)
        for report in reports
        if report.difference is not None
    )
    tried = max((report.seeds for report in reports), default=0)
    inconclusive = sum(report.outcome is MicroOutcome.INCONCLUSIVE for report in reports)
    what = f"{counted(len(reports), 'function')} run in the patched base and in the fixed image"
    doubtful = f"; {inconclusive} inconclusive" if inconclusive else ""
    covered = f"{what} from up to {tried} made-up states (seed {seed}), calls answered, not followed{doubtful}{_cut(reports, seeds)}"
    return VerifyReport(0, 0, dict.fromkeys(Kind, 0), violations, False, covered, (), (), reports)


def _cut(reports: Sequence[MicroReport], asked: int | None) -> str:
    """That functions were run on fewer states than were ``asked`` for."""
    fewer = 0 if asked is None else sum(item.patched and item.difference is None and 0 < item.seeds < asked for item in reports)
    why = f"a function is given {FUNCTION_BUDGET} instructions, of both builds together"
    return f"; {fewer} on fewer than the {asked} asked for: {why}" if fewer else ""


def _counterexample(report: MicroReport) -> str:
    left = "" if report.patched else "the patch leaves a changed function as it is; "
    return f"{left}run on made-up state: {report.text}"


def _refusal(report: MicroReport) -> Refusal:
    side, who = "base", "a function said to be only relocated differs from the fixed one, so that the comparison is wrong"
    if report.patched:
        side, who = "patched", "the patched function and the fixed one differ"
    evidence: dict[str, object] = {"seed": report.seed, "fixed_rva": int(report.fixed_rva)}
    if report.difference is not None:
        evidence |= {"what": report.difference.what, side: report.difference.mine, "fixed": report.difference.theirs}
    reason = f"run on made-up state, {who} ({report.text}); do not ship this patch, and report it"
    return Refusal(Rule.MICRO_EXECUTION, report.name, report.base_rva, reason, evidence)
