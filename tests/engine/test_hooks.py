"""Somebody else's jump at the entry of a short function, on the emulator."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.cases import find_case

HOOKS = {Machine.X64: bytes.fromhex("eb0e"), Machine.ARM64: bytes.fromhex("04000014")}


@pytest.mark.parametrize("machine", Machine)
def test_a_hook_on_a_short_function_is_told_as_one(machine: Machine) -> None:
    case, hook = find_case("basic"), HOOKS[machine]
    base = hotpatch.open(case.image(machine))
    patch = hotpatch.build(hotpatch.diff(base, hotpatch.open(case.image(machine, "fixed"))))
    process = hotpatch.Process(base)
    entry = process.address_of("clamp")
    process.guest.write_code(entry, process.guest.read(entry, len(hook)), hook)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(patch)
    assert [item.rule for item in refused.value.refusals] == [hotpatch.Rule.FOREIGN_HOOK]
    assert refused.value.refusals[0].evidence["jump_target"] == Va(entry + 16)


@pytest.mark.parametrize("machine", Machine)
def test_a_thread_on_its_way_through_a_redirect_is_in_the_function(machine: Machine) -> None:
    case = find_case("basic")
    base = hotpatch.open(case.image(machine))
    process = hotpatch.Process(base)
    applied = process.apply(hotpatch.build(hotpatch.diff(base, hotpatch.open(case.image(machine, "fixed")))))
    process.spawn("clamp", 1)
    slot = applied.functions[0].slot
    while process.position is None or process.position[1] != slot:
        assert process.run(1).instructions < 10
    assert [view.function for view in process.stop_view()] == ["clamp"]
