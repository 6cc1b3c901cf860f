"""Threads of an emulated process: values and small records, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.emulator.binding import Context
    from hotpatch.emulator.system import System
    from hotpatch.errors import Fault


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
    """A system function wants the program's function at ``va`` called, then to go on with ``then``.

    ``interrupted``: see :class:`Frame`. ``registers``: preserved registers that the function finds set, and that are put back afterwards.
    """

    va: int
    arguments: tuple[int, ...]
    then: Continuation
    interrupted: Interrupted | None = None
    registers: tuple[tuple[str, int], ...] = ()


class Ended(StrEnum):
    """A system function does not return."""

    THREAD = "thread"
    PROCESS = "process"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class GoOn:
    """The thread goes on as its registers have been set."""


@dataclass(frozen=True, slots=True)
class Faulted:
    """The program ends with a fault."""

    fault: Fault


Outcome = int | Wait | Invoke | Ended | GoOn | Faulted
"""What a system function does: return a result, block, call back, never return, or set registers."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Where a walk of the stack goes on behind a call that interrupts the program: all that a frame has.

    Attributes:
        registers: Of the frame.
        calls: Calls of system functions into the program that lie farther out.
        dispatcher: VA of the dispatcher context that says which scopes of the frame have been served, or 0.
        called: Whether the program counter is a return address.
    """

    registers: Mapping[str, int]
    calls: tuple[Frame, ...]
    dispatcher: int = 0
    called: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A call from a system function into the program.

    Attributes:
        sp: The stack pointer before it.
        link: The link register before it.
        then: What comes after it.
        kept: Preserved registers that it changed, with their values before it.
        interrupted: What the program was doing, where it was interrupted rather than had called a system function.
    """

    sp: int
    link: int
    then: Continuation
    kept: tuple[tuple[str, int], ...] = ()
    interrupted: Interrupted | None = None


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
