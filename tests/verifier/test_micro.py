"""Functions on made-up state: good patches agree on every case, and patches corrupted in each of several ways do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.patch import CarriedKind, Space
from hotpatch.verifier import MicroExecution, MicroOutcome, check_patch
from hotpatch.verifier.micro import SEEDS
from hotpatch.verifier.micro_observed import Place
from hotpatch.verifier.micro_run import Runner, leads_on
from hotpatch.verifier.micro_scenery import Scenery
from hotpatch.verifier.micro_spared import NONE
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

if TYPE_CHECKING:
    from collections.abc import Sequence

each_machine = pytest.mark.parametrize("machine", Machine)
CASES = (
    "basic",
    "state-kept",
    "function-pointer",
    "image-parser",
    "inlined-caller",
    "interpreter",
    "new-constant",
    "new-global",
    "new-import",
    "no-padding",
    "cold-part",
    "folded",
    "folded-by-fix",
    "shared-tail",
    "overflow-check",
    "original-called",
    "unloaded-module",
)


@each_machine
@pytest.mark.parametrize("case", CASES)
def test_patched_function_does_what_the_fixed_one_does(built, case: str, machine: Machine) -> None:
    given = built(case, machine)
    reports = check_patch(given.base, given.fixed, given.patch).travelling
    carried = [None for item in given.patch.carried if item.kind is CarriedKind.FUNCTION]
    assert [report.base_rva for report in reports] == [*(function.base_rva for function in given.patch.functions), *carried]
    assert {report.outcome for report in reports} == {MicroOutcome.AGREE}
    assert all(report.agreed and report.coverage > 0.5 for report in reports)


@pytest.mark.parametrize(("first", "more"), [(0, range(50)), (7, ()), (1000, ())])
@pytest.mark.parametrize("register", range(4))
def test_each_argument_holds_each_of_the_first_constants_as_it_is(first: int, more: Sequence[int], register: int) -> None:
    constants = (110, 111, 125)
    held = {Scenery(seed, (*constants, *more)).register(register) for seed in range(first, first + SEEDS)}
    assert held >= set(constants)


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


@each_machine
@pytest.mark.parametrize(("imported", "outcome"), [("weigh", MicroOutcome.AGREE), ("weigj", MicroOutcome.DIFFER)])
def test_only_the_original_of_that_name_is_the_same_call(built, machine: Machine, imported: str, outcome: MicroOutcome) -> None:
    given = built("original-called", machine)
    name = b"hotpatch_original_weigh\0"
    assert given.fixed.data.count(name) == 1
    fixed = hotpatch.Image.from_bytes(given.fixed.data.replace(name, b"hotpatch_original_" + imported.encode() + b"\0"), "fixed.dll")
    (report,) = MicroExecution(given.base, fixed, given.patch).travelling()
    assert report.outcome is outcome
    assert report.difference is None or report.difference.what == "call 1, callee"


GUARDED = {
    Machine.X64: "sub rsp, 0x28; call qword ptr [rip + 0x1ef6]; mov rax, rcx; call rax; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; adrp x16, 0x2000; ldr x16, [x16, #0xf00]; mov x15, x0; blr x16; blr x15;"
    "ldp x29, x30, [sp], #16; ret",
}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("rights", ["through", "its-own-too"])
def test_a_guard_check_is_no_call(machine: Machine, rights: str) -> None:
    """It comes back to the function; what the function then calls is the call, be it a null pointer."""
    pe = Pe(machine)
    pe.load_configuration(cookie=DATA, check=RDATA + 0xF00, dispatch=RDATA + 0xF08)
    code = assemble(machine, GUARDED[machine], TEXT)
    pe.put(TEXT, code)
    process = hotpatch.Process(pe.build("guarded.dll"))
    entry, own = Va(process.load_base + TEXT), range(process.load_base + TEXT, process.load_base + TEXT + len(code))
    through = leads_on if rights == "through" else lambda va: leads_on(va) or (va in own and va != entry)
    seen = Runner(process).run(Place(entry, entry, own.__contains__, through, lambda va: None, lambda va: NONE), Scenery(0))
    argument = Scenery(0).register({Machine.X64: 1, Machine.ARM64: 0}[machine])
    assert [call.callee for call in seen.calls] == [argument]
    assert seen.end == "returned"


LEFT = {
    Machine.X64: "sub rsp, 0x28; lea r10, [rip + 0x1ff5]; lea rbx, [rip + 0x1fee]; call rcx; mov rax, {kept}; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; adrp x9, 0x3000; mov x19, x9; blr x0; mov x0, {kept}; ldp x29, x30, [sp], #16; ret",
}
"""Returns the address of data that a register held before a call."""


@pytest.mark.parametrize(
    ("machine", "kept", "is_kept"),
    [(Machine.X64, "rbx", True), (Machine.X64, "r10", False), (Machine.ARM64, "x19", True), (Machine.ARM64, "x9", False)],
)
def test_what_callees_need_not_keep_is_lost_over_a_call(machine: Machine, kept: str, is_kept: bool) -> None:
    """So that an address of one of the two images does not count for what the function does, where it does not know what it has."""
    pe = Pe(machine)
    code = assemble(machine, LEFT[machine].format(kept=kept), TEXT)
    pe.put(TEXT, code)
    pe.put(DATA, bytes(8))
    process = hotpatch.Process(pe.build("left.dll"))
    entry, own = Va(process.load_base + TEXT), range(process.load_base + TEXT, process.load_base + TEXT + len(code))
    seen = Runner(process).run(Place(entry, entry, own.__contains__, leads_on, lambda va: None, lambda va: NONE), Scenery(0))
    assert (seen.end, len(seen.calls)) == ("returned", 1)
    assert (seen.words[0] == process.load_base + DATA) == is_kept


CALLS = {
    Machine.X64: ("push rbx; sub rsp, 0x20; call 0x1040; mov eax, {number}; add rsp, 0x20; pop rbx; ret",
                  "push rbx; sub rsp, 0x10; xor ebx, ebx; inc rbx; test rbx, rbx; jne 0x1047; add rsp, 0x10; pop rbx; ret"),
    Machine.ARM64: ("stp x29, x30, [sp, #-16]!; bl 0x1040; mov w0, #{number}; ldp x29, x30, [sp], #16; ret",
                    "str x19, [sp, #-16]!; mov x19, #0; add x19, x19, #1; cbnz x19, 0x1048; mov x30, x19; ldr x19, [sp], #16; ret"),
}  # fmt: skip
"""Calls a small function that goes round for ever, with a register changed that it must keep."""


@each_machine
@pytest.mark.parametrize(("number", "outcome"), [(1, MicroOutcome.AGREE), (2, MicroOutcome.DIFFER)])
def test_what_is_behind_a_small_callee_that_runs_too_long(machine: Machine, number: int, outcome: MicroOutcome) -> None:
    images = []
    for returned in (1, number):
        pe = Pe(machine)
        walk, leaf = CALLS[machine]
        pe.put(TEXT, assemble(machine, walk.format(number=returned), TEXT))
        pe.put(TEXT + 0x40, assemble(machine, leaf, TEXT + 0x40))
        pe.exports("long.dll", [("walk", TEXT), ("leaf", TEXT + 0x40)])
        images.append(pe.build("long.dll"))
    execution = MicroExecution(*images)
    (report,) = execution.unpatched([row for row in execution.diff.functions if row.name == "walk"], seeds=2)
    assert report.outcome is outcome, report.text
    assert report.difference is None or report.difference.what == "result"
    assert outcome is MicroOutcome.DIFFER or report.agreed == 2
