"""Exit codes, and how an exception becomes one."""

from __future__ import annotations

from enum import IntEnum

from hotpatch.errors import EmulatedFault, HotpatchError, NothingToDo, Refused


class Exit(IntEnum):
    """What the process's exit code says; a contract (docs/interface)."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    REFUSED = 4
    COUNTEREXAMPLE = 5


def exit_of(error: HotpatchError) -> Exit:
    """The exit code for an error that ended a verb."""
    match error:
        case EmulatedFault():
            return Exit.FAULT
        case NothingToDo():
            return Exit.NOTHING_TO_DO
        case Refused():
            return Exit.REFUSED
        case _:
            return Exit.USAGE


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
