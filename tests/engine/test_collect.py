"""What stays mapped after a revert, what keeps it, and when it is given back."""

from __future__ import annotations

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, architecture
from hotpatch.emulator.guest import Guest
from hotpatch.engine import Engine, Rights
from hotpatch.errors import Refused, Rule

from .conftest import world
from .fake import STACK
from .synthetic import STRIDE, Recipe, base_image, entry, make


def reverted(here):
    """A patch that has been applied and reverted: the handle, its image, the new function."""
    applied = here.apply({1: 111})
    image, new = here.engine.status().patches[0].image, applied.functions[0].destination
    applied.revert()
    return applied, image, new


def test_all_is_given_back_when_nothing_reaches_it(here):
    applied, image, _ = reverted(here)
    collected = here.engine.collect()
    assert image in collected.freed
    assert not collected.kept
    assert not here.fake.owned
    assert here.engine.status().kept == ()
    with pytest.raises(Refused) as caught:
        applied.original("f1")
    assert caught.value.refusals[0].rule is Rule.NOT_APPLIED
    here.engine.apply(applied.patch)
    assert here.result(1) == 111


def test_what_stands_is_never_given_back(here):
    here.apply({1: 111})
    assert here.engine.collect().freed == ()
    assert here.result(1) == 111


def test_what_is_superseded_is_never_given_back(here):
    first = here.apply({1: 111})
    second = here.apply({1: 1111}, sequence=2, name="second.dll")
    assert here.engine.collect().freed == ()
    second.revert()
    assert here.engine.collect().freed
    assert here.result(1) == 111
    assert first.functions


def reach_by_pc(here, new):
    here.fake.thread(1, new + 4)


def reach_by_register(here, new):
    here.fake.thread(1, here.entry(3), **{architecture(here.fake.machine).convention.preserved[0]: new})


def reach_by_stack(here, new):
    here.fake.thread(1, here.entry(3))
    here.fake.push(1, 24, new + 4)


def reach_by_link(here, new):
    """Arm64; x64 has a return address on the stack only."""
    link = architecture(here.fake.machine).convention.link
    here.fake.thread(1, here.entry(3), **({link: new + 4} if link else {}))
    if link is None:
        here.fake.push(1, 0, new + 4)


def reach_by_link_under_a_call_of_the_system(here, new):
    """As on Arm64, where a function that calls the system need not have stored where that returns to."""
    here.fake.thread(1, here.entry(3))
    here.fake.suspended[1] = ({architecture(here.fake.machine).convention.link or "rip": new + 4},)


def reach_by_module_data(here, new):
    here.fake.poke(here.module.va + 0x2000 + 8, new.to_bytes(8, "little"))


def reach_by_heap(here, new):
    here.fake.commit(0x5000_0000, 0x1000)
    here.fake.poke(0x5000_0000 + 0x40, new.to_bytes(8, "little"))


def reach_by_read_only_memory(here, new):
    """As data that the program has protected since, or code that it has made."""
    for va, rights in ((0x5000_0000, Rights.READ), (0x5000_2000, Rights.READ | Rights.EXECUTE)):
        here.fake.commit(va, 0x1000, rights)
    here.fake.poke(0x5000_2000 + 0x40, new.to_bytes(8, "little"))


RETURNS = [reach_by_pc, reach_by_stack, reach_by_link, reach_by_link_under_a_call_of_the_system]
REACHES = [*RETURNS, reach_by_register, reach_by_module_data, reach_by_heap, reach_by_read_only_memory]


@pytest.mark.parametrize("reach", REACHES)
def test_what_is_reached_stays(here, reach):
    _, image, new = reverted(here)
    reach(here, new)
    collected = here.engine.collect()
    assert collected.kept == (image,)
    assert image in here.fake.owned
    assert image in {module.va for module in here.fake.loaded}


@pytest.mark.parametrize("reach", RETURNS)
def test_an_unload_leaves_what_a_thread_returns_to(here, reach):
    applied = here.apply({1: 111})
    image = here.engine.status().patches[0].image
    reach(here, applied.functions[0].destination)
    here.fake.unload(here.module)
    assert image in here.fake.owned
    here.fake.register_sets.clear()
    del here.fake.blocks[STACK + 0x100000]
    assert image in here.engine.collect().freed


