"""Somebody else's jump: at an entry that is to be redirected, and over our own redirect."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import find_case
from hotpatch.emulator.memory import RegionKind
from hotpatch.engine import Consistency, PatchState, Rights
from hotpatch.engine.hpat import pointer_of
from hotpatch.errors import Rule

from .conftest import INSIDE, go
from .late import images, patch_of
from .real import whole

each_machine = pytest.mark.parametrize("machine", Machine)
each_redirect = pytest.mark.parametrize("redirect", Redirect)
SIZE = {Machine.X64: 5, Machine.ARM64: 4}
"""Bytes of a jump that a hooking library stores."""


@dataclass
class Hook:
    """A jump over an entry, to code that counts and then goes where the first instruction there went: a jump, as that is a redirect."""

    process: hotpatch.Process
    entry: Va
    before: bytes
    after: bytes
    counter: int

    @classmethod
    def over(cls, process: hotpatch.Process, entry: Va) -> Hook:
        guest = process.guest
        before = guest.read(entry, SIZE[guest.machine])
        room = (entry & -0x10000) + 0x40_0000
        memory = guest.system.memory
        counts = jumps_to(guest.machine, entry, before)
        memory.map(room + 0x1000, 0x1000, Rights.READ | Rights.WRITE, RegionKind.HOST, "hook's data")
        if guest.machine is Machine.X64:
            code = b"\xff\x05" + (0x1000 - 6).to_bytes(4, "little")  # inc dword ptr [rip + …]
        else:
            # adr x16, #0x1000; ldr w17, [x16]; add w17, w17, #1; str w17, [x16]
            code = b"".join(word.to_bytes(4, "little") for word in (0x10008010, 0xB9400211, 0x11000631, 0xB9000211))
        code += jump(guest.machine, room + len(code), counts)
        memory.map(room, 0x1000, Rights.READ | Rights.EXECUTE, RegionKind.HOST, "hook", code)
        hook = cls(process, entry, before, jump(guest.machine, entry, room), room + 0x1000)
        guest.write_code(entry, hook.before, hook.after)
        return hook

    @property
    def count(self) -> int:
        return int.from_bytes(self.process.guest.read(Va(self.counter), 4), "little")

    def remove(self) -> None:
        self.process.guest.write_code(self.entry, self.after, self.before)


def jump(machine: Machine, source: int, target: int) -> bytes:
    if machine is Machine.X64:
        return b"\xe9" + (target - source - 5).to_bytes(4, "little", signed=True)
    return (0x14000000 | (target - source) // 4 & 0x3FFFFFF).to_bytes(4, "little")


def jumps_to(machine: Machine, entry: int, code: bytes) -> int:
    """Where the jump at an entry leads, as any hooking library finds out that moves it."""
    if machine is Machine.X64 and code[0] == 0xEB:
        return entry + 2 + int.from_bytes(code[1:2], "little", signed=True)
    if machine is Machine.X64:
        assert code[0] == 0xE9
        return entry + 5 + int.from_bytes(code[1:5], "little", signed=True)
    word = int.from_bytes(code, "little")
    assert word >> 26 == 0b000101
    return entry + 4 * ((word & 0x3FFFFFF) - ((word & 0x2000000) << 1))


@dataclass
class Scene:
    process: hotpatch.Process
    applied: hotpatch.AppliedPatch
    newer: hotpatch.Patch
    entry: Va


def scene(machine: Machine, redirect: Redirect) -> Scene:
    case = find_case("superseded")
    base, fixed, other = (hotpatch.open(case.image(machine, side)) for side in ("base", "fixed", "other"))
    first = hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect)
    newer = hotpatch.build(hotpatch.diff(base, other), sequence=2, redirect=redirect)
    process = hotpatch.Process(base)
    applied = process.apply(first)
    assert next(function.redirect for function in applied.functions if function.name == "price") is redirect
    return Scene(process, applied, newer, process.address_of("price"))


@each_redirect
@each_machine
def test_a_hook_over_ours_keeps_working_until_it_goes(machine: Machine, redirect: Redirect) -> None:
    """Calls go through it to the new function; nothing can be taken back or put on top while it is there, and nothing is touched."""
    case = find_case("superseded")
    call = next(call for call in case.manifest.call if call.function == "price")
    arguments = tuple(map(int, call.args))
    here = scene(machine, redirect)
    assert here.process.call("price", *arguments) == call.expected("patched") != call.expected("before")
    hook = Hook.over(here.process, here.entry)
    assert here.process.call("price", *arguments) == call.expected("patched")
    assert hook.count == 1
    before = whole(here.process.guest)
    with pytest.raises(hotpatch.RevertRefused) as refused:
        here.applied.revert()
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.function) == (hotpatch.Rule.REDIRECT_CHANGED, "price")
    assert bytes.fromhex(refusal.evidence["found"]) == hook.after[: len(refusal.evidence["found"]) // 2]
    with pytest.raises(hotpatch.ApplyRefused) as kept_off:
        here.process.apply(here.newer)
    assert [(item.rule, item.function) for item in kept_off.value.refusals] == [(hotpatch.Rule.FOREIGN_HOOK, "price")]
    assert kept_off.value.refusals[0].evidence["jump_target"] == hook.counter - 0x1000
    assert whole(here.process.guest) == before
    assert here.applied.state == "applied"
    assert here.process.call("price", *arguments) == call.expected("patched")
    assert hook.count == 2
    hook.remove()
    assert here.process.call("price", *arguments) == call.expected("patched")
    here.applied.revert()
    assert here.process.call("price", *arguments) == call.expected("before")
    assert hook.count == 2


@each_machine
def test_a_hook_over_ours_sees_a_newer_version_through_the_slot(machine: Machine) -> None:
    """A function that only an older patch replaces is led by its slot's pointer alone: where nobody checks the entry, the hook goes along.

    Here the pointer is changed by the revert of the newer patch, which stood before the hook came.
    """
    case = find_case("superseded")
    call = next(call for call in case.manifest.call if call.function == "price")
    arguments = tuple(map(int, call.args))
    here = scene(machine, Redirect.HPAT)
    newer = here.process.apply(here.newer)
    hook = Hook.over(here.process, here.entry)
    assert here.process.call("price", *arguments) == call.expected("then")
    with pytest.raises(hotpatch.RevertRefused):
        newer.revert()
    hook.remove()
    newer.revert()
    assert here.process.call("price", *arguments) == call.expected("patched")
    assert hook.count == 1


@each_machine
def test_a_hook_over_an_entry_in_transition_is_told_and_kept(machine: Machine) -> None:
    """No thread is left to change over, but what leads through a foreign jump is not touched; once that is gone, the transition ends."""
    process = hotpatch.Process(images("superseded", machine)[0])
    thread = process.spawn("price", 1)
    process.guest.step(thread, 2)
    applied = process.apply(patch_of("superseded", machine), "per-thread")
    hook = Hook.over(process, process.address_of("price"))
    process.guest.kernel.on_slice = None
    process.guest.step(thread, 1000)
    told = process.engine.poll().refused
    assert [(refusal.rule, refusal.function) for refusal in told] == [(hotpatch.Rule.REDIRECT_CHANGED, "price")]
    assert bytes.fromhex(told[0].evidence["found"]) == hook.after[: len(told[0].evidence["found"]) // 2]
    assert (applied.state, process.engine.poll().refused) == ("in-transition", ())
    (change,) = process.status().changes
    assert change.waits_for == process.status().functions[0].waits_for == (f"price (redirect-changed): {told[0].reason}",)
    case = find_case("superseded")
    call = next(call for call in case.manifest.call if call.function == "price")
    assert process.call("price", *map(int, call.args)) == call.expected("patched")
    assert hook.count == 1
    hook.remove()
    process.engine.poll()
    assert (applied.state, process.status().changes) == ("applied", ())


# short functions --------------------------------------------------------------------------------------------------------------------------

SHORT = {Machine.X64: bytes.fromhex("eb0e"), Machine.ARM64: bytes.fromhex("04000014")}


@each_machine
def test_a_hook_on_a_short_function_is_told_as_one(machine: Machine) -> None:
    case, hook = find_case("basic"), SHORT[machine]
    base = hotpatch.open(case.image(machine))
    patch = hotpatch.build(hotpatch.diff(base, hotpatch.open(case.image(machine, "fixed"))))
    process = hotpatch.Process(base)
    entry = process.address_of("clamp")
    process.guest.write_code(entry, process.guest.read(entry, len(hook)), hook)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(patch)
    assert [item.rule for item in refused.value.refusals] == [hotpatch.Rule.FOREIGN_HOOK]
    assert refused.value.refusals[0].evidence["jump_target"] == Va(entry + 16)


@each_machine
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


@each_machine
def test_where_a_hook_ends_is_named(machine: Machine) -> None:
    """The function that it leads to; not the one that is hooked, where a relay goes back into it."""
    case = find_case("basic")
    base = hotpatch.open(case.image(machine))
    patch = hotpatch.build(hotpatch.diff(base, hotpatch.open(case.image(machine, "fixed"))))
    for back in (False, True):
        process = hotpatch.Process(base)
        entry, other = process.address_of("clamp"), process.address_of("total")
        to = entry + 8 if back else other
        room = process.guest.find_room(0x1000, near=entry, reach=0x400_0000)
        process.guest.map(room, 0x1000, Rights.READ | Rights.EXECUTE, jump(machine, room, to))
        hook = jump(machine, entry, room)
        process.guest.write_code(entry, process.guest.read(entry, len(hook)), hook)
        with pytest.raises(hotpatch.ApplyRefused) as refused:
            process.apply(patch)
        (refusal,) = refused.value.refusals
        assert refusal.evidence["jump_target"] == (room if back else other)
        assert refusal.evidence.get("jump_function") == (None if back else "total")
        assert (", in total of base.dll, stands" in refusal.reason) is not back


@pytest.mark.parametrize("place", ["entry", "pointer"])
def test_a_redirect_that_somebody_changes_while_its_revert_waits_is_left_alone(here, place):
    applied = here.engine.apply(here.patch({1: 111}))
    (function,) = here.engine.status().functions
    here.fake.thread(1, function.destination + INSIDE)
    applied.revert(Consistency.QUIESCENT)
    va = here.entry(1) if place == "entry" else pointer_of(function.slot)
    found = here.fake.read(va, 1)
    here.fake.write_data(va, bytes([found[0] ^ 0xFF]))
    go(here, 1, here.entry(5))
    before = here.fake.snapshot()
    assert [(refusal.rule, refusal.function) for refusal in here.engine.poll().refused] == [(Rule.REDIRECT_CHANGED, "f1")]
    assert (here.fake.snapshot(), applied.state) == (before, PatchState.APPLIED)
    here.fake.write_data(va, found)
    applied.revert(Consistency.QUIESCENT)
    assert (applied.state, here.result(1)) == (PatchState.REVERTED, 1)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("place", ["entry", "pointer"])
def test_a_redirect_that_somebody_changes_in_a_transition_is_left_alone(here, place, back):
    """Said once; when it is as it was, the transition ends, be it called off (``back``) or not."""
    here.fake.thread(1, here.entry(1) + INSIDE)
    applied = here.engine.apply(here.patch({1: 111}), Consistency.PER_THREAD)
    va = here.entry(1) if place == "entry" else pointer_of(applied.functions[0].slot)
    if back:
        applied.reverse()
    found = here.fake.read(va, 1)
    here.fake.write_data(va, bytes([found[0] ^ 0xFF]))
    go(here, 1, here.entry(5))
    before = here.fake.snapshot()[1:]
    assert [(refusal.rule, refusal.function) for refusal in here.engine.poll().refused] == [(Rule.REDIRECT_CHANGED, "f1")]
    assert here.fake.read(va, 1) != found
    assert here.fake.snapshot()[1:] == before
    assert (here.engine.poll().busy, here.engine.poll().refused) == (True, ())
    here.fake.write_data(va, found)
    assert not here.engine.poll().busy
    assert (applied.state, here.result(1)) == ((PatchState.REVERSED, 1) if back else (PatchState.APPLIED, 111))
