"""Every case, before, patched, reverted and patched again, on both machines, with PDBs and without, at three load bases."""

from __future__ import annotations

import random
import shutil

import pytest

import hotpatch
from hotpatch.arch import Machine, architecture
from hotpatch.cases import LATER_PHASES, case_names, find_case
from hotpatch.cases.model import Run
from hotpatch.cli.arguments import parse_argument
from hotpatch.engine import Rights
from hotpatch.process.foreign import crowd

PREFERRED, LOW, HIGH = None, 0x1_0000_0000, 0x7FF5_1234_0000
CASES = [find_case(name) for name in case_names()]
WITH_CALLS = [case.name for case in CASES if case.manifest.call]
PROGRAMS = [(case.name, number) for case in CASES for number in range(len(case.manifest.program))]

each_machine = pytest.mark.parametrize("machine", Machine)
each_pdb = pytest.mark.parametrize("pdb", [True, False], ids=["pdb", "no-pdb"])
each_base = pytest.mark.parametrize("load_base", [PREFERRED, LOW, HIGH], ids=["preferred", "low", "high"])
each_program = pytest.mark.parametrize(("name", "number"), PROGRAMS)


def unpatchable(given) -> bool:
    """Whether the builder gives no patch: rightly so, as another test says."""
    return given.case.expected(pdb=given.pdb)[0] not in {"patched", "apply-refused"}


def image_to_patch(given, folder) -> hotpatch.Image:
    """What the process runs: the base, or another build under the base's name, as builds of one product have it."""
    side = given.case.manifest.expect.apply_to
    if side == "base":
        return given.image("base")
    return hotpatch.open(shutil.copy(given.paths[side], folder / given.paths["base"].name))


def check_calls(process: hotpatch.Process, given, phase: str, module: str = "") -> None:
    """Make every call of the case and compare results and buffers; of the process's ``module!``, or of its first."""
    for number, call in enumerate(given.case.manifest.call, 1):
        result = process.call_details(module + call.function, *map(parse_argument, call.args))
        expected = call.expected(phase)
        got = result.float_value if isinstance(expected, float) else result.value
        assert got == expected, f"{phase}, call {number}: {call.function}({', '.join(call.args)})"
        buffers = call.expected_buffers(phase)
        assert buffers is None or result.buffers == buffers, f"{phase}, call {number}: buffers"


def detour(process: hotpatch.Process, function: str) -> None:
    """Put somebody else's jump at a function's entry; what it leads to does the displaced instructions and goes on behind them."""
    guest, machine = process.guest, process.guest.machine
    entry = process.address_of(function)
    size = {Machine.X64: 5, Machine.ARM64: 4}[machine]
    room = guest.find_room(0x1000, near=entry, reach=architecture(machine).branch_reach)
    moved = hotpatch.trampoline(machine, guest.read(entry, 32), source_va=entry, trampoline_va=room, displaced=size)
    guest.map(room, 0x1000, Rights.READ | Rights.EXECUTE, moved.code)
    guest.write_code(entry, guest.read(entry, size), jump(machine, entry, room))


