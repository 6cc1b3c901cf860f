"""What a run may come upon by the references of its code."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Reach(NamedTuple):
    """What code may come upon by its references, RVAs of the fixed image.

    Attributes:
        starts: Where all known data begin.
        own: Those of them that the function itself refers to, or what it goes on in.
        every: Those that the functions which it calls refer to, too.
    """

    starts: tuple[int, ...]
    own: frozenset[int]
    every: frozenset[int]

    def is_stray(self, rva: int, *, own: bool) -> bool:
        """Whether none of the references explains an access; ``own``: by the function's own instructions."""
        return bool(self.starts) and _start_of(self.starts, rva) not in (self.own if own else self.every)


def _start_of(starts: Sequence[int], rva: int) -> int:
    """Where what lies at ``rva`` begins."""
    return starts[max(bisect_right(starts, rva) - 1, 0)]


def holding(starts: Sequence[int], targets: Iterable[int]) -> frozenset[int]:
    """Where the things begin that ``targets`` lie in."""
    return frozenset(_start_of(starts, target) for target in targets)
