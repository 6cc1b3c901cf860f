"""What goes into a process's calls and comes out of its runs: arguments, results, views, copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.errors import InputError, expect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.address import Va
    from hotpatch.arch import Instruction
    from hotpatch.emulator.snapshots import GuestSnapshot
    from hotpatch.engine.registry import Registry
    from hotpatch.errors import Fault, StackFrame
    from hotpatch.process.patches import PatchesState


class Buffer:
    """Bytes that a call gets a pointer to and may write; :attr:`data` holds what it left there.

    Attributes:
        data: What is copied into the process, and after the call what the process has there; its length stays.
    """

    __slots__ = ("data",)

    def __init__(self, size: int) -> None:
        """``size`` zero bytes.

        Raises:
            InputError: ``size`` is negative or absurd.
        """
        expect(size, int, "a number of bytes", "Buffer(64) has 64; bytes can be passed as they are")
        if not 0 <= size <= 1 << 30:
            raise InputError(f"buffer of {size} bytes", "is no size of a buffer; give 0 to 2**30 bytes")
        self.data = bytes(size)

    def __repr__(self) -> str:
        """Its contents, in hexadecimal."""
        return f"Buffer({self.data.hex()})"


Argument = int | float | bytes | bytearray | str | Buffer
"""What can be passed to a call: numbers by value, the rest by pointer (str as UTF-8 plus NUL)."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call gave.

    Attributes:
        value: The integer result register, unsigned 64 bits.
        float_value: The floating-point result register as a double.
        instructions: That all threads executed meanwhile.
        buffers: Contents of the Buffer arguments after the call, in order.
        output: What the program wrote meanwhile.
    """

    value: int
    float_value: float
    instructions: int
    buffers: tuple[bytes, ...]
    output: str


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call under way: of what, after how many instructions and bytes of output it began, and where its Buffer arguments lie."""

    va: Va
    began: int
    written: int
    buffers: tuple[tuple[Buffer, Va], ...]


@dataclass(frozen=True, slots=True)
class AppliedAt:
    """A patch that went in while the process ran: its file's name, after how many instructions, how many functions."""

    patch: str
    at: int
    functions: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a process stands after a run.

    Attributes:
        exit_code: Of the process, ``None`` while it lives.
        output: Everything that it has written, UTF-8 with undecodable bytes as a backslash, x and two digits.
        instructions: Executed since the program's first, by all threads.
        threads: Started so far, the main thread among them.
        finished: Whether nothing is left to run.
        fault: What ended it, if anything did.
    """

    exit_code: int | None
    output: str
    instructions: int
    threads: int
    finished: bool
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A stopped thread, for people.

    Attributes:
        id: The thread's.
        state: ``ready``, ``blocked``, …
        pc: Next instruction.
        function: That it lies in, where known.
        registers: By name.
        code: The next few instructions; targets are VAs.
        stack: Innermost first.
        waits_for: In words, where it is blocked.
        executed: Instructions that this thread has executed.
    """

    id: int
    state: str
    pc: Va
    function: str | None
    registers: Mapping[str, int]
    code: tuple[Instruction, ...]
    stack: tuple[StackFrame, ...]
    waits_for: str | None
    executed: int


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """A process and its patches at one moment."""

    guest: GuestSnapshot
    engine: Registry
    patches: PatchesState
    last: CallResult | None