def test_a_thread_on_its_way_through_the_slot_keeps_table_and_trampoline(here):
    applied = here.apply({1: 111})
    slot, original = applied.functions[0].slot, applied.original("f1")
    image = here.engine.status().patches[0].image
    applied.revert()
    here.fake.thread(1, slot)
    collected = here.engine.collect()
    assert collected.freed == (image,)
    assert set(collected.kept) == {slot, original}


def test_a_kept_image_keeps_what_it_points_to(here):
    """The first patch's data points to itself, which keeps nothing; a pointer to it in the second's data, itself reached, does."""
    first = here.apply({1: 111})
    one, new = here.engine.status().patches[0].image, first.functions[0].destination
    first.revert()
    second = here.apply({2: 222}, name="second.dll")
    two = here.engine.status().patches[0].image
    second.revert()
    here.fake.poke(two + 0x2000 + 40, new.to_bytes(8, "little"))
    here.fake.thread(1, two + 0x1000)
    collected = here.engine.collect()
    assert {one, two} <= set(collected.kept)
    here.fake.register_sets.clear()
    assert {one, two} <= set(here.engine.collect().freed)


def test_a_thousand_cycles_do_not_grow(here):
    patch = here.patch({1: 111, 2: 222})
    here.engine.apply(patch).revert()
    first = here.fake.snapshot()
    registry = here.engine._registry.copy()
    for _ in range(1000):
        here.engine.apply(patch).revert()
    assert here.fake.snapshot() == first
    registry.applied = here.engine._registry.applied
    assert here.engine._registry == registry


@pytest.mark.parametrize("machine", list(Machine))
def test_more_functions_than_a_table_has_slots(machine):
    count = 1100
    here = world(machine, count=count)
    applied = here.apply({index: 70000 + index for index in range(count)})
    slots = [function.slot for function in applied.functions]
    assert len(set(slots)) == count
    assert len({slot & ~0xFFF for slot in slots}) == 3
    for index in (0, 511, 512, 1023, 1024, count - 1):
        assert here.result(index) == 70000 + index
    applied.revert()
    for index in (0, 511, 512, count - 1):
        assert here.result(index) == index


def test_two_modules_have_their_own(here):
    other = base_image(here.fake.machine, stamp=77, first=40)
    module = here.fake.load(other, 0x1_7000_0000, "other.dll")
    from .run import call

    one = here.apply({1: 111}, sequence=5)
    two = here.engine.apply(make(Recipe(other, {1: 222}, base_name="other.dll", name="otherfix.dll")))
    assert here.result(1) == 111
    assert call(here.fake, module.va + entry(1))[0] == 222
    one.revert()
    assert here.result(1) == 1
    assert call(here.fake, module.va + entry(1))[0] == 222
    two.revert()
    assert call(here.fake, module.va + entry(1))[0] == 41


def test_what_a_program_returns_into_behind_a_call_of_the_system_stays(machine):
    """On the emulator: the patch's function has the system call a function of the base, and the patch is reverted meanwhile."""
    base = base_image(machine)
    guest = Guest(base)
    engine = Engine(guest)
    applied = engine.apply(make(Recipe(base, {1: 111})))
    convention = architecture(machine).convention
    behind, callback = applied.functions[0].destination + 4, Va(guest.module.va + entry(5))
    thread = guest.spawn(Va(guest.module.va + entry(1)), 0)
    guest.step(thread, 4)
    (stands,) = guest.threads()
    assert stands.pc >= behind
    # As if its last instruction had called InitOnceExecuteOnce(once, callback, 0, 0).
    once = guest.allocate(bytes(8))
    registers = dict(zip(convention.integer_arguments, (once, callback, 0, 0), strict=False))
    if convention.link:
        registers |= {convention.link: behind, "x16": 0}  # through which the slot led into the patch
    else:
        registers |= {convention.sp: stands.sp - 8}
        guest.write_data(Va(stands.sp - 8), behind.to_bytes(8, "little"))
    gate = guest.system.gates.provided("InitOnceExecuteOnce")
    guest.set_registers(thread, registers | {convention.pc: gate})
    guest.step(thread, 1)
    (stands,) = guest.threads()
    assert callback < stands.pc < callback + STRIDE
    applied.revert()
    image = next(mapped.va for mapped in engine.snapshot().images.values())
    assert image in engine.collect().kept
    while callback <= stands.pc < callback + STRIDE:
        guest.step(thread, 1)
        (stands,) = guest.threads()
    assert (guest.fault, stands.pc) == (None, behind)
    guest.system.end_thread(guest.system.threads[thread], 0)
    assert image in engine.collect().freed
