"""Patch tables: chunks of records, written and read after our published reading of the public constants (``docs/patch-format.md``).

A table is a run of chunks that ends with a zero word. A chunk is one word (type, flags, size of the whole chunk in bytes), then records of
equal size: a source RVA where the type has bit ``SOURCE_RVA``, then a target RVA where it has bit ``TARGET_RVA``. What does not fit is
kept raw, to the last byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.patch.layout import CHUNK_TYPE_BITS, CHUNK_TYPE_OF_BITS, WORD, Chunk, ChunkType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NO_FLAGS = Chunk(0)
UNREAD = "unread"
"""Type name of bytes that are no chunk by our reading."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a patch table.

    Attributes:
        type_name: A :class:`ChunkType` value, ``0x…`` for a type that the header does not name, or ``unread``.
        flags: The chunk's other bits.
        source_rva: Where the type has one.
        target_rva: Where the type has one.
        raw: The record's bytes; for an unknown type the whole chunk's.
    """

    type_name: str
    source_rva: Rva | None
    target_rva: Rva | None
    raw: bytes
    flags: Chunk = _NO_FLAGS


def record(kind: ChunkType, *, source: Rva | None = None, target: Rva | None = None, flags: Chunk = Chunk.OBLIGATORY) -> Record:
    """A record of a known type.

    Raises:
        ValueError: The type wants an RVA that is missing, or has none for one that is given.
    """
    bits = CHUNK_TYPE_BITS[kind]
    for name, rva, bit in (("source", source, Chunk.SOURCE_RVA), ("target", target, Chunk.TARGET_RVA)):
        if (rva is not None) != bool(bits & bit):
            raise ValueError(f"a {kind} record has {'a' if bits & bit else 'no'} {name} RVA")
    return Record(kind.value, source, target, b"".join(_word(rva) for rva in (source, target) if rva is not None), flags)


def write_table(records: Iterable[Record]) -> bytes:
    """The table of ``records`` (made by :func:`record`), neighbours of one type and flags in one chunk, with its end mark."""
    out = bytearray()
    for (name, flags), group in groupby(records, key=lambda item: (item.type_name, item.flags)):
        bits = CHUNK_TYPE_BITS[ChunkType(name)]
        raws = [item.raw for item in group]
        most = (Chunk.SIZE - WORD) // len(raws[0])
        for first in range(0, len(raws), most):
            body = b"".join(raws[first : first + most])
            out += _word(flags | bits | (WORD + len(body))) + body
    return bytes(out) + _word(0)


def read_table(data: bytes) -> tuple[Record, ...]:
    """Every record of the table that ``data`` begins with; never fails."""
    return tuple(_records(data))


def _records(data: bytes) -> Iterator[Record]:
    at = 0
    while at + WORD <= len(data):
        (head,) = struct.unpack_from("<I", data, at)
        if head == 0:
            return
        size = head & Chunk.SIZE
        if size < WORD or at + size > len(data):
            break
        yield from _chunk(head, data[at : at + size])
        at += size
    if at < len(data):
        yield Record(UNREAD, None, None, data[at:])


def _chunk(head: int, chunk: bytes) -> Iterator[Record]:
    bits = head & Chunk.TYPE
    kind = CHUNK_TYPE_OF_BITS.get(bits)
    flags = Chunk(head & ~(Chunk.TYPE | Chunk.SIZE) & 0xFFFFFFFF)
    source, target = bool(bits & Chunk.SOURCE_RVA), bool(bits & Chunk.TARGET_RVA)
    size = WORD * (source + target)
    body = chunk[WORD:]
    if kind is None or not size or len(body) % size:
        yield Record(kind.value if kind else f"0x{bits:x}", None, None, chunk, flags)
        return
    for at in range(0, len(body), size):
        raw = body[at : at + size]
        words = list(struct.unpack(f"<{len(raw) // WORD}I", raw))
        yield Record(kind.value, Rva(words.pop(0)) if source else None, Rva(words.pop(0)) if target else None, raw, flags)


def _word(value: int) -> bytes:
    return struct.pack("<I", value)