def jump(machine: Machine, source: int, target: int) -> bytes:
    if machine is Machine.X64:
        return b"\xe9" + (target - source - 5).to_bytes(4, "little", signed=True)
    return (0x14000000 | (target - source) // 4 & 0x3FFFFFF).to_bytes(4, "little")


def refused_while_overwritten(process: hotpatch.Process, applied: hotpatch.AppliedPatch, function: str) -> None:
    guest, entry = process.guest, process.address_of(function)
    redirect = guest.read(entry, 8)
    theirs = jump(guest.machine, entry, entry + 64).ljust(8, b"\x90")
    guest.write_code(entry, redirect, theirs)
    memory = [guest.read(region.va, region.size) for region in guest.regions()]
    with pytest.raises(hotpatch.RevertRefused) as refused:
        applied.revert()
    assert [item.rule for item in refused.value.refusals] == [hotpatch.Rule.REDIRECT_CHANGED]
    assert [guest.read(region.va, region.size) for region in guest.regions()] == memory
    guest.write_code(entry, theirs, redirect)


@each_base
@each_pdb
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls(given, name, machine, pdb, load_base, tmp_path) -> None:
    one = given(name, machine, pdb)
    if one.case.expected(pdb=pdb)[0] == "any":
        pytest.skip("the case claims nothing without PDBs")
    expect = one.case.manifest.expect
    process = hotpatch.Process(image_to_patch(one, tmp_path), load_base=load_base)
    check_calls(process, one, "before")
    if expect.hooked:
        detour(process, expect.hooked)
    if expect.crowded:
        crowd(process)
    if unpatchable(one):
        check_calls(process, one, "patched")
        return
    if expect.outcome == "apply-refused":
        with pytest.raises(hotpatch.ApplyRefused) as refused:
            process.apply(one.patch)
        assert refused.value.refusals[0].rule == expect.rule
        check_calls(process, one, "patched")
        return
    if expect.busy:
        process.call(expect.busy, 1)
        with pytest.raises(hotpatch.ApplyRefused) as refused:
            process.apply(one.patch)
        assert [item.rule for item in refused.value.refusals] == [hotpatch.Rule.CALLBACK_VETO]
        process.call(expect.busy, 0)
    applied = process.apply(one.patch)
    check_calls(process, one, "patched")
    if expect.overwritten:
        refused_while_overwritten(process, applied, expect.overwritten)
        check_calls(process, one, "patched")
    applied.revert()
    check_calls(process, one, "reverted")
    process.apply(one.patch)
    check_calls(process, one, "again")
    if one.later is not None:
        if expect.then_rule is not None:
            before = process.status()
            with pytest.raises(hotpatch.ApplyRefused) as refused:
                process.apply(one.later)
            assert refused.value.refusals[0].rule == expect.then_rule
            assert process.status() == before
            check_calls(process, one, LATER_PHASES[0])
            return
        later = process.apply(one.later)
        check_calls(process, one, LATER_PHASES[0])
        later.revert()
        check_calls(process, one, LATER_PHASES[1])


def apply_all(process: hotpatch.Process, cases) -> dict:
    return {name: process.apply(one.patch) for name, one in cases}


@each_machine
def test_all_patches_together(given, machine, tmp_path) -> None:
    """One process with every case's base in it, under the case's name: all go in, come out in another order, and go in again."""
    cases = {name: given(name, machine, True) for name in WITH_CALLS}
    together = {name: one for name, one in cases.items() if one.case.manifest.expect.outcome == "patched"}
    assert len(together) > 35
    images = [hotpatch.open(shutil.copy(one.paths["base"], tmp_path / f"{name}.dll")) for name, one in together.items()]
    process = hotpatch.Process(images[0], modules=images[1:])

    def check(phase: str) -> None:
        for name, one in together.items():
            check_calls(process, one, phase, f"{name}!")

    check("before")
    applied = apply_all(process, together.items())
    places = {module.va: module.name for module in process.guest.modules()}
    assert [places[each.module] for each in applied.values()] == [f"{name}.dll" for name in applied]
    check("patched")
    shuffled = random.Random(machine.value).sample(sorted(together.items()), len(together))
    for name, _ in shuffled:
        applied[name].revert()
    check("reverted")
    apply_all(process, shuffled)
    check("again")
    assert len(process.status().patches) == len(together)


@pytest.mark.parametrize("redirect", ["direct", "inline"])
@each_machine
@pytest.mark.parametrize("name", [name for name in WITH_CALLS if find_case(name).manifest.expect.outcome == "patched"])
def test_calls_with_other_redirects(given, name, machine, redirect) -> None:
    one = given(name, machine, True)
    patch = one.redirected(redirect)
    process = hotpatch.Process(one.image("base"))
    check_calls(process, one, "before")
    applied = process.apply(patch)
    check_calls(process, one, "patched")
    applied.revert()
    check_calls(process, one, "reverted")
    process.apply(patch)
    check_calls(process, one, "again")


@each_base
@each_pdb
@each_machine
@each_program
def test_programs(given, name, number, machine, pdb, load_base) -> None:
    one = given(name, machine, pdb)
    program = one.case.manifest.program[number]
    process = hotpatch.Process(one.image("base"), load_base=load_base, args=program.args, stdin=program.stdin.encode())

    def check(patching: str, expected: Run) -> None:
        """Run it from here, and come back."""
        here = process.snapshot()
        process.start()
        run = process.run()
        assert (run.fault, run.exit_code, run.output) == (None, expected.exit_code, expected.output), patching
        process.restore(here)

    if pdb:
        check("not", program.before)
    applied = process.apply(one.patch)
    check("applied", program.patched)
    applied.revert()
    check("reverted", program.before)
    process.apply(one.patch)
    check("again", program.patched)


@pytest.mark.parametrize("seed", range(1, 6))
@each_machine
@each_program
def test_programs_come_out_the_same_under_any_schedule(given, name, number, machine, seed) -> None:
    one = given(name, machine, True)
    program = one.case.manifest.program[number]
    for side, expected in (("base", program.before), ("fixed", program.patched)):
        process = hotpatch.Process(one.image(side), args=program.args, stdin=program.stdin.encode(), seed=seed)
        process.start()
        run = process.run()
        assert (run.fault, run.exit_code, run.output) == (None, expected.exit_code, expected.output)
