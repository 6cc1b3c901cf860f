"""Arguments of calls as people and case manifests write them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.errors import InputError
from hotpatch.process import Buffer, Single

if TYPE_CHECKING:
    from hotpatch.process import Argument

_FORMS = "write 7, -1, 0x10, str:TEXT, hex:00FF, buf:N, f64:2.5 or f32:2.5 (C's double and float)"
_SMALLEST, _LIMIT = -(1 << 63), 1 << 64
_WANTED = {
    "hex": "two hexadecimal digits for each byte",
    "buf": "a number of bytes",
    "f64": "a number",
    "f32": "a number that fits single precision",
}


def parse_argument(text: str) -> Argument:
    """One ARG: an integer, ``str:TEXT``, ``hex:00FF``, ``buf:N``, ``f64:2.5`` or ``f32:2.5``.

    Raises:
        InputError: It is none of them.
    """
    subject = f"argument {text!r}"
    kind, colon, rest = text.partition(":")
    if not colon:
        return _integer(text, subject)
    try:
        match kind:
            case "str":
                return rest
            case "hex":
                data = bytes.fromhex(rest)
                buffer = Buffer(len(data))
                buffer.data = data
                return buffer
            case "buf":
                return Buffer(int(rest, 0))
            case "f64":
                return float(rest)
            case "f32":
                struct.pack("<f", number := Single(rest))
                return number
            case _:
                pass
    except (ValueError, OverflowError) as error:
        raise InputError(subject, f"{kind}: wants {_WANTED[kind]}; {_FORMS}") from error
    except InputError as error:
        raise InputError(subject, error.problem, error.rule) from error
    raise InputError(subject, f"unknown kind; {_FORMS}")


def _integer(text: str, subject: str) -> int:
    try:
        value = int(text, 0)
    except ValueError as error:
        raise InputError(subject, f"is no integer; {_FORMS}") from error
    if not _SMALLEST <= value < _LIMIT:
        raise InputError(subject, "does not fit 64 bits; give a number from -2**63 to 2**64 - 1")
    return value


def parse_count(text: str, subject: str, least: int = 0) -> int:
    """An integer from ``least``, which is 0 or more, decimal or 0x….

    Args:
        text: As it was typed.
        subject: What it stands for, such as ``--stop-at``, for the message.
        least: The smallest that can be used.

    Raises:
        InputError: It is none.
    """
    try:
        value = int(text, 0)
    except ValueError as error:
        raise InputError(f"{subject} {text!r}", "is no integer; write 7 or 0x10") from error
    if value < 0:
        raise InputError(f"{subject} {text!r}", f"is negative; write a number from {least}")
    if value < least:
        raise InputError(f"{subject} {text!r}", f"is less than {least}; write a number from {least}")
    return value
