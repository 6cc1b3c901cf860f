"""Locks that live in the program's memory: critical sections, reader/writer locks, and whom wake-ups reach.

A critical section's fields are where winnt.h has them (RTL_CRITICAL_SECTION), because programs and debuggers look; a reader/writer lock is
one word whose layout is Windows' own business: here 1 is exclusive, ``2 n`` is ``n`` readers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.emulator import waits
from hotpatch.emulator.threads import ThreadState

if TYPE_CHECKING:
    from hotpatch.emulator.system import System

SECTION = {"LockCount": 0x08, "RecursionCount": 0x0C, "OwningThread": 0x10, "SpinCount": 0x20}
SECTION_SIZE = 0x28
_UNOWNED = 0xFFFF_FFFF
_EXCLUSIVE = 1
_READER = 2


class Synchronization:
    """Operations on locks in memory, for one process."""

    def __init__(self, system: System) -> None:
        self._system = system

    # critical sections -------------------------------------------------------------------------------------------------------------------

    def section_initialise(self, address: int, spin: int) -> None:
        """An unowned critical section."""
        self._system.guest_write(address, bytes(SECTION_SIZE))
        self._put(address, "LockCount", _UNOWNED, 4)
        self._put(address, "SpinCount", spin, 8)

    def section_owner(self, address: int) -> int:
        """Thread id of the owner, or 0."""
        return self._get(address, "OwningThread", 8)

    def section_take(self, address: int, thread: int, depth: int = 1) -> None:
        """Own it, once more if it is owned."""
        now = self._get(address, "RecursionCount", 4) if self.section_owner(address) == thread else 0
        self._put(address, "OwningThread", thread, 8)
        self._put(address, "RecursionCount", now + depth, 4)
        self._put(address, "LockCount", 0xFFFF_FFFE, 4)

    def section_leave(self, address: int, depth: int = 1) -> None:
        """Give it up ``depth`` times."""
        left = max(self._get(address, "RecursionCount", 4) - depth, 0)
        self._put(address, "RecursionCount", left, 4)
        if not left:
            self._put(address, "OwningThread", 0, 8)
            self._put(address, "LockCount", _UNOWNED, 4)

    def section_depth(self, address: int) -> int:
        """How often its owner entered it."""
        return self._get(address, "RecursionCount", 4)

    def section_deepen(self, lock: waits.CriticalSection | waits.ReaderWriterLock, depth: int) -> None:
        """After a condition wait: enter as often as before it."""
        if isinstance(lock, waits.CriticalSection) and depth > 1:
            self._put(lock.address, "RecursionCount", depth, 4)

    # reader/writer locks -----------------------------------------------------------------------------------------------------------------

    def lock_free(self, address: int, *, shared: bool) -> bool:
        """Whether it can be taken."""
        word = self._system.guest_word(address)
        return word == 0 or (shared and word != _EXCLUSIVE)

    def lock_take(self, address: int, *, shared: bool) -> None:
        """Take it; it must be free."""
        word = self._system.guest_word(address)
        self._system.guest_write(address, (word + _READER if shared else _EXCLUSIVE).to_bytes(8, "little"))

    def lock_release(self, address: int, *, shared: bool) -> None:
        """Give it up."""
        word = self._system.guest_word(address)
        self._system.guest_write(address, (max(word - _READER, 0) if shared else 0).to_bytes(8, "little"))

    # waking ------------------------------------------------------------------------------------------------------------------------------

    def wake(self, address: int, *, every: bool) -> None:
        """Wake whoever waits for ``address`` as a condition variable or by address: the one of the lowest thread id, or all."""
        for thread in sorted(self._system.threads.values(), key=lambda thread: thread.id):
            wait = thread.wait
            if (
                thread.state is ThreadState.BLOCKED
                and isinstance(wait, waits.Condition | waits.Memory)
                and wait.address == address
                and not wait.woken
            ):
                thread.wait = replace(wait, woken=True)
                if not every:
                    return

    def _get(self, address: int, field: str, size: int) -> int:
        return int.from_bytes(self._system.guest_read(address + SECTION[field], size), "little")

    def _put(self, address: int, field: str, value: int, size: int) -> None:
        self._system.guest_write(address + SECTION[field], value.to_bytes(size, "little"))
