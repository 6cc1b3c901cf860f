"""Which of the fixed image's functions and data the patch carries, as micro-execution finds it out by itself."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.image import Function, FunctionSource, Range
from hotpatch.verifier import MicroOutcome, verify_functions
from tests.emulator.pe import TEXT, Pe
from tests.verifier.damage import with_code

each_machine = pytest.mark.parametrize("machine", Machine)

FRAMES = {
    Machine.X64: ("push rbx; sub rsp, 0x20; {0}; mov ebx, eax; {1}; add eax, ebx; add rsp, 0x20; pop rbx; ret", "call 0x{:x}"),
    Machine.ARM64: (
        "stp x29, x30, [sp, #-32]!; str x19, [sp, #16]; {0}; mov w19, w0; {1}; add w0, w0, w19; ldr x19, [sp, #16];"
        " ldp x29, x30, [sp], #32; ret",
        "bl 0x{:x}",
    ),
}
"""Calls two functions; and how one call is spelt."""
BEFORE = {Machine.X64: "mov eax, 1; ret", Machine.ARM64: "mov w0, #1; ret"}
CALLEES = {
    Machine.X64: ("imul eax, ecx, 3; ret", "lea eax, [rcx + 5]; ret"),
    Machine.ARM64: ("add w0, w0, w0, lsl #1; ret", "add w0, w0, #5; ret"),
}


def _pair(machine: Machine, named: bool) -> list[hotpatch.Image]:
    frame, call = FRAMES[machine]
    callees = TEXT + 0x100, TEXT + 0x180
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        code = frame.format(*(call.format(callee) for callee in callees)) if is_fixed else BEFORE[machine]
        pe.put(TEXT, assemble(machine, code, TEXT))
        for at, body in zip(callees, CALLEES[machine], strict=True) if is_fixed else ():
            pe.put(at, assemble(machine, body, at))
        new = [("a", callees[0]), ("b", callees[1])] if is_fixed and named else []
        pe.exports("walk.dll", [("walk", TEXT), *new])
        images.append(pe.build("walk.dll"))
    return images


def with_call(patch: hotpatch.Patch, callee: int) -> hotpatch.Patch:
    """The patch whose first function's first call leads to ``callee`` of the patch."""
    entry, arch = patch.functions[0].patch_rva, patch.image.architecture
    (part,) = patch.image.references(patch.image.function_at(entry))
    first = part[0]
    field = patch.image.read(entry + first.field, arch.field_size(first.kind))
    return with_code(patch, first.field, field.hex(), arch.bind(first.kind, field, entry + first.field, callee + first.addend).hex())


@each_machine
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("wrong", [False, True])
def test_the_wrong_one_of_two_new_functions_is_called(machine: Machine, wrong: bool, named: bool) -> None:
    base, fixed = _pair(machine, named)
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    if wrong:
        patch = with_call(patch, patch.carried[1].patch_rva)
    report = verify_functions(base, patch, fixed=fixed)
    assert all(each.outcome is MicroOutcome.AGREE for each in report.functions) != wrong


@each_machine
def test_a_function_that_the_patch_image_holds_for_a_part_of_another(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers behind code look like branches into other functions now and then."""
    base, fixed = _pair(machine, named=False)
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    known = hotpatch.Image.function_at
    entry, other = patch.functions[0].patch_rva, patch.carried[0].patch_rva

    def joined(image: hotpatch.Image, rva: Rva) -> Function | None:
        found = known(image, rva)
        if image is not patch.image or rva != entry or found is None:
            return found
        return Function(other, (Range(other, Rva(other + 8)), *found.ranges), (), FunctionSource.CALL)

    monkeypatch.setattr(hotpatch.Image, "function_at", joined)
    report = verify_functions(base, patch, fixed=fixed)
    assert [each.outcome for each in report.functions] == [MicroOutcome.AGREE] * 3
