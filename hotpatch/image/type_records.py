"""Type information of C++ classes and thrown objects (Visual C++, 64-bit): records that hold image-relative addresses.

No base relocation marks those, and they differ wherever the linker has moved what they lead to. So the records are compared by what they
say: names of types, how bases lie in them, sizes, and which functions copy and destroy. Layouts: ``rttidata.h`` and ``ehdata.h`` of Visual
C++ (``_RTTICompleteObjectLocator``, ``_RTTIClassHierarchyDescriptor``, ``_RTTIBaseClassDescriptor``, ``_ThrowInfo``, ``_CatchableType``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from hotpatch.image.image import Image

_LOCATOR = struct.Struct("<6I")
"""Signature (1: image-relative), offset of the vtable in the object, of the displacement for constructors, type, hierarchy, itself."""
_HIERARCHY = struct.Struct("<4I")
"""Signature, attributes, number of bases, array of those; RVAs."""
_BASE = struct.Struct("<IIiiiII")
"""Type, bases that it contains, displacements (member, vtable of virtual bases, in that), attributes, hierarchy."""
_THROWN = struct.Struct("<4I")
"""Attributes, destructor, compatibility, array of catchable types (a number, then RVAs)."""
_CATCHABLE = struct.Struct("<IIiiiII")
"""Properties, type, three displacements, size, copy constructor."""
_WORD = struct.Struct("<I")
_NAME = 16
"""Of a type's name from the beginning of its descriptor: ``type_info``'s vtable and a pointer that is null in the file come first."""
_LONGEST_NAME = 4096
_MOST = 256
"""Bases of a class, or types that an object can be caught as; more are no table."""
_THROW_ATTRIBUTES = 0x1F
"""const, volatile, unaligned, pure, WinRT."""


class _NoRecordError(Exception):
    """What was read is something else."""


@dataclass(frozen=True, slots=True)
class TypeRecord:
    """A locator or a description of what is thrown.

    Attributes:
        meaning: All that it says but for addresses of code; equal where two records say the same.
        code: The functions that it names, as RVAs, in order.
        parts: Where it and the records that it leads to begin.
    """

    meaning: Hashable
    code: tuple[int, ...]
    parts: frozenset[int]


def type_record(image: Image, rva: int) -> TypeRecord | None:
    """The record at ``rva``, where a whole one stands there."""
    first = image.read(rva, 4)
    if len(first) < 4 or rva % 4:
        return None
    reader = _Reader(image, {rva})
    try:
        if first == b"\x01\0\0\0" and image.u32(rva + 20) == rva:
            meaning = reader.locator(rva)
            return TypeRecord(meaning, (), frozenset(reader.parts))
        if first[0] <= _THROW_ATTRIBUTES and first[1:] == b"\0\0\0":
            meaning = reader.thrown(rva)
            return TypeRecord(meaning, tuple(reader.code), frozenset(reader.parts))
    except _NoRecordError:
        pass
    return None


class _Reader:
    def __init__(self, image: Image, parts: set[int]) -> None:
        self.image, self.parts = image, parts
        self.code: list[int] = []

    def unpack(self, layout: struct.Struct, rva: int) -> tuple[int, ...]:
        section = self.image.section_at(rva)
        raw = self.image.read(rva, layout.size)
        if section is None or section.executable or rva % 4 or len(raw) < layout.size:
            raise _NoRecordError
        self.parts.add(rva)
        return layout.unpack(raw)

    def array(self, rva: int, count: int) -> Iterator[int]:
        if not 0 < count <= _MOST:
            raise _NoRecordError
        return (self.unpack(_WORD, rva + _WORD.size * index)[0] for index in range(count))

    def name(self, rva: int) -> bytes:
        """Of the type whose descriptor is at ``rva``; it is what types are told apart by."""
        section = self.image.section_at(rva)
        raw = self.image.read(rva + _NAME, _LONGEST_NAME)
        if section is None or section.executable or rva not in self.image.pointers or not raw.startswith(b".") or self.image.u64(rva + 8):
            raise _NoRecordError
        self.parts.add(rva)
        return raw.partition(b"\0")[0]

    def function(self, rva: int) -> bool:
        """Note the function at ``rva``; whether there is one."""
        if rva:
            section = self.image.section_at(rva)
            if section is None or not section.executable:
                raise _NoRecordError
            self.code.append(rva)
        return bool(rva)

    def locator(self, rva: int) -> Hashable:
        _, offset, displacement, kind, hierarchy, _ = self.unpack(_LOCATOR, rva)
        return "locator", offset, displacement, self.name(kind), self.hierarchy(hierarchy)

    def hierarchy(self, rva: int) -> Hashable:
        signature, attributes, count, bases = self.unpack(_HIERARCHY, rva)
        if signature or attributes > 7:
            raise _NoRecordError
        return attributes, tuple(self.base(base) for base in self.array(bases, count))

    def base(self, rva: int) -> Hashable:
        kind, contained, *place, attributes, hierarchy = self.unpack(_BASE, rva)
        self.unpack(_HIERARCHY, hierarchy)
        return self.name(kind), contained, *place, attributes

    def thrown(self, rva: int) -> Hashable:
        attributes, destructor, compatibility, types = self.unpack(_THROWN, rva)
        if compatibility:
            raise _NoRecordError
        destroys = self.function(destructor)
        (count,) = self.unpack(_WORD, types)
        return "thrown", attributes, destroys, tuple(self.catchable(one) for one in self.array(types + _WORD.size, count))

    def catchable(self, rva: int) -> Hashable:
        properties, kind, *place, size, copies = self.unpack(_CATCHABLE, rva)
        return properties, self.name(kind), *place, size, self.function(copies)
