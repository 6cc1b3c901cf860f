"""What users type for patches, instruction counts and addresses."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.arguments import parse_argument, parse_count
from hotpatch.errors import InputError
from hotpatch.process import BUDGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.process import Argument

__all__ = ["PatchAt", "is_at", "load_base_of", "parse_argument", "parse_arguments", "parse_budget", "parse_count", "parse_patch"]

_COUNT = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class PatchAt:
    """``PATCH`` or ``PATCH@N``: which file, and after how many instructions."""

    path: str
    at: int | None


def parse_patch(text: str, *, needs_at: bool = False) -> PatchAt:
    """``PATCH[@N]``; where there is a file of just that name, that one is meant, and no count.

    Raises:
        InputError: ``@N`` is needed and missing, or what follows the ``@`` is no number.
    """
    path, mark, count = text.rpartition("@")
    whole = not needs_at and Path(text).is_file()
    if mark and path and not whole and _COUNT.fullmatch(count):
        return PatchAt(path, int(count, 16 if count[:2] in ("0x", "0X") else 10))
    if needs_at:
        raise InputError(text, "has no instruction count; write PATCH@N, such as fix.dll@4000")
    if mark and not whole:
        raise InputError(text, "is neither a file nor a file and an instruction count; write PATCH or PATCH@N, such as fix.dll@4000")
    return PatchAt(text, None)


def parse_arguments(texts: Sequence[str]) -> list[Argument]:
    """The ARGs of a call.

    Raises:
        InputError: One is none.
    """
    for text in texts:
        if is_at(text):
            problem = "is no argument; a count of instructions stands right behind its patch, as in --patch fix.dll" + text
            raise InputError(text, f"{problem}; without one the patch goes in before the call")
    return [parse_argument(text) for text in texts]


def is_at(text: str) -> bool:
    """Whether ``text`` is a lone ``@N``."""
    return text.startswith("@") and _COUNT.fullmatch(text[1:]) is not None


def parse_budget(typed: str | None) -> int:
    """``--budget`` in instructions; the package's own where it was not given.

    Raises:
        InputError: It is no number, or 0.
    """
    return BUDGET if typed is None else parse_count(typed, "--budget", 1)


@contextmanager
def load_base_of(typed: str | None) -> Iterator[int | None]:
    """``--load-base`` as a VA; where that turns out to be no base, the error names it as it was typed.

    Raises:
        InputError: It is no number.
    """
    va = None if typed is None else parse_count(typed, "--load-base")
    try:
        yield va
    except InputError as error:
        if va is None or error.subject != f"0x{va:x}":
            raise
        raise InputError(f"--load-base {typed}", error.problem, error.rule) from error
