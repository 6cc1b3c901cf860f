"""Every call that the engine makes of its target is made to fail, one after the other: nothing may have changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hotpatch.address import Va
from hotpatch.arch import HPAT_SLOT_SIZE, Machine, Redirect, architecture
from hotpatch.engine import Collected, Engine, Region, Rights
from hotpatch.engine.transaction import Transaction
from hotpatch.errors import ApplyRefused

from .conftest import LOAD, World, world
from .fake import Fake, InjectedError
from .synthetic import Recipe, base_image, make

FAILURES = [lambda: InjectedError("injected"), lambda: MemoryError("of the host"), lambda: KeyboardInterrupt()]
NAMES = ["target", "host", "interrupt"]
LIMIT = 500


def scene(machine: Machine, strategy: Redirect) -> World:
    here = world(machine)
    here.fake.exports["kernel32.dll", "Sleep"] = 0x7FFE_0000_1000
    here.fake.thread(1, here.entry(1) + 4)
    here.fake.thread(2, here.entry(2))
    return here


def state(here: World) -> tuple[object, ...]:
    return (here.fake.snapshot(), here.engine._registry.copy())


def every_failure(here: World, operation: Callable[[], object], failure: Callable[[], BaseException]) -> int:
    """Fail each call of ``operation`` in turn, then let it succeed; how many calls there are.

    One whose failure the operation gets over, such as a stack that cannot be read, makes no difference.
    """
    before, back, registry = state(here), here.fake.moment(), here.engine.snapshot()
    operation()
    after = state(here)
    here.fake.failure = failure
    kind = type(failure())
    for count in range(1, LIMIT):
        back()
        here.engine.restore(registry)
        here.fake.calls, here.fake.fail_at = 0, count
        try:
            operation()
        except kind as error:
            here.fake.fail_at = None
            assert type(error) is kind, error
            assert state(here) == before, f"call {count} left something behind"
        else:
            here.fake.fail_at = None
            assert state(here) == after, f"call {count} was got over, and something else was done"
            if here.fake.calls < count:
                return count - 1
    raise AssertionError("no end")


@pytest.mark.parametrize("failure", FAILURES, ids=NAMES)
@pytest.mark.parametrize("strategy", list(Redirect))
def test_apply_revert_and_supersede_are_all_or_nothing(machine, strategy, failure):
    here = scene(machine, strategy)
    first = here.patch({1: 111, 2: 222}, redirect=strategy, imports=(("kernel32.dll", "Sleep"),))
    second = here.patch({2: 2222, 3: 3333}, redirect=strategy, sequence=2, name="second.dll")
    pristine = bytes(here.fake.blocks[here.module.va].memory)
    done = []
    counts = [every_failure(here, lambda: done.append(here.engine.apply(first)), failure)]
    assert [here.result(index) for index in (1, 2, 3)] == [111, 222, 3]
    counts.append(every_failure(here, lambda: done.append(here.engine.apply(second)), failure))
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2222, 3333]
    if machine is Machine.X64 and strategy is not Redirect.INLINE:
        here.fake.register_sets[2]["rip"] = here.entry(3) - 5
    counts.append(every_failure(here, lambda: done[-1].revert(), failure))
    assert [here.result(index) for index in (1, 2, 3)] == [111, 222, 3]
    counts.append(every_failure(here, lambda: done[0].revert(), failure))
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2, 3]
    assert bytes(here.fake.blocks[here.module.va].memory) == pristine
    assert all(count >= 8 for count in counts), counts


def test_collect_frees_each_mapping_or_leaves_it(here):
    applied = here.apply({1: 111})
    applied.revert()
    mapped = len(here.fake.owned)
    for count in range(1, LIMIT):
        here.fake.calls, here.fake.fail_at = 0, count
        try:
            collected = here.engine.collect()
        except InjectedError:
            here.fake.fail_at = None
            kept = here.engine.status().kept
            assert set(kept) == here.fake.owned
            assert {module.va for module in here.fake.loaded} - {here.module.va} <= here.fake.owned
        else:
            break
    assert isinstance(collected, Collected)
    assert not here.fake.owned
    assert mapped == 3


def test_a_rollback_that_fails_says_what_is_left(here):
    from hotpatch.engine import RollbackError

    def broken(*_args):
        raise InjectedError("cannot unmap")

    here.fake.unmap = broken
    with pytest.raises(RollbackError) as caught:
        here.apply({1: 111}, imports=(("a.dll", "absent"),))
    assert any("cannot unmap" in note for note in caught.value.__notes__)


def test_a_give_back_that_fails_is_tried_again_later_but_not_where_it_cannot_be_taken_back(here):
    from hotpatch.engine import Consistency, RollbackError

    def ended() -> None:
        """A transition that :meth:`poll` can end, with its dispatchers to be given back."""
        pc = architecture(here.fake.machine).convention.pc
        here.fake.register_sets[1][pc] = here.entry(1) + 4
        here.engine.apply(here.patch({1: 111}), Consistency.PER_THREAD)
        here.fake.register_sets[1][pc] = here.entry(5)

    here.fake.thread(1, here.entry(5))
    back, registry = here.fake.moment(), here.engine.snapshot()
    unmap, map_ = here.fake.unmap, here.fake.map

    def broken(*_args):
        raise InjectedError("broken")

    def half(va):
        unmap(va)
        here.fake.map = broken
        raise KeyboardInterrupt

    ended()
    here.fake.unmap = broken
    assert not here.engine.poll().busy
    assert len(here.engine.status().kept) == 1
    here.fake.unmap = unmap
    assert len(here.engine.collect().freed) == 1

    back()
    here.engine.restore(registry)
    ended()
    here.fake.unmap = half
    with pytest.raises(RollbackError) as caught:
        here.engine.poll()
    assert any("could not map again" in note for note in caught.value.__notes__)
    here.fake.unmap, here.fake.map = unmap, map_
    assert here.result(1) == 111


def test_what_an_unload_leaves_and_cannot_be_taken_back_is_not_hidden(here):
    from hotpatch.engine import RollbackError

    here.apply({1: 111})
    unmap = here.fake.unmap

    def half(va):
        unmap(va)
        here.fake.map = broken
        raise InjectedError("half done")

    def broken(*_args):
        raise InjectedError("broken")

    back, registry = here.fake.moment(), here.engine.snapshot()
    here.fake.unmap = broken
    here.fake.unload(here.module)
    assert here.fake.owned == set(here.engine.status().kept) != set()

    back()
    here.engine.restore(registry)
    here.fake.unmap = half
    with pytest.raises(RollbackError):
        here.fake.unload(here.module)
    assert here.engine.snapshot() == registry


def test_a_roll_back_does_not_write_over_what_somebody_else_wrote(here):
    entries = [Va(here.entry(number)) for number in (1, 2)]
    before = [here.fake.read(va, 4) for va in entries]
    with pytest.raises(InjectedError), Transaction(here.fake) as step:
        for va, found in zip(entries, before, strict=True):
            step.write_code(va, found, b"\x90\x90\x90\x90")
        here.fake.poke(entries[1], b"\xcc")
        raise InjectedError("late")
    theirs = here.fake.read(entries[1], 4)
    assert (here.fake.read(entries[0], 4), theirs) == (before[0], b"\xcc\x90\x90\x90")
    with pytest.raises(ApplyRefused), Transaction(here.fake) as step:
        step.write_code(entries[1], before[1], theirs)  # what it was to store stands there already
    assert here.fake.read(entries[1], 4) == theirs


def test_a_failed_application_takes_no_slot(here):
    slot = here.apply({1: 111}).functions[0].slot
    with pytest.raises(ApplyRefused):
        here.apply({1: 112, 2: 222}, sequence=2, imports=(("a.dll", "absent"),))
    second = here.apply({1: 113, 2: 223}, sequence=2, name="second.dll")
    assert {function.slot for function in second.functions} == {slot, slot + HPAT_SLOT_SIZE}


def test_what_was_done_for_a_module_and_failed_is_not_told(machine):
    """The module is loaded all the same, without its patch."""
    base, fake = base_image(machine), Fake(machine)
    engine = Engine(fake)
    engine.register(make(Recipe(base, {1: 111}, imports=(("a.dll", "absent"),))))
    fake.arrive(base, LOAD)
    assert [kind for kind, _ in fake.events] == ["register", "refused"]
    assert not fake.owned


def test_memory_is_mapped_again_as_it_was_where_neighbours_are_told_as_one_region(here):
    fake, regions, code = here.fake, here.fake.regions, Rights.READ | Rights.EXECUTE

    def together() -> tuple[Region, ...]:
        found: list[Region] = []
        for region in regions():
            last = found[-1] if found else None
            if last is not None and (last.va + last.size, last.rights) == (region.va, region.rights):
                found[-1] = Region(last.va, last.size + region.size, last.rights)
            else:
                found.append(region)
        return tuple(found)

    fake.map(Va(0x5000_0000), 0x1000, code, b"first")
    fake.map(Va(0x5000_1000), 0x2000, [code, Rights.READ], b"second")
    assert len(together()) < len(regions())
    fake.regions = together
    before = fake.snapshot()
    with pytest.raises(InjectedError), Transaction(fake) as step:
        step.unmap(Va(0x5000_1000), 0x2000)
        assert fake.snapshot() != before
        raise InjectedError("late")
    assert fake.snapshot() == before
