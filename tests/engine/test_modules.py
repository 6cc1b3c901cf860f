"""Modules that come and go: patches that wait for them, what an unload leaves, and modules that come back."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import find_case
from hotpatch.cli.arguments import parse_argument
from hotpatch.emulator.memory import RegionKind
from hotpatch.engine import Consistency, PatchState, Rights
from hotpatch.errors import ApplyRefused, FaultKind, Refused, Rule
from hotpatch.patch import Moment

from .late import Late, host, images, patch_of
from .real import whole
from .steps import callback_fault


def told(late: Late, *kinds: str) -> list[str]:
    return [event.kind for event in late.process.events if event.kind in kinds]


def test_a_patch_waits_for_its_module(machine: Machine) -> None:
    late = Late("late-module", machine)
    with pytest.raises(ApplyRefused) as refused:
        late.process.apply(late.patch)
    assert refused.value.refusals[0].rule is Rule.NOT_LOADED
    applied = late.process.register(late.patch)
    assert (applied.state, applied.module, applied.functions) == (PatchState.REGISTERED, None, ())
    (waiting,) = late.process.status().registered
    assert (waiting.number, waiting.module, waiting.sequence, waiting.refusals) == (applied.number, "base.dll", 1, ())
    handle = late.load()
    assert "callback: room 4 is 0\nattach: room 4 is 0\n" in late.process.output
    assert (applied.state, applied.module) == (PatchState.APPLIED, handle)
    assert late.process.status().registered == ()
    assert late.process.call(applied.original("room"), 4) == 4711
    assert told(late, "register", "load", "apply")[1:] == ["register", "load", "apply"]


def test_nothing_of_the_module_has_run_when_its_patch_goes_in(machine: Machine) -> None:
    late = Late("late-module", machine)
    late.process.register(late.patch)
    late.load()
    at = {event.kind: event.at for event in late.process.events}
    assert at["load"] == at["apply"]
    assert late.call("looked_up") == 2


def test_a_patch_that_was_applied_comes_back_with_its_module(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    handle = late.load()
    applied = late.process.apply(late.patch)
    number = applied.number
    assert late.free(handle) == 1
    assert "detach: last step 3\n" in late.process.output  # 2 in old code, then one step of 1 in new code
    assert late.module() is None
    assert applied.state is PatchState.REGISTERED
    with pytest.raises(Refused) as gone:
        applied.original("step")
    assert gone.value.refusals[0].rule is Rule.NOT_APPLIED
    assert late.load() == handle
    assert (applied.state, applied.number, applied.module) == (PatchState.APPLIED, number, handle)
    assert late.call("step", 3) == 4
    applied.revert()
    assert late.call("step", 3) == 8
    late.free(handle)
    late.load()
    assert applied.state is PatchState.REVERTED
    assert late.call("step", 3) == 6


def test_a_registration_can_be_taken_back(machine: Machine) -> None:
    for take in (hotpatch.AppliedPatch.revert, hotpatch.AppliedPatch.reverse):
        late = Late("late-module", machine)
        applied = late.process.register(late.patch)
        take(applied)
        assert (applied.state, late.process.status().registered) == (PatchState.REVERTED, ())
        late.load()
        assert late.call("room", 4) == 4711


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, hotpatch.HotpatchError])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unload_that_the_host_interrupts_has_not_been_or_goes_on(machine: Machine, monkeypatch, failure, number: int) -> None:
    """While the engine gives back what it had mapped for the module. Where the target fails, ``collect`` does that later."""
    late = Late("unloaded-module", machine)
    handle = late.load()
    applied = late.process.apply(late.patch)
    guest, calls = late.process.guest, []
    real = guest.unmap

    def unmap(va: Va) -> None:
        calls.append(va)
        if len(calls) == number:
            raise failure("injected")
        real(va)

    monkeypatch.setattr(guest, "unmap", unmap)
    if failure is hotpatch.HotpatchError:
        late.free(handle)
    else:
        regions = guest.regions()
        with pytest.raises(failure):
            late.free(handle)
        assert guest.regions() == regions
        assert applied.state is PatchState.APPLIED
        assert late.module() is not None
        entry = late.process.address_of("base!step")
        assert late.process.status().functions[0].va == entry
        host = next(thread for thread in guest.system.threads.values() if thread.host)
        guest.kernel.step(host, 10_000)
    assert (late.module(), applied.state, len(calls) >= number) == (None, PatchState.REGISTERED, True)
    late.process.engine.collect()
    assert late.process.status().kept == ()


@pytest.mark.parametrize("place", ["watchers", "end_slice"])
@pytest.mark.parametrize("case", ["late-module", "hooks"])
def test_a_load_that_the_host_interrupts_once_it_is_patched_has_not_been(machine: Machine, monkeypatch, case: str, place: str) -> None:
    """The interrupt comes when the engine is done and the loader is not; going on loads the module again, patched, and starts it up."""
    late = Late(case, machine)
    applied = late.process.register(late.patch)
    late.api("GetModuleHandleA", b"base.dll\0")  # what the host needs for calls is mapped now
    guest = late.process.guest
    before = late.process.engine.snapshot(), guest.regions(), guest.modules(), list(late.process.events)
    owner, name = (guest.system.watchers, "loaded") if place == "watchers" else (guest.system, "end_slice")
    real = getattr(owner, name)

    def interrupted(*modules: object) -> None:
        real(*modules)
        if applied.state is PatchState.APPLIED:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        late.load()
    assert (late.process.engine.snapshot(), guest.regions(), guest.modules(), list(late.process.events)) == before
    host = next(thread for thread in guest.system.threads.values() if thread.host)
    guest.kernel.step(host, 10_000)
    module = late.module()
    assert module is not None
    assert (applied.state, applied.module) == (PatchState.APPLIED, module.va)
    assert late.call("stored" if case == "hooks" else "room", 4) == 0


def test_a_process_is_clean_after_each_of_many_unloads(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    applied = late.process.register(late.patch)

    def round_trip() -> tuple[object, ...]:
        handle = late.load()
        assert late.call("step", 3) == 4
        late.free(handle)
        regions = [(region.va, region.size) for region in late.process.guest.regions()]
        return regions, late.process.guest.modules(), late.process.engine.snapshot(), late.process.guest.system.loading

    first = round_trip()
    assert applied.state is PatchState.REGISTERED
    for _ in range(20):
        assert round_trip() == first
    assert late.process.status().kept == ()
    registry = late.process.engine.snapshot()
    assert not (registry.sites or registry.images or registry.tables or registry.slots or registry.trampolines or registry.chunks)


def test_a_module_that_comes_elsewhere_is_patched_there(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    applied = late.process.register(late.patch)
    first = late.load()
    late.free(first)
    late.process.guest.system.memory.map(first, 0x1000, Rights.READ, RegionKind.HOST, "in the way")
    second = late.load()
    assert second != first
    assert (applied.module, late.call("step", 3)) == (second, 4)


# refused at load --------------------------------------------------------------------------------------------------------------------------


def test_another_build_is_loaded_unpatched_and_that_is_told(machine: Machine, tmp_path: Path) -> None:
    fixed = tmp_path / "base.dll"
    shutil.copy(find_case("late-module").image(machine, "fixed"), fixed)
    late = Late("late-module", machine, hotpatch.open(fixed))
    applied = late.process.register(late.patch)
    handle = late.load()
    assert late.call("room", 4) == 0  # the other build's own doing
    assert [item.rule for item in late.process.refused] == [Rule.WRONG_BASE]
    assert [item.rule for item in applied.refusals] == [Rule.WRONG_BASE]
    assert [item.rule for item in late.process.status().registered[0].refusals] == [Rule.WRONG_BASE]
    assert told(late, "apply", "refused") == ["refused"]
    with pytest.raises(ApplyRefused) as refused:
        late.process.register(late.patch)
    assert refused.value.refusals[0].rule is Rule.WRONG_BASE
    late.free(handle)
    assert late.process.status().registered[0].refusals == applied.refusals


def test_a_callback_may_keep_a_patch_out_of_one_load_and_not_the_next(machine: Machine, monkeypatch) -> None:
    """The program's own data say no: ``busy`` is 0 in the file, so a byte of it is changed as the module is mapped."""
    late = Late("hooks", machine)
    applied = late.process.register(late.patch)
    busy = next(datum for datum in images("hooks", machine)[0].data_symbols if datum.name == "busy")
    system = late.process.guest.system
    real = system.watchers.loaded

    def loaded(modules):
        system.memory.write(modules[0].va + busy.rva, b"\x03")
        real(modules)

    monkeypatch.setattr(system.watchers, "loaded", loaded)
    handle = late.load()
    assert [item.rule for item in applied.refusals] == [Rule.CALLBACK_VETO]
    assert applied.state is PatchState.REGISTERED
    late.call("set_busy", 0)
    late.call("add_metres", 5)
    assert late.call("metres") == 5
    monkeypatch.undo()
    late.free(handle)
    late.load()
    assert (applied.state, applied.refusals) == (PatchState.APPLIED, ())
    late.call("add_metres", 5)
    assert late.call("metres") == 1005
    assert [item.rule for item in late.process.refused] == [Rule.CALLBACK_VETO]


