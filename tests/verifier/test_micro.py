"""Functions on made-up state: good patches agree on every case, and patches corrupted in each of several ways do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.patch import Space
from hotpatch.verifier import MicroExecution, MicroOutcome, check_patch

each_machine = pytest.mark.parametrize("machine", Machine)
CASES = (
    "basic",
    "state-kept",
    "function-pointer",
    "image-parser",
    "inlined-caller",
    "new-constant",
    "new-global",
    "new-import",
    "no-padding",
    "cold-part",
    "folded",
    "folded-by-fix",
)


@each_machine
@pytest.mark.parametrize("case", CASES)
def test_patched_function_does_what_the_fixed_one_does(built, case: str, machine: Machine) -> None:
    given = built(case, machine)
    reports = check_patch(given.base, given.fixed, given.patch).travelling
    assert [report.base_rva for report in reports] == [function.base_rva for function in given.patch.functions]
    assert {report.outcome for report in reports} == {MicroOutcome.AGREE}
    assert all(report.agreed and report.coverage > 0.5 for report in reports)


@each_machine
def test_fixed_bug_shows_between_base_and_fixed_image(built, machine: Machine) -> None:
    given = built("basic", machine)
    execution = MicroExecution(given.base, given.fixed)
    (report,) = execution.unpatched(execution.diff.of(hotpatch.Verdict.CHANGED))
    assert report.outcome is MicroOutcome.DIFFER
    assert report.difference is not None
    assert report.difference.what == "result"


def _rebound(patch: hotpatch.Patch, target: int, distance: int) -> hotpatch.Patch:
    """The patch with every reference to a thing of the base bound elsewhere."""
    fixups = tuple(
        replace(fixup, target=fixup.target + distance) if fixup.space is Space.BASE and fixup.target == target else fixup
        for fixup in patch.fixups
    )
    assert fixups != patch.fixups
    return replace(patch, fixups=fixups)


def _found(given, patch: hotpatch.Patch) -> list[str]:
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        check_patch(given.base, given.fixed, patch)
    assert {refusal.rule for refusal in refused.value.refusals} == {hotpatch.Rule.MICRO_EXECUTION}
    return [str(refusal.evidence["what"]) for refusal in refused.value.refusals]


@each_machine
def test_wrong_addend_is_found(built, machine: Machine) -> None:
    given = built("state-kept", machine)
    targets = {fixup.target for fixup in given.patch.fixups if fixup.space is Space.BASE}
    found = [MicroExecution(given.base, given.fixed, _rebound(given.patch, target, 0x1000)).travelling()[0] for target in sorted(targets)]
    assert MicroOutcome.DIFFER in {report.outcome for report in found}


@each_machine
def test_swapped_callee_is_found(built, machine: Machine) -> None:
    given = built("overflow-check", machine)
    entries = {function.entry for function in given.base.functions}
    called = sorted({fixup.target for fixup in given.patch.fixups if fixup.space is Space.BASE and fixup.target in entries})
    one, other = called[0], next(entry for entry in sorted(entries) if entry not in called)
    assert any("call" in what for what in _found(given, _rebound(given.patch, one, other - one)))


@each_machine
def test_missing_reference_is_found(built, machine: Machine) -> None:
    given = built("state-kept", machine)
    target = next(fixup.target for fixup in given.patch.fixups if fixup.space is Space.BASE)
    fixups = tuple(fixup for fixup in given.patch.fixups if fixup.target != target)
    assert _found(given, replace(given.patch, fixups=fixups))
