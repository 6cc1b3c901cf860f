"""Exceptions on patched code, on both machines: across patched frames, in trampolines, in and out of vectored handlers."""

from __future__ import annotations

from functools import cache

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import HPAT_SLOT_SIZE, Machine, Redirect, architecture
from hotpatch.cases import Case, find_case
from hotpatch.emulator.context import context_layout
from hotpatch.image.model import SectionFlags
from hotpatch.process.model import Argument

ACCESS_VIOLATION = 0xC000_0005
each_machine = pytest.mark.parametrize("machine", list(Machine))
each_redirect = pytest.mark.parametrize("redirect", list(Redirect))


@cache
def case(name: str) -> Case:
    return find_case(name)


@cache
def images(name: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image]:
    return hotpatch.open(case(name).image(machine, "base")), hotpatch.open(case(name).image(machine, "fixed"))


def run(process: hotpatch.Process) -> str:
    process.start()
    result = process.run()
    assert result.fault is None
    return result.output


def raised_at(process: hotpatch.Process) -> list[int]:
    """Where access violations happened."""
    found = [event.details for event in process.events if event.kind == "exception"]
    return [details["pc"] for details in found if details["code"] == ACCESS_VIOLATION]


@each_redirect
@each_machine
def test_an_exception_crosses_a_patched_frame_and_its_finally_block(machine: Machine, redirect: Redirect) -> None:
    """Raised below the patched function, caught above it; the block that the patch brings along gives the lock back."""
    base, fixed = images("exception", machine)
    process = hotpatch.Process(base)
    process.apply(hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect))
    assert run(process) == case("exception").manifest.program[0].patched.output


@each_machine
def test_an_exception_in_a_trampoline_is_caught_by_its_caller_or_repaired(machine: Machine) -> None:
    """A newer patch gives ``peek`` back, so that its first instruction, which is the one that fails, runs in the trampoline."""
    base, fixed = images("vectored", machine)
    diff = hotpatch.diff(base, fixed)
    program = case("vectored").manifest.program[0]
    process = hotpatch.Process(base)
    original = process.apply(hotpatch.build(diff)).original("peek")
    process.apply(hotpatch.build(diff, only=["weigh"], sequence=2))
    output = run(process)
    old, new = program.before.output.splitlines(), program.patched.output.splitlines()
    assert output.splitlines() == [*old[:-1], new[-1]]
    assert raised_at(process) == [original] * 4


@each_redirect
@each_machine
def test_an_exception_in_new_code_is_repaired_there(machine: Machine, redirect: Redirect) -> None:
    """The older build as the fix: what fails is the patch's own instruction, and a handler changes its register."""
    fixed, base = images("vectored", machine)  # the other way round: the bug goes in
    process = hotpatch.Process(base)
    applied = process.apply(hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect))
    assert run(process) == case("vectored").manifest.program[0].before.output
    (new,) = (function.destination for function in applied.functions if function.name == "peek")
    assert raised_at(process) == [new] * 4


@each_machine
def test_a_patched_program_gives_the_same_whenever_the_patch_comes(machine: Machine) -> None:
    base, fixed = images("exception", machine)
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    process = hotpatch.Process(base)
    process.start()
    start = process.snapshot()
    total = process.run().instructions
    program = case("exception").manifest.program[0]
    for point in range(0, total, total // 40):
        process.restore(start)
        process.apply_at(point, patch)
        result = process.run()
        assert result.fault is None, point
        assert program.problem_anywhere(result.exit_code, result.output) is None, point


def provided(process: hotpatch.Process, name: str, *arguments: Argument) -> tuple[int, list[bytes]]:
    """What a system function that the program may call gives, and what it leaves in its buffers."""
    va = process.guest.system.gates.provided(name)
    assert va is not None
    result = process.call_details(va, *arguments)
    return result.value, list(result.buffers)


def looked_up(process: hotpatch.Process, va: int) -> tuple[int, int] | None:
    """Module and RVA of the function whose table entry RtlLookupFunctionEntry finds for ``va``."""
    row, (module,) = provided(process, "RtlLookupFunctionEntry", va, hotpatch.Buffer(8), 0)
    return (int.from_bytes(module, "little"), int.from_bytes(process.guest.read(Va(row), 4), "little")) if row else None


def unwound(process: hotpatch.Process, va: int) -> bytes:
    """The context that RtlVirtualUnwind leaves of one that stands at ``va``; all registers and words of the stack differ."""
    layout, convention = context_layout(process.machine), architecture(process.machine).convention
    data = next(section.range.start for section in process.guest.module.image.sections if section.flags & SectionFlags.WRITE)
    sp = process.load_base + data
    process.guest.system.memory.write(sp, b"".join(word.to_bytes(8, "little") for word in range(0x500, 0x540)))
    registers = {field.register: 0x100 + index for index, field in enumerate(layout.fields)} | {convention.pc: va, convention.sp: sp}
    context = hotpatch.Buffer(layout.size)
    context.data = layout.pack(registers)
    return provided(process, "RtlVirtualUnwind", 0, 0, va, 0, context, hotpatch.Buffer(8), hotpatch.Buffer(8), 0)[1][0]


@each_redirect
@each_machine
def test_an_address_on_the_way_is_looked_up_as_the_base_code_that_it_stands_for(machine: Machine, redirect: Redirect) -> None:
    base, fixed = images("recursion", machine)
    process = hotpatch.Process(base)
    entry = process.address_of("cost")
    there, caller = (process.load_base, entry - process.load_base), unwound(process, entry)
    assert looked_up(process, entry) == there
    original = {offset: unwound(process, entry + offset) for offset in range(16)}
    (function,) = process.apply(hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect)).functions
    slots, trampolines = process.engine.snapshot().slots, list(process.engine.snapshot().trampolines.values())
    for slot in slots.values():
        for va in (slot, slot + HPAT_SLOT_SIZE - 4):
            assert (looked_up(process, va), unwound(process, va)) == (there, caller), hex(va)
    for placed in trampolines:
        for offset, at in placed.offsets.items():
            assert (looked_up(process, placed.va + at), unwound(process, placed.va + at)) == (there, original[offset]), offset
        assert looked_up(process, placed.va + len(placed.code) - 1) == there
        assert looked_up(process, placed.va + len(placed.code)) is None
    new = looked_up(process, function.destination)
    assert new is not None
    assert sum(new) == function.destination
    assert bool(slots) is (redirect is Redirect.HPAT)
    assert trampolines
    if machine is Machine.X64 and redirect is Redirect.INLINE:
        assert len({original[offset] for placed in trampolines for offset in placed.offsets}) > 2
