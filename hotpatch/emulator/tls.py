"""Thread-local storage of modules (``__declspec(thread)``): an index for each module, a block for each thread and module.

Source: MS Learn, "PE Format", the ``.tls`` section; the array of blocks hangs off the TEB's ThreadLocalStoragePointer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator.layout import TEB_SIZE
from hotpatch.emulator.memory import PAGE
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.engine.target import Module

TLS_ARRAY = TEB_SIZE
"""Where in a TEB's mapping the array of blocks is; it has a page."""
_MAX_MODULES = PAGE // 8
_FREE = 0


class ModuleTls:
    """The indices of one process, and its threads' blocks."""

    def __init__(self, system: System) -> None:
        """For ``system``, which outlives it."""
        self._system = system
        self._owners: list[int] = []
        """VA of the module that has each index, or :data:`_FREE`."""

    def state(self) -> tuple[int, ...]:
        """For a snapshot; the blocks lie in memory."""
        return tuple(self._owners)

    def restore(self, state: tuple[int, ...]) -> None:
        """As :meth:`state` found it."""
        self._owners[:] = state

    def index(self, module: Module) -> int:
        """The module's index; the first question gives it one, and every thread its block.

        Raises:
            HotpatchError: There are too many such modules.
        """
        if module.va not in self._owners:
            if _FREE not in self._owners:
                if len(self._owners) == _MAX_MODULES:
                    raise HotpatchError(f"more than {_MAX_MODULES} modules with thread-local storage")
                self._owners.append(_FREE)
            index = self._owners.index(_FREE)
            self._owners[index] = module.va
            for thread in self._system.threads.values():
                self._make(thread, index)
        return self._owners.index(module.va)

    def begin(self, thread: GuestThread) -> None:
        """Give a new thread its blocks."""
        for index in range(len(self._owners)):
            self._make(thread, index)

    def release(self, module: Module) -> None:
        """Take the blocks of a module that goes away from all threads, and its index from it."""
        if module.va not in self._owners:
            return
        memory, slots = self._system.memory, self._slots(module)
        self._owners[self._owners.index(module.va)] = _FREE
        for at in slots:
            self._system.heap.free(int.from_bytes(memory.read(at, 8), "little"))
            memory.write(at, bytes(8))

    def reset(self, module: Module) -> None:
        """Fill the module's blocks of all threads as they were when made."""
        tls, memory = module.image.tls, self._system.memory
        if tls is None or module.va not in self._owners:
            return
        content = memory.read(module.va + tls.template.start, tls.template.size) + bytes(tls.zero_fill)
        for at in self._slots(module):
            memory.write(int.from_bytes(memory.read(at, 8), "little"), content)

    def _slots(self, module: Module) -> list[int]:
        """Where each thread keeps the address of its block of the module."""
        index = self._owners.index(module.va)
        return [thread.teb + TLS_ARRAY + 8 * index for thread in self._system.threads.values() if thread.alive]

    def _make(self, thread: GuestThread, index: int) -> None:
        module = next((module for module in self._system.modules() if module.va == self._owners[index]), None)
        if module is None or module.image.tls is None or not thread.alive:
            return
        tls, memory = module.image.tls, self._system.memory
        block = self._system.heap.allocate(tls.template.size + tls.zero_fill, zero=True)
        memory.write(block, memory.read(module.va + tls.template.start, tls.template.size))
        memory.write(thread.teb + TLS_ARRAY + 8 * index, block.to_bytes(8, "little"))
