"""Every step of an operation on an emulated process fails in turn, in every way: the whole process must be as it was; see ``steps.py``."""

from __future__ import annotations

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import RegionKind
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import AppliedPatch
from hotpatch.errors import ApplyRefused, RevertRefused, Rule
from hotpatch.image.model import SectionFlags
from hotpatch.patch import Patch

from . import late
from .real import InjectedError
from .steps import Stepped
from .synthetic import Recipe, base_image, entry, make

SAMPLE = 11
thoroughly = pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.exhaustive)])
each_machine = pytest.mark.parametrize("machine", list(Machine))


class Scene:
    """A process with two threads inside of functions, and an engine on it that meets failures."""

    def __init__(self, machine: Machine, strategy: Redirect, every: int = 1) -> None:
        self.base = base_image(machine)
        self.guest = Guest(self.base)
        self.here = Stepped(self.guest, every)
        self.engine = self.here.engine
        self.strategy = strategy
        for index in (1, 2):
            thread = self.guest.spawn(Va(self.guest.module.va + entry(index)), 0)
            assert self.guest.step(thread, 1) == 1

    def patch(self, numbers: dict[int, int], sequence: int) -> Patch:
        imports = (("kernel32.dll", "Sleep"),) if sequence == 1 else ()
        return make(Recipe(self.base, numbers, sequence, self.strategy, imports=imports, name=f"fix{sequence}.dll"))

    def results(self) -> list[int]:
        before = self.guest.snapshot()
        values = [self.guest.call(Va(self.guest.module.va + entry(index)), (), budget=1000).value for index in (1, 2, 3)]
        self.guest.restore(before)
        return values


@thoroughly
@pytest.mark.parametrize("strategy", list(Redirect))
@each_machine
def test_apply_supersede_and_revert_change_all_or_nothing(machine: Machine, strategy: Redirect, every: int) -> None:
    scene = Scene(machine, strategy, every)
    here, engine = scene.here, scene.engine
    patches = scene.patch({1: 111, 2: 222}, 1), scene.patch({2: 2222, 3: 3333}, 2)
    first = here.fail(lambda: engine.apply(patches[0]))
    assert {"find_room", "map", "write_code", "add_module", "resolve_import", "event"} <= here.made
    assert ("write_data" in here.made) is (strategy is Redirect.HPAT)
    assert ("set_registers" in here.made) is (strategy is Redirect.INLINE and machine is Machine.X64)
    assert scene.results() == [111, 222, 3]
    second = here.fail(lambda: engine.apply(patches[1]))
    assert scene.results() == [1, 2222, 3333]
    here.fail(second.revert)
    assert scene.results() == [111, 222, 3]
    here.fail(first.revert)
    assert scene.results() == [1, 2, 3]
    for thread in tuple(scene.guest.system.threads.values()):
        scene.guest.step(thread.id, 100) if not thread.host else None
    freed = here.fail(engine.collect).freed
    assert len(freed) >= 3
    assert every > 1 or here.failures >= {
        *((way, call) for way in ("target", "interrupt") for call in here.made - {"watch_modules"}),
        *((way, call) for way in ("memory", "host-memory") for call in ("map", "unmap", "write", "flush")),
        *(("interrupt-late", call) for call in here.made & {"write_data", "write_code", "set_registers"}),
        ("no-address-space", "find_room"),
    }


@each_machine
def test_no_address_space_and_out_of_reach_change_nothing(machine: Machine) -> None:
    scene = Scene(machine, Redirect.HPAT)
    patch, real = scene.patch({1: 111}, 1), scene.guest.find_room
    for allowed in range(3):
        left = allowed

        def map_some(*args: object, **named: object) -> Va:
            nonlocal left
            if not left:
                named["reach"] = 0
            left = max(left - 1, 0)
            return real(*args, **named)

        scene.guest.find_room = map_some
        before = scene.here.process(), scene.engine.snapshot()
        with pytest.raises(ApplyRefused) as refused:
            scene.engine.apply(patch)
        assert refused.value.refusals[0].rule is Rule.OUT_OF_REACH
        assert (scene.here.process(), scene.engine.snapshot()) == before
    scene.guest.find_room = real
    applied = scene.engine.apply(patch)
    scene.guest.write_data(Va(scene.guest.module.va + entry(1)), b"\x00\x00\x00\x14")
    before = scene.here.process(), scene.engine.snapshot()
    with pytest.raises(RevertRefused):
        applied.revert()
    assert (scene.here.process(), scene.engine.snapshot()) == before


