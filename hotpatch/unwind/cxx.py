"""Exception tables of C++ functions, version 3 (plain) and 4 (compressed): read, checked, and copied behind the unwind information.

Formats: ``ehdata.h`` and ``ehdata4.h`` as Visual C++ ships them (``FuncInfo``, ``UnwindMapEntry``, ``TryBlockMapEntry``, ``HandlerType``,
``IpToStateMapEntry``, and their ``4`` forms), and the article "Making C++ Exception Handling Smaller On x64" of the C++ team. All addresses
are distances from the image's start; a compressed number has its length in its lowest bits.

Everything is read strictly: a table that does not lead where such a table leads is not carried.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind
from hotpatch.image import Range
from hotpatch.image.funclets import MAGIC_MASK, MAGICS
from hotpatch.unwind.model import Meaning, UnwindReference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.image import Function, Image, UnwindEntry

_I32 = struct.Struct("<i")
_FUNC_INFO = struct.Struct("<10i")
"""magic, states, unwind map, try blocks, try map, IP entries, IP map, unwind help (frame offset), exception list, flags."""
_TRY = struct.Struct("<5i")
_CATCH = struct.Struct("<5i")
_PAIR = struct.Struct("<ii")
_NO_EXCEPT = 4
"""Flag of ``FuncInfo`` (``FI_EHNOEXCEPT_FLAG``)."""
_LIMIT = 8192
_NAME_LIMIT = 4096
_DESCRIPTOR_SIZE = 16
"""Bytes of a type descriptor before its name."""
_RUST_PANIC = b"rust_panic"
"""The only type that Rust code throws and catches by a descriptor: a name without a decoration (``panic_unwind/src/seh.rs``)."""
_FH4_CATCH, _FH4_SEPARATED, _FH4_BBT, _FH4_UNWIND, _FH4_TRY, _FH4_RESERVED = 1, 2, 4, 8, 0x10, 0x80
_NO_UNWIND, _DTOR_RVA = 0, 3
_LENGTHS = (1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 1, 3, 1, 2, 1, 5)
"""Bytes of a compressed number by the low four bits of its first byte."""


class Malformed(Exception):  # noqa: N818  never leaves this room
    """What stands there is no exception table of this function."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A function's exception tables, to be put behind its unwind information.

    Attributes:
        data: The tables, one behind the other, each at a multiple of 4.
        first: Where in ``data`` the first of them (``FuncInfo``) stands.
        references: Fields in ``data``; those that name another table have :attr:`Meaning.INFO` and its offset in ``data`` as addend.
    """

    data: bytes
    first: int
    references: tuple[UnwindReference, ...]


def carry(image: Image, entry: UnwindEntry, func_info: int, version: int) -> Tables:
    """The tables at ``func_info``, of ``version`` 3 or 4.

    Raises:
        Malformed: They cannot be read, or not be moved with the function.
    """
    function = image.function_at(entry.range.start)
    if function is None or entry.info is None:
        raise Malformed("no function")
    reader = _Reader(image, entry, function)
    if version == 3:
        _version_3(reader, func_info)
    else:
        _version_4(reader, func_info)
    return reader.tables(func_info)


def is_version_3(image: Image, func_info: int) -> bool:
    """Whether ``FuncInfo`` of version 3 stands there."""
    section = image.section_at(func_info)
    return section is not None and not section.writable and image.u32(func_info) & MAGIC_MASK in MAGICS


def maps_of_version_3(image: Image, func_info: int) -> tuple[int, ...]:
    """Where the maps begin that ``FuncInfo`` of version 3 leads to: linkers lay them right behind the data that lead to it."""
    if not is_version_3(image, func_info):
        return ()
    _, states, unwind, tries, try_map, ips, ip_map, *_ = _FUNC_INFO.unpack(
        image.read(func_info, _FUNC_INFO.size).ljust(_FUNC_INFO.size, b"\0")
    )
    return tuple(start for count, start in ((states, unwind), (tries, try_map), (ips, ip_map)) if count)


@dataclass
class _Reader:
    image: Image
    entry: UnwindEntry
    function: Function
    blobs: dict[int, int] = field(default_factory=dict)
    """Start → size in bytes of each table."""
    fields: list[tuple[int, int, int, Meaning]] = field(default_factory=list)
    """Address of the field, target, addend, meaning."""

    def number(self, at: int) -> int:
        return int.from_bytes(self.image.read(at, 4), "little", signed=True)

    def words(self, at: int, form: struct.Struct) -> tuple[int, ...]:
        raw = self.image.read(at, form.size)
        if len(raw) < form.size:
            raise Malformed("the end of the image")
        found: tuple[int, ...] = form.unpack(raw)
        return found

    def take(self, start: int, size: int) -> None:
        section = self.image.section_at(start)
        if section is None or section.executable or size <= 0 or start + size > section.range.end:
            raise Malformed(f"a table at 0x{start:x}")
        self.blobs[start] = max(size, self.blobs.get(start, 0))

    def table(self, at: int, target: int) -> None:
        self.fields.append((at, target, 0, Meaning.INFO))

    def code(self, at: int, rva: int, parts: tuple[Range, ...]) -> None:
        """A place in the function or in what the tables call."""
        part = next((part for part in parts if part.start <= rva < part.end), None)
        part = part or next((part for part in parts if rva == part.end), None) or self._elsewhere(rva)
        if part is None:
            raise Malformed(f"0x{rva:x} is in none of the function's parts")
        self.fields.append((at, part.start, rva - part.start, Meaning.CODE))

    def _elsewhere(self, rva: int) -> Range | None:
        """The part of another function: tables of version 3 are a function's and all its blocks'."""
        owner = self.image.function_at(rva) or self.image.function_at(rva - 1)
        return next((part for part in owner.ranges if part.start <= rva <= part.end), None) if owner is not None else None

    def block(self, at: int, rva: int) -> Range:
        """A block that the unwinding system calls with the function's frame: it travels with the function, where it is no part of it."""
        owner = self.image.function_at(rva)
        if owner is None:
            raise Malformed(f"0x{rva:x} is no function")
        if owner.entry == rva and owner is not self.function:
            self.fields.append((at, rva, 0, Meaning.HANDLER))
            return owner.ranges[0]
        part = next(part for part in owner.ranges if rva in part)
        self.fields.append((at, part.start, rva - part.start, Meaning.CODE))
        return part

    def callee(self, at: int, rva: int) -> None:
        """A destructor that is called as such."""
        owner = self.image.function_at(rva)
        if owner is None or owner.entry != rva:
            raise Malformed(f"0x{rva:x} is no function")
        self.fields.append((at, rva, 0, Meaning.CALLEE))

    def descriptor(self, at: int, rva: int) -> None:
        """The type that a handler catches."""
        descriptor_range(self.image, rva)
        self.fields.append((at, rva, 0, Meaning.DATA))

    def tables(self, func_info: int) -> Tables:
        """Everything that was taken, laid out anew."""
        offsets: dict[int, int] = {}
        data = bytearray()
        for start in sorted(self.blobs):
            data += bytes(-len(data) % 4)
            offsets[start] = len(data)
            data += self.image.read(start, self.blobs[start])
        references = []
        for at, target, addend, meaning in sorted(self.fields):
            owner = max(start for start in self.blobs if start <= at)
            if meaning is Meaning.INFO:
                target, addend = int(self.entry.info or 0), offsets[target]
            references.append(UnwindReference(offsets[owner] + at - owner, Rva(target), addend, FixupKind.ADDR32NB, meaning))
        return Tables(bytes(data), offsets[func_info], tuple(references))


