"""What each byte in memory comes of after a run: the store that made it, however often it was copied or written once more since."""

from __future__ import annotations

from dataclasses import dataclass

_CHANCE = 16
"""Bits: what is no longer is in two places by chance, and so is no copy of what was read because it is the same."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one instruction wrote, or a part of it: where (a VA), how many bytes, their value, and ``at``, which of them is meant."""

    va: int
    size: int
    value: int
    at: int

    @property
    def byte(self) -> int:
        """The byte that is meant."""
        return self.value >> 8 * self.at & 0xFF


class History:
    """Of one run, told read by read and write by write.

    A byte that is written as it was stays what it was where its whole store was read there before and is another now: counting in another
    part of its word leaves it. A long value that was read stays what it was when it is written somewhere. Whatever else is written is new,
    the same byte too: that a store changed nothing is chance.
    """

    def __init__(self) -> None:
        """Begin with memory that nothing has written to."""
        self.found: dict[int, Stored] = {}
        self._copies: dict[tuple[int, int], tuple[Stored | None, ...]] = {}
        """What the bytes of a value come of that was read, by its size and itself."""
        self._clock = 0
        self._reads: dict[tuple[int, int], tuple[int, int]] = {}
        """When a place was last read, by VA and size, and what was there."""
        self._writes: dict[int, int] = {}
        """When a byte was last written."""

    def read(self, va: int, size: int, value: int) -> None:
        """Note that ``value`` was read."""
        self._clock += 1
        self._reads[va, size] = self._clock, value
        self._copies[size, value] = tuple(self.found.get(at) for at in range(va, va + size))

    def written(self, va: int, size: int, value: int) -> None:
        """Note that ``value`` was written."""
        self._clock += 1
        places = range(va, va + size)
        copied = self._copies.get((size, value), ()) if value.bit_length() > _CHANCE else ()
        since, old = self._reads.get((va, size), (0, value))
        counted = old != value and since > max(self._writes.get(place, 0) for place in places)
        for at, place in enumerate(places):
            new, before = Stored(va, size, value, at), self.found.get(place)
            if not (counted and before is not None and before.byte == new.byte):
                self.found[place] = (copied[at] if copied else None) or new
            self._writes[place] = self._clock
