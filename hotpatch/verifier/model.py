"""What verification takes and finds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.process import Argument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.address import Va
    from hotpatch.errors import FaultKind, Refusal
    from hotpatch.verifier.micro_model import MicroReport

Call = tuple[Argument, ...]
"""``(function, argument, …)`` as :meth:`hotpatch.process.Process.call` takes them. Buffers are copied: no run changes them."""


class Kind(StrEnum):
    """How a run during which the patch went in (or was taken back) ended.

    The *versions* of a call are what it gives with the base alone, with the patch from before it, and, for every number k, with the first
    k calls of patched functions led by hand to one version and all later ones to the other (:mod:`hotpatch.verifier.oracle`). A run at a
    boundary must give the version whose k is the number of such calls that had begun before that boundary.
    """

    OLD = "old"
    """It did, and that is what the base alone gives."""
    NEW = "new"
    """It did, and that is what the patch from the beginning gives."""
    PER_CALL = "per_call"
    """It did, and that is neither: some calls were old, the later ones new (on revert: the other way round)."""
    MIXED = "mixed"
    """It did not, though each part of what it gave (result registers, each buffer, output, module data, how it ended) is some version's:
    old and new do not fit together, or calls changed over elsewhere than at the next call."""
    WRONG = "wrong"
    """It ended in a fault, or one part is what no version gives; or the patch from the beginning is not what the fixed image gives."""


VIOLATIONS = (Kind.MIXED, Kind.WRONG)
"""What must not happen."""


class Action(StrEnum):
    """What is done at a boundary."""

    APPLY = "apply"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave.

    Attributes:
        value: The integer result register, unsigned 64 bits; ``None`` unless it returned.
        float_bits: The low 64 bits of the floating-point result register, likewise.
        buffers: Contents of the Buffer arguments, in order, also after a fault.
        output: What the program wrote.
        data: The module's writable sections, one after the other.
        fault: What kind of fault ended it, if one did.
        access: Of an access violation.
        address: Of an access violation on data, a VA.
        exit_code: Where it ended the process.
    """

    value: int | None
    float_bits: int | None
    buffers: tuple[bytes, ...]
    output: str
    data: bytes
    fault: FaultKind | None = None
    access: str | None = None
    address: Va | None = None
    exit_code: int | None = None

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.fault is not None:
            where = f" of 0x{self.address:x}" if self.address is not None else ""
            return f"{self.fault.value}{f' on {self.access}' if self.access else ''}{where}"
        return "returned" if self.exit_code is None else f"exit of the process with {self.exit_code}"

    def parts(self) -> Mapping[str, object]:
        """The parts that are compared, by name."""
        named: dict[str, object] = {"end": self.ended, "return": self.value, "float": self.float_bits}
        named.update((f"buffer {index}", content) for index, content in enumerate(self.buffers))
        return named | {"output": self.output, "data": self.data}


@dataclass(frozen=True, slots=True)
class Violation:
    """A counterexample.

    Attributes:
        boundary: Instructions of the call that had been executed when the patch went in or was taken back.
        thread: Whose turn it was.
        pc: Its next instruction, a VA.
        function: That this lies in, where known.
        what: One sentence: which call, what was done, what came of it, what is right.
        kind: ``mixed`` or ``wrong``.
        schedule: Choices of the scheduler that lead there; empty, because only calls on one thread are tried.
    """

    boundary: int
    thread: int
    pc: Va
    function: str | None
    what: str
    kind: Kind
    schedule: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call and one action.

    Attributes:
        call: As text.
        action: What was done at the boundaries.
        instructions: Of the run into which it was done.
        entries: Calls of patched functions that began in it (as far as it was walked).
        tried: Boundaries at which it was done.
        outcomes: How many runs ended how.
        refused: At how many boundaries the engine refused.
        exhaustive: Whether ``tried`` are all boundaries.
        fault: Why that run did not return, if it did not; one that was given up has more boundaries, of which nothing is known.
    """

    call: str
    action: Action
    instructions: int
    entries: int
    tried: int
    outcomes: Mapping[Kind, int]
    refused: int
    exhaustive: bool
    fault: FaultKind | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found.

    Attributes:
        boundaries: Runs, one for each boundary and action: ``outcomes`` and refusals add up to it.
        schedules: Schedules tried: one for each call.
        outcomes: How many runs ended how; every :class:`Kind` is a key.
        violations: By call, action, boundary.
        exhaustive: Whether every boundary of every call was tried.
        bound: What was covered, in words.
        refused: What the engine refused at some boundary, once for each rule; evidence says where first and how often.
        calls: The same by call and action.
        functions: What micro-execution found, where functions were run on made-up state instead of calls.
    """

    boundaries: int
    schedules: int
    outcomes: Mapping[Kind, int]
    violations: tuple[Violation, ...]
    exhaustive: bool
    bound: str
    refused: tuple[Refusal, ...]
    calls: tuple[CallReport, ...]
    functions: tuple[MicroReport, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no counterexample was found."""
        return not self.violations
