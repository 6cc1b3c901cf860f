"""Arm64 function tables: packed words and ``.xdata`` headers (MS Learn, "ARM64 exception handling")."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva
from hotpatch.arch import Flow, Machine, architecture
from hotpatch.image.model import Range, UnwindEntry

if TYPE_CHECKING:
    from collections.abc import Callable

_ARCHITECTURE = architecture(Machine.ARM64)
_ENTRY = struct.Struct("<II")
_WORD = struct.Struct("<I")
_UNPACKED, _PACKED, _PACKED_FRAGMENT, _FORWARDED = range(4)
_FLAG_MASK = 3
_END, _END_C = 0xE4, 0xE5
_LONG_CODES = {0xE0: 4, 0xE2: 2, 0xE7: 3, 0xF8: 2, 0xF9: 3, 0xFA: 4, 0xFB: 5}
"""First byte of the codes from 0xE0 on that take more than one byte."""


def entries(table: Range, read: Callable[[int, int], bytes]) -> tuple[UnwindEntry, ...]:
    """The table's entries by start."""
    raw = read(table.start, table.size)
    rows = sorted({row for row in _ENTRY.iter_unpack(raw[: len(raw) // _ENTRY.size * _ENTRY.size]) if row[0]})
    found: list[UnwindEntry] = []
    for index, (begin, word) in enumerate(rows):
        owner, used = (begin, word) if word & _FLAG_MASK != _FORWARDED else _forwarded(begin, word, read)
        said = _describe(used, read)
        following = rows[index + 1][0] if index + 1 < len(rows) else None
        end = begin + said.size if following is None or following == begin else min(begin + said.size, following)
        if end <= begin:
            continue
        if said.continues and owner == begin and found and found[-1].range.end == begin and _falls_into(begin, read):
            owner = found[-1].primary
        found.append(UnwindEntry(Range(Rva(begin), Rva(end)), (begin, word), said.info, Rva(owner), said.handler, said.data))
    return tuple(found)


def _falls_into(begin: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether control goes on from what precedes; otherwise a fragment that happens to follow may be another function's cold part."""
    size = _ARCHITECTURE.instruction_alignment
    return any(one.flow in {Flow.NEXT, Flow.BRANCH} for one in _ARCHITECTURE.disassemble(read(begin - size, size), begin - size))


def _forwarded(begin: int, word: int, read: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Begin and word of the entry that a word of kind 3 points at (seen in Microsoft's own binaries; not documented)."""
    raw = read(word & ~_FLAG_MASK, _ENTRY.size)
    if len(raw) == _ENTRY.size:
        owner, target = _ENTRY.unpack(raw)
        if owner and target & _FLAG_MASK != _FORWARDED:
            return owner, target
    return begin, 0


class _Description(NamedTuple):
    """Size of the code in bytes, RVA of the ``.xdata`` record, whether it goes on from other code, RVAs of the handler and its data."""

    size: int
    info: Rva | None = None
    continues: bool = False
    handler: Rva | None = None
    data: Rva | None = None


def _describe(word: int, read: Callable[[int, int], bytes]) -> _Description:
    kind = word & _FLAG_MASK
    if kind in {_PACKED, _PACKED_FRAGMENT}:
        return _Description((word >> 2 & 0x7FF) * 4, continues=kind == _PACKED_FRAGMENT)
    header = _word(word, read)
    if not word or header is None:
        return _Description(0)
    epilogs, words, at = header >> 22 & 0x1F, header >> 27, word + 4
    if not epilogs and not words:
        extension = _word(at, read) or 0
        epilogs, words, at = extension & 0xFFFF, extension >> 16 & 0xFF, at + 4
    at += 0 if header >> 21 & 1 else 4 * epilogs
    behind = at + 4 * words
    handler = _word(behind, read) if header >> 20 & 1 else None
    continues = _has_parent(read(at, 4 * words))
    if handler is None:
        return _Description((header & 0x3FFFF) * 4, Rva(word), continues)
    return _Description((header & 0x3FFFF) * 4, Rva(word), continues, Rva(handler), Rva(behind + _WORD.size))


def _word(rva: int, read: Callable[[int, int], bytes]) -> int | None:
    raw = read(rva, _WORD.size)
    return int(_WORD.unpack(raw)[0]) if len(raw) == _WORD.size else None


def _has_parent(codes: bytes) -> bool:
    """Whether an ``end_c`` stands before the first ``end``: what follows it is the prologue of the code that this one goes on from."""
    at = 0
    while at < len(codes) and codes[at] != _END:
        if codes[at] == _END_C:
            return True
        at += _code_size(codes[at])
    return False


def _code_size(first: int) -> int:
    """Bytes of the unwind code that begins with ``first``."""
    if first < 0xC0:
        return 1
    return _LONG_CODES.get(first, 2 if first < 0xE0 else 1)
