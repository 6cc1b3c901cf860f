"""Patches that are wrong in one place: micro-execution finds most of them, and nothing wrong with the right ones."""

from __future__ import annotations

import gc
import random
from itertools import islice

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases.locate import case_names
from hotpatch.errors import NothingToDo
from hotpatch.verifier import MicroOutcome, MicroReport, verify_functions
from tests.verifier.conftest import Built
from tests.verifier.damage import with_code
from tests.verifier.mutants import NOPS, flipped, mutants, rewritten

each_machine = pytest.mark.parametrize("machine", Machine)
CASES = ("state-kept", "overflow-check", "mutual-recursion", "new-constant", "recursion", "new-import")
MOST, SEED = 6, 5
"""Of one case on one machine, where each has seven on average and three have two dozen or more."""
LEAST = 0.75
"""Share of all mutants of the shipped cases that is found: 0.80 when this was written, of 334. Others lead to what another input alone
shows: one entry of a table, a limit that is one off."""


FLIPS, LEAST_FLIPS = 1, 0.75
"""Of one case on one machine, and the share found (of 180 each, with another seed: 0.91 x64, 0.83 Arm64); most others do the same as
before, such as ``ldr`` made ``ldur``, or ``mov w8, w8`` made ``mov x8, x8``, where its upper half is zero."""


REWRITTEN, LEAST_REWRITTEN = 4, 0.98
"""Of one case on one machine, and the share found of stores dropped and branches whose ways are swapped: all of 95 x64, and of 143 Arm64,
when this was written."""


def _verify(given, patch: hotpatch.Patch, seeds: int | None = None) -> hotpatch.VerifyReport:
    return verify_functions(given.base, patch, fixed=given.fixed, diff=given.diff, seeds=seeds)


def _is_found(given, patch: hotpatch.Patch) -> bool:
    """Whether the patch does not pass: a function of it differs, or its own callback faults and it can't be applied at all.

    The first of all states is tried alone before: it shows most, and what it shows is shown by all of them, which run it in the same way.
    """
    try:
        return not (_verify(given, patch, 1).ok and _verify(given, patch).ok)
    except hotpatch.Refused as refusal:
        return [each.rule for each in refusal.refusals] == ["callback-fault"]


def _right(given) -> tuple[MicroReport, ...]:
    """What the run of the right patch shows: it passes (a function that never returns: without a verdict)."""
    right = _verify(given, given.patch)
    assert right.ok, right.violations
    assert {report.outcome for report in right.functions} <= {MicroOutcome.AGREE, MicroOutcome.INCONCLUSIVE}
    return right.functions


def _survivors(given, most: int | None = None) -> tuple[int, list[str]]:
    """How many mutants a case has, a seeded ``most`` of them, and which are not found."""
    made = list(mutants(given.base, given.patch))
    if most is not None and len(made) > most:
        made = random.Random(SEED).sample(made, most)
    return len(made), [what for what, patch in made if not _is_found(given, patch)]


@pytest.fixture(scope="module", params=Machine)
def right(built, request) -> list[tuple[str, Built, bool]]:
    """Each case with a patch, on one machine, and whether all functions of it agree with those of the fixed image."""
    found = []
    for case in case_names():
        try:
            given = built(case, request.param)
        except (hotpatch.Refused, NothingToDo):
            continue
        found.append((case, given, all(report.outcome is MicroOutcome.AGREE for report in _right(given))))
    return found


@each_machine
def test_wrong_references_are_found(built, machine: Machine) -> None:
    count, missed = 0, []
    for case in CASES:
        _right(given := built(case, machine))
        made, survivors = _survivors(given)
        count += made
        missed += [(case, what) for what in survivors]
    assert count >= 40
    assert {(case, what) for case, what in missed} <= {("overflow-check", "set_name left unpatched")}


@pytest.mark.exhaustive
def test_most_mutants_of_all_cases_are_found(right) -> None:
    count = missed = 0
    for _, given, _ in right:
        made, survivors = _survivors(given, MOST)
        count, missed = count + made, missed + len(survivors)
    print(count, missed)
    assert count > 150
    assert (count - missed) / count >= LEAST


@pytest.mark.exhaustive
def test_most_flipped_instructions_of_all_cases_are_found(right) -> None:
    count, missed = 0, []
    for case, given, agrees in right:
        if not agrees:
            continue  # a function that never returns
        flips = list(islice(flipped(given.patch, f"{case} {SEED}"), FLIPS))
        missed += [(case, what) for what, patch in flips if not _is_found(given, patch)]
        count += len(flips)
    print(count, len(missed))
    assert count > 50
    assert len(missed) <= (1 - LEAST_FLIPS) * count, missed


def _missed(given, case: str, most: int) -> tuple[int, list[tuple[str, str]]]:
    """How many of a case's rewritten patches were made, ``most`` at most, and which of them are not found."""
    made = list(islice(rewritten(given.patch, f"{case} {SEED}"), most))
    return len(made), [(case, what) for what, patch in made if not _is_found(given, patch)]


@each_machine
def test_a_dropped_store_and_a_swapped_branch_are_found(built, machine: Machine) -> None:
    count, missed = _missed(built("overflow-check", machine), "overflow-check", 2)
    assert (count, missed) == (2, [])


@pytest.mark.exhaustive
def test_most_dropped_stores_and_swapped_branches_of_all_cases_are_found(right) -> None:
    count, missed = 0, []
    for case, given, agrees in right:
        if not agrees:
            continue  # a function that never returns
        made, survivors = _missed(given, case, REWRITTEN)
        count, missed = count + made, missed + survivors
    print(count, len(missed), missed)
    assert count > 80
    assert len(missed) <= (1 - LEAST_REWRITTEN) * count, missed


@each_machine
def test_processes_are_let_go(built, machine: Machine) -> None:
    """What a process asks for pages, and what watches it, hold nothing of it that outlives the comparison."""

    def count() -> int:
        gc.collect()
        return sum(type(each) is hotpatch.Process for each in gc.get_objects())

    given = built("state-kept", machine)
    _verify(given, given.patch)
    before = count()
    for _ in range(3):
        _verify(given, given.patch)
    assert count() == before


FIRST = {Machine.X64: ("mov qword ptr [rsp + 0x10], rdx", 0x40), Machine.ARM64: ("str x19, [sp, #-0x20]!", 0x48)}
"""The first instruction of the ``__finally`` block in the case's function, and where it is."""


@each_machine
def test_a_store_dropped_in_a_block_that_unwinding_enters_is_found(built, machine: Machine) -> None:
    given = built("exception", machine)
    (function,) = (item for item in given.patch.functions if item.name == "request")
    text, offset = FIRST[machine]
    (item,) = islice(given.patch.image.architecture.disassemble(given.patch.image.read(function.patch_rva + offset, 16), 0), 1)
    assert f"{item.mnemonic} {item.operands}" == text
    old = given.patch.image.read(function.patch_rva + offset, item.size)
    dropped = (NOPS[machine] * item.size)[: item.size]
    patch = with_code(given.patch, function.patch_rva - given.patch.functions[0].patch_rva + offset, old.hex(), dropped.hex())
    (report,) = hotpatch.verify(given.base, patch, fixed=given.fixed, functions=["request"]).functions
    assert report.outcome is MicroOutcome.DIFFER
    assert report.difference is not None
    assert report.difference.what.startswith("block at")