def descriptor_range(image: Image, rva: int) -> Range:
    """The type descriptor at ``rva``: a pointer to the descriptors' vtable, a spare word, the decorated name, or that of Rust's panics.

    Raises:
        Malformed: None stands there.
    """
    raw, end, _ = image.read(rva + _DESCRIPTOR_SIZE, _NAME_LIMIT).partition(b"\0")
    named = raw == _RUST_PANIC or (raw.startswith(b".") and raw.isascii())
    if not end or not named or Rva(rva) not in image.pointers:
        raise Malformed(f"no type descriptor at 0x{rva:x}")
    return Range(Rva(rva), Rva(rva + _DESCRIPTOR_SIZE + len(raw) + 1))


# version 3 -------------------------------------------------------------------------------------------------------------------------------


def _version_3(reader: _Reader, start: int) -> None:
    if not is_version_3(reader.image, start):
        raise Malformed("no FuncInfo")
    reader.take(start, _FUNC_INFO.size)
    magic, states, unwind, tries, try_map, ips, ip_map, _, exceptions, flags = reader.words(start, _FUNC_INFO)
    if exceptions or magic & MAGIC_MASK != MAGICS[-1] or not all(0 <= count <= _LIMIT for count in (states, tries, ips)):
        raise Malformed("FuncInfo of an unknown form")
    parts = list(reader.function.ranges)
    if states:
        reader.table(start + 8, unwind)
        parts += _unwinding_blocks(reader, unwind, states)
    if tries:
        reader.table(start + 16, try_map)
        parts += _handlers(reader, try_map, tries, states)
    if ips:
        reader.table(start + 24, ip_map)
        known = states or int(bool(flags & _NO_EXCEPT))  # where an exception ends the program, a state says so
        _take_places(reader, ip_map, ips, known, tuple(parts))


