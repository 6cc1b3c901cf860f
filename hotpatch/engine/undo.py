"""What was written where, and memory as it would be without it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hotpatch.address import Va


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """Bytes that a redirect replaced; ``before`` and ``after`` have the same length."""

    va: Va
    before: bytes
    after: bytes

    @property
    def end(self) -> int:
        """Address past the last byte."""
        return self.va + len(self.after)

    def rewritten(self, after: bytes) -> UndoRecord:
        """The same place with other bytes standing in it."""
        return UndoRecord(self.va, self.before, after)


class OriginalView:
    """Memory as it was before our own redirects.

    A patch is written against the base's own bytes, also when an older patch already redirects the function. Where something else than what
    was written stands, it is shown as it stands, so that a foreign change is seen and never masked.
    """

    def __init__(self, read: Callable[[Va, int], bytes], records: Iterable[UndoRecord]) -> None:
        """Look through ``read``, with ``records``, which never overlap, undone."""
        self._read = read
        self._records = sorted(
            (record for record in records if read(record.va, len(record.after)) == record.after), key=lambda record: record.va
        )
        self._starts = [record.va for record in self._records]

    def read(self, va: Va, size: int) -> bytes:
        """``size`` bytes at ``va`` without our redirects."""
        if not self._records:
            return self._read(va, size)
        memory = bytearray(self._read(va, size))
        first = max(bisect_right(self._starts, va) - 1, 0)
        for record in islice(self._records, first, None):
            if record.va >= va + size:
                break
            start, end = max(record.va, va), min(record.end, va + size)
            if start < end:
                memory[start - va : end - va] = record.before[start - record.va : end - record.va]
        return bytes(memory)