def test_a_refused_load_changes_nothing_but_what_it_tells(machine: Machine, monkeypatch) -> None:
    """With the patch refused, the process is the one that it would be without any patch."""
    plain, late = Late("late-module", machine), Late("late-module", machine)
    late.process.register(late.patch)
    real = late.process.guest.find_room

    def full(*args: object, **named: object) -> object:
        named["reach"] = 0
        return real(*args, **named)

    monkeypatch.setattr(late.process.guest, "find_room", full)
    late.load()
    plain.load()
    assert [item.rule for item in late.process.refused] == [Rule.OUT_OF_REACH]
    with_patch, without = whole(late.process.guest), whole(plain.process.guest)
    assert with_patch | {"events": ()} == without | {"events": ()}


def test_a_registration_whose_load_was_refused_counts_for_what_is_applied_then(machine: Machine, monkeypatch) -> None:
    """Else the two would be registered alike at the next unload, and one of them refused at each load from then on."""
    late = Late("unloaded-module", machine)
    registered = late.process.register(late.patch)
    real = late.process.guest.find_room
    monkeypatch.setattr(late.process.guest, "find_room", lambda *args, **named: real(*args, **named | {"reach": 0}))
    handle = late.load()
    monkeypatch.undo()
    assert registered.state is PatchState.REGISTERED
    for put_in in (late.process.apply, late.process.register):
        with pytest.raises(ApplyRefused) as refused:
            put_in(late.patch)
        assert [item.rule for item in refused.value.refusals] == [Rule.SEQUENCE]
    registered.revert()
    applied = late.process.apply(late.patch)
    late.free(handle)
    late.load()
    assert (applied.state, registered.state) == (PatchState.APPLIED, PatchState.REVERTED)
    assert [item.rule for item in late.process.refused] == [Rule.OUT_OF_REACH]


