"""x64 function tables: ``RUNTIME_FUNCTION`` and the chaining part of ``UNWIND_INFO`` (MS Learn, "x64 exception handling")."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.model import Range, UnwindEntry, range_of

if TYPE_CHECKING:
    from collections.abc import Callable

_ENTRY = struct.Struct("<III")
_HEADER = struct.Struct("<BBBB")
_RVA = struct.Struct("<I")
_CODE_SIZE = 2
_FLAG_HANDLERS = 0x3
"""``UNW_FLAG_EHANDLER`` and ``UNW_FLAG_UHANDLER``."""
_FLAG_CHAINED = 0x4
_INDIRECT = 0x1
"""In the unwind word: the rest is the RVA of the function-table entry to use instead (``RUNTIME_FUNCTION_INDIRECT`` of winnt.h)."""
_CHAIN_LIMIT = 32


def entries(table: Range, read: Callable[[int, int], bytes]) -> tuple[UnwindEntry, ...]:
    """The table's entries by start."""
    found: dict[Range, UnwindEntry] = {}
    raw = read(table.start, table.size)
    for words in _ENTRY.iter_unpack(raw[: len(raw) // _ENTRY.size * _ENTRY.size]):
        begin, end, _ = words
        if not begin < end:
            continue
        effective = _effective(words, read)
        first, _, info = effective
        header = read(info, _HEADER.size)
        flags = header[0] >> 3 if len(header) == _HEADER.size else 0
        handler, data = _handler(info, header, read) if flags & _FLAG_HANDLERS and not flags & _FLAG_CHAINED else (None, None)
        primary = _primary(effective, read) if flags & _FLAG_CHAINED else first
        where = range_of((begin, end))
        found.setdefault(where, UnwindEntry(where, words, Rva(info), Rva(primary), handler, data))
    return tuple(found[key] for key in sorted(found))


def chained(info: int, read: Callable[[int, int], bytes]) -> tuple[int, int, int] | None:
    """The entry that the unwind information at ``info`` (RVA) continues, or ``None`` where it stands alone."""
    header = read(info, _HEADER.size)
    if len(header) < _HEADER.size:
        return None
    version_flags, _, count, _ = _HEADER.unpack(header)
    if not version_flags >> 3 & _FLAG_CHAINED:
        return None
    raw = read(info + _HEADER.size + (count + 1 & ~1) * _CODE_SIZE, _ENTRY.size)
    return _ENTRY.unpack(raw) if len(raw) == _ENTRY.size else None


def _handler(info: int, header: bytes, read: Callable[[int, int], bytes]) -> tuple[Rva, Rva] | tuple[None, None]:
    """RVAs of the handler and of its data; ``header`` is what the unwind information at ``info`` begins with, which has one."""
    at = info + _HEADER.size + (header[2] + 1 & ~1) * _CODE_SIZE
    raw = read(at, _RVA.size)
    return (Rva(_RVA.unpack(raw)[0]), Rva(at + _RVA.size)) if len(raw) == _RVA.size else (None, None)


def _effective(entry: tuple[int, int, int], read: Callable[[int, int], bytes]) -> tuple[int, int, int]:
    """The entry itself, or the one that it says to use instead."""
    word = entry[2]
    if word & _INDIRECT:
        raw = read(word & ~_INDIRECT, _ENTRY.size)
        if len(raw) == _ENTRY.size and not _ENTRY.unpack(raw)[2] & _INDIRECT:
            return _ENTRY.unpack(raw)
    return entry


def _primary(entry: tuple[int, int, int], read: Callable[[int, int], bytes]) -> int:
    for _ in range(_CHAIN_LIMIT):
        outer = chained(entry[2], read)
        if outer is None or not outer[0] < outer[1]:
            break
        entry = outer
    return entry[0]