class LateScene:
    """A process whose host loads and unloads the DLL of a case, with an engine on it that meets failures."""

    def __init__(self, machine: Machine, case: str, every: int = 1, *aside: str) -> None:
        self.guest = Guest(late.host(machine), available=[late.images(case, machine)[0]])
        self.here = Stepped(self.guest, every, frozenset(aside))
        self.engine = self.here.engine
        self.applied = self.engine.register(late.patch_of(case, machine))

    def begin(self, name: str, argument: int) -> None:
        gate = self.guest.system.gates.provided(name)
        assert gate is not None
        self.guest.begin_call(gate, [argument])

    def reach(self) -> None:
        """Go on to where the engine is told, what code of the module runs before that having run."""
        with pytest.raises(InjectedError), self.here.failing("target", 1):
            self.go_on()

    def go_on(self) -> None:
        host = next(thread for thread in self.guest.system.threads.values() if thread.host)
        self.guest.kernel.step(host, 10_000)
        assert self.guest.fault is None
        assert host.state is ThreadState.IDLE

    def is_loaded_unpatched(self) -> bool:
        """Nothing but the module has come."""
        host, module = self.guest.modules()
        memory, mapped = bytearray(module.image.mapped), self.guest.read(module.va, module.size)
        code = [section.range for section in module.image.sections if section.flags & SectionFlags.EXECUTE]
        same = all(mapped[part.start : part.end] == memory[part.start : part.end] for part in code)
        return same and host.va == self.guest.module.va and self.applied.state == "registered" and self.mapped() == {"arguments"}

    def mapped(self) -> set[str]:
        return {region.name for region in self.guest.system.memory.regions() if region.kind is RegionKind.HOST}


@each_machine
def test_a_patch_begins_and_ends_to_wait_for_its_module_or_nothing_changes(machine: Machine) -> None:
    scene = LateScene(machine, "unloaded-module")
    newer = late.patch_of("unloaded-module", machine, sequence=2)
    applied: AppliedPatch = scene.here.fail(lambda: scene.engine.register(newer))
    scene.here.fail(applied.revert)
    scene.here.fail(scene.applied.revert)
    assert scene.engine.status().registered == ()
    assert {"event", "modules"} <= {call for _, call in scene.here.failures}


@thoroughly
@pytest.mark.parametrize("case", ["hooks", "unloaded-module"])
@each_machine
def test_a_load_and_an_unload_of_a_patched_module_change_all_or_nothing(machine: Machine, case: str, every: int) -> None:
    """With callbacks (``hooks``) and with an entry point (``unloaded-module``); both go on once nothing fails any more."""
    scene = LateScene(machine, case, every, "threads", "counters", "loading", "handles", "heap", "tls")
    scene.begin("LoadLibraryA", scene.guest.allocate(b"base.dll\0"))
    scene.here.fail(scene.go_on, scene.is_loaded_unpatched)
    assert {"map", "write_data", "write_code", "add_module", "event"} <= scene.here.made
    assert {"call_between", "checkpoint"} <= scene.here.made or case != "hooks"
    assert scene.applied.state == "applied"
    module = scene.guest.modules()[1]
    scene.begin("FreeLibrary", module.va)
    scene.reach()
    scene.here.fail(scene.go_on, lambda: scene.applied.state == "registered" and len(scene.guest.modules()) == 1)
    assert module not in scene.guest.modules()
    assert scene.applied.state == "registered"
    assert not scene.engine.collect().kept
    assert scene.mapped() == {"arguments"}
    scene.begin("LoadLibraryA", scene.guest.allocate(b"base.dll\0"))
    scene.go_on()
    assert scene.applied.state == "applied"
