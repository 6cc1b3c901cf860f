"""Threads of an emulated process: values and small records, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hotpatch.emulator.binding import Context
    from hotpatch.emulator.system import System


class ThreadState(StrEnum):
    """Whether a thread can run."""

    READY = "ready"
    BLOCKED = "blocked"
    IDLE = "idle"
    """The host's thread between calls."""
    SUSPENDED = "suspended"
    FAULTED = "faulted"
    ENDED = "ended"


class Wait(Protocol):
    """What a blocked thread waits for; a frozen value."""

    @property
    def deadline(self) -> int | None:
        """Virtual time in ticks at which it gives up, or ``None``."""

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it is over for another reason than time; changes nothing."""

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Take what was waited for; the function's result. Called once, right before the thread goes on."""

    def describe(self, system: System) -> str:
        """What is waited for, in words."""


class Continuation(Protocol):
    """What a system function does when the program's function that it called has returned; a frozen value."""

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Go on with the callee's integer result."""


@dataclass(frozen=True, slots=True)
class Invoke:
    """A system function wants the program's function at ``va`` called, then to go on with ``then``."""

    va: int
    arguments: tuple[int, ...]
    then: Continuation


class Ended(StrEnum):
    """A system function does not return."""

    THREAD = "thread"
    PROCESS = "process"
    CALL = "call"


Outcome = int | Wait | Invoke | Ended
"""What a system function does: return a result, block, call back, or never return."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A call from a system function into the program: where the stack and link register were, and what comes after."""

    sp: int
    link: int
    then: Continuation


@dataclass(slots=True, eq=False)
class GuestThread:
    """A thread. Its registers are in the processor while it is the active thread, else in ``context``, which is never written to.

    Attributes:
        id: From 1 on, by birth.
        start: Function that it runs, a VA.
        argument: Of that function.
        teb: VA of its thread environment block.
        stack_top: First byte behind its stack.
        stack_low: Lowest address that its stack may grow to.
        object: Its kernel object.
        executed: Instructions that it has executed.
        frames: Calls of system functions into the program that are under way, oldest first.
        host: Whether it is the host's, which makes calls.
    """

    id: int
    start: int
    argument: int
    teb: int
    stack_top: int
    stack_low: int
    object: int
    state: ThreadState = ThreadState.READY
    context: Context | None = None
    wait: Wait | None = None
    exit_code: int | None = None
    executed: int = 0
    frames: tuple[Frame, ...] = ()
    suspended: int = 0
    host: bool = False
    name: str = ""

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.state is not ThreadState.ENDED
