"""Each call that the engine makes of an emulated process fails, one after the other: the whole process must be as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import RegionKind
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import AppliedPatch, Engine
from hotpatch.errors import ApplyRefused, RevertRefused, Rule
from hotpatch.patch import Patch

from . import late
from .real import Failing, InjectedError, whole
from .synthetic import Recipe, base_image, entry, make

LIMIT = 600
FAILURES = {
    "target": (lambda: InjectedError("injected"), False),
    "interrupt": (lambda: KeyboardInterrupt(), False),
    "interrupt-late": (lambda: KeyboardInterrupt(), True),
}


class Scene:
    """A process with two threads inside of functions, and an engine on it that meets failures."""

    def __init__(self, machine: Machine, strategy: Redirect) -> None:
        self.base = base_image(machine)
        self.guest = Guest(self.base)
        self.target = Failing(self.guest)
        self.engine = Engine(self.target)
        self.strategy = strategy
        self.pc = architecture(machine).convention.pc
        for index in (1, 2):
            thread = self.guest.spawn(Va(self.guest.module.va + entry(index)), 0)
            assert self.guest.step(thread, 1) == 1

    def patch(self, numbers: dict[int, int], sequence: int) -> Patch:
        imports = (("kernel32.dll", "Sleep"),) if sequence == 1 else ()
        return make(Recipe(self.base, numbers, sequence, self.strategy, imports=imports, name=f"fix{sequence}.dll"))

    def state(self) -> tuple[object, object]:
        return whole(self.guest), self.engine._registry.copy()

    def result(self, index: int) -> int:
        before = self.guest.snapshot()
        value = self.guest.call(Va(self.guest.module.va + entry(index)), (), budget=1000).value
        self.guest.restore(before)
        return value

    def fail_everywhere(self, operation: Callable[[], object], failure: Callable[[], BaseException], late: bool) -> list[str]:
        """Let each call of ``operation`` fail in turn, then none; the names of the calls."""
        before = self.state()
        self.target.failure, self.target.late = failure, late
        for count in range(1, LIMIT):
            self.target.calls, self.target.fail_at = 0, count
            self.target.made.clear()
            try:
                operation()
            except type(failure()):
                self.target.fail_at = None
                after = self.state()
                for key, value in before[0].items():
                    told = key == "events" and self.target.failed == "event"  # who watches has heard those before the failing one
                    assert told or after[0][key] == value, f"{self.target.failed} (call {count}) left {key} changed"
                assert after[1] == before[1], f"{self.target.failed} (call {count}) left the registry changed"
                before = (before[0] | {"events": after[0]["events"]}, before[1])
            else:
                self.target.fail_at = None
                return list(self.target.made)
        raise AssertionError("no end")


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("strategy", list(Redirect))
@pytest.mark.parametrize("machine", list(Machine))
def test_apply_supersede_and_revert_change_all_or_nothing(machine: Machine, strategy: Redirect, how: str) -> None:
    here = Scene(machine, strategy)
    first, second = here.patch({1: 111, 2: 222}, 1), here.patch({2: 2222, 3: 3333}, 2)
    done = []
    made = here.fail_everywhere(lambda: done.append(here.engine.apply(first)), *FAILURES[how])
    assert {"map", "write_data", "write_code", "add_module", "resolve_import", "event"} <= set(made)
    assert [here.result(index) for index in (1, 2, 3)] == [111, 222, 3]
    made += here.fail_everywhere(lambda: done.append(here.engine.apply(second)), *FAILURES[how])
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2222, 3333]
    if strategy is Redirect.INLINE and machine is Machine.X64:
        assert "set_registers" in made
    made += here.fail_everywhere(lambda: done[1].revert(), *FAILURES[how])
    assert [here.result(index) for index in (1, 2, 3)] == [111, 222, 3]
    here.fail_everywhere(lambda: done[0].revert(), *FAILURES[how])
    assert [here.result(index) for index in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("machine", list(Machine))
def test_collect_gives_a_mapping_back_or_leaves_it(machine: Machine) -> None:
    """A failure leaves exactly a state that the undisturbed collection passes through between two mappings."""
    here = Scene(machine, Redirect.HPAT)
    for thread in tuple(here.guest.system.threads.values()):
        here.guest.step(thread.id, 100) if not thread.host else None
    here.engine.apply(here.patch({1: 111}, 1)).revert()
    start, registry = here.guest.snapshot(), here.engine._registry
    passed = [{key: value for key, value in whole(here.guest).items() if key != "events"}]
    real = here.guest.unmap

    def unmap(va: Va) -> None:
        real(va)
        passed.append({key: value for key, value in whole(here.guest).items() if key != "events"})

    here.guest.unmap = unmap
    freed = here.engine.collect().freed
    assert len(freed) == len(passed) - 1 == 3
    here.guest.unmap = real
    for count in range(1, LIMIT):
        here.guest.restore(start)
        here.engine._registry = registry
        here.target.calls, here.target.fail_at = 0, count
        try:
            here.engine.collect()
        except InjectedError:
            here.target.fail_at = None
            found = {key: value for key, value in whole(here.guest).items() if key != "events"}
            assert found in passed, f"call {count}"
            mapped = {region.va for region in here.guest.regions()}
            assert set(here.engine.status().kept) == set(freed) & mapped
        else:
            return
    raise AssertionError("no end")


@pytest.mark.parametrize("machine", list(Machine))
def test_no_address_space_and_out_of_reach_change_nothing(machine: Machine) -> None:
    here = Scene(machine, Redirect.HPAT)
    patch, before = here.patch({1: 111}, 1), None
    real = here.guest.map
    for allowed in range(3):
        left = allowed

        def map_some(*args: object, **named: object) -> Va:
            nonlocal left
            if not left:
                named["reach"] = 0
            left = max(left - 1, 0)
            return real(*args, **named)

        here.guest.map = map_some
        before = here.state()
        with pytest.raises(ApplyRefused) as refused:
            here.engine.apply(patch)
        assert refused.value.refusals[0].rule is Rule.OUT_OF_REACH
        assert here.state() == before
    here.guest.map = real
    applied = here.engine.apply(patch)
    entry_va = Va(here.guest.module.va + entry(1))
    here.guest.write_data(entry_va, b"\x00\x00\x00\x14")
    before = here.state()
    with pytest.raises(RevertRefused):
        applied.revert()
    assert here.state() == before


class LateScene:
    """A process whose host loads and unloads the DLL of a case, with an engine on it that meets failures."""

    def __init__(self, machine: Machine, case: str) -> None:
        self.guest = Guest(late.host(machine), available=[late.images(case, machine)[0]])
        self.target = Failing(self.guest)
        self.engine = Engine(self.target)
        self.applied = self.engine.register(late.patch_of(case, machine))

    def begin(self, name: str, argument: int) -> None:
        gate = self.guest.system.gates.provided(name)
        assert gate is not None
        self.guest.begin_call(gate, [argument])

    def go_on(self) -> None:
        host = next(thread for thread in self.guest.system.threads.values() if thread.host)
        self.guest.kernel.step(host, 10_000)
        assert self.guest.fault is None
        assert host.state is ThreadState.IDLE

    def state(self) -> tuple[dict[str, object], object]:
        return whole(self.guest), self.engine.snapshot()

    def fail_everywhere(self, how: str) -> list[str]:
        """Let each call fail in turn; from the first failure on, which may come after code of the module has run, nothing changes.

        Returns the calls up to the one whose failure no longer mattered, since all had been done.
        """
        failure, self.target.late = FAILURES[how]
        self.target.failure = failure
        loaded, before = len(self.guest.modules()), None
        for count in range(1, LIMIT):
            self.target.calls, self.target.fail_at = 0, count
            self.target.made.clear()
            try:
                self.go_on()
            except type(failure()):
                self.target.fail_at = None
                after = self.state()
                if before is not None and after[1] != before[1]:
                    assert self.target.failed in {"modules", "threads", "regions", "read", "unmap", "remove_module"}, self.target.failed
                    assert after[1].registered, "only what is given back after an unload is done in steps of its own"
                    self.go_on()
                    return list(self.target.made)
                assert len(after[0]["modules"]) == loaded
                before = before or after
                for key, value in before[0].items():
                    told = key == "events" and self.target.failed == "event"
                    assert told or after[0][key] == value, f"{self.target.failed} (call {count}) left {key} changed"
                before = (before[0] | {"events": after[0]["events"]}, before[1])
            else:
                self.target.fail_at = None
                return list(self.target.made)
        raise AssertionError("no end")


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("machine", list(Machine))
def test_a_patch_begins_and_ends_to_wait_for_its_module_or_nothing_changes(machine: Machine, how: str) -> None:
    here = LateScene(machine, "unloaded-module")
    failure, here.target.late = FAILURES[how]
    here.target.failure = failure
    newer = late.patch_of("unloaded-module", machine, sequence=2)
    done: list[AppliedPatch] = []
    for operation in (lambda: done.append(here.engine.register(newer)), lambda: done[0].revert(), lambda: here.applied.revert()):
        before = here.state()
        for count in range(1, LIMIT):
            here.target.calls, here.target.fail_at = 0, count
            try:
                operation()
            except type(failure()):
                after = here.state()
                assert (after[0] | {"events": ()}, after[1]) == (before[0] | {"events": ()}, before[1]), here.target.failed
            else:
                break
        else:
            raise AssertionError("no end")
        here.target.fail_at = None
        assert count > 1
    assert here.engine.status().registered == ()


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("case", ["hooks", "unloaded-module"])
@pytest.mark.parametrize("machine", list(Machine))
def test_a_load_and_an_unload_of_a_patched_module_change_all_or_nothing(machine: Machine, case: str, how: str) -> None:
    """With callbacks (``hooks``) and with an entry point (``unloaded-module``); both go on once nothing fails any more."""
    here = LateScene(machine, case)
    here.begin("LoadLibraryA", here.guest.allocate(b"base.dll\0"))
    made = here.fail_everywhere(how)
    assert {"map", "write_data", "write_code", "add_module", "event"} <= set(made)
    assert {"call_between", "checkpoint"} <= set(made) or case != "hooks"
    assert here.applied.state == "applied"
    module = here.guest.modules()[1]
    here.begin("FreeLibrary", module.va)
    here.fail_everywhere(how)
    assert module not in here.guest.modules()
    assert here.applied.state == "registered"
    kept = here.engine.collect().kept  # what words of a dead stack still lead to, where giving back at the unload was what failed
    left = {region.va for region in here.guest.system.memory.regions() if region.kind is RegionKind.HOST and region.name != "arguments"}
    assert {va for va in left if here.guest.system.memory.find(va - 1) is None} == set(kept)
    here.begin("LoadLibraryA", here.guest.allocate(b"base.dll\0"))
    here.go_on()
    assert here.applied.state == "applied"
