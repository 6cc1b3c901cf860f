"""What users type for arguments, patches and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.errors import InputError

if TYPE_CHECKING:
    from hotpatch.process import Buffer

    Argument = int | float | bytes | str | Buffer


@dataclass(frozen=True, slots=True)
class PatchAt:
    """``PATCH`` or ``PATCH@N``: which file, and after how many instructions."""

    path: str
    at: int | None


def parse_argument(text: str) -> Argument:
    """One ARG: an integer, ``str:TEXT``, ``hex:00FF``, ``buf:N`` or ``f64:2.5``.

    Raises:
        InputError: It is none of them.
    """
    from hotpatch.process import Buffer

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
        raise InputError(f"argument {text!r}", f"{error}; write 7, -1, 0x10, str:TEXT, hex:00FF, buf:N or f64:2.5") from error
    raise InputError(f"argument {text!r}", "unknown kind; write 7, -1, 0x10, str:TEXT, hex:00FF, buf:N or f64:2.5")


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


def parse_patch(text: str, *, needs_at: bool = False) -> PatchAt:
    """``PATCH[@N]``; an ``@`` that no number follows belongs to the path.

    Raises:
        InputError: ``@N`` is needed and missing.
    """
    path, mark, count = text.rpartition("@")
    if mark and path and count[:1].isdigit():
        return PatchAt(path, parse_count(count))
    if needs_at:
        raise InputError(text, "no instruction count; write PATCH@N")
    return PatchAt(text, None)