def _unwinding_blocks(reader: _Reader, start: int, states: int) -> Iterator[Range]:
    reader.take(start, states * _PAIR.size)
    for at in range(start, start + states * _PAIR.size, _PAIR.size):
        following, action = reader.number(at), reader.number(at + 4)
        if not -1 <= following < states:
            raise Malformed("a state that does not exist")
        if action:
            yield reader.block(at + 4, action)


def _handlers(reader: _Reader, start: int, tries: int, states: int) -> Iterator[Range]:
    reader.take(start, tries * _TRY.size)
    for at in range(start, start + tries * _TRY.size, _TRY.size):
        low, high, last, catches, handlers = reader.words(at, _TRY)
        if not 0 <= low <= high < last < states + 1 or not 0 < catches <= _LIMIT:
            raise Malformed("a try block of an unknown form")
        reader.table(at + 16, handlers)
        reader.take(handlers, catches * _CATCH.size)
        for catch in range(handlers, handlers + catches * _CATCH.size, _CATCH.size):
            kind, handler = reader.number(catch + 4), reader.number(catch + 12)
            if kind:
                reader.descriptor(catch + 4, kind)
            yield reader.block(catch + 12, handler)


def _take_places(reader: _Reader, start: int, count: int, states: int, parts: tuple[Range, ...]) -> None:
    """The map from places in the code to states."""
    reader.take(start, count * _PAIR.size)
    before = -1
    for at in range(start, start + count * _PAIR.size, _PAIR.size):
        rva, state = reader.number(at), reader.number(at + 4)
        if rva < before or not -1 <= state < states:
            raise Malformed("places that do not rise, or a state that does not exist")
        reader.code(at, rva, parts)
        before = rva


# version 4 -------------------------------------------------------------------------------------------------------------------------------


