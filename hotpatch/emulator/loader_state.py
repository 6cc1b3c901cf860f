"""Modules that came while the program ran, counted, and who holds the lock under which they come and go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hotpatch.emulator.threads import ThreadState

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread

BETWEEN = -1
"""Owner of the loader lock while the host calls the program in between: nothing may load or unload then."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A module that came while the program ran.

    Attributes:
        references: By LoadLibrary, and by modules that import it; at 0 it is about to go away.
        needs: VAs of modules of this kind that it imports.
        started: Whether its start-up code has run to the end.
    """

    references: int = 0
    needs: tuple[int, ...] = ()
    started: bool = False


@dataclass(slots=True)
class LoaderState:
    """What the loader knows; a snapshot takes it along.

    Attributes:
        counted: By VA, in the order in which they start up.
        owner: Thread that holds the loader lock, :data:`BETWEEN`, or 0.
        depth: How often it holds it.
        ending: Whether the process is on its way out: modules stay where they are.
    """

    counted: dict[int, Counted] = field(default_factory=dict)
    owner: int = 0
    depth: int = 0
    ending: bool = False

    def copy(self) -> LoaderState:
        """An independent copy."""
        return replace(self, counted=dict(self.counted))

    def restore(self, state: LoaderState) -> None:
        """As :meth:`copy` found it."""
        self.counted, self.owner, self.depth, self.ending = dict(state.counted), state.owner, state.depth, state.ending

    def count(self, va: int, change: int) -> int:
        """Change the number of a module's references; what it is then."""
        references = self.counted[va].references + change
        self.counted[va] = replace(self.counted[va], references=references)
        return references

    def acquire(self, thread: GuestThread) -> bool:
        """Take the loader lock, once more where the thread has it; whether that could be."""
        if self.owner not in (0, thread.id):
            return False
        self.owner, self.depth = thread.id, self.depth + 1
        return True

    def release(self) -> None:
        """Give it back once."""
        self.depth -= 1
        if not self.depth:
            self.owner = 0

    def abandon(self, thread: GuestThread) -> None:
        """A thread that may hold it is no more."""
        if self.owner == thread.id:
            self.owner = self.depth = 0


@dataclass(frozen=True, slots=True)
class LoaderLock:
    """The loader lock; the call is made again once it is free."""

    deadline: int | None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it can be had."""
        return system.loading.owner in (0, thread.id)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Stand at the system function again, as if it had just been called."""
        thread.wait, thread.state = None, ThreadState.READY
        return 0

    def describe(self, system: System) -> str:
        """For a report."""
        owner = system.loading.owner
        return "the loader lock" + (f" that thread {owner} holds" if owner > 0 else "")
