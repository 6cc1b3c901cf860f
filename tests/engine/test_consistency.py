"""Waiting for quiescence and changing over thread by thread: threads that stand in given places of a process that does not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import hotpatch
from hotpatch.arch import Redirect
from hotpatch.engine import Consistency, PatchState
from hotpatch.engine.hpat import pointer_of
from hotpatch.errors import ApplyRefused, Refusal, RevertRefused, Rule

from .conftest import INSIDE, World, flag, go, world
from .fake import InjectedError
from .late import images, patch_of
from .synthetic import Recipe, base_image, entry, make

QUIESCENT, PER_THREAD = Consistency.QUIESCENT, Consistency.PER_THREAD
both = pytest.mark.parametrize("how", [QUIESCENT, PER_THREAD])


def told(here: World, kind: str, *keys: str) -> list[tuple[object, ...]]:
    return [tuple(details.get(key) for key in keys) for name, details in here.fake.events if name == kind]


@both
def test_with_nobody_inside_it_is_done_at_once(here, how):
    here.fake.thread(1, here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), how)
    assert (applied.state, applied.settled, here.result(1)) == (PatchState.APPLIED, True, 111)
    assert not told(here, "wait") and not told(here, "transition")
    applied.revert()
    assert (applied.state, here.result(1)) == (PatchState.REVERTED, 1)


@pytest.mark.parametrize("offset", [0, INSIDE])
def test_quiescent_waits_for_a_program_counter(here, offset):
    here.fake.thread(1, here.entry(1) + offset)
    before = here.fake.snapshot()
    applied = here.engine.apply(here.patch({1: 111}), QUIESCENT, wait=100)
    assert (applied.state, applied.settled) == (PatchState.WAITING, False)
    here.fake.clock = 50
    assert here.engine.poll().busy
    assert here.fake.snapshot() == before
    ((until, holders),) = told(here, "wait", "until", "holders")
    assert until == 100
    assert holders == [{"thread": 1, "function": "f1", "stack": [hex(here.entry(1) + offset)], "reachable": True, "endless": None}]
    go(here, 1, here.entry(5))
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1)) == (PatchState.APPLIED, 111)


def test_quiescent_waits_for_a_return_address(here):
    here.fake.thread(1, here.entry(5), **({} if here.fake.machine == "x64" else {"x30": here.entry(1) + INSIDE}))
    here.fake.push(1, 0, here.entry(1) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111}), QUIESCENT)
    assert applied.state is PatchState.WAITING
    (change,) = here.engine.status().changes
    assert change.waits_for == ("thread 1 in f1",)
    assert [(each.thread, each.side) for each in change.threads] == [(1, "old")]


def test_giving_up_names_thread_function_and_stack_and_leaves_nothing(here):
    here.fake.thread(1, here.entry(5))
    here.fake.thread(2, here.entry(1) + INSIDE)
    before = here.fake.snapshot()
    applied = here.engine.apply(here.patch({1: 111}), QUIESCENT, wait=100)
    here.fake.clock = 100
    (refusal,) = here.engine.poll().refused
    assert (refusal.rule, refusal.rva, refusal.evidence["thread"]) == (Rule.NOT_QUIESCENT, entry(1), 2)
    assert refusal.evidence["stack"] == [hex(here.entry(1) + INSIDE)]
    assert (refusal.evidence["returns"], refusal.evidence["waited"]) == (True, 100)
    assert refusal.evidence["reachable"] is True
    assert here.fake.snapshot() == before
    assert (applied.state, applied.refusals, applied.settled) == (PatchState.REFUSED, (refusal,), True)
    assert here.engine.poll() == type(here.engine.poll())(busy=False)
    assert not here.engine.status().patches
    with pytest.raises(RevertRefused):
        applied.revert()


def test_an_outermost_function_that_returns_can_be_waited_for(machine):
    base, patch = images("fewer-functions", machine)[0], patch_of("fewer-functions", machine)
    process = hotpatch.Process(base)
    process.guest.step(process.spawn("first", 1), 1)
    process.apply(patch, QUIESCENT, wait=0)
    (refusal,) = process.engine.poll().refused
    assert [refusal.evidence[name] for name in ("outermost", "returns", "reachable")] == [True] * 3
    assert "wait longer" in refusal.reason
    applied = process.apply(patch, QUIESCENT, wait=100)
    process.run()
    assert (applied.state, applied.refusals) == (PatchState.APPLIED, ())


@both
def test_only_one_at_a_time(here, how):
    here.fake.thread(1, here.entry(1) + INSIDE)
    first = here.engine.apply(here.patch({1: 111}), how)
    with pytest.raises(ApplyRefused) as caught:
        here.engine.apply(here.patch({2: 222}, sequence=2, name="second.dll"))
    assert [refusal.rule for refusal in caught.value.refusals] == [Rule.IN_TRANSITION]
    go(here, 1, here.entry(5))
    here.engine.poll()
    assert first.settled
    here.engine.apply(here.patch({2: 222}, sequence=2, name="second.dll"))


def test_what_waits_can_be_called_off(here):
    here.fake.thread(1, here.entry(1) + INSIDE)
    before = here.fake.snapshot()
    applied = here.engine.apply(here.patch({1: 111}), QUIESCENT)
    applied.revert()
    assert (applied.state, here.fake.snapshot()) == (PatchState.REVERSED, before)
    with pytest.raises(RevertRefused):
        applied.reverse()


def test_each_thread_goes_its_own_way(here):
    for number, place in ((1, here.entry(1) + INSIDE), (2, here.entry(5)), (3, here.entry(2) + INSIDE)):
        here.fake.thread(number, place)
    applied = here.engine.apply(here.patch({1: 111, 2: 222}), PER_THREAD)
    assert applied.state is PatchState.TRANSITION
    assert [flag(here, number)[0] for number in (1, 2, 3)] == [1, 0, 1]
    assert [(each.thread, each.side) for each in here.engine.status().changes[0].threads] == [(1, "old"), (2, "new"), (3, "old")]
    go(here, 1, here.entry(5))
    assert here.engine.poll().busy
    assert told(here, "transition", "stage", "moved_thread", "from", "to", "remaining") == [
        ("begin", None, None, None, 2),
        ("thread", 1, "old", "new", 1),
    ]
    here.fake.thread(4, here.entry(5))
    assert flag(here, 4) == bytes(20)
    del here.fake.register_sets[3]
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1), here.result(2)) == (PatchState.APPLIED, 111, 222)
    assert flag(here, 1) == flag(here, 2) == bytes(20)


def test_finishing_leaves_what_immediate_leaves(here):
    fake = here.fake
    fake.thread(1, here.entry(1) + INSIDE)
    here.engine.apply(here.patch({1: 111}), PER_THREAD)
    mapped = set(fake.owned)
    assert not here.engine.status().kept
    assert not here.engine.collect().freed
    go(here, 1, here.entry(5))
    here.engine.poll()
    assert len(mapped - fake.owned) == 1
    after = fake.snapshot()
    applied = here.engine.snapshot().applications
    assert len(applied) == 1
    here.engine.restore(here.engine.snapshot())
    assert fake.snapshot() == after


def test_a_transition_can_be_reversed_half_way(here):
    for number in (1, 2):
        here.fake.thread(number, here.entry(number) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111, 2: 222}), PER_THREAD)
    go(here, 1, here.entry(5))
    here.engine.poll()
    applied.revert()
    assert applied.state is PatchState.REVERTING
    with pytest.raises(RevertRefused) as caught:
        applied.revert()
    assert [refusal.rule for refusal in caught.value.refusals] == [Rule.IN_TRANSITION]
    go(here, 1, here.engine.functions(applied)[0].destination + INSIDE)
    assert here.engine.poll().busy  # thread 1 is in the new function
    go(here, 1, here.entry(5))
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1), here.result(2)) == (PatchState.REVERSED, 1, 2)
    assert flag(here, 1) == flag(here, 2) == bytes(20)


def test_a_reversal_can_be_reversed(here):
    for number in (1, 2):
        here.fake.thread(number, here.entry(number) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111, 2: 222}), PER_THREAD)
    applied.reverse()
    applied.reverse()
    go(here, 1, here.entry(5))
    go(here, 2, here.entry(5))
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1)) == (PatchState.APPLIED, 111)


@both
def test_revert_waits_for_threads_in_the_new_code(here, how):
    here.fake.thread(1, here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), how)
    go(here, 1, applied.functions[0].destination + INSIDE)
    applied.revert()
    assert applied.state is PatchState.REVERTING
    here.engine.poll()
    assert applied.state is PatchState.REVERTING
    go(here, 1, here.entry(5))
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1)) == (PatchState.REVERTED, 1)


@both
def test_a_revert_can_change_over_by_slots_only(here, how):
    here.fake.thread(1, here.entry(5))
    applied = here.apply({1: 111}, redirect=Redirect.DIRECT)
    go(here, 1, applied.functions[0].destination + INSIDE)
    before, known = here.fake.snapshot(), here.engine.snapshot()
    with pytest.raises(RevertRefused) as caught:
        applied.revert(how)
    assert [(each.rule, each.function) for each in caught.value.refusals] == [(Rule.CONSISTENCY_NEEDS_HPAT, "f1")]
    assert (here.fake.snapshot(), here.engine.snapshot()) == (before, known)


@both
def test_a_revert_can_be_called_off(here, how):
    here.fake.thread(1, here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), how)
    go(here, 1, applied.functions[0].destination + INSIDE)
    applied.revert()
    applied.reverse()
    here.engine.poll()
    assert (applied.state, here.result(1)) == (PatchState.APPLIED, 111)


def test_per_thread_with_a_bound_goes_back(here):
    here.fake.thread(1, here.entry(1) + INSIDE)
    here.fake.thread(2, here.entry(2) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111, 2: 222}), PER_THREAD, wait=100)
    go(here, 2, here.entry(5))
    here.fake.clock = 100
    assert [refusal.evidence["thread"] for refusal in here.engine.poll().refused] == [1]
    here.engine.poll()
    assert (applied.state, here.result(1), len(applied.refusals)) == (PatchState.REFUSED, 1, 1)


def test_what_its_bound_has_turned_back_is_not_turned_again(here):
    here.fake.thread(1, here.entry(1) + INSIDE)
    here.fake.thread(2, here.entry(5))
    applied = here.engine.apply(here.patch({1: 111}), PER_THREAD, wait=100)
    go(here, 2, applied.functions[0].destination + INSIDE)
    here.fake.clock = 100
    assert len(here.engine.poll().refused) == 1
    for here.fake.clock in (200, 300):
        assert not here.engine.poll().refused
        assert applied.state is PatchState.REVERTING
    assert [stage for (stage,) in told(here, "transition", "stage")] == ["begin", "reverse"]
    go(here, 2, here.entry(5))
    here.engine.poll()
    assert (applied.state, here.result(1)) == (PatchState.REFUSED, 1)


def test_modules_in_transition_at_once_have_a_byte_each(here):
    """A thread may be on the old side of one and on the new side of the other; where no byte is left, the next is refused."""
    base = base_image(here.fake.machine, stamp=0x5EED0002, first=100)
    other = here.fake.load(base, here.module.va + 0x10_0000, "other.dll")
    here.fake.thread_flags = range(0xE8, 0xEA)
    here.fake.thread(1, here.entry(1) + INSIDE)
    here.fake.thread(2, other.va + entry(1) + INSIDE)
    first = here.engine.apply(here.patch({1: 111}), PER_THREAD)
    second = here.engine.apply(make(Recipe(base, {1: 222})), PER_THREAD)
    assert sorted((flag(here, 1), flag(here, 2))) == [bytes((0, 1)), bytes((1, 0))]
    third = base_image(here.fake.machine, stamp=0x5EED0003, first=200)
    here.fake.thread(3, here.fake.load(third, here.module.va + 0x20_0000, "third.dll").va + entry(1) + INSIDE)
    before = here.fake.snapshot()
    with pytest.raises(ApplyRefused) as caught:
        here.engine.apply(make(Recipe(third, {1: 333})), PER_THREAD)
    assert [(each.rule, each.evidence) for each in caught.value.refusals] == [(Rule.IN_TRANSITION, {"transitions": 2})]
    assert here.fake.snapshot() == before
    go(here, 1, here.entry(5))
    assert here.engine.poll().busy
    assert (first.state, second.state) == (PatchState.APPLIED, PatchState.TRANSITION)
    assert any(flag(here, 2))
    go(here, 2, here.entry(5))
    assert not here.engine.poll().busy
    assert second.state is PatchState.APPLIED


def test_superseding_per_thread_keeps_the_older_version_for_who_is_inside(here):
    first = here.engine.apply(here.patch({1: 111}))
    here.fake.thread(1, first.functions[0].destination + INSIDE)
    second = here.engine.apply(here.patch({1: 1111}, sequence=2, name="second.dll"), PER_THREAD)
    assert second.state is PatchState.TRANSITION
    go(here, 1, here.entry(5))
    here.engine.poll()
    assert here.result(1) == 1111
    second.revert()
    assert (here.result(1), first.state) == (111, PatchState.APPLIED)


def test_a_function_given_back_per_thread_is_left_by_each_thread_on_its_own(here):
    """A thread that is still in the older patch calls the dropped function of that, another one the original."""
    first = here.engine.apply(here.patch({1: 111, 2: 222}))
    changed, dropped = here.engine.status().functions
    original = first.original("f2")
    here.fake.thread(1, changed.destination + INSIDE)
    here.fake.thread(2, here.entry(5))
    second = here.engine.apply(here.patch({1: 1111}, sequence=2, name="second.dll"), PER_THREAD)
    assert second.state is PatchState.TRANSITION
    leads_to = int.from_bytes(here.fake.read(pointer_of(dropped.slot), 8), "little")
    assert leads_to not in (dropped.destination, original)
    go(here, 1, here.entry(5))
    here.engine.poll()
    assert (second.state, here.result(1), here.result(2)) == (PatchState.APPLIED, 1111, 2)


def test_functions_given_back_are_waited_for_too(here):
    here.engine.apply(here.patch({1: 111, 2: 222}))
    function = here.engine.status().functions[1]
    here.fake.thread(1, function.destination + INSIDE)
    second = here.engine.apply(here.patch({1: 1111}, sequence=2, name="second.dll"), QUIESCENT)
    assert second.state is PatchState.WAITING
    go(here, 1, here.entry(5))
    here.engine.poll()
    assert (here.result(1), here.result(2)) == (1111, 2)


@both
def test_a_snapshot_takes_what_is_under_way_along(here, how):
    here.fake.thread(1, here.entry(1) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111}), how)
    state, held = applied.state, here.engine.snapshot()
    applied.revert()
    here.engine.restore(held)
    assert applied.state is state


def test_a_snapshot_can_be_gone_back_to_again_and_again(here):
    """Though what was refused meanwhile is told once each time."""
    refusal = Refusal(Rule.NOT_QUIESCENT, None, None, "for example")
    held = replace(here.engine.snapshot(), untold=(refusal,))
    for _ in range(2):
        here.engine.restore(held)
        assert (here.engine.unheard(), here.engine.unheard()) == ((refusal,), ())


def changing(here: World, how: Consistency) -> None:
    """A patch goes in and comes out while threads stand in its way."""
    fake = here.fake
    for number in (1, 2):
        fake.thread(number, here.entry(number) + INSIDE)
    applied = retried(here, lambda: here.engine.apply(here.patch({1: 111, 2: 222}), how))
    go(here, 1, here.entry(5))
    retried(here, here.engine.poll)
    go(here, 2, here.entry(5))
    retried(here, here.engine.poll)
    assert applied.state is PatchState.APPLIED
    go(here, 1, retried(here, lambda: applied.functions)[0].destination + INSIDE)
    retried(here, applied.revert)
    go(here, 1, here.entry(5))
    retried(here, here.engine.poll)
    assert applied.state is PatchState.REVERTED


def retried(here: World, deed: Callable[[], object]) -> Any:
    """Done again where a failure was injected, with nothing but flags changed by the first try."""
    flags = [flag(here, number) for number in (1, 2)]
    before, known = here.fake.snapshot(), here.engine.snapshot()
    try:
        return deed()
    except InjectedError:
        here.fake.fail_at = None
        if flags == [flag(here, number) for number in (1, 2)]:
            assert (here.fake.snapshot(), here.engine.snapshot()) == (before, known)
        return deed()


@both
def test_any_call_of_the_target_may_fail(machine, how):
    def end(fail_at: int | None) -> tuple[int, object]:
        here = world(machine)
        here.fake.fail_at = fail_at
        changing(here, how)
        calls = here.fake.calls
        here.fake.fail_at = None
        here.engine.collect()
        memory, owned, modules, registers = here.fake.snapshot()
        return calls, (memory, owned, [module.va for module in modules], registers)

    calls, wanted = end(None)
    for count in range(1, calls + 1):
        assert end(count)[1] == wanted, count


def test_what_was_refused_of_one_module_is_told_where_another_fails(machine):
    """Whichever call of the target fails."""
    count = 0
    while True:
        count += 1
        here = world(machine)
        base = base_image(machine, stamp=0x5EED0002, first=100)
        other = here.fake.load(base, here.module.va + 0x10_0000, "other.dll")
        here.fake.thread(1, here.entry(1) + INSIDE)
        here.fake.thread(2, other.va + entry(1) + INSIDE)
        given_up = here.engine.apply(here.patch({1: 111}), QUIESCENT, wait=100)
        here.engine.apply(make(Recipe(base, {1: 222})), QUIESCENT)
        here.fake.clock = 100
        here.fake.calls, here.fake.fail_at = 0, count
        try:
            found = here.engine.poll().refused
        except InjectedError:
            found = here.engine.unheard()
        done = here.fake.calls < count
        here.fake.fail_at = None
        found += here.engine.poll().refused
        assert [refusal.rule for refusal in found] == [Rule.NOT_QUIESCENT], count
        assert given_up.state is PatchState.REFUSED
        if done:
            break
    assert count > 5
