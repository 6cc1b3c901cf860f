"""Functions that only exception data leads to: filters, ``__finally`` blocks, catch blocks and what unwinding a C++ frame calls.

Which personality an entry has is not asked, since a stripped image does not tell: each format is tried, and taken where everything in it
makes sense. Formats: ``SCOPE_TABLE_AMD64`` (winnt.h); ``FuncInfo`` of ``__CxxFrameHandler3`` and ``FuncInfo4`` of ``__CxxFrameHandler4``
(ehdata.h and ehdata4_export.h of Visual C++; "Making C++ Exception Handling Smaller On x64", C++ Team Blog).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hotpatch.image.image import Image

_SCOPE = struct.Struct("<IIII")
"""Begin, end, filter or finally block (1: always handle), target; RVAs."""
_HANDLE_ALWAYS = 1
MAGICS = range(0x19930520, 0x19930523)
"""What ``FuncInfo`` of version 3 begins with, flags apart; the last one tells the newest form."""
MAGIC_MASK = 0x1FFFFFFF
"""Of the word that holds it: the other bits are flags."""
_FUNC_INFO = struct.Struct("<IiIII")
"""``FuncInfo``: magic number, states, unwind map, try blocks, map of try blocks."""
_UNWIND = struct.Struct("<iI")
"""``UnwindMapEntry``: state that it leads to, action."""
_TRY = struct.Struct("<iiiiI")
"""``TryBlockMapEntry``: lowest and highest state of the block, highest of its handlers, handlers, their array."""
_HANDLER = struct.Struct("<IIIII")
"""``HandlerType``: adjectives, type, object, handler, frame."""
_LIMIT = 4096
"""Entries of a table; more are no table."""

_COMPACT_CATCH, _COMPACT_BBT, _COMPACT_UNWIND, _COMPACT_TRY = 0x01, 0x04, 0x08, 0x10
_COMPACT_RESERVED = 0x80
_ACTION_NONE, _ACTION_RVA = 0, 3
_HAS_ADJECTIVES, _HAS_TYPE, _HAS_OBJECT, _CONTINUES_AT_RVA = 0x01, 0x02, 0x04, 0x08


class _NoTableError(Exception):
    """What was read is of another format."""


class BlockRole(StrEnum):
    """What exception data leads to a block for."""

    FILTER = "filter"
    """Of an ``__except``."""
    FINALLY = "finally"
    UNWIND = "unwind"
    """Of a C++ frame: ends a state of it."""
    DESTRUCTOR = "destructor"
    """The same, but a function of its own, which whoever unwinds calls for an object of the frame."""
    CATCH = "catch"


class Block(NamedTuple):
    """What one row of exception data leads to."""

    role: BlockRole
    entry: Rva


@dataclass(frozen=True, slots=True, order=True)
class Funclet:
    """Code that exception data leads to.

    Attributes:
        entry: Its entry.
        parents: Beginnings of the function-table entries whose data leads to it.
        is_filter: Whether it is the filter of an ``__except``, which compilers make a function of its own, and no block of its parent.
    """

    entry: Rva
    parents: tuple[Rva, ...]
    is_filter: bool


def funclets(image: Image) -> tuple[Funclet, ...]:
    """What the exception data of all function-table entries leads to, sorted by entry."""
    found: dict[Rva, set[Rva]] = {}
    filters: set[Rva] = set()
    for data, parents in _parents(image).items():
        for role, rva in image.kept(blocks).get(data, ()):
            found.setdefault(rva, set()).update(parents)
            filters.update((rva,) if role is BlockRole.FILTER else ())
    return tuple(Funclet(rva, tuple(sorted(of)), rva in filters) for rva, of in sorted(found.items()))


def blocks(image: Image) -> Mapping[Rva, tuple[Block, ...]]:
    """What the exception data at each place leads to, in its order: blocks of one role by state or by how deep they are nested."""
    reader = _Reader(image)
    found: dict[Rva, tuple[Block, ...]] = {}
    for data in sorted(_parents(image)):
        for form in (_scopes, _frame_handler_3, _frame_handler_4):
            try:
                rows = tuple(form(reader, data))
            except _NoTableError:
                continue
            if rows:
                found[data] = rows
                break
    return found


def _parents(image: Image) -> Mapping[Rva, list[Rva]]:
    """Beginnings of the function-table entries that have exception data, by where those stand."""
    parents: dict[Rva, list[Rva]] = {}
    for entry in image.unwind_entries:
        if entry.handler_data is not None:
            parents.setdefault(entry.handler_data, []).append(entry.range.start)
    return parents


@dataclass(frozen=True, slots=True)
class _Reader:
    image: Image

    def unpack(self, layout: struct.Struct, rva: int) -> tuple[int, ...]:
        raw = self.image.read(rva, layout.size)
        if len(raw) < layout.size:
            raise _NoTableError
        return layout.unpack(raw)

    def code(self, rva: int) -> Rva:
        """``rva``, which must be that of an instruction."""
        section = self.image.section_at(rva)
        if section is None or not section.executable or rva % self.image.architecture.instruction_alignment:
            raise _NoTableError
        return Rva(rva)

    def data(self, rva: int) -> int:
        """``rva``, which must lie in a section that holds no code."""
        section = self.image.section_at(rva)
        if section is None or section.executable:
            raise _NoTableError
        return rva


def _scopes(reader: _Reader, data: int) -> Iterator[Block]:
    (count,) = reader.unpack(struct.Struct("<I"), data)
    if not 1 <= count <= _LIMIT:
        raise _NoTableError
    for index in range(count):
        begin, end, handler, target = reader.unpack(_SCOPE, data + 4 + index * _SCOPE.size)
        if reader.code(begin) > end or (target and not reader.code(target)):
            raise _NoTableError
        if handler != _HANDLE_ALWAYS:
            yield Block(BlockRole.FILTER if target else BlockRole.FINALLY, reader.code(handler))


def _frame_handler_3(reader: _Reader, data: int) -> Iterator[Block]:
    (info,) = reader.unpack(struct.Struct("<I"), data)
    magic, states, unwind_map, tries, try_map = reader.unpack(_FUNC_INFO, reader.data(info))
    if magic & MAGIC_MASK not in MAGICS or not 0 <= states <= _LIMIT or tries > _LIMIT:
        raise _NoTableError
    for index in range(states if unwind_map else 0):
        _, action = reader.unpack(_UNWIND, reader.data(unwind_map) + index * _UNWIND.size)
        if action:
            yield Block(BlockRole.UNWIND, reader.code(action))
    for index in range(tries):
        *_, handlers, array = reader.unpack(_TRY, reader.data(try_map) + index * _TRY.size)
        if not 0 <= handlers <= _LIMIT:
            raise _NoTableError
        for number in range(handlers):
            yield Block(BlockRole.CATCH, reader.code(reader.unpack(_HANDLER, reader.data(array) + number * _HANDLER.size)[3]))


def _frame_handler_4(reader: _Reader, data: int) -> Iterator[Block]:
    (info,) = reader.unpack(struct.Struct("<I"), data)
    stream = _Stream(reader, reader.data(info))
    header = stream.byte()
    if header & _COMPACT_RESERVED or not header & (_COMPACT_UNWIND | _COMPACT_TRY):
        raise _NoTableError
    if header & _COMPACT_BBT:
        stream.number()
    unwind_map = stream.rva() if header & _COMPACT_UNWIND else None
    try_map = stream.rva() if header & _COMPACT_TRY else None
    reader.data(stream.rva())  # states by instruction, which every function of this kind has
    if unwind_map is not None:
        yield from _compact_actions(_Stream(reader, reader.data(unwind_map)))
    if try_map is not None:
        tries = _Stream(reader, reader.data(try_map))
        for _ in tries.counted():
            for _ in range(3):
                tries.number()
            yield from _compact_handlers(_Stream(reader, reader.data(tries.rva())))


def _compact_actions(stream: _Stream) -> Iterator[Block]:
    for _ in stream.counted():
        kind = stream.number() & 3
        if kind == _ACTION_NONE:
            continue
        yield Block(BlockRole.UNWIND if kind == _ACTION_RVA else BlockRole.DESTRUCTOR, stream.reader.code(stream.rva()))
        if kind != _ACTION_RVA:
            stream.number()


def _compact_handlers(stream: _Stream) -> Iterator[Block]:
    for _ in stream.counted():
        header = stream.byte()
        if header & _HAS_ADJECTIVES:
            stream.number()
        if header & _HAS_TYPE:
            stream.rva()
        if header & _HAS_OBJECT:
            stream.number()
        yield Block(BlockRole.CATCH, stream.reader.code(stream.rva()))
        step: Callable[[], int] = stream.rva if header & _CONTINUES_AT_RVA else stream.number
        for _ in range(header >> 4 & 3):
            step()


@dataclass(slots=True)
class _Stream:
    """Compact data from ``at`` on: bytes, RVAs of 32 bits and numbers whose first byte tells their length."""

    reader: _Reader
    at: int

    def _take(self, size: int) -> bytes:
        raw = self.reader.image.read(self.at, size)
        if len(raw) < size:
            raise _NoTableError
        self.at += size
        return raw

    def byte(self) -> int:
        return self._take(1)[0]

    def rva(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def number(self) -> int:
        """Ones at the low end of the first byte, up to four, say how many bytes follow; after four ones those are the number."""
        first = self.byte()
        more = next((ones for ones in range(4) if not first >> ones & 1), 4)
        rest = int.from_bytes(self._take(more), "little")
        return rest if more == 4 else (rest << 8 | first) >> more + 1

    def counted(self) -> Iterable[int]:
        count = self.number()
        if count > _LIMIT:
            raise _NoTableError
        return range(count)