# unloading in the middle ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@pytest.mark.parametrize("way", ["in", "out", "called-off"])
def test_an_unload_ends_what_waits_for_threads(machine: Machine, how: Consistency, way: str) -> None:
    """A patch on its way in is registered, one on its way out is not; no thread keeps a side, and nothing stays mapped for it."""
    late = Late("unloaded-module", machine)
    handle = late.load()
    flags = late.process.guest.thread_flags
    if way == "out":
        applied = late.process.apply(late.patch)
        thread = late.stand("step", 1)
        applied.revert(how)
    else:
        thread = late.stand("step", 1)
        applied = late.process.apply(late.patch, how)
    assert not applied.settled
    if way == "called-off":
        applied.reverse()
        assert applied.settled is (how is Consistency.QUIESCENT)
    late.hold(thread)
    late.free(handle)
    expected = {"in": PatchState.REGISTERED, "out": PatchState.REVERTED, "called-off": PatchState.REVERSED}[way]
    assert applied.state is expected
    assert late.process.engine.snapshot().transitions == {} == late.process.engine.snapshot().waiting
    for each in late.process.guest.threads():
        assert not any(late.process.guest.read(each.block + flags.start, len(flags)))
    assert late.process.engine.poll().busy is False
    late.kill(thread)
    late.load()
    assert late.call("step", 3) == (4 if way == "in" else 6)
    late.process.engine.collect()
    assert late.process.status().kept == ()


