"""The exception tree, and refusals as values.

Everything that the package raises on purpose derives from :class:`HotpatchError`. A refusal is data first (:class:`Refusal`) and is raised
inside :class:`Refused`, so that front doors, test harnesses and reports all see the same rule, place, bytes and advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hotpatch.address import Rva, Va


_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor or changes a terminal, turns the direction of writing, or is a byte of a file name that is no text."""


def printable(text: str) -> str:
    """``text`` with what must not reach a terminal as escapes: what a file or a symbol is called may be anything."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(number: int, thing: str) -> str:
    """``1 function``, ``2 functions``."""
    return f"{number} {thing}{'s' * (number != 1)}"


class Rule(StrEnum):
    """Names of the rules by which something is refused; ``docs/limits.md`` explains each."""

    # what can be read and compared
    HYBRID_IMAGE = "hybrid-image"
    MACHINE_DIFFERS = "machine-differs"
    NO_SUCH_FUNCTION = "no-such-function"
    # what may travel
    DATA_LAYOUT = "data-layout"
    DATA_INIT = "data-init"
    EXPORT_ABI = "export-abi"
    NOT_CHANGED = "not-changed"
    FOLDED = "folded-function"
    RUN_ONCE = "run-once"
    START_UP = "start-up-differs"
    POLICY = "policy-differs"
    UNRESOLVED_REFERENCE = "unresolved-reference"
    CONTRADICTING_VOTES = "contradicting-votes"
    CALLBACKS = "callbacks-unknown"
    UNDECODABLE = "undecodable-instruction"
    UNWIND = "unwind-data"
    IMPORT_UNAVAILABLE = "import-unavailable"
    SELF_CHECK = "self-check"
    MICRO_EXECUTION = "micro-execution"
    # how an entry can be redirected and an instruction moved
    FUNCTION_TOO_SHORT = "function-too-short"
    ENTRY_NOT_PATCHABLE = "entry-not-patchable"
    NO_PADDING = "no-padding"
    CANNOT_RELOCATE = "cannot-relocate"
    BRANCH_INTO_DISPLACED = "branch-into-displaced"
    OUT_OF_REACH = "out-of-reach"
    # applying, reverting
    WRONG_BASE = "wrong-base"
    UNEXPECTED_BYTES = "unexpected-bytes"
    FOREIGN_HOOK = "foreign-hook"
    REDIRECT_CHANGED = "redirect-changed"
    NOT_LOADED = "module-not-loaded"
    SEQUENCE = "sequence"
    NOT_APPLIED = "not-applied"
    NOT_REACHED = "not-reached"
    NOT_ON_TOP = "not-on-top"
    CONSISTENCY_NEEDS_HPAT = "consistency-needs-hpat"
    NOT_QUIESCENT = "not-quiescent"
    IN_TRANSITION = "in-transition"
    CALLBACK_VETO = "callback-veto"
    CALLBACK_FAULT = "callback-fault"
    CANNOT_ROLL_BACK = "cannot-roll-back"
    OBLIGATORY = "obligatory"
    STATE_VERSION = "state-version"
    THREAD_IN_DISPLACED = "thread-in-displaced"
    NO_ADDRESS_SPACE = "no-address-space"
    MALFORMED_PATCH = "malformed-patch"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done.

    Attributes:
        rule: The rule's name.
        function: The function's name where it has one.
        rva: Where in the image, as an RVA in bytes.
        reason: One sentence that ends with what to do, without a full stop.
        evidence: Facts a reader can check, JSON-compatible (bytes as hexadecimal text, addresses as integers).
    """

    rule: Rule
    function: str | None
    rva: Rva | None
    reason: str
    evidence: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        """The refusal as one line: rule, place, reason."""
        place = self.function or (f"rva:0x{self.rva:x}" if self.rva is not None else "")
        return f"{self.rule}: {place}: {self.reason}" if place else f"{self.rule}: {self.reason}"


class HotpatchError(Exception):
    """Root of everything that this package raises on purpose."""


