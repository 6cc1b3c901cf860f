"""Calls of an emulated process as a target that can be made to fail, and everything that there is of it, to compare."""

from __future__ import annotations

from collections.abc import Callable

from hotpatch.emulator.guest import Guest
from hotpatch.engine import Engine
from hotpatch.errors import HotpatchError

TOLD_BEFORE = ("write_data", "write_code", "set_registers")
"""Calls whose inverse is in place before they are made: they may fail with their work done."""
CALLS = (
    "modules",
    "threads",
    "regions",
    "set_registers",
    "read",
    "write_data",
    "write_code",
    "find_room",
    "map",
    "unmap",
    "add_module",
    "remove_module",
    "resolve_import",
    "watch_modules",
    "event",
    "call_between",
    "checkpoint",
)


class InjectedError(HotpatchError):
    """An injected failure of the target."""


def moment_of(guest: Guest, engine: Engine) -> Callable[[], None]:
    """What takes process and registry back to now."""
    process, registry = guest.snapshot(), engine.snapshot()

    def back() -> None:
        guest.restore(process)
        engine.restore(registry)

    return back


def whole(guest: Guest) -> dict[str, object]:
    """All of the process that a snapshot takes along, as values that compare: memory, what fetch sees, rights, registers, the rest."""
    found = guest.snapshot()
    threads = [
        (thread.id, thread.state, thread.frames, thread.wait, thread.executed, tuple(sorted(guest.system.registers(thread).items())))
        for thread in guest.system.threads.values()
    ]
    guest.system.park()
    counters = found.counters
    return {
        "memory": [
            (region.va, region.size, region.rights, region.kind, region.name, region.content()[1:])
            for region in guest.system.memory.regions()
        ],
        "threads": threads,
        "counters": tuple(getattr(counters, name) for name in counters.__slots__),
        "handles": repr(found.handles),
        "heap": found.heap,
        "shadows": found.shadows,
        "loading": found.loading,
        "tls": found.tls,
        "gates": found.gates,
        "modules": [(module.name, module.va) for module in found.modules],
        "output": found.output,
        "events": found.events,
        "fault": found.fault,
        "alarms": found.alarms,
    }
