"""A thread at each instruction between a call and a version of the function: which versions it is taken to be inside of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hotpatch.arch import HPAT_SLOT_SIZE, Machine, architecture
from hotpatch.engine import AppliedPatch, Consistency, PatchState
from hotpatch.engine.hpat import pointer_of
from hotpatch.unwind import Located

from .conftest import INSIDE, World, flag, go
from .run import call
from .synthetic import BODY

INTO = {
    "entry": {"old", "new"},
    "padding": {"old", "new"},
    "slot": {"old", "new"},
    "dispatcher": {"old", "new"},
    "original": {"old"},
    "trampoline": {"old"},
    "replacement": {"new"},
    "elsewhere": set(),
}
"""Versions that a thread is inside of which stands at any instruction there: on its way in, it may have taken either."""
PC = {machine: architecture(machine).convention.pc for machine in Machine}
each_place = pytest.mark.parametrize("place", INTO)


def instructions(here: World, applied: AppliedPatch, place: str) -> Iterator[int]:
    """Addresses of the instructions of a place of function 1, which ``applied`` redirects."""
    (function,) = applied.functions
    entry, slot, trampoline = here.entry(1), function.slot, applied.original("f1")
    dispatcher = int.from_bytes(here.fake.read(pointer_of(slot), 8), "little")
    placed = next(placed for placed in here.engine.snapshot().trampolines.values() if placed.va == trampoline)
    x64 = here.fake.machine == "x64"
    start, size = {
        "entry": (entry, 1),
        "padding": (entry - 5, 5 * x64),
        "slot": (slot, 6 if x64 else HPAT_SLOT_SIZE),
        "dispatcher": (
            dispatcher,
            0 if dispatcher == function.destination else len(architecture(here.fake.machine).dispatcher(0xE8, 0, 0)),
        ),
        "original": (entry, BODY),
        "trampoline": (trampoline, len(placed.code)),
        "replacement": (function.destination, BODY),
        "elsewhere": (here.entry(5), BODY),
    }[place]
    if place == "entry":
        yield entry
        return
    for item in architecture(here.fake.machine).disassemble(here.fake.read(start, size), start):
        if item.address != entry:
            yield item.address


@each_place
@pytest.mark.parametrize("leaving", ["old", "new"])
def test_in_a_transition(here, place, leaving):
    """It changes sides when it is not inside of what it is to leave; of what it is to come to it may be."""
    here.fake.thread(1, here.entry(1) + INSIDE)
    here.fake.thread(2, here.entry(1) + INSIDE if leaving == "old" else here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), Consistency.PER_THREAD)
    here.fake.thread(3, applied.functions[0].destination + INSIDE)
    if leaving == "new":
        applied.reverse()
    before, back = (here.engine.snapshot(), flag(here, 2)), here.fake.moment()
    tried = 0
    for pc in instructions(here, applied, place):
        go(here, 2, pc)
        assert here.engine.poll().busy
        assert (flag(here, 2) == before[1]) is (leaving in INTO[place]), hex(pc)
        back()
        here.engine.restore(before[0])
        tried += 1
    assert tried >= {"entry": 1, "padding": int(here.fake.machine == "x64"), "slot": 1}.get(place, 2)


@pytest.mark.parametrize("place", ["slot", "dispatcher"])
def test_it_is_unwound_as_if_it_stood_at_the_entry(here, place):
    here.fake.thread(1, here.entry(1) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111}), Consistency.PER_THREAD)
    found = {here.engine.locate(pc) for pc in instructions(here, applied, place)}
    assert found == {Located(here.module.va, here.base, here.entry(1))}


@each_place
def test_at_the_end_of_a_transition(here, place):
    """On its way through the slot it is put back to its beginning, since the dispatcher goes; anywhere else it stays."""
    here.fake.thread(1, here.entry(1) + INSIDE)
    here.fake.thread(2, here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), Consistency.PER_THREAD)
    slot = applied.functions[0].slot
    go(here, 1, here.entry(5))
    known, back = here.engine.snapshot(), here.fake.moment()
    for pc in instructions(here, applied, place):
        go(here, 2, pc)
        assert not here.engine.poll().busy
        assert here.fake.register_sets[2][PC[here.fake.machine]] == (slot if place in {"slot", "dispatcher"} else pc)
        assert call(here.fake, slot)[0] == 111
        back()
        here.engine.restore(known)


@each_place
@pytest.mark.parametrize("leaving", ["old", "new"])
def test_where_a_patch_stands(here, place, leaving):
    """A newer patch waits for who is inside of anything older, the standing one's code included, and a revert for who is inside of that."""
    here.fake.thread(2, here.entry(5))
    standing = here.apply({1: 111})
    newer = here.patch({1: 1111}, sequence=2, name="second.dll")
    before, back = here.engine.snapshot(), here.fake.moment()
    for pc in instructions(here, standing, place):
        go(here, 2, pc)
        if leaving == "old":
            waits = here.engine.apply(newer, Consistency.QUIESCENT).state is PatchState.WAITING
            assert waits is bool(INTO[place]), hex(pc)
        else:
            standing.revert(Consistency.QUIESCENT)
            assert (standing.state is PatchState.REVERTING) is ("new" in INTO[place]), hex(pc)
        back()
        here.engine.restore(before)


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@pytest.mark.parametrize(("place", "inside"), [("start", False), ("end", True), ("past the end", False)])
def test_a_return_address_belongs_to_the_call_before_it(here, how, place, inside):
    """A call that is a function's last instruction returns past its end, and one right before a function to that one's first."""
    back = here.entry(1) + {"start": 0, "end": BODY, "past the end": BODY + 1}[place]
    here.fake.thread(1, here.entry(5), **({} if here.fake.machine == "x64" else {"x30": back}))
    here.fake.push(1, 0, back)
    here.fake.push(1, 8, 0x7000_0000)  # of no module: the stack is walked to its end
    applied = here.engine.apply(here.patch({1: 111}), how)
    assert (applied.state is PatchState.APPLIED) is not inside
    if inside and how is Consistency.QUIESCENT:
        (holder,) = (holder for kind, details in here.fake.events if kind == "wait" for holder in details["holders"])
        assert (holder["function"], holder["stack"][-1]) == ("f1", hex(back))


