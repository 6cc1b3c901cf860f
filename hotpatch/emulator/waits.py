"""What threads wait for, each kind a frozen value that can say whether it is over and take what it waited for.

Return values are those of the Win32 functions (MS Learn, "Wait Functions").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.emulator.objects import Event, Mutex, Semaphore, ThreadObject

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread

WAIT_OBJECT_0 = 0
WAIT_ABANDONED = 0x80
WAIT_TIMEOUT = 258
INFINITE = 0xFFFF_FFFF
ERROR_TIMEOUT = 1460


@dataclass(frozen=True, slots=True)
class Sleep:
    """Until ``deadline``; a deadline that has passed only gives up the slice."""

    deadline: int

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Only time ends it."""
        return False

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Nothing to take."""
        return 0

    def describe(self, system: System) -> str:
        """For a report."""
        return "time to pass"


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes of a standard input that more may come to, or its end; up to ``size`` of them go to ``buffer``, their number to ``read``."""

    buffer: int
    size: int
    read: int
    deadline: None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether there is something to read, or never will be."""
        return system.counters.stdin < len(system.settings.stdin) or not system.settings.more_input

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Read."""
        data = system.settings.stdin[system.counters.stdin : system.counters.stdin + self.size]
        system.guest_write(self.buffer, data)
        system.counters.stdin += len(data)
        if self.read:
            system.guest_write(self.read, len(data).to_bytes(4, "little"))
        return 1

    def describe(self, system: System) -> str:
        """For a report."""
        return "standard input"


@dataclass(frozen=True, slots=True)
class Objects:
    """One of several kernel objects, or all of them."""

    objects: tuple[int, ...]
    every: bool
    deadline: int | None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether enough of them are signalled."""
        test = all if self.every else any
        return test(signalled(system, thread, number) for number in self.objects)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Take the objects: reset automatic events, count semaphores down, own mutexes."""
        if timed_out:
            return WAIT_TIMEOUT
        if self.every:
            abandoned = [take(system, thread, number) for number in self.objects]
            return WAIT_ABANDONED if any(abandoned) else WAIT_OBJECT_0
        index = next(i for i, number in enumerate(self.objects) if signalled(system, thread, number))
        return (WAIT_ABANDONED if take(system, thread, self.objects[index]) else WAIT_OBJECT_0) + index

    def describe(self, system: System) -> str:
        """For a report."""
        names = [_name(system, number) for number in self.objects]
        return ("all of " if self.every and len(names) > 1 else "") + ", ".join(names)


@dataclass(frozen=True, slots=True)
class CriticalSection:
    """Ownership of the critical section at ``address``."""

    address: int
    deadline: int | None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether nobody owns it."""
        return not system.sync.section_owner(self.address)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Own it."""
        system.sync.section_take(self.address, thread.id)
        return 0

    def describe(self, system: System) -> str:
        """For a report."""
        owner = system.sync.section_owner(self.address)
        return f"the critical section at 0x{self.address:x}" + (f" that thread {owner} owns" if owner else "")


@dataclass(frozen=True, slots=True)
class ReaderWriterLock:
    """The slim reader/writer lock at ``address``."""

    address: int
    shared: bool
    deadline: int | None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it can be had."""
        return system.sync.lock_free(self.address, shared=self.shared)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Take it."""
        system.sync.lock_take(self.address, shared=self.shared)
        return 0

    def describe(self, system: System) -> str:
        """For a report."""
        return f"the reader/writer lock at 0x{self.address:x}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A wake of the condition variable at ``address``, then the lock that was given up for the wait."""

    address: int
    lock: CriticalSection | ReaderWriterLock
    depth: int
    deadline: int | None
    woken: bool = False

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it was woken and the lock is free."""
        return self.woken and self.lock.ready(system, thread)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Take the lock again; after a time-out the thread may still have to wait for it."""
        if timed_out and not self.lock.ready(system, thread):
            thread.wait = TimedOutCondition(self.lock, self.depth)
            return 0
        self.lock.finish(system, thread, timed_out=False)
        system.sync.section_deepen(self.lock, self.depth)
        if timed_out:
            system.set_last_error(thread, ERROR_TIMEOUT)
        return int(not timed_out)

    def describe(self, system: System) -> str:
        """For a report."""
        return f"{self.lock.describe(system)} again" if self.woken else f"the condition variable at 0x{self.address:x}"


@dataclass(frozen=True, slots=True)
class TimedOutCondition:
    """The lock of a condition variable whose wait has timed out."""

    lock: CriticalSection | ReaderWriterLock
    depth: int
    deadline: int | None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether the lock is free."""
        return self.lock.ready(system, thread)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Take the lock."""
        self.lock.finish(system, thread, timed_out=False)
        system.sync.section_deepen(self.lock, self.depth)
        system.set_last_error(thread, ERROR_TIMEOUT)
        return 0

    def describe(self, system: System) -> str:
        """For a report."""
        return self.lock.describe(system)


@dataclass(frozen=True, slots=True)
class Memory:
    """A change of ``size`` bytes at ``address`` that somebody says by WakeByAddress, or once-initialisation by another thread."""

    address: int
    deadline: int | None
    woken: bool = False

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it was woken."""
        return self.woken

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Nothing to take."""
        if timed_out:
            system.set_last_error(thread, ERROR_TIMEOUT)
        return int(not timed_out)

    def describe(self, system: System) -> str:
        """For a report."""
        return f"a wake-up for the address 0x{self.address:x}"


def _name(system: System, number: int) -> str:
    """An object as a report tells it from others: a thread by its id, the rest by name or handle."""
    thing = system.handles.objects[number]
    kind = type(thing).__name__.removesuffix("Object").lower()
    if isinstance(thing, ThreadObject):
        return f"{kind} {thing.thread}"
    name = getattr(thing, "name", "")
    handle = next((handle for handle, named in system.handles.handles.items() if named == number), None)
    return f"{kind} {name!r}" if name else kind if handle is None else f"{kind} 0x{handle:x}"


def signalled(system: System, thread: GuestThread, number: int) -> bool:
    """Whether a wait of ``thread`` on the object is satisfied now."""
    thing = system.handles.objects[number]
    match thing:
        case Event():
            return thing.signalled
        case Semaphore():
            return thing.count > 0
        case Mutex():
            return thing.owner in (0, thread.id)
        case ThreadObject():
            return thing.exit_code is not None
    return False


def take(system: System, thread: GuestThread, number: int) -> bool:
    """Change the object as a satisfied wait does; whether it is a mutex that its last owner abandoned."""
    objects = system.handles.objects
    thing = objects[number]
    match thing:
        case Event(manual=False):
            objects[number] = replace(thing, signalled=False)
        case Semaphore():
            objects[number] = replace(thing, count=thing.count - 1)
        case Mutex():
            objects[number] = replace(thing, owner=thread.id, depth=thing.depth + 1, abandoned=False)
            return thing.abandoned
    return False
