"""Many functions, many threads, many cycles; memory that is free just within and just beyond reach."""

from __future__ import annotations

from itertools import product

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.emulator.guest import Guest
from hotpatch.engine import Engine
from hotpatch.engine.hpat import TABLE_SIZE
from hotpatch.engine.locate import Locator
from hotpatch.errors import ApplyRefused, Rule

from .conftest import World, world
from .real import whole
from .run import call
from .synthetic import STRIDE, Recipe, base_image, entry, make

PAGE = 0x1000
MOST = 10_000
THREADS = 64
CYCLES = 1000
TOP = 0x7FFF_0000_0000


@pytest.mark.parametrize("machine", list(Machine))
def test_ten_thousand_functions_in_one_patch(machine: Machine) -> None:
    base = base_image(machine, count=MOST)
    guest = Guest(base)
    engine = Engine(guest)
    before = whole(guest)
    applied = engine.apply(make(Recipe(base, {index: MOST + index for index in range(MOST)})))
    tried = (0, 1, 511, 512, MOST // 2, MOST - 1)

    def results() -> list[int]:
        return [guest.call(Va(guest.module.va + entry(index)), (), budget=100).value for index in tried]

    assert results() == [MOST + index for index in tried]
    applied.revert()
    assert results() == list(tried)
    assert not engine.collect().kept
    assert whole(guest)["modules"] == before["modules"]
    text = (guest.module.va, STRIDE * MOST)
    assert [region for region in whole(guest)["memory"] if region[0] in text] == [
        region for region in before["memory"] if region[0] in text
    ]
    assert engine.snapshot().images == {} and engine.snapshot().trampolines == {} and engine.snapshot().tables == ()


@pytest.mark.parametrize(
    ("machine", "strategy"),
    [
        pytest.param(machine, strategy, marks=() if strategy is Redirect.HPAT else pytest.mark.exhaustive)
        for machine, strategy in product(Machine, Redirect)
    ],
)
def test_a_thousand_cycles_leave_the_process_as_the_first_did(machine: Machine, strategy: Redirect) -> None:
    """With 64 threads under way, each inside of a function that is patched."""
    base = base_image(machine)
    guest = Guest(base)
    engine = Engine(guest)
    for number in range(THREADS):
        thread = guest.spawn(Va(guest.module.va + entry(number % 4)), 0)
        assert guest.step(thread, 1 + number % 2) == 1 + number % 2
    patch = make(Recipe(base, {index: 100 + index for index in range(4)}, redirect=strategy))
    engine.apply(patch).revert()
    first, registry = whole(guest), engine.snapshot().copy()
    for _ in range(CYCLES):
        engine.apply(patch).revert()
        guest.system.events.clear()
    registry.applied += CYCLES
    assert engine.snapshot() == registry
    assert whole(guest) | {"events": first["events"]} == first
    guest.run(guest.instructions + 100 * THREADS)
    assert guest.fault is None
    assert [thread.exit_code for thread in guest.system.threads.values() if not thread.host] == [number % 4 for number in range(THREADS)]
    assert not engine.collect().kept


# reach -----------------------------------------------------------------------------------------------------------------------------------


def full_but(here: World, *holes: tuple[int, int]) -> None:
    """Take all address space but ``holes`` (start, size)."""
    at = PAGE
    for start, size in sorted(holes):
        here.fake.reserve(at, start - at)
        at = start + size
    here.fake.reserve(at, TOP - at)


def last_page(near: int, reach: int, size: int) -> int:
    """The highest page from which ``size`` bytes all lie within ``reach`` above ``near``."""
    return (near + reach + 1 - size) // PAGE * PAGE


def image_size(here: World) -> int:
    size = here.patch({1: 111}).image.size_of_image
    return -(-size // PAGE) * PAGE


def near_holes(here: World) -> tuple[tuple[int, int], ...]:
    """Room for the slots and the trampolines right behind the module."""
    end = here.module.va + here.module.size
    return ((end, TABLE_SIZE), (end + 0x10_0000, PAGE))


def test_slots_at_the_last_place_within_reach_and_one_page_beyond(machine: Machine) -> None:
    for beyond in (0, PAGE):
        here = world(machine)
        reach = architecture(machine).branch_reach
        place = last_page(here.entry(1), reach, TABLE_SIZE) + beyond
        full_but(here, (here.module.va - 0x10_0000, PAGE), (here.module.va - 0x20_0000, image_size(here)), (place, TABLE_SIZE))
        before = here.fake.snapshot()
        if beyond:
            with pytest.raises(ApplyRefused) as refused:
                here.apply({1: 111})
            assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
            assert here.fake.snapshot() == before
        else:
            applied = here.apply({1: 111})
            assert applied.functions[0].slot == place
            assert here.result(1) == 111


def test_a_patch_image_at_the_last_place_within_reach_above(machine: Machine) -> None:
    here = world(machine)
    reach, size = architecture(machine).branch_reach, image_size(here)
    place = last_page(here.entry(1), reach, size)
    full_but(here, *near_holes(here), (place, size))
    here.apply({1: 111}, calls_base=(1, 2))
    assert here.engine.status().patches[0].image == place
    assert here.result(1) == 2


def test_a_patch_image_at_the_last_place_within_reach_below(machine: Machine) -> None:
    here = world(machine, load=0x40_0000_0000)
    reach, size = architecture(machine).branch_reach, image_size(here)
    place = -(-(here.entry(2) - reach) // PAGE) * PAGE
    full_but(here, *near_holes(here), (place, size))
    here.apply({1: 111}, calls_base=(1, 2))
    assert here.engine.status().patches[0].image == place
    assert here.result(1) == 2


def test_a_patch_image_beyond_reach(machine: Machine) -> None:
    """Arm64: it branches through veneers, and its trampolines may lie as far away. x64 has no farther reach: refused, nothing changed."""
    here = world(machine)
    arch = architecture(machine)
    end = here.module.va + here.module.size
    far = last_page(here.entry(1), arch.branch_reach, image_size(here)) + PAGE
    full_but(here, (end, TABLE_SIZE), (far, image_size(here) + 2 * PAGE))
    before = here.fake.snapshot()
    if arch.veneer_reach == arch.branch_reach:
        with pytest.raises(ApplyRefused) as refused:
            here.apply({1: 111}, calls_base=(1, 2))
        assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
        assert here.fake.snapshot() == before
        return
    applied = here.apply({1: 111}, calls_base=(1, 2))
    assert here.engine.status().patches[0].image == far + PAGE
    assert here.result(1) == 2
    original = applied.original("f1")
    assert original == far
    assert call(here.fake, original)[0] == 1
    ((veneer, leads_to),) = here.engine.snapshot().images[next(iter(here.engine.snapshot().images))].veneers
    located = Locator(here.engine.snapshot()).locate(veneer, here.fake.modules())
    assert leads_to == here.entry(2)
    assert located is not None
    assert (located.image, located.original) == (here.base, here.entry(2))
    applied.revert()
    assert here.result(1) == 1
    assert not here.engine.collect().kept


def test_a_patch_image_at_the_last_place_that_veneers_reach_and_one_page_beyond() -> None:
    arch = architecture(Machine.ARM64)
    for beyond in (0, PAGE):
        here = world(Machine.ARM64)
        size = image_size(here) + PAGE
        place = last_page(here.module.va, arch.veneer_reach, size) + beyond
        full_but(here, *near_holes(here), (place, size))
        before = here.fake.snapshot()
        if beyond:
            with pytest.raises(ApplyRefused) as refused:
                here.apply({1: 111}, calls_base=(1, 2))
            assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
            assert here.fake.snapshot() == before
        else:
            here.apply({1: 111}, calls_base=(1, 2))
            assert here.engine.status().patches[0].image == place
            assert here.result(1) == 2
