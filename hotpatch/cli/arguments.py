"""What users type for patches and instruction counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hotpatch.arguments import parse_argument, parse_count
from hotpatch.errors import InputError

__all__ = ["PatchAt", "parse_argument", "parse_count", "parse_patch"]


_COUNT = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class PatchAt:
    """``PATCH`` or ``PATCH@N``: which file, and after how many instructions."""

    path: str
    at: int | None


def parse_patch(text: str, *, needs_at: bool = False) -> PatchAt:
    """``PATCH[@N]``; an ``@`` that no number follows belongs to the path.

    Raises:
        InputError: ``@N`` is needed and missing.
    """
    path, mark, count = text.rpartition("@")
    if mark and path and _COUNT.fullmatch(count):
        return PatchAt(path, parse_count(count))
    if needs_at:
        raise InputError(text, "no instruction count; write PATCH@N")
    return PatchAt(text, None)
