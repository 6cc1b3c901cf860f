"""Applying and reverting: what is written, in which order, and what runs."""

from __future__ import annotations

import json

import pytest

from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, Machine, Redirect, architecture
from hotpatch.engine import PatchState, Rights, Stacking
from hotpatch.errors import ApplyRefused, Rule

from .conftest import World, world
from .run import call
from .synthetic import entry

STRATEGIES = [(machine, strategy) for machine in Machine for strategy in Redirect]
INSTRUCTIONS = {
    (Machine.X64, Redirect.HPAT): 3,
    (Machine.X64, Redirect.DIRECT): 2,
    (Machine.X64, Redirect.INLINE): 1,
    (Machine.ARM64, Redirect.HPAT): 3,
    (Machine.ARM64, Redirect.DIRECT): 1,
    (Machine.ARM64, Redirect.INLINE): 1,
}
"""Extra instructions of a redirected call."""


@pytest.mark.parametrize("load", [0x1_4000_0000, 0x1_5000_0000, 0x7FF6_1234_0000])
@pytest.mark.parametrize(("machine", "strategy"), STRATEGIES)
def test_before_patched_reverted_and_again(machine, strategy, load):
    here = world(machine, load, absolute=machine is Machine.X64)
    pristine = bytes(here.fake.blocks[load].memory)
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2, 3]
    for round_ in range(2):
        applied = here.apply({1: 111, 2: 70222}, redirect=strategy)
        assert [here.result(index) for index in (1, 2, 3)] == [111, 70222, 3], round_
        assert call(here.fake, applied.original("f1"))[0] == 1
        assert call(here.fake, applied.original(here.engine.status().functions[1].rva))[0] == 2
        applied.revert()
        assert [here.result(index) for index in (1, 2, 3)] == [1, 2, 3], round_
        assert bytes(here.fake.blocks[load].memory) == pristine


@pytest.mark.parametrize(("machine", "strategy"), STRATEGIES)
def test_cost_of_a_redirected_call_is_as_documented(machine, strategy):
    here = world(machine)
    here.apply({1: 111}, redirect=strategy)
    _, trail = call(here.fake, here.entry(1))
    new = here.engine.status().functions[0].destination
    assert trail.index(new) == INSTRUCTIONS[machine, strategy]


def test_relocated_entry_bytes_are_expected_as_the_loader_left_them():
    here = world(Machine.X64, 0x7FF6_0000_0000, absolute=True)
    original = here.result(0)
    applied = here.apply({0: 5})
    assert here.result(0) == 5
    assert call(here.fake, applied.original("f0"))[0] == original == 0x7FF6_0000_0123


def test_x64_hpat_bytes():
    here = world(Machine.X64)
    here.apply({1: 111})
    start, function = here.entry(1), here.engine.status().functions[0]
    slot = function.slot
    assert slot >= here.module.va + here.module.size
    assert here.bytes_at(start, 2) == b"\xeb\xf9"
    assert here.bytes_at(start - 5, 5) == b"\xe9" + (slot - start).to_bytes(4, "little")
    assert here.bytes_at(slot, 6) == bytes.fromhex("ff25fa0f0000")
    assert here.bytes_at(slot + HPAT_POINTER_DISTANCE, 8) == function.destination.to_bytes(8, "little")


def test_arm64_hpat_bytes():
    here = world(Machine.ARM64)
    here.apply({1: 111})
    start, function = here.entry(1), here.engine.status().functions[0]
    slot = function.slot
    assert here.bytes_at(start, 4) == (0x14000000 | (slot - start) >> 2).to_bytes(4, "little")
    assert here.bytes_at(slot, 8) == bytes.fromhex("1080005800021fd6")
    assert here.bytes_at(slot + HPAT_POINTER_DISTANCE, 8) == function.destination.to_bytes(8, "little")


class Recorder:
    """Calls of the target's changing methods, in order."""

    def __init__(self, here: World):
        self.log: list[tuple[str, int]] = []
        for name in ("write_code", "write_data", "map", "unmap", "set_registers", "add_module"):
            self._wrap(here.fake, name)

    def _wrap(self, fake, name):
        method = getattr(fake, name)

        def recorded(*args, **kwargs):
            self.log.append((name, args[0]))
            return method(*args, **kwargs)

        setattr(fake, name, recorded)


