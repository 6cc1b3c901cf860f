"""Many functions, many threads, many cycles; memory that is free just within and just beyond reach."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from mmap import mmap
from typing import TypeVar

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import Region, RegionKind
from hotpatch.engine import Consistency, Engine, PatchState, Rights
from hotpatch.engine.hpat import TABLE_SIZE
from hotpatch.engine.locate import Locator
from hotpatch.engine.registry import Registry
from hotpatch.errors import ApplyRefused, Rule
from hotpatch.image.model import SectionFlags

from .conftest import LOAD, World, world
from .late import images, patch_of
from .real import whole
from .run import call
from .synthetic import STRIDE, Recipe, base_image, entry, make

Result = TypeVar("Result")
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


CALLS = {Machine.X64: (275, 150), Machine.ARM64: (195, 100)}
"""Calls of Python functions for each function of a patch that is applied for the first time, and reverted: a tenth more than were counted
when ``docs/benchmarks.md`` told 46 and 35 µs for them, of which there may be 50."""


def calls(deed: Callable[[], Result]) -> tuple[int, Result]:
    """How many calls of functions something takes, those in C among them, which is the same on every machine; what came of it."""
    made = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        result = deed()
    finally:
        sys.setprofile(None)
    return made, result


@pytest.mark.parametrize("machine", list(Machine))
def test_the_work_for_each_function_does_not_grow(machine: Machine) -> None:
    rows = []
    for functions in (MOST // 50, MOST // 5):
        base = base_image(machine, count=functions)
        engine, patch = Engine(Guest(base)), make(Recipe(base, {index: MOST + index for index in range(functions)}))
        applying, applied = calls(partial(engine.apply, patch))
        reverting, _ = calls(applied.revert)
        rows.append((applying / functions, reverting / functions))
    assert all(many <= few * 1.02 for few, many in zip(*rows, strict=True)), rows
    assert all(many <= most for many, most in zip(rows[1], CALLS[machine], strict=True)), rows


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


@pytest.mark.parametrize(
    ("machine", "model", "cycles"),
    [
        (Machine.X64, Consistency.IMMEDIATE, 2),
        (Machine.X64, Consistency.QUIESCENT, 2),
        (Machine.X64, Consistency.PER_THREAD, 2),
        (Machine.ARM64, Consistency.PER_THREAD, 2),
        *(pytest.param(*both, 40, marks=pytest.mark.exhaustive) for both in product(Machine, Consistency)),
    ],
)
def test_cycles_among_running_threads_do_not_grow(machine: Machine, model: Consistency, cycles: int) -> None:
    """64 workers call the function all the time, and go on until they have done what they were to do."""
    process = hotpatch.Process(images("many-threads", machine)[0], consistency=model)
    guest, patch, pristine = process.guest, patch_of("many-threads", machine), images("many-threads", machine)[0].mapped
    for number in range(THREADS):
        process.spawn("worker", number)
    process.run(3000)
    stands, ran = [], []
    for _ in range(cycles):
        before = {thread.id: thread.executed for thread in guest.system.threads.values()}
        applied = process.apply(patch)
        assert process.wait(applied) is PatchState.APPLIED
        process.run(100)
        applied.revert()
        assert process.wait(applied) is PatchState.REVERTED
        process.run(100)
        assert not process.finished
        registry = engine_of(process)
        assert not registry.waiting and not registry.transitions
        regions = [(region.va, region.size, region.rights) for region in guest.system.memory.regions() if region.kind is RegionKind.HOST]
        stands.append((registry, regions, guest.modules()))
        ran.append(sum(thread.executed > before[thread.id] for thread in guest.system.threads.values()))
        assert not any(
            guest.read(Va(thread.block + guest.thread_flags.start), len(guest.thread_flags)).strip(b"\0") for thread in guest.threads()
        )
    assert stands == stands[:1] * cycles
    assert max(ran) > (0 if model is Consistency.IMMEDIATE else 1)
    process.run()
    assert process.fault is None
    workers = [thread for thread in guest.system.threads.values() if not thread.host]
    assert [thread.exit_code for thread in workers] == list(range(THREADS))
    assert not process.engine.collect().kept
    code = next(section.range for section in process.base.sections if section.flags & SectionFlags.EXECUTE)
    assert guest.read(Va(guest.module.va + code.start), code.end - code.start) == pristine[code.start : code.end]


def engine_of(process: hotpatch.Process) -> Registry:
    """What the engine knows, but for how often it has been asked."""
    return replace(process.engine.snapshot(), applied=0)


# reach -----------------------------------------------------------------------------------------------------------------------------------


class Emulated(World):
    """As :class:`World`, on the emulator: what is reserved is a region without rights and without host memory."""

    fake: Guest

    def result(self, index: int) -> int:
        return self.run(self.entry(index))

    def run(self, va: int) -> int:
        return self.fake.call(Va(va), (), budget=100).value

    def reserve(self, va: int, size: int) -> None:
        memory = self.fake.system.memory
        assert memory.free(va, size)
        at = bisect_right(memory._starts, va)
        memory._starts.insert(at, va)
        memory._regions.insert(at, Region(va, size, Rights.NONE, RegionKind.ALLOCATION, "reserved", va, mmap(-1, PAGE), 0))

    def taken(self) -> list[tuple[int, int]]:
        return [(region.va, region.end) for region in self.fake.system.memory.regions()]

    def snapshot(self) -> object:
        return whole(self.fake)


class Made(World):
    """A fake process, with the same names."""

    def run(self, va: int) -> int:
        return call(self.fake, va)[0]

    def reserve(self, va: int, size: int) -> None:
        self.fake.reserve(va, size)

    def taken(self) -> list[tuple[int, int]]:
        return [(block.va, block.end) for block in self.fake.blocks.values()]

    def snapshot(self) -> object:
        return self.fake.snapshot()


Placed = Made | Emulated
each_target = pytest.mark.parametrize("place", [Made, Emulated])


def placed(place: type[Placed], machine: Machine, load: int = LOAD, count: int = 8) -> Placed:
    if place is Made:
        here = world(machine, load=load, count=count)
        return Made(here.fake, here.engine, here.base, here.module)
    base = base_image(machine, count=count)
    guest = Guest(base, load_base=Va(load))
    guest.call(Va(guest.module.va + entry(0)), (), budget=100)  # what the host needs for calls is mapped now
    return Emulated(guest, Engine(guest), base, guest.module)


def full_but(here: Placed, *holes: tuple[int, int]) -> None:
    """Take all address space but ``holes`` (start, size) and what is taken already."""
    at = PAGE
    for start, end in sorted([*((start, start + size) for start, size in holes), *here.taken()]):
        if at < start:
            here.reserve(at, start - at)
        at = max(at, end)
    if at < TOP:
        here.reserve(at, TOP - at)


def last_page(near: int, reach: int, size: int) -> int:
    """The highest page from which ``size`` bytes all lie within ``reach`` above ``near``."""
    return (near + reach + 1 - size) // PAGE * PAGE


def image_size(here: Placed) -> int:
    size = here.patch({1: 111}).image.size_of_image
    return -(-size // PAGE) * PAGE


def near_holes(here: Placed) -> tuple[tuple[int, int], ...]:
    """Room for the slots and the trampolines right behind the module."""
    end = here.module.va + here.module.size
    return ((end, TABLE_SIZE), (end + 0x10_0000, PAGE))


@each_target
def test_slots_at_the_last_place_within_reach_and_one_page_beyond(machine: Machine, place: type[Placed]) -> None:
    for beyond in (0, PAGE):
        here = placed(place, machine)
        reach = architecture(machine).branch_reach
        wanted = last_page(here.entry(1), reach, TABLE_SIZE) + beyond
        full_but(here, (here.module.va - 0x10_0000, PAGE), (here.module.va - 0x20_0000, image_size(here)), (wanted, TABLE_SIZE))
        before = here.snapshot()
        if beyond:
            with pytest.raises(ApplyRefused) as refused:
                here.apply({1: 111})
            assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
            assert here.snapshot() == before
        else:
            applied = here.apply({1: 111})
            assert applied.functions[0].slot == wanted
            assert here.result(1) == 111


@each_target
def test_a_patch_image_at_the_last_place_within_reach_above(machine: Machine, place: type[Placed]) -> None:
    here = placed(place, machine)
    reach, size = architecture(machine).branch_reach, image_size(here)
    wanted = last_page(here.entry(1), reach, size)
    full_but(here, *near_holes(here), (wanted, size))
    here.apply({1: 111}, calls_base=(1, 2))
    assert here.engine.status().patches[0].image == wanted
    assert here.result(1) == 2


@each_target
def test_a_patch_image_at_the_last_place_within_reach_below_and_one_page_beyond(machine: Machine, place: type[Placed]) -> None:
    """Of the function that is farthest from it, three pages on. Beyond, there is no room for veneers."""
    last = 199
    for beyond in (0, PAGE):
        here = placed(place, machine, load=0x4_0000_0000, count=last + 1)
        reach, size = architecture(machine).branch_reach, image_size(here)
        wanted = -(-(here.entry(last) - reach) // PAGE) * PAGE - beyond
        full_but(here, *near_holes(here), (wanted, size))
        before = here.snapshot()
        if beyond:
            with pytest.raises(ApplyRefused) as refused:
                here.apply({1: 111}, calls_base=(1, last))
            assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
            assert here.snapshot() == before
        else:
            here.apply({1: 111}, calls_base=(1, last))
            assert here.engine.status().patches[0].image == wanted
            assert here.result(1) == last


@each_target
def test_a_patch_image_beyond_reach(machine: Machine, place: type[Placed]) -> None:
    """Arm64: it branches through veneers, and its trampolines may lie as far away. x64 has no farther reach: refused, nothing changed."""
    here = placed(place, machine)
    arch = architecture(machine)
    end = here.module.va + here.module.size
    far = last_page(here.entry(1), arch.branch_reach, image_size(here)) + PAGE
    full_but(here, (end, TABLE_SIZE), (far, image_size(here) + 2 * PAGE))
    before = here.snapshot()
    if arch.veneer_reach == arch.branch_reach:
        with pytest.raises(ApplyRefused) as refused:
            here.apply({1: 111}, calls_base=(1, 2))
        assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
        assert here.snapshot() == before
        return
    applied = here.apply({1: 111}, calls_base=(1, 2))
    assert here.engine.status().patches[0].image == far + PAGE
    assert here.result(1) == 2
    original = applied.original("f1")
    assert original == far
    assert here.run(original) == 1
    ((veneer, leads_to),) = here.engine.snapshot().images[next(iter(here.engine.snapshot().images))].veneers
    located = Locator(here.engine.snapshot()).locate(veneer, here.fake.modules())
    assert leads_to == here.entry(2)
    assert located is not None
    assert (located.image, located.original) == (here.base, here.entry(2))
    applied.revert()
    assert here.result(1) == 1
    assert not here.engine.collect().kept


@each_target
def test_a_patch_image_at_the_last_place_that_veneers_reach_and_one_page_beyond(place: type[Placed]) -> None:
    arch = architecture(Machine.ARM64)
    for beyond in (0, PAGE):
        here = placed(place, Machine.ARM64)
        size = image_size(here) + PAGE
        wanted = last_page(here.module.va, arch.veneer_reach, size) + beyond
        full_but(here, *near_holes(here), (wanted, size))
        before = here.snapshot()
        if beyond:
            with pytest.raises(ApplyRefused) as refused:
                here.apply({1: 111}, calls_base=(1, 2))
            assert [refusal.rule for refusal in refused.value.refusals] == [Rule.OUT_OF_REACH]
            assert here.snapshot() == before
        else:
            here.apply({1: 111}, calls_base=(1, 2))
            assert here.engine.status().patches[0].image == wanted
            assert here.result(1) == 2
