"""A process at one moment, taken and put back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.emulator.heap import HeapState
    from hotpatch.emulator.kernel import Alarm, Kernel
    from hotpatch.emulator.loader_state import LoaderState
    from hotpatch.emulator.memory import MemorySnapshot
    from hotpatch.emulator.objects import HandleState
    from hotpatch.emulator.system import Counters, ProcessEvent, System
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.engine.target import Module
    from hotpatch.errors import Fault


@dataclass(frozen=True, slots=True)
class GuestSnapshot:
    """A process at one moment; can be restored any number of times and in any order."""

    memory: MemorySnapshot
    threads: tuple[GuestThread, ...]
    counters: Counters
    handles: HandleState
    heap: HeapState
    shadows: Mapping[tuple[int, int], int]
    loading: LoaderState
    tls: tuple[int, ...]
    gates: int
    schedule: object
    modules: tuple[Module, ...]
    output: bytes
    events: tuple[ProcessEvent, ...]
    fault: Fault | None
    alarms: tuple[Alarm, ...]
    stdin: bytes
    more_input: bool


def take(system: System, kernel: Kernel) -> GuestSnapshot:
    """The process as it is; no thread is active afterwards."""
    system.park()
    return GuestSnapshot(
        system.memory.snapshot(),
        tuple(copy.copy(thread) for thread in system.threads.values()),
        copy.copy(system.counters),
        system.handles.state(),
        system.heap.state(),
        dict(system.shadows),
        system.loading.copy(),
        system.tls.state(),
        system.gates.state(),
        kernel.schedule.state(),
        system.modules(),
        bytes(system.output),
        tuple(system.events),
        system.fault,
        tuple(kernel.alarms),
        system.settings.stdin,
        system.settings.more_input,
    )


def put_back(system: System, kernel: Kernel, snapshot: GuestSnapshot) -> None:
    """The process as :func:`take` found it."""
    system.active = None
    system.memory.restore(snapshot.memory)
    system.restore_threads(snapshot.threads)
    system.restore_counters(snapshot.counters)
    system.handles.restore(snapshot.handles)
    system.heap.restore(snapshot.heap)
    system.shadows = dict(snapshot.shadows)
    system.loading.restore(snapshot.loading)
    system.tls.restore(snapshot.tls)
    system.gates.restore(snapshot.gates)
    kernel.schedule.restore(snapshot.schedule)
    system.restore_modules(snapshot.modules)
    system.output[:] = snapshot.output
    system.events[:] = snapshot.events
    system.fault = snapshot.fault
    kernel.alarms[:] = snapshot.alarms
    system.settings.stdin, system.settings.more_input = snapshot.stdin, snapshot.more_input