@pytest.mark.parametrize(("place", "inside"), [("start", False), ("end", True), ("past the end", False)])
def test_waiting_looks_at_the_call_before_a_return_address(here, place, inside):
    back = here.entry(1) + {"start": 0, "end": BODY, "past the end": BODY + 1}[place]
    here.fake.thread(1, here.entry(1) + INSIDE, **({} if here.fake.machine == "x64" else {"x30": back}))
    here.fake.push(1, 0, back)
    here.fake.push(1, 8, 0x7000_0000)
    assert here.engine.apply(here.patch({1: 111}), Consistency.QUIESCENT).state is PatchState.WAITING
    go(here, 1, here.entry(5))
    assert here.engine.poll().busy is inside


def by_frame(here: World, value: int) -> None:
    here.fake.push(1, 0, value)
    if here.fake.machine == "arm64":
        here.fake.register_sets[1]["x30"] = value


def by_word(here: World, value: int) -> None:
    """Behind where the walk ends, as the return address is 0."""
    here.fake.push(1, 64, value)


def by_link_under_a_call_of_the_system(here: World, value: int) -> None:
    """Behind where the walk ends; on x64 all return addresses are on the stack."""
    by_word(here, value if here.fake.machine == "x64" else 0)
    here.fake.suspended[1] = ({"x30": value},) if here.fake.machine == "arm64" else ()


def by_frame_under_a_call_of_the_system(here: World, value: int) -> None:
    """What has called the system, which has called the program again: that returns to somewhere outside of all modules."""
    convention = architecture(here.fake.machine).convention
    by_frame(here, 0x7000)
    sp = here.fake.register_sets[1][convention.sp] + 0x40
    here.fake.suspended[1] = ({convention.pc: value or here.entry(6), convention.sp: sp},)


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@pytest.mark.parametrize("returns", [by_frame, by_word, by_link_under_a_call_of_the_system, by_frame_under_a_call_of_the_system])
def test_a_thread_is_inside_of_what_it_may_return_to(here, how, returns):
    """However often that is asked."""
    here.fake.thread(1, here.entry(5))
    returns(here, here.entry(1) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111}), how)
    state, told = applied.state, flag(here, 1)
    assert state in (PatchState.WAITING, PatchState.TRANSITION)
    for _ in range(2):
        assert here.engine.poll().busy
        assert (applied.state, flag(here, 1)) == (state, told)
    returns(here, 0)
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1)) == (PatchState.APPLIED, 111)