def test_an_unload_in_the_middle_tells_each_callback_what_it_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch in transition ends as called off; the one below it is reverted whole. Nothing stays mapped for either."""
    case = "state-handed-over"
    late = Late(case, machine)
    handle, guest = late.load(), late.process.guest
    other = hotpatch.open(find_case(case).image(machine, "other"))
    newer = hotpatch.build(hotpatch.diff(images(case, machine)[0], other), sequence=2)
    late.process.apply(late.patch)
    thread = late.stand("add", 1)
    applied = late.process.apply(newer, Consistency.PER_THREAD)
    assert not applied.settled
    late.hold(thread)
    inside = late.process.status().patches[0].image
    places = {
        image + callback.patch_rva: (patch.sequence, callback.moment)
        for patch, image in ((late.patch, late.process.status().patches[0].image), (newer, late.process.status().patches[1].image))
        for callback in patch.callbacks
    }
    call, made = guest.call_between, []

    def told(va: Va, arguments: Sequence[int], *, budget: int) -> int:
        made.append((*places[va], arguments[2], arguments[5]))
        return call(va, arguments, budget=budget)

    monkeypatch.setattr(guest, "call_between", told)
    assert late.free(handle) == 1
    assert made == [(2, Moment.AFTER_REVERT, 1, 1), (1, Moment.AFTER_REVERT, 0, 0)]
    assert late.process.status().kept == (inside,)


def test_an_unload_in_a_reversal_ends_it_as_called_off(machine: Machine) -> None:
    """Where a thread of either side stands, so that it is not over before."""
    late = Late("unloaded-module", machine)
    handle = late.load()
    threads = [late.stand("step", 1)]
    applied = late.process.apply(late.patch, Consistency.PER_THREAD)
    threads.append(late.stand("step", 1))
    for thread in threads:
        late.hold(thread)
    applied.reverse()
    late.call("step", 3)
    assert not applied.settled
    late.free(handle)
    assert applied.state is PatchState.REVERSED


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
def test_what_comes_back_is_reverted_in_the_way_that_it_was_to_come(machine: Machine, how: Consistency) -> None:
    late = Late("unloaded-module", machine)
    handle = late.load()
    late.hold(late.stand("step", 1))
    applied = late.process.apply(late.patch, how)
    late.free(handle)
    late.load()
    assert applied.state is PatchState.APPLIED
    late.hold(late.stand("step", 1))
    applied.revert()
    assert applied.state is PatchState.REVERTING
    assert bool(late.process.engine.snapshot().transitions) is (how is Consistency.PER_THREAD)


def test_what_a_thread_is_in_stays_until_it_has_left(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    handle = late.load()
    late.process.apply(late.patch)
    thread = late.stand("step", 1)
    image = late.process.status().patches[0].image
    late.free(handle)
    assert late.mapped(image)
    assert image in late.process.status().kept
    assert late.process.engine.collect().kept == (image,)
    handle = late.load()
    (again,) = late.process.status().patches
    assert again.image != image  # the new module's patch has data of its own
    assert late.call("step", 3) == 4
    late.kill(thread)
    late.free(handle)
    assert not late.mapped(image)
    assert not late.mapped(again.image)
    assert late.process.status().kept == ()


def test_a_thread_in_the_module_faults_as_without_a_patch(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    handle = late.load()
    thread = late.stand("step", 1)
    late.process.apply(late.patch)
    entry = late.process.address_of("base!step")
    late.free(handle)
    late.process.guest.step(thread, 1)
    fault = late.process.fault
    assert fault is not None
    assert entry < fault.pc < entry + 64


def test_a_thread_on_its_way_through_a_slot_meets_the_entry(machine: Machine) -> None:
    """It faults where it would have without a patch; its slot is nobody else's while it stands there."""
    late = Late("unloaded-module", machine)
    handle = late.load()
    late.process.apply(late.patch)
    entry, slot = late.process.address_of("base!step"), late.process.status().functions[0].slot
    assert slot is not None
    thread = late.process.spawn("base!step", 1)
    steps = 0
    while next(each.pc for each in late.process.guest.threads() if each.id == thread) != slot:
        late.process.guest.step(thread, 1)
        steps += 1
        assert steps < 100
    late.hold(thread)
    late.free(handle)
    late.hold(thread, False)
    assert slot in late.process.engine.snapshot().slots.values()
    assert late.mapped(slot)
    late.process.guest.step(thread, 4)
    fault = late.process.fault
    assert fault is not None
    assert (fault.kind, fault.pc) == (FaultKind.ACCESS_VIOLATION, entry)
    late.kill(thread)
    assert {slot - slot % 0x1000} <= set(late.process.engine.collect().freed)
    assert not late.process.engine.snapshot().slots


