"""Records of types in a PDB's type stream (TPI), and the sizes that they give global variables.

Layouts after microsoft/microsoft-pdb ``include/cvinfo.h`` and LLVM's "The PDB TPI and IPI Streams".
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import cached_property

_HEADER = struct.Struct("<IIIII")
"""Version, header size, first type index, one past the last, bytes of records."""
_RECORD = struct.Struct("<HH")
_FIRST_INDEX = 0x1000
_DEPTH_LIMIT = 16


class Leaf(IntEnum):
    """What a record, or an entry of a list of fields, says (``LEAF_ENUM_e``)."""

    MODIFIER = 0x1001
    POINTER = 0x1002
    FIELD_LIST = 0x1203
    BIT_FIELD = 0x1205
    BASE_CLASS = 0x1400
    MORE = 0x1404
    VTABLE = 0x1409
    ARRAY = 0x1503
    CLASS = 0x1504
    STRUCTURE = 0x1505
    UNION = 0x1506
    ENUM = 0x1507
    MEMBER = 0x150D
    STATIC_MEMBER = 0x150E
    METHODS = 0x150F
    NESTED = 0x1510
    METHOD = 0x1511
    INTERFACE = 0x1519


_CLASSES = frozenset({Leaf.CLASS, Leaf.STRUCTURE, Leaf.INTERFACE})

_WORD = struct.Struct("<I")
_POINTER = struct.Struct("<II")
_ARRAY = struct.Struct("<II")
_CLASS = struct.Struct("<HHIII")
_UNION = struct.Struct("<HHI")
_ENUM = struct.Struct("<HHI")
_FORWARD = 0x80
_HAS_UNIQUE_NAME = 0x200

_NUMERIC = {0x8000: "<b", 0x8001: "<h", 0x8002: "<H", 0x8003: "<i", 0x8004: "<I", 0x8009: "<q", 0x800A: "<Q"}
"""``LF_CHAR`` … ``LF_UQUADWORD``; a 16-bit word below 0x8000 is the number itself."""

_POINTER_MODES = {0x4: 4, 0x5: 6, 0x6: 8, 0x7: 16}
"""Mode nibble of a simple type's index → bytes of the pointer."""

_SIMPLE = {
    1: (0x10, 0x20, 0x30, 0x68, 0x69, 0x70, 0x7C),
    2: (0x11, 0x21, 0x31, 0x46, 0x71, 0x72, 0x73, 0x7A),
    4: (0x08, 0x12, 0x22, 0x32, 0x40, 0x74, 0x75, 0x7B),
    8: (0x13, 0x23, 0x33, 0x41, 0x50, 0x76, 0x77),
    16: (0x14, 0x24, 0x43, 0x51, 0x78, 0x79),
    10: (0x42,),
}
_SIMPLE_SIZE = {kind: size for size, kinds in _SIMPLE.items() for kind in kinds}


