"""An image's bytes as the loader would map them at its preferred base, without building the whole."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.image.model import Section

_PAGE = 0x1000


@dataclass(frozen=True, eq=False)
class MappedBytes:
    """The file ``data`` seen through its ``sections`` (by RVA); sizes in bytes."""

    data: bytes
    sections: tuple[Section, ...]
    headers_size: int
    size: int

    @cached_property
    def _pieces(self) -> tuple[tuple[int, int, int], ...]:
        """Start, size and file offset of each stretch that comes from the file: a section's raw data up to the end of its last page."""
        pieces = [(0, self.headers_size, 0)]
        for section in self.sections:
            pages = -(-(section.virtual_size or section.raw_size) // _PAGE) * _PAGE
            pieces.append((section.rva, min(section.raw_size, pages), section.offset))
        return tuple(piece for piece in pieces if piece[1])

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(start for start, _, _ in self._pieces)

    def read(self, rva: int, size: int) -> bytes:
        """``size`` bytes from ``rva``, zeros where the file has none; fewer only past the image's end."""
        if rva < 0 or size <= 0 or rva >= self.size:
            return b""
        size = min(size, self.size - rva)
        index = bisect_right(self._starts, rva) - 1
        if index >= 0:
            start, length, offset = self._pieces[index]
            if rva + size <= start + length:
                return self.data[offset + rva - start : offset + rva - start + size]
        result = bytearray(size)
        for start, length, offset in self._pieces[max(index, 0) :]:
            if start >= rva + size:
                break
            low, high = max(start, rva), min(start + length, rva + size)
            if low < high:
                result[low - rva : high - rva] = self.data[offset + low - start : offset + high - start]
        return bytes(result)
