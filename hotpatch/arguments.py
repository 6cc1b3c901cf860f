"""Arguments of calls as people and case manifests write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import InputError
from hotpatch.process import Buffer

if TYPE_CHECKING:
    from hotpatch.process import Argument

_FORMS = "write 7, -1, 0x10, str:TEXT, hex:00FF, buf:N or f64:2.5"


def parse_argument(text: str) -> Argument:
    """One ARG: an integer, ``str:TEXT``, ``hex:00FF``, ``buf:N`` or ``f64:2.5``.

    Raises:
        InputError: It is none of them.
    """
    kind, colon, rest = text.partition(":")
    try:
        match kind if colon else "":
            case "str":
                return rest
            case "hex":
                data = bytes.fromhex(rest)
                buffer = Buffer(len(data))
                buffer.data = data
                return buffer
            case "buf":
                return Buffer(parse_count(rest))
            case "f64":
                return float(rest)
            case "":
                return int(text, 0)
            case _:
                pass
    except ValueError as error:
        raise InputError(f"argument {text!r}", f"{error}; {_FORMS}") from error
    except InputError as error:
        raise InputError(f"argument {text!r}", error.problem) from error
    raise InputError(f"argument {text!r}", f"unknown kind; {_FORMS}")


def parse_count(text: str) -> int:
    """A non-negative integer, decimal or 0x….

    Raises:
        InputError: It is none.
    """
    try:
        value = int(text, 0)
    except ValueError as error:
        raise InputError(f"number {text!r}", "not an integer; write 7 or 0x10") from error
    if value < 0:
        raise InputError(f"number {text!r}", "negative; write a count from 0")
    return value