class InputRule(StrEnum):
    """Names of what makes an input unusable (exit code 2); ``docs/interface.md`` explains each."""

    USAGE = "bad-usage"
    ARGUMENT = "bad-argument"
    NO_FILE = "no-such-file"
    NOT_A_FILE = "not-a-file"
    UNREADABLE = "unreadable-file"
    DAMAGED = "damaged-file"
    NO_IMAGE = "not-an-image"
    UNSUPPORTED = "unsupported-image"
    MACHINE = "other-machine"
    NO_PATCH = "not-a-patch"
    PATCH_VERSION = "patch-version"
    WRONG_PDB = "wrong-pdb"
    LOAD = "cannot-be-loaded"
    OUTPUT = "cannot-be-written"
    DOCUMENT = "malformed-document"
    PACKAGE = "package-unavailable"
    INSTALLATION = "incomplete-installation"


class InputError(HotpatchError):
    """A file or an argument that cannot be used (exit code 2).

    Attributes:
        subject: The file or argument as the user gave it.
        problem: What is wrong with it, and what to do.
        rule: The name of what is wrong.
    """

    def __init__(self, subject: str, problem: str, rule: InputRule = InputRule.ARGUMENT) -> None:
        """Say which input (``subject``), what is wrong with it and what to do (``problem``), and how that is called (``rule``)."""
        super().__init__(f"{printable(subject) or repr(subject)}: {problem}")
        self.subject = subject
        self.problem = problem
        self.rule = rule


def expect(value: object, kind: type | tuple[type, ...], what: str, do: str) -> None:
    """Refuse a ``value`` that is not of ``kind``, which is ``what`` in words, and say what to ``do``.

    Raises:
        InputError: It is of another kind.
    """
    if not isinstance(value, kind):
        raise InputError(repr(value), f"is of type {type(value).__name__}, but {what} is wanted; {do}")


class NothingToDo(HotpatchError):  # noqa: N818  the outcome is not an error, only an end
    """The two builds do not differ in function (exit code 3)."""


class Refused(HotpatchError):  # noqa: N818  the field says "refused"
    """Something was refused (exit code 4); nothing was changed.

    Attributes:
        refusals: Every reason, in a stable order; never empty.
    """

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        """Carry ``refusals``."""
        self.refusals = tuple(refusals)
        super().__init__("; ".join(map(str, self.refusals)))


class NotHotpatchable(Refused):
    """The builder refuses to make a patch."""


class CannotRelocate(Refused):
    """Displaced instructions cannot be moved."""


class OutOfReach(Refused):
    """A branch or an operand cannot express the distance to its target."""


class ApplyRefused(Refused):
    """The engine refuses to apply a patch; the process is as it was."""


class RevertRefused(Refused):
    """The engine refuses to revert a patch; the process is as it was."""


class FaultKind(StrEnum):
    """What kind of fault ended an emulated program."""

    ACCESS_VIOLATION = "access-violation"
    ILLEGAL_INSTRUCTION = "illegal-instruction"
    BREAKPOINT = "breakpoint"
    DIVIDE = "integer-divide"
    FAST_FAIL = "fast-fail"
    UNKNOWN_IMPORT = "unknown-import"
    BUDGET = "instruction-budget"
    DEADLOCK = "deadlock"
    EXCEPTION = "unhandled-exception"


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One frame of a walked stack: the program counter and the function that it lies in, where known."""

    pc: Va
    function: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of an emulated program, as the fault document of the interface has it; addresses are VAs."""

    kind: FaultKind
    address: Va
    pc: Va
    function: str | None
    access: str | None
    stack: tuple[StackFrame, ...] = ()
    detail: str = ""


class EmulatedFault(HotpatchError):  # noqa: N818  the interface's name
    """The emulated program faulted (exit code 1)."""

    def __init__(self, fault: Fault) -> None:
        """Carry ``fault``."""
        where = f" in {fault.function}" if fault.function else ""
        what = f", {fault.access} of 0x{fault.address:x}" if fault.access else ""
        why = f": {fault.detail}" if fault.detail else ""
        super().__init__(f"{fault.kind} at pc 0x{fault.pc:x}{where}{what}{why}")
        self.fault = fault
