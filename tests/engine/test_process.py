"""The engine on the emulator: patches that go in and come out at every instruction of a call."""

from __future__ import annotations

from functools import cache

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.builder import build_patch
from hotpatch.cases import find_case
from hotpatch.differ import diff_images
from hotpatch.engine import PatchState
from hotpatch.errors import ApplyRefused, Rule
from hotpatch.image import Image, open_image
from hotpatch.patch import Patch
from hotpatch.process import Process

CALLS = {
    # case: function, arguments, results that calls wholly old or wholly new can give together
    "basic": ("total", (11, 12, 10), {21, 20}),
    "recursion": ("cost", (12,), None),
    "tail-call": (None, (), None),
}
MOST = 400
"""Instructions that a call here takes at most."""


@cache
def image(case: str, machine: Machine, side: str) -> Image:
    return open_image(find_case(case).image(machine, side))


@cache
def patch(case: str, machine: Machine, redirect: Redirect) -> Patch:
    return build_patch(diff_images(image(case, machine, "base"), image(case, machine, "fixed")), redirect=redirect)


def call_of(case: str) -> tuple[str, tuple[int, ...]]:
    """The first call that the case states."""
    name, arguments, _ = CALLS[case]
    if name is not None:
        return name, arguments
    row = find_case(case).manifest.call[0]
    return row.function, tuple(map(int, row.args))


@pytest.mark.parametrize("redirect", list(Redirect))
@pytest.mark.parametrize("case", CALLS)
def test_in_and_out_at_every_instruction(case, machine, redirect):
    """The patch goes in, or comes out, before each instruction of a call: it comes to an end, and the next one is wholly new, or old."""
    function, arguments = call_of(case)
    allowed = CALLS[case][2]
    fix = patch(case, machine, redirect)
    process = Process(image(case, machine, "base"))
    unpatched = process.snapshot()
    old = process.call(function, *arguments)
    old_length = process.last.instructions
    process.restore(unpatched)
    process.apply(fix)
    patched = process.snapshot()
    new = process.call(function, *arguments)
    new_length = process.last.instructions
    assert new != old
    assert max(old_length, new_length) < MOST
    for before, length, change, after in (
        (unpatched, old_length, process.apply_at, new),
        (patched, new_length, process.revert_at, old),
    ):
        for start in range(length):
            process.restore(before)
            change(process.instructions + start, fix)
            result = process.call(function, *arguments)
            assert allowed is None or result in allowed, start
            assert not process.refused
            assert bool(process.status().patches) is (after == new)
            assert process.call(function, *arguments) == after, start


def test_every_instruction_of_the_displaced_bytes_is_left_by_an_inline_redirect():
    """A thread that stands in the bytes is moved to the trampoline and finishes in old code."""
    process = Process(image("basic", Machine.X64, "base"))
    base = process.load_base + image("basic", Machine.X64, "base").function_named("clamp").entry
    moved = []
    for start in range(40):
        process = Process(image("basic", Machine.X64, "base"))
        process.apply_at(start, patch("basic", Machine.X64, Redirect.INLINE))
        assert process.call("total", 11, 12, 10) in {20, 21}
        assert not process.refused
        moved += [event.details for event in process.events if event.kind == "move"]
    assert moved
    assert all(base < details["from"] < base + 5 for details in moved)


def at_clamp() -> tuple[Process, int, int]:
    """A thread that stands at the first instruction of ``clamp``, called by ``total``; that address; the thread's stack pointer."""
    process = Process(image("basic", Machine.X64, "base"))
    entry = process.address_of("clamp")
    process.spawn("total", 11)
    for _ in range(MOST):
        (thread,) = process.guest.threads()
        if thread.pc == entry:
            return process, entry, thread.sp
        process.run(1)
    raise AssertionError("clamp was not reached")


def inner_offset() -> int:
    """Offset of an instruction of ``clamp`` that an inline redirect displaces with the first one."""
    process = Process(image("basic", Machine.X64, "base"))
    applied = process.apply(patch("basic", Machine.X64, Redirect.INLINE))
    (placed,) = process.engine.snapshot().trampolines.values()
    assert placed.va == applied.original("clamp")
    return next(offset for offset in sorted(placed.offsets) if offset)


def test_a_stale_word_in_a_walked_frame_refuses_nothing():
    process, entry, sp = at_clamp()
    process.guest.write_data(Va(sp + 16), (entry + inner_offset()).to_bytes(8, "little"))  # home space of the call
    process.apply(patch("basic", Machine.X64, Redirect.INLINE))
    assert process.call("clamp", 11, 10) == 10


def test_a_return_address_in_a_walked_frame_refuses():
    process, entry, sp = at_clamp()
    process.guest.write_data(sp, (entry + inner_offset()).to_bytes(8, "little"))
    with pytest.raises(ApplyRefused) as caught:
        process.apply(patch("basic", Machine.X64, Redirect.INLINE))
    assert [refusal.rule for refusal in caught.value.refusals] == [Rule.THREAD_IN_DISPLACED]
    assert not process.status().patches


def test_stacks_are_walked_through_slot_trampoline_and_new_code(machine):
    """At every instruction of a patched call, ``total`` stands on the stack below what ``clamp`` goes through."""
    process = Process(image("basic", machine, "base"))
    applied = process.apply(patch("basic", machine, Redirect.HPAT))
    slot, original = applied.functions[0].slot, applied.original("clamp")
    clamp, total = process.address_of("clamp"), process.address_of("total")
    seen = {"slot": 0, "new": 0}
    thread = process.spawn("total", 11)
    for _ in range(MOST):
        if process.finished:
            break
        pc = next(stopped.pc for stopped in process.guest.threads() if stopped.id == thread)
        place = {slot: "slot", applied.functions[0].destination: "new"}.get(pc)
        if place:
            seen[place] += 1
            where = process.engine.locate(pc)
            assert (where.original == clamp) is (place == "slot")
            callers = [frame.function for frame in process.guest.stack(thread)[1:]]
            assert callers[0] == "total", (place, callers)
        process.run(1)
    assert seen["slot"] == seen["new"] == 2
    where = process.engine.locate(original)
    assert (where.va, where.original) == (process.load_base, clamp)
    assert process.engine.locate(Va(original + 0x800)) is None
    assert process.engine.locate(total).original is None


def test_collect_waits_for_the_thread_that_is_still_inside(machine):
    process = Process(image("recursion", machine, "base"))
    applied = process.apply(patch("recursion", machine, Redirect.HPAT))
    status = process.status().patches[0]
    process.spawn("cost", 12)
    for _ in range(MOST):
        process.run(1)
        if any(status.image <= thread.pc < status.image + status.size for thread in process.guest.threads()):
            break
    process.run(10)
    applied.revert()
    assert status.image in process.engine.collect().kept
    process.run()
    collected = process.engine.collect()
    assert status.image in collected.freed
    assert collected.kept == ()
    assert [module.name for module in process.guest.modules()].count(applied.patch.image.name.lower()) == 0
    again = process.apply(applied.patch)
    assert again.state is PatchState.APPLIED