class TypeSizes:
    """Sizes of the types of one type stream, in bytes."""

    def __init__(self, stream: bytes) -> None:
        """Index ``stream``; a damaged one simply knows fewer types."""
        self._stream = stream
        self._offsets: list[int] = []
        if len(stream) < _HEADER.size:
            return
        _, header_size, first, last, _ = _HEADER.unpack_from(stream)
        if first != _FIRST_INDEX:
            return
        at = header_size
        while at + _RECORD.size <= len(stream) and len(self._offsets) < last - first:
            (length, _) = _RECORD.unpack_from(stream, at)
            if length < 2:
                break
            self._offsets.append(at)
            at += length + 2

    def size(self, index: int) -> int | None:
        """Bytes that a variable of type ``index`` takes; ``None`` where the stream does not say."""
        try:
            return self._size(index, _DEPTH_LIMIT)
        except (struct.error, IndexError):
            return None

    def is_array(self, index: int) -> bool:
        """Whether type ``index`` is an array, constant ones among them."""
        try:
            for _ in range(_DEPTH_LIMIT):
                if index < _FIRST_INDEX:
                    return False
                kind, body = self._record(index)
                if kind != Leaf.MODIFIER:
                    return kind == Leaf.ARRAY
                (index,) = _WORD.unpack_from(body)
        except (struct.error, IndexError):
            pass
        return False

    def _size(self, index: int, depth: int) -> int | None:
        if index < _FIRST_INDEX:
            return simple_size(index)
        if not depth or index - _FIRST_INDEX >= len(self._offsets):
            return None
        kind, body = self._record(index)
        if kind == Leaf.MODIFIER:
            return self._size(_WORD.unpack_from(body)[0], depth - 1)
        if kind == Leaf.POINTER:
            return int(_POINTER.unpack_from(body)[1] >> 13 & 0x3F)
        if kind == Leaf.ENUM:
            return self._size(_ENUM.unpack_from(body)[2], depth - 1)
        if kind == Leaf.ARRAY:
            return numeric(body, _ARRAY.size)[0]
        fields = _compound(kind, body)
        if fields is None:
            return None
        size, name, forward = fields
        if not forward:
            return size
        return next((found for one in self._definitions.get(name, ()) if (found := self._size(one, depth - 1)) is not None), None)

    def record(self, index: int) -> tuple[int, bytes] | None:
        """Kind and body of the record of type ``index``; ``None`` for a simple type, which has none.

        Raises:
            IndexError: There is no such type.
            struct.error: The stream is damaged.
        """
        return None if index < _FIRST_INDEX else self._record(index)

    def definitions_of(self, index: int) -> tuple[int, ...]:
        """The type itself where it is a complete structure, class or union; those of its name where it is only declared.

        Raises:
            IndexError: There is no such type.
            struct.error: The stream is damaged.
        """
        fields = _compound(*self._record(index)) if index >= _FIRST_INDEX else None
        if fields is None:
            return ()
        return tuple(self._definitions.get(fields[1], ())) if fields[2] else (index,)

    def _record(self, index: int) -> tuple[int, bytes]:
        at = self._offsets[index - _FIRST_INDEX]
        length, kind = _RECORD.unpack_from(self._stream, at)
        return kind, self._stream[at + _RECORD.size : at + 2 + length]

    @cached_property
    def _definitions(self) -> dict[bytes, list[int]]:
        """Unique (or plain) names of complete structures → their indices; variables often name the forward declaration."""
        found: dict[bytes, list[int]] = {}
        for index in range(_FIRST_INDEX, _FIRST_INDEX + len(self._offsets)):
            try:
                fields = _compound(*self._record(index))
            except (struct.error, IndexError):
                continue
            if fields is not None and not fields[2] and fields[0] is not None:
                found.setdefault(fields[1], []).append(index)
        return found


def simple_size(index: int) -> int | None:
    """Bytes of the type that ``index`` itself tells, as those below 0x1000 do."""
    mode = index >> 8 & 0xF
    return _POINTER_MODES.get(mode) if mode else _SIMPLE_SIZE.get(index & 0xFF)


def _compound(kind: int, body: bytes) -> tuple[int | None, bytes, bool] | None:
    """Size, name and whether it is only declared, of a structure, class or union."""
    if kind in _CLASSES:
        layout = _CLASS
    elif kind == Leaf.UNION:
        layout = _UNION
    else:
        return None
    properties = layout.unpack_from(body)[1]
    size, at = numeric(body, layout.size)
    names = body[at:].split(b"\0")
    unique = bool(properties & _HAS_UNIQUE_NAME) and len(names) > 1
    return size, names[1] if unique else names[0], bool(properties & _FORWARD)


def numeric(body: bytes, at: int) -> tuple[int | None, int]:
    """A number leaf at ``at`` and where it ends."""
    value = int.from_bytes(body[at : at + 2], "little")
    if value < 0x8000:
        return value, at + 2
    form = _NUMERIC.get(value)
    if form is None:
        return None, at + 2
    return struct.unpack_from(form, body, at + 2)[0], at + 2 + struct.calcsize(form)
