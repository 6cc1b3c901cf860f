"""An image's bytes as the loader would map them at its preferred base, without building the whole."""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.image.model import Section

_PAGE = 0x1000
_U64 = struct.Struct("<Q")


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

    @cached_property
    def _whole(self) -> tuple[tuple[int, int, int, int], ...]:
        """Of each piece, largest first: start, start of the one behind it, end, and the distance from RVA to file offset."""
        behind = (*self._starts[1:], self.size)
        rows = [
            (start, following, min(start + length, self.size), offset - start)
            for (start, length, offset), following in zip(self._pieces, behind, strict=True)
        ]
        return tuple(sorted(rows, key=lambda row: row[0] - row[2]))

    def u64s(self, places: Iterable[int]) -> Iterator[int]:
        """The 64-bit numbers at ``places``, which are sorted RVAs; a page is read at once."""
        first = end = 0
        page = b""
        for place in places:
            if not first <= place < end:
                first, end = place, place + _PAGE
                page = self.read(place, _PAGE + _U64.size).ljust(_PAGE + _U64.size, b"\0")
            yield _U64.unpack_from(page, place - first)[0]

    def read(self, rva: int, size: int) -> bytes:
        """``size`` bytes from ``rva``, zeros where the file has none; fewer only past the image's end."""
        end = rva + size
        for start, following, stop, shift in self._whole:
            if start <= rva < following and end <= stop:
                return self.data[rva + shift : end + shift] if size > 0 else b""
        if rva < 0 or size <= 0 or rva >= self.size:
            return b""
        size = min(size, self.size - rva)
        index = bisect_right(self._starts, rva) - 1
        result = bytearray(size)
        for start, length, offset in self._pieces[max(index, 0) :]:
            if start >= rva + size:
                break
            low, high = max(start, rva), min(start + length, rva + size)
            if low < high:
                result[low - rva : high - rva] = self.data[offset + low - start : offset + high - start]
        return bytes(result)
