"""The engine's own walk of the stack of every thread at every step, cheap enough for every seed.

A step is an instruction of a thread, before which its stack is walked, or what the system did for it, after which it is. Only what a thread
does itself changes its stack, so that the others' last verdicts stand; where patches, modules or code have changed, all are walked.

A walk that would find what one has found before is not made again, under another seed either. It is given nothing but the program counter,
the registers of :func:`_registers`, what the system has kept of the thread, the bytes of its stack that it asks for, and code; whatever
else it asks for is an error. So where all that is the same, and patches, modules and code are too, its verdict is the same.

:func:`mixed_threads` is the same check made plainly; a test compares the two at every step.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unicorn import UC_HOOK_CODE

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.emulator.binding import IntegerRegisters
from hotpatch.emulator.memory import Rights
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import occupancy
from hotpatch.engine.target import Thread
from tests.hooks import weakly

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hotpatch.arch import Machine
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.process import Process
    from hotpatch.unwind import Frame


def mixed_threads(process: Process) -> set[int]:
    """Threads that have frames on both sides of a patch that stands, every stack walked anew."""
    engine, target = process.engine, process.guest
    modules = target.modules()
    every = [occupancy.versions_of(engine._registry, modules, each) for each in engine._registry.applications.values()]
    threads = target.threads() if every else ()
    return {each.id for each in threads if is_mixed(every, occupancy.walk(target, engine._locate, modules, each)[0])}


def is_mixed(every: Iterable[occupancy.Versions], frames: Sequence[tuple[Frame, bool]]) -> bool:
    """Whether frames are on both sides of one patch; what belongs to both sides is on neither."""
    for versions in every:
        met = set()
        for frame, called in frames:
            where = frame.pc - called
            under, over = versions.under.at(where) is not None, versions.over.at(where) is not None
            if under is not over:
                met.add("old" if under else "new")
        if len(met) > 1:
            return True
    return False


@dataclass(frozen=True)
class Standing:
    """All that says which code is on which side, and how it is unwound; compared by value."""

    patches: tuple[object, ...]
    modules: tuple[object, ...]
    code: tuple[tuple[int, bytes], ...]
    """Address and digest of each region that may be executed."""


@dataclass
class Walks:
    """Walks made while one :class:`Standing` stood: by where the thread was, which places of its stack were read, what was there."""

    standing: Standing
    made: dict[tuple[object, ...], list[tuple[list[slice], dict[bytes, bool]]]] = field(default_factory=lambda: defaultdict(list))


class Visible:
    """What a walk may read: the stack from ``sp`` up, of which ``places`` notes what it has read, and code."""

    def __init__(self, process: Process, sp: int, stack: bytes) -> None:
        self.machine: Machine = process.machine
        self.places: list[slice] = []
        self._memory, self._sp, self._stack = process.guest.system.memory, sp, stack

    def read(self, va: int, size: int) -> bytes:
        first = va - self._sp
        if 0 <= first <= len(self._stack) - size:
            self.places.append(slice(first, first + size))
            return self._stack[self.places[-1]]
        region = self._memory.find(va)
        assert region is None or region.rights & Rights.EXECUTE, f"a walk reads {size} bytes at 0x{va:x}"
        return self._memory.read(va, size)


class Steps:
    """Looks at each step of one process while a patch stands, and it is switched on."""

    def __init__(self, process: Process) -> None:
        self.process, self._system = process, process.guest.system
        self.on = True
        self.mixed: list[tuple[int, int, int]] = []
        """Each time that a thread came to have frames on both sides: thread, instructions that it had executed, program counter."""
        self.looks = self.walks = 0
        self._convention = architecture(process.machine).convention
        self._names = _registers(process)
        cpu = self._system.cpu
        self._registers = IntegerRegisters(cpu._uc, [cpu._ids[name] for name in self._names])
        self._verdicts: dict[int, bool] = {}
        self._kept: dict[int, tuple[object, tuple[object, ...]]] = {}
        self._digests: dict[int, bytes] = {}
        self._every: list[Walks] = []
        self._hook: int | None = None
        self._since: object = None
        self._sides: list[occupancy.Versions] = []
        self._slice = process.guest.kernel._slice
        process.guest.kernel._slice = self._sliced

    def reset(self, *, on: bool = True) -> None:
        """Forget what threads did, not what walks have found."""
        self.on, self._since = on, None
        self.mixed.clear()
        self._verdicts.clear()
        self._kept.clear()

    @property
    def standing(self) -> bool:
        """Whether a patch stood at the last step."""
        return bool(self._sides)

    def now(self) -> set[int]:
        """Threads that have frames on both sides now, after what has been done to the process since the last step."""
        self._look_round()
        return {number for number, mixed in self._verdicts.items() if mixed and self._system.threads[number].alive}

    # every step --------------------------------------------------------------------------------------------------------------------------

    def _sliced(self, thread: GuestThread, count: int) -> None:
        self._look_round()
        self._thread, self._executed = thread, thread.executed
        self._slice(thread, count)
        if not self._look_round() and self._sides and self._system.active is thread:
            self._executed = thread.executed
            self._look(thread, self._system.cpu.pc)

    def _step(self, _uc: object, va: int, _size: int, _data: object) -> None:
        self._look(self._thread, va)
        self._executed += 1

    def _look_round(self) -> bool:
        """Whether patches, modules or code have changed since the last time; then every thread has been looked at."""
        registry, system = self.process.engine._registry, self._system
        patches = (registry.applications, registry.sites, registry.images, registry.slots, registry.trampolines)
        modules = system.modules()
        code = [(region.va, region.version) for region in system.memory.regions() if region.fetched is not None]
        since = (self.on, patches, modules, code)
        if since == self._since:
            return False
        self._since = since
        self._sides = [occupancy.versions_of(registry, modules, each) for each in registry.applications.values()] if self.on else []
        self._watch(bool(self._sides))
        if not self._sides:
            self._verdicts.clear()
            return True
        self._modules = modules
        self._walks = self._walks_of(Standing(patches, modules, tuple((va, self._digest(va, version)) for va, version in code)))
        active = system.active
        for thread in [each for each in system.threads.values() if each.alive and each.state is not ThreadState.IDLE]:
            system.activate(thread)
            self._executed = thread.executed
            self._look(thread, system.cpu.pc)
        system.activate(active)
        return True

    def _watch(self, on: bool) -> None:
        if on is (self._hook is not None):
            return
        uc = self._system.cpu._uc
        if self._hook is None:
            self._hook = uc.hook_add(UC_HOOK_CODE, weakly(self._step))
        else:
            uc.hook_del(self._hook)
            self._hook = None
        uc.ctl_flush_tb()

    def _walks_of(self, standing: Standing) -> Walks:
        found = next((walks for walks in self._every if walks.standing == standing), None)
        if found is None:
            found = Walks(standing)
            self._every.append(found)
        return found

    def _digest(self, va: int, version: int) -> bytes:
        """Of a region's content, which is always the same under one number of a version."""
        if version not in self._digests:
            region = self._system.memory.find(va)
            self._digests[version] = hashlib.sha256(self._system.memory.read(va, region.size)).digest()
        return self._digests[version]

    # one thread --------------------------------------------------------------------------------------------------------------------------

    def _look(self, thread: GuestThread, pc: int) -> None:
        self.looks += 1
        values = self._registers.read()
        stack = self._system.memory.read(values[0], thread.stack_top - values[0])
        mixed = self._verdict(thread, pc, values, stack)
        if mixed and not self._verdicts.get(thread.id):
            self.mixed.append((thread.id, self._executed, pc))
        self._verdicts[thread.id] = mixed

    def _verdict(self, thread: GuestThread, pc: int, values: Sequence[int], stack: bytes) -> bool:
        made = self._walks.made[pc, *values, self._kept_of(thread)]
        for places, verdicts in made:
            verdict = verdicts.get(b"".join([stack[place] for place in places]))
            if verdict is not None:
                return verdict
        visible = Visible(self.process, values[0], stack)
        verdict = self._walk(visible, thread, {self._convention.pc: pc, **dict(zip(self._names, values, strict=True))})
        verdicts = next((verdicts for places, verdicts in made if places == visible.places), None)
        if verdicts is None:
            verdicts = {}
            made.append((visible.places, verdicts))
        verdicts[b"".join([stack[place] for place in visible.places])] = verdict
        return verdict

    def _kept_of(self, thread: GuestThread) -> tuple[object, ...]:
        """What the system has kept of the thread for when functions that it has called return."""
        if not thread.frames:
            return ()
        found = self._kept.get(thread.id)
        if found is None or found[0] is not thread.frames:
            kept = tuple(tuple(registers.items()) for registers in self.process.guest._suspended(thread))
            found = self._kept[thread.id] = thread.frames, kept
        return found[1]

    def _walk(self, visible: Visible, thread: GuestThread, registers: Mapping[str, int]) -> bool:
        """Whether the thread has frames on both sides."""
        self.walks += 1
        pc, sp = Va(registers[self._convention.pc]), Va(registers[self._convention.sp])
        stands = Thread(thread.id, pc, sp, dict(registers), Va(thread.teb), self.process.guest._suspended(thread))
        return is_mixed(self._sides, occupancy.walk(visible, self.process.engine._locate, self._modules, stands)[0])


def _registers(process: Process) -> tuple[str, ...]:
    """What walks use of the innermost frame's registers: stack pointer, frame pointer, link. One that asks for another fails."""
    convention = architecture(process.machine).convention
    return (convention.sp, "rbp") if convention.link is None else (convention.sp, "x29", convention.link)
