"""A call that the host makes in between, while the program stands still: on the host's thread, wherever that is, and counted for nobody."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import TYPE_CHECKING

from hotpatch.emulator import faults
from hotpatch.emulator.calls import lay_out
from hotpatch.emulator.layout import THREAD_FLAGS
from hotpatch.emulator.loader_state import BETWEEN
from hotpatch.emulator.threads import ThreadState
from hotpatch.errors import EmulatedFault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.address import Va
    from hotpatch.emulator.kernel import Kernel
    from hotpatch.emulator.threads import GuestThread


def call_between(kernel: Kernel, host: GuestThread, va: Va, arguments: Sequence[int], budget: int) -> int:
    """Call ``va``; its integer result. Afterwards the host's thread stands where it stood, and the counts are what they were.

    Modules neither come nor go meanwhile. Only memory below the thread's stack pointer, which belongs to nobody on Windows, and what
    the function itself changes are different.

    Raises:
        EmulatedFault: It faulted, waited, ended its thread or the process, or executed more than ``budget`` instructions.
    """
    system = kernel.system
    previous = system.active
    system.park()
    thread, counters, ended = copy.copy(host), copy.copy(system.counters), kernel.call_ended
    owner, depth = system.loading.owner, system.loading.depth
    system.loading.owner, system.loading.depth = BETWEEN, 1
    flags, sides = host.teb + THREAD_FLAGS.start, system.memory.read(host.teb + THREAD_FLAGS.start, len(THREAD_FLAGS))
    layout = lay_out(system.convention, arguments)
    host.wait = None
    watcher, kernel.on_slice = kernel.on_slice, None  # who asks for this call is not asked during it
    try:
        kernel.begin_call(host, va, layout.integers, layout.floats, layout.stack)
        executed = kernel.step(host, budget)
        if host.state is ThreadState.IDLE:
            system.memory.write(flags, sides)  # the outer call stays on its side of every transition
            system.activate(host)
            return system.cpu.get(system.convention.result)
        system.counters.current = host.id
        if system.fault is None and executed < budget:
            pc = system.registers(host)[system.cpu.model.pc] if host.alive else 0
            problem = "it waits for the program, which stands still, or has ended"
            raise EmulatedFault(faults.describe(system, host, FaultKind.DEADLOCK, pc, None, problem, pc))
        raise EmulatedFault(system.fault or kernel.over_budget())
    finally:
        system.park()
        for field in fields(thread):
            setattr(host, field.name, getattr(thread, field.name))
        for name in ("instructions", "quantum", "alone", "current"):
            setattr(system.counters, name, getattr(counters, name))
        kernel.call_ended, kernel.on_slice, system.fault = ended, watcher, None
        system.loading.owner, system.loading.depth = owner, depth
        system.activate(previous)