@pytest.mark.parametrize(("machine", "strategy"), STRATEGIES)
def test_entries_are_written_last(machine, strategy):
    here = world(machine)
    patch = here.patch({1: 111, 2: 222}, redirect=strategy)
    log = Recorder(here).log
    here.engine.apply(patch)
    assert log[-2:] == [("write_code", here.entry(1)), ("write_code", here.entry(2))]


@pytest.mark.parametrize(("machine", "strategy"), STRATEGIES)
def test_reverting_writes_entries_first(machine, strategy):
    here = world(machine)
    applied = here.apply({1: 111, 2: 222}, redirect=strategy)
    log = Recorder(here).log
    applied.revert()
    assert log[:2] == [("write_code", here.entry(1)), ("write_code", here.entry(2))]


def test_superseding_with_hpat_writes_pointers_and_no_code(here):
    first = here.apply({1: 111})
    patch = here.patch({1: 1111}, sequence=2, name="second.dll")
    log = Recorder(here).log
    second = here.engine.apply(patch)
    assert not [va for name, va in log if name == "write_code"]
    assert log[-1] == ("write_data", first.functions[0].slot + HPAT_POINTER_DISTANCE)
    assert here.result(1) == 1111
    assert first.state is PatchState.SUPERSEDED
    assert second.state is PatchState.APPLIED
    log.clear()
    second.revert()
    assert [name for name, _ in log] == ["write_data"]
    assert here.result(1) == 111
    assert first.state is PatchState.APPLIED
    assert second.state is PatchState.REVERTED


@pytest.mark.parametrize(("stacking", "first_alone"), [(Stacking.CUMULATIVE, 1), (Stacking.ADDITIONAL, 111)])
@pytest.mark.parametrize(("machine", "strategy"), STRATEGIES)
@pytest.mark.parametrize("above", list(Redirect))
def test_a_second_patch_on_top(machine, strategy, above, stacking, first_alone):
    """Function 1 only the first patch has, 2 both, 3 only the second."""
    here = world(machine)
    pristine = bytes(here.fake.blocks[here.module.va].memory)
    first = here.apply({1: 111, 2: 222}, redirect=strategy)
    second = here.apply({2: 2222, 3: 3333}, sequence=2, redirect=above, name="second.dll", stacking=stacking)
    assert [here.result(index) for index in (1, 2, 3)] == [first_alone, 2222, 3333]
    assert [function.name for function in second.functions] == ["f2", "f3"]
    assert call(here.fake, second.original("f2"))[0] == 2
    assert first.state is (PatchState.APPLIED if first_alone == 111 else PatchState.SUPERSEDED)
    second.revert()
    assert [here.result(index) for index in (1, 2, 3)] == [111, 222, 3]
    second = here.engine.apply(second.patch, stacking=stacking)
    assert [here.result(index) for index in (1, 2, 3)] == [first_alone, 2222, 3333]
    third = here.apply({1: 11111}, sequence=3, redirect=above, name="third.dll", stacking=stacking)
    assert [here.result(index) for index in (1, 2, 3)] == [11111, *((2, 3) if stacking is Stacking.CUMULATIVE else (2222, 3333))]
    third.revert()
    second.revert()
    first.revert()
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2, 3]
    assert bytes(here.fake.blocks[here.module.va].memory) == pristine


def test_giving_an_original_back_checks_its_redirect_too(here):
    here.apply({1: 111})
    patch = here.patch({2: 222}, sequence=2, name="second.dll")
    here.fake.poke(here.entry(1), here.base.read(entry(1), 4))
    before = here.fake.snapshot()
    with pytest.raises(ApplyRefused) as caught:
        here.engine.apply(patch)
    assert [(refusal.rule, refusal.function) for refusal in caught.value.refusals] == [(Rule.UNEXPECTED_BYTES, "f1")]
    assert here.fake.snapshot() == before


def test_slots_are_kept_by_function(here):
    first = here.apply({1: 111, 2: 222})
    slots = {function.rva: function.slot for function in first.functions}
    first.revert()
    second = here.apply({2: 5, 3: 6}, name="second.dll")
    found = {function.rva: function.slot for function in second.functions}
    shared = slots.keys() & found.keys()
    assert shared
    assert all(slots[rva] == found[rva] for rva in shared)
    assert len({*slots.values(), *found.values()}) == 3