class _Cursor:
    """Reads one table from front to end."""

    def __init__(self, reader: _Reader, start: int) -> None:
        self.reader, self.start, self.at = reader, start, start

    def byte(self) -> int:
        raw = self.reader.image.read(self.at, 1)
        if not raw:
            raise Malformed("the end of the image")
        self.at += 1
        return raw[0]

    def word(self) -> tuple[int, int]:
        """A distance from the image's start: where it stands, and itself."""
        self.at += 4
        return self.at - 4, self.reader.number(self.at - 4)

    def compressed(self) -> int:
        raw = self.reader.image.read(self.at, 5)
        if not raw:
            raise Malformed("the end of the image")
        size = _LENGTHS[raw[0] & 15]
        self.at += size
        if size == 5:
            return int.from_bytes(raw[1:5], "little")
        return int.from_bytes(raw[:size], "little") >> size

    def count(self, least: int = 1) -> int:
        count = self.compressed()
        if not least <= count <= _LIMIT:
            raise Malformed("a count that cannot be")
        return count

    def done(self) -> None:
        self.reader.take(self.start, self.at - self.start)


def _version_4(reader: _Reader, start: int) -> None:
    info = _Cursor(reader, start)
    header = info.byte()
    if header & (_FH4_RESERVED | _FH4_SEPARATED):
        raise Malformed("FuncInfo of an unknown form, or of a function in parts that lie apart")
    if header & _FH4_BBT:
        info.compressed()
    states = 0
    if header & _FH4_UNWIND:
        at, unwind = info.word()
        reader.table(at, unwind)
        states = _unwind_map_4(reader, unwind)
    if header & _FH4_TRY:
        at, tries = info.word()
        reader.table(at, tries)
        _try_map_4(reader, tries, states)
    at, ips = info.word()
    if ips:
        reader.table(at, ips)
        _ip_map_4(reader, ips, states)
    if header & _FH4_CATCH:
        info.compressed()
    info.done()


def _unwind_map_4(reader: _Reader, start: int) -> int:
    cursor = _Cursor(reader, start)
    count = cursor.count()
    places: list[int] = []
    for _ in range(count):
        places.append(cursor.at)
        packed = cursor.compressed()
        kind, back = packed & 3, packed >> 2
        if back > places[-1] - start:
            raise Malformed("an entry that continues before the map")
        if kind == _NO_UNWIND:
            continue
        at, action = cursor.word()
        if kind == _DTOR_RVA:
            reader.block(at, action)
        else:
            reader.callee(at, action)
            cursor.compressed()
    cursor.done()
    return count


def _try_map_4(reader: _Reader, start: int, states: int) -> None:
    cursor = _Cursor(reader, start)
    for _ in range(cursor.count()):
        low, high, last = cursor.compressed(), cursor.compressed(), cursor.compressed()
        if not low <= high < last <= states:
            raise Malformed("a try block of an unknown form")
        at, handlers = cursor.word()
        reader.table(at, handlers)
        _catches_4(reader, handlers)
    cursor.done()


def _catches_4(reader: _Reader, start: int) -> None:
    cursor = _Cursor(reader, start)
    for _ in range(cursor.count()):
        header = cursor.byte()
        continuations = header >> 4 & 3
        if header & 0xC0 or continuations == 3:
            raise Malformed("a handler of an unknown form")
        if header & 1:
            cursor.compressed()
        if header & 2:
            at, kind = cursor.word()
            if kind:
                reader.descriptor(at, kind)
        if header & 4:
            cursor.compressed()
        reader.block(*cursor.word())
        for _ in range(continuations):
            if header & 8:
                at, rva = cursor.word()
                reader.code(at, rva, reader.function.ranges)
            else:
                _require_near(reader, cursor.compressed())
    cursor.done()


def _ip_map_4(reader: _Reader, start: int, states: int) -> None:
    cursor = _Cursor(reader, start)
    place = 0
    for _ in range(cursor.count(least=0)):  # none in a catch block that destroys nothing
        place += cursor.compressed()
        _require_near(reader, place)
        if cursor.compressed() > states:
            raise Malformed("a state that does not exist")
    cursor.done()


def _require_near(reader: _Reader, offset: int) -> None:
    """Places that count from the function's start hold as long as what lies between moves in one piece."""
    end = reader.function.entry
    for part in sorted(reader.function.ranges):
        if part.start == end:
            end = part.end
    if reader.function.entry + offset > end:
        raise Malformed("a place outside of the function's first part")
