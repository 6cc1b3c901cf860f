"""New functions that a patch carries are run, too: callers' runs answer calls of them, so that nothing else compares them."""

from __future__ import annotations

import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.cases import find_case
from hotpatch.report import building, verify
from hotpatch.verifier import MicroOutcome, check_patch, verify_functions
from hotpatch.verifier.micro_carried import CarriedThings
from hotpatch.verifier.micro_origins import Origins
from tests.emulator.pe import RDATA, TEXT, Pe
from tests.verifier.damage import with_code

if TYPE_CHECKING:
    from pathlib import Path

each_machine = pytest.mark.parametrize("machine", Machine)

CODE = {
    "f": {Machine.X64: "mov edx, 7; jmp {next}", Machine.ARM64: "mov x1, #7; b {next}"},
    "outer": {Machine.X64: "add rcx, 77; jmp 0x1180", Machine.ARM64: "add x0, x0, #77; b #0x1180"},
    "inner": {Machine.X64: "lea rax, [rcx + 77]; ret", Machine.ARM64: "add x0, x0, #77; ret"},
    "kept": {Machine.X64: "lea rax, [rcx + 1]; ret", Machine.ARM64: "add x0, x0, #1; ret"},
}
"""The fix goes on in ``outer``, which goes on in ``inner``; the base in ``kept``."""
OTHER = {
    "outer": {Machine.X64: ("4883c14d", "4883c14e"), Machine.ARM64: ("00340191", "00380191")},
    "inner": {Machine.X64: ("488d414d", "488d414e"), Machine.ARM64: ("00340191", "00380191")},
}
"""78 for 77."""


@cache
def built(machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image, hotpatch.Patch]:
    images = []
    for names in (("f", "kept"), ("f", "kept", "outer", "inner")):
        pe, places = Pe(machine), {name: TEXT + 0x80 * number for number, name in enumerate(("f", "kept", "outer", "inner"))}
        for name in names:
            text = CODE[name][machine].format(
                next=("" if machine is Machine.X64 else "#") + hex(places[names[-1 if len(names) == 2 else 2]])
            )
            pe.put(places[name], assemble(machine, text, places[name]))
        pe.exports("new.dll", [(name, places[name]) for name in names])
        images.append(pe.build("new.dll"))
    return images[0], images[1], hotpatch.build(hotpatch.diff(*images))


@each_machine
def test_new_functions_run_after_those_that_are_replaced(machine: Machine) -> None:
    base, fixed, patch = built(machine)
    check = check_patch(base, fixed, patch)
    assert [(report.name, report.base_rva, report.patched) for report in check.travelling] == [
        ("f", TEXT, True),
        *((item.name, None, True) for item in patch.carried),
    ]
    assert {item.name for item in patch.carried} == {"outer", "inner"}
    assert {(report.outcome, report.coverage) for report in check.travelling} == {(MicroOutcome.AGREE, 1)}
    rows = verify.checked(check)
    assert [row.base_rva for row in rows[:3]] == [TEXT, None, None]
    console = Console(width=100)
    with console.capture() as text:
        console.print(building.micro(rows[:3]))
    assert "outer (carried)" in text.get()


@each_machine
@pytest.mark.parametrize("name", OTHER)
def test_a_new_function_that_was_tampered_with_is_found(machine: Machine, name: str) -> None:
    base, fixed, patch = built(machine)
    (item,) = (item for item in patch.carried if item.name == name)
    old, new = OTHER[name][machine]
    damaged = with_code(patch, 0, old, new, entry=item.patch_rva)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        check_patch(base, fixed, damaged)
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.function, refusal.rva) == (hotpatch.Rule.MICRO_EXECUTION, name, None)
    assert refusal.evidence["fixed_rva"] == fixed.function_named(name).entry
    assert [violation.function for violation in verify_functions(base, damaged, fixed=fixed, seeds=4).violations] == [name]


@each_machine
@pytest.mark.parametrize("with_names", [True, False])
def test_what_a_new_function_is(machine: Machine, with_names: bool, tmp_path: Path) -> None:
    """Its name tells, or the call at the same place of the code that calls it."""
    named = [find_case("new-helper").image(machine, side) for side in ("base", "fixed")]
    bare = [hotpatch.open(shutil.copyfile(path, tmp_path / path.name)) for path in named]
    base, fixed = map(hotpatch.open, named) if with_names else bare
    diff = hotpatch.diff(base, fixed)
    patch = hotpatch.build(diff)
    origins = Origins(diff, patch, CarriedThings(patch))
    names = hotpatch.open(named[1])
    found = [origins.function(item.patch_rva) for item in patch.carried]
    assert [names.function_of_entry(one.entry).name for one in found if one is not None] == ["mix", "rotate"]
    assert [origins.of(one) for one in found if one is not None] == [item.patch_rva for item in patch.carried]


LED = {Machine.X64: "mov edx, 7; jmp qword ptr [rip + {distance}]", Machine.ARM64: "adrp x16, 0x2000; ldr x16, [x16, #0xf00]; br x16"}
"""Goes on where a new constant leads."""


@each_machine
def test_a_new_function_that_data_alone_lead_to(machine: Machine) -> None:
    images = []
    for text in (CODE["f"][machine].format(next="0x1080" if machine is Machine.X64 else "#0x1080"), LED[machine]):
        pe = Pe(machine)
        if text is LED[machine]:
            pe.pointer(RDATA + 0xF00, TEXT + 0x180)
            pe.put(TEXT + 0x180, assemble(machine, CODE["inner"][machine], TEXT + 0x180))
        pe.put(TEXT, assemble(machine, text.format(distance=RDATA + 0xF00 - TEXT - 11), TEXT))
        pe.put(TEXT + 0x80, assemble(machine, CODE["kept"][machine], TEXT + 0x80))
        pe.exports("led.dll", [("f", TEXT), ("kept", TEXT + 0x80), *([(None, TEXT + 0x180)] if text is LED[machine] else [])])
        images.append(pe.build("led.dll"))
    patch = hotpatch.build(hotpatch.diff(*images))
    new = [item for item in patch.carried if item.kind == "function"]
    assert [item.name for item in new] == [None]
    _, report = verify_functions(images[0], patch, fixed=images[1], seeds=4).functions
    assert (report.fixed_rva, report.outcome) == (TEXT + 0x180, MicroOutcome.AGREE), report.text


@each_machine
def test_new_blocks_that_unwinding_enters(machine: Machine, tmp_path: Path) -> None:
    """Exception data lead to them, at the same place in the same code."""
    base, fixed = (
        hotpatch.open(shutil.copyfile(find_case("exception").image(machine, side), tmp_path / side)) for side in ("base", "fixed")
    )
    diff = hotpatch.diff(base, fixed)
    patch = hotpatch.build(diff)
    new = [item.patch_rva for item in patch.carried if item.kind == "function"]
    origins = Origins(diff, patch, CarriedThings(patch))
    assert len({origins.function(rva) for rva in new} - {None}) == len(new) > 1
