"""Arm64 function tables: packed words and ``.xdata`` headers (MS Learn, "ARM64 exception handling")."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.model import Range, UnwindEntry

if TYPE_CHECKING:
    from collections.abc import Callable

_ENTRY = struct.Struct("<II")
_WORD = struct.Struct("<I")
_UNPACKED, _PACKED, _PACKED_FRAGMENT, _FORWARDED = range(4)
_FLAG_MASK = 3
_END_C = 0xE5
"""Unwind code that stands first where a fragment has no prologue of its own."""


def entries(table: Range, read: Callable[[int, int], bytes]) -> tuple[UnwindEntry, ...]:
    """The table's entries by start."""
    raw = read(table.start, table.size)
    rows = sorted({row for row in _ENTRY.iter_unpack(raw[: len(raw) // _ENTRY.size * _ENTRY.size]) if row[0]})
    found: list[UnwindEntry] = []
    for index, (begin, word) in enumerate(rows):
        owner, word_used = (begin, word) if word & _FLAG_MASK != _FORWARDED else _forwarded(begin, word, read)
        size, info, continues = _describe(word_used, read)
        following = rows[index + 1][0] if index + 1 < len(rows) else None
        end = begin + size if following is None or following == begin else min(begin + size, following)
        if end <= begin:
            continue
        if continues and owner == begin and found and found[-1].range.end == begin:
            owner = found[-1].primary
        found.append(UnwindEntry(Range(Rva(begin), Rva(end)), (begin, word), None if info is None else Rva(info), Rva(owner)))
    return tuple(found)


def _forwarded(begin: int, word: int, read: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Begin and word of the entry that a word of kind 3 points at (seen in Microsoft's own binaries; not documented)."""
    raw = read(word & ~_FLAG_MASK, _ENTRY.size)
    if len(raw) == _ENTRY.size:
        owner, target = _ENTRY.unpack(raw)
        if owner and target & _FLAG_MASK != _FORWARDED:
            return owner, target
    return begin, 0


def _describe(word: int, read: Callable[[int, int], bytes]) -> tuple[int, int | None, bool]:
    """Size in bytes, RVA of the ``.xdata`` record (``None`` where packed), and whether it is a fragment without a prologue."""
    kind = word & _FLAG_MASK
    if kind in {_PACKED, _PACKED_FRAGMENT}:
        return (word >> 2 & 0x7FF) * 4, None, kind == _PACKED_FRAGMENT
    raw = read(word, _WORD.size)
    if not word or len(raw) < _WORD.size:
        return 0, None, False
    (header,) = _WORD.unpack(raw)
    return (header & 0x3FFFF) * 4, word, read(code_offset(word, read), 1) == bytes([_END_C])


def code_offset(info: int, read: Callable[[int, int], bytes]) -> int:
    """RVA of the first unwind code of the ``.xdata`` record at ``info``."""
    (header,) = _WORD.unpack(read(info, _WORD.size))
    epilogs, words = header >> 22 & 0x1F, header >> 27
    at = info + 4
    if not epilogs and not words:
        (extension,) = _WORD.unpack(read(at, _WORD.size).ljust(4, b"\0"))
        epilogs, at = extension & 0xFFFF, at + 4
    single = header >> 21 & 1
    return at if single else at + 4 * epilogs
