"""Threads of a stopped process, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import architecture
from hotpatch.process.model import ThreadView

if TYPE_CHECKING:
    from hotpatch.emulator.guest import Guest

_VIEW_INSTRUCTIONS = 6
_VIEW_BYTES = 64


def thread_views(guest: Guest) -> tuple[ThreadView, ...]:
    """Every living thread as it stands: registers, the next instructions, stack."""
    system, arch = guest.system, architecture(guest.machine)
    views = []
    for thread in guest.threads():
        record = system.threads[thread.id]
        region = system.memory.find(thread.pc)
        room = 0 if region is None else min(_VIEW_BYTES, region.end - thread.pc)
        code = list(arch.disassemble(guest.read(thread.pc, room), thread.pc))[:_VIEW_INSTRUCTIONS] if room else []
        waits = None if record.wait is None else record.wait.describe(system)
        name, stack = guest.function_name(thread.pc), guest.stack(thread.id)
        state = record.state.value
        views.append(ThreadView(thread.id, state, thread.pc, name, thread.registers, tuple(code), stack, waits, record.executed))
    return tuple(views)