def test_callbacks_take_data_back_before_the_module_goes(machine: Machine) -> None:
    late = Late("hooks", machine)
    applied = late.process.register(late.patch)
    handle = late.load()
    late.call("add_metres", 5)
    assert len(late.process.guest.system.shadows) == 1
    late.free(handle)
    assert not late.process.guest.system.shadows
    assert applied.state is PatchState.REGISTERED
    assert not late.process.refused


def test_a_callback_cannot_keep_a_module(machine: Machine) -> None:
    late = Late("hooks", machine)
    applied = late.process.register(late.patch)
    handle = late.load()
    late.call("set_busy", 4)
    assert late.free(handle) == 1
    assert late.module() is None
    (refusal,) = late.process.refused
    assert refusal.rule is Rule.CALLBACK_VETO
    assert refusal.reason.endswith("its module was unloaded all the same")
    assert len(late.process.guest.system.shadows) == 1  # it was not asked to give them back, since it had said no
    assert late.load()
    assert [item.function for item in applied.refusals] == ["__hotpatch_before_apply"]  # which looks for them


def test_what_a_callback_did_goes_where_the_next_one_faults(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one attaches shadow data, which the second, if it is not run, cannot take away."""
    late = Late("hooks", machine)
    late.process.register(late.patch)
    handle = late.load()
    before, call, made = repr(late.process.guest.system.shadows), late.process.guest.call_between, []

    def second_faults(va: Va, arguments: Sequence[int], *, budget: int) -> int:
        made.append(len(late.process.guest.system.shadows))
        if len(made) == 2:
            raise callback_fault()
        return call(va, arguments, budget=budget)

    monkeypatch.setattr(late.process.guest, "call_between", second_faults)
    assert late.free(handle) == 1
    assert made == [1, 2]
    assert [refusal.rule for refusal in late.process.refused] == [Rule.CALLBACK_FAULT]
    assert repr(late.process.guest.system.shadows) == before


def test_stacked_patches_come_back_in_their_order(machine: Machine) -> None:
    found = find_case("stacked")
    base, other = hotpatch.open(found.image(machine)), hotpatch.open(found.image(machine, "other"))
    late = Late("stacked", machine)
    newer = hotpatch.build(hotpatch.diff(base, other), sequence=2)
    first, second = late.process.register(late.patch), late.process.register(newer)
    with pytest.raises(ApplyRefused) as refused:
        late.process.register(late.patch)
    assert refused.value.refusals[0].rule is Rule.SEQUENCE
    calls = [call for call in found.manifest.call if call.then is not None]

    def check(phase: str) -> None:
        for call in calls:
            assert late.process.call(f"base!{call.function}", *map(parse_argument, call.args)) == call.expected(phase), (
                phase,
                call.function,
            )

    handle = late.load()
    check("then")
    late.free(handle)
    assert [first.state, second.state] == [PatchState.REGISTERED] * 2
    handle = late.load()
    check("then")
    second.revert()
    check("popped")
    late.free(handle)
    late.load()
    check("popped")
    assert [first.state, second.state] == [PatchState.APPLIED, PatchState.REVERTED]


def test_a_patch_waits_for_a_build_and_goes_into_the_first_module_of_it(machine: Machine, tmp_path: Path) -> None:
    """Under whatever name; so that two patches for one build are in each other's way, whichever module is meant."""
    base = images("unloaded-module", machine)[0].path
    late = Late("unloaded-module", machine, *(hotpatch.open(shutil.copy(base, tmp_path / name)) for name in ("one.dll", "two.dll")))

    def steps() -> dict[str, int]:
        there = [
            module.name for module in late.process.guest.modules() if late.module(module.name) and module.name in ("one.dll", "two.dll")
        ]
        return {name: late.process.call(f"{name}!step", 3) for name in there}

    applied = late.process.register(late.patch)
    first, _ = late.load(b"one.dll\0"), late.load(b"two.dll\0")
    assert (applied.module, steps()) == (first, {"one.dll": 4, "two.dll": 6})
    late.free(first)
    assert (applied.state, steps()) == (PatchState.REGISTERED, {"two.dll": 10})
    for put_in in (late.process.apply, late.process.register):
        with pytest.raises(ApplyRefused) as refused:
            put_in(late.patch)
        assert [item.rule for item in refused.value.refusals] == [Rule.SEQUENCE]
    again = late.load(b"one.dll\0")
    assert (applied.module, steps()) == (again, {"two.dll": 14, "one.dll": 4})
    applied.revert()
    moved = late.process.apply(late.patch)
    assert (moved.module, steps()) == (late.module("two.dll").va, {"two.dll": 17, "one.dll": 8})


# several processes ------------------------------------------------------------------------------------------------------------------------


def test_two_instances_of_a_program_are_patched_differently(machine: Machine) -> None:
    found = find_case("superseded")
    base, fixed, other = (hotpatch.open(found.image(machine, side)) for side in ("base", "fixed", "other"))
    first, second = (hotpatch.build(hotpatch.diff(base, image), sequence=n) for n, image in enumerate((fixed, other), 1))
    one, two, plain = (hotpatch.Process(base) for _ in range(3))
    calls = [(call.function, tuple(map(int, call.args)), call) for call in found.manifest.call]

    def results(process: hotpatch.Process) -> list[int]:
        start = process.snapshot()
        found = [process.call(function, *args) for function, args, _ in calls]
        process.restore(start)
        return found

    old = results(plain)
    applied = one.apply(first)
    changed = results(one)
    assert changed != old
    assert results(two) == old
    two.apply(second)
    newest = results(two)
    assert newest != changed
    assert (results(one), results(plain)) == (changed, old)
    applied.revert()
    assert (results(one), results(two)) == (old, newest)
    assert [len(process.status().patches) for process in (one, two, plain)] == [0, 1, 0]


def test_two_processes_load_one_file_patched_and_not(machine: Machine) -> None:
    one, two = Late("late-module", machine), Late("late-module", machine)
    one.process.register(one.patch)
    assert one.load() == two.load()
    assert [one.call("room", 4), two.call("room", 4)] == [0, 4711]


def test_snapshots_take_loads_along(machine: Machine) -> None:
    late = Late("unloaded-module", machine)
    applied = late.process.register(late.patch)
    before = late.process.snapshot()
    handle = late.load()
    loaded = late.process.snapshot()
    assert late.call("step", 3) == 4
    late.free(handle)
    late.process.restore(loaded)
    assert (applied.state, late.call("step", 3)) == (PatchState.APPLIED, 4)
    late.process.restore(before)
    assert (applied.state, late.module()) == (PatchState.REGISTERED, None)
    assert late.load() == handle
    assert late.call("step", 3) == 4


def test_a_program_that_never_loads_it_runs_unpatched(machine: Machine) -> None:
    process = hotpatch.Process(host(machine), available=images("late-module", machine), args=["no.dll"])
    process.register(patch_of("late-module", machine))
    process.start()
    assert process.run().exit_code == 2
    assert len(process.status().registered) == 1


# at length --------------------------------------------------------------------------------------------------------------------------------


class Model:
    """What the process of :class:`Late` must do: the meter's reading, and whether a step counts one too many."""

    def __init__(self, late: Late) -> None:
        self.late, self.references, self.reading = late, 0, 0
        self.applied: hotpatch.AppliedPatch | None = None
        self.inside: list[int] = []

    def count(self, units: int) -> int:
        self.reading += units + (self.applied is None)
        return self.reading

    def load(self) -> None:
        assert self.late.load()
        self.references += 1
        if self.references == 1:
            self.reading = 0
            self.count(1)

    def free(self) -> None:
        module = self.late.module()
        assert self.late.free(module.va if module else 0x7FF0_0000_0000) == (self.references > 0)
        self.references = max(self.references - 1, 0)

    def step(self) -> None:
        if self.references:
            assert self.late.call("step", 7) == self.count(7)

    def patch(self) -> None:
        """By ``apply`` or ``register``, in any way of changing over; where a thread is inside, at once, so that the model stays simple."""
        if self.applied is None:
            at_once = self.inside or self.late.redirect is not Redirect.HPAT
            how = Consistency.IMMEDIATE if at_once else list(Consistency)[self.reading % 3]
            self.applied = self.late.process.register(self.late.patch, how)
            assert self.applied.settled

    def revert(self) -> None:
        if self.applied is not None:
            self.late.process.revert(self.applied, Consistency.IMMEDIATE)
            self.applied = None

    def enter(self) -> None:
        """A thread that has begun a step and never goes on."""
        if self.references and len(self.inside) < 3:
            thread = self.late.stand("step", 1)
            self.late.hold(thread)
            self.inside.append(thread)
            self.reading = self.read()

    def read(self) -> int:
        """The reading as it is, whatever the thread that was stopped has done of its step."""
        reading = next(datum for datum in images("unloaded-module", self.late.machine)[0].data_symbols if datum.name == "reading")
        module = self.late.module()
        assert module is not None
        return self.late.process.guest.system.read_word(module.va + reading.rva) & 0xFFFF_FFFF

    def leave(self) -> None:
        if self.inside:
            self.late.kill(self.inside.pop())

    def collect(self) -> None:
        self.late.process.engine.collect()

    def check(self) -> None:
        status = self.late.process.status()
        assert bool(self.late.module()) is bool(self.references)
        assert len(status.patches) == (self.applied is not None and self.references > 0)
        assert len(status.registered) == (self.applied is not None and not self.references)
        assert not self.late.process.refused
        if not self.references:
            registry = self.late.process.engine.snapshot()
            assert not (registry.sites or registry.images or registry.slots or registry.trampolines or registry.chunks)
            if not self.inside:
                self.collect()
                assert self.late.process.status().kept == ()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("redirect", Redirect)
def test_any_order_of_loads_unloads_patches_and_threads(machine: Machine, redirect: Redirect, seed: int) -> None:
    rng = random.Random(seed)
    late = Late("unloaded-module", machine)
    late.redirect = redirect
    model = Model(late)
    operations = [
        model.load,
        model.load,
        model.free,
        model.free,
        model.step,
        model.step,
        model.patch,
        model.revert,
        model.enter,
        model.leave,
    ]
    done: list[str] = []
    for _ in range(80):
        operation = rng.choice(operations)
        done.append(operation.__name__)
        try:
            operation()
            model.check()
        except AssertionError as error:
            raise AssertionError(f"after {done}") from error
