"""Ranges of addresses that are looked up by what they overlap."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")


class Spans(Generic[_T]):
    """Half-open ranges, which may overlap, each with something that stands for it."""

    def __init__(self, items: Iterable[tuple[int, int, _T]]) -> None:
        """Take ``items``: start, end, what stands for it."""
        self._items = sorted(items, key=_range)
        self._starts = [start for start, _, _ in self._items]
        self._ends = list(accumulate((end for _, end, _ in self._items), max))
        """Of each range the furthest end of it and of those before it."""

    def overlapping(self, start: int, end: int) -> Iterator[_T]:
        """What stands for the ranges that have an address of ``start`` to before ``end``, the last first."""
        at = bisect_left(self._starts, end) - 1
        while at >= 0 and self._ends[at] > start:
            if self._items[at][1] > start:
                yield self._items[at][2]
            at -= 1

    def covering(self, rva: int) -> Iterator[_T]:
        """What stands for the ranges that ``rva`` is in."""
        return self.overlapping(rva, rva + 1)

    def covers(self, rva: int) -> bool:
        """Whether ``rva`` is in any."""
        return any(True for _ in self.covering(rva))


def _range(item: tuple[int, int, _T]) -> tuple[int, int]:
    return item[0], item[1]