def test_no_code_page_is_ever_writable(here):
    seen = []
    for name in ("write_code", "write_data", "map", "event"):
        method = getattr(here.fake, name)

        def watched(*args, method=method, **kwargs):
            result = method(*args, **kwargs)
            seen.extend(rights for block in here.fake.blocks.values() for rights in block.rights)
            return result

        setattr(here.fake, name, watched)
    here.apply({1: 111}).revert()
    here.engine.collect()
    assert seen
    assert not any(rights & Rights.WRITE and rights & Rights.EXECUTE for rights in seen)
    tables = [block for block in here.fake.blocks.values() if block.va in here.fake.owned]
    assert not tables


def test_pages_of_the_table_are_not_writable(here):
    applied = here.apply({1: 111})
    slot = applied.functions[0].slot
    rights = {region.va: region.rights for region in here.fake.regions()}
    assert rights[slot] == Rights.READ | Rights.EXECUTE
    assert rights[slot + HPAT_POINTER_DISTANCE] == Rights.READ


def test_data_and_imports_are_bound(here):
    here.fake.exports["kernel32.dll", "Sleep"] = 0x7FFE_0000_1000
    applied = here.apply({1: 111}, imports=(("kernel32.dll", "Sleep"),))
    image = here.engine.status().patches[0].image
    words = [int.from_bytes(here.bytes_at(image + 0x2000 + place, 8), "little") for place in (0, 8, 16)]
    assert words == [applied.functions[0].destination, here.entry(0) + 4, 0x7FFE_0000_1000]


def test_a_patched_function_reaches_the_base(here):
    here.apply({1: 0, 2: 222}, calls_base=(1, 2))
    assert here.result(1) == 222  # through the redirect of function 2


def test_data_of_a_patch_that_is_applied_again_keeps_its_state(here):
    applied = here.apply({1: 111})
    image = here.engine.status().patches[0].image
    here.fake.poke(image + 0x2000 + 40, b"state")
    applied.revert()
    here.engine.apply(applied.patch)
    assert here.engine.status().patches[0].image == image
    assert here.bytes_at(image + 0x2000 + 40, 5) == b"state"


def test_status_tells_what_where_and_by_which_patch(here):
    first = here.apply({1: 111})
    here.apply({1: 1111, 2: 2222}, sequence=7, name="second.dll")
    status = here.engine.status()
    assert [(patch.name, patch.sequence, patch.state, patch.functions) for patch in status.patches] == [
        ("fix.dll", 1, PatchState.SUPERSEDED, 1),
        ("second.dll", 7, PatchState.APPLIED, 2),
    ]
    assert [(row.name, row.patch, row.sequence, row.state, row.module, row.va) for row in status.functions] == [
        ("f1", 1, 1, PatchState.SUPERSEDED, "base.dll", here.entry(1)),
        ("f1", 2, 7, PatchState.APPLIED, "base.dll", here.entry(1)),
        ("f2", 2, 7, PatchState.APPLIED, "base.dll", here.entry(2)),
    ]
    assert first.functions == status.functions[:1]
    document = json.loads(json.dumps(status.document()))
    assert document["functions"][0]["redirect"] == "hpat"
    assert document["functions"][0]["waits_for"] == []


def test_events_tell_what_was_written(here):
    applied = here.apply({1: 111})
    kinds = [kind for kind, _ in here.fake.events]
    assert kinds == ["apply", "map", "map", "map", "redirect"]
    redirect = here.fake.events[-1][1]
    size = architecture(here.fake.machine).entry_site(Redirect.HPAT).displaced
    assert redirect["function"] == "f1"
    assert redirect["before"] == here.base.read(applied.functions[0].rva, size).hex()
    assert redirect["after"] == here.bytes_at(here.entry(1), size).hex()
    assert redirect["slot"] == applied.functions[0].slot
    assert redirect["original"] == applied.original("f1")
    json.dumps([details for _, details in here.fake.events])
    here.fake.events.clear()
    applied.revert()
    assert [kind for kind, _ in here.fake.events] == ["revert", "redirect"]


def test_the_patch_image_is_a_module_until_collected(here):
    applied = here.apply({1: 111})
    assert [module.name for module in here.fake.modules()] == ["base.dll", "fix.dll"]
    applied.revert()
    assert [module.name for module in here.fake.modules()] == ["base.dll", "fix.dll"]
    here.engine.collect()
    assert [module.name for module in here.fake.modules()] == ["base.dll"]


@pytest.mark.parametrize("way", ["f1", "rva:0x1040", 0x1040])
def test_original_by_name_or_rva(here, way):
    applied = here.apply({1: 111})
    assert call(here.fake, Va(applied.original(way)))[0] == 1
