"""What each byte in memory comes of after a run: the store that made it, however often it was copied or written once more since."""

from __future__ import annotations

from dataclasses import dataclass


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

    A byte that is written as it was, as counting in another part of its word does, stays what it was; so does one that was read, when the
    whole value that was read is written somewhere.
    """

    def __init__(self) -> None:
        """Begin with memory that nothing has written to."""
        self.found: dict[int, Stored] = {}
        self._copies: dict[tuple[int, int], tuple[Stored | None, ...]] = {}
        """What the bytes of a value come of that was read, by its size and itself."""

    def read(self, va: int, size: int, value: int) -> None:
        """Note that ``value`` was read."""
        self._copies[size, value] = tuple(self.found.get(at) for at in range(va, va + size))

    def written(self, va: int, size: int, value: int) -> None:
        """Note that ``value`` was written."""
        copied = self._copies.get((size, value), (None,) * size)
        for at, origin in enumerate(copied):
            now, before = origin or Stored(va, size, value, at), self.found.get(va + at)
            if before is None or before.byte != now.byte:
                self.found[va + at] = now
