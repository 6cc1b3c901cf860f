"""Type information of C++ classes and thrown objects (Visual C++, 64-bit): records that hold image-relative addresses.

No base relocation marks those, and they differ wherever the linker has moved what they lead to. So the records are compared by what they
say: names of types, how bases lie in them, sizes, and which functions copy and destroy. Layouts: ``rttidata.h`` and ``ehdata.h`` of Visual
C++ (``_RTTICompleteObjectLocator``, ``_RTTIClassHierarchyDescriptor``, ``_RTTIBaseClassDescriptor``, ``_ThrowInfo``, ``_CatchableType``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.unnamed import LONGEST_NAME, TYPE_NAME_AT, UnnamedNamespaces

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

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
_MOST = 256
"""Bases of a class, or types that an object can be caught as; more are no table."""
_CLASS, _THROWS = "class", "thrown"
_THROW_ATTRIBUTES = 0x1F
"""const, volatile, unaligned, pure, WinRT."""


class _NoRecordError(Exception):
    """What was read is something else."""


@dataclass(frozen=True, slots=True)
class TypeRecord:
    """A locator or a description of what is thrown.

    Attributes:
        meaning: All that it says but for addresses of code; equal where two records say the same.
        shape: What of the meaning tells how objects of the type, whose name comes first, are laid out and what they can be taken for.
        code: The functions that it names, as RVAs, in order.
        parts: It and the records that it leads to, each with its size in bytes, by RVA.
        fields: Where in those an address stands (as an RVA), and that address, in order.
    """

    meaning: Hashable
    shape: tuple[str, bytes, Hashable]
    code: tuple[Rva, ...]
    parts: Mapping[int, int]
    fields: tuple[tuple[Rva, Rva], ...]

    @property
    def is_class(self) -> bool:
        """Whether it is the locator of a class, to which a pointer in front of a vtable leads."""
        return self.shape[0] == _CLASS


def type_name(image: Image, rva: int) -> bytes:
    """The decorated name of the type that the pointer at ``rva`` begins to describe; nothing where it begins something else.

    As far as a name says the same in other builds (:mod:`.unnamed`); always as long as it stands there.
    """
    raw, end, _ = image.read(rva + TYPE_NAME_AT, LONGEST_NAME).partition(b"\0")
    known = end and raw.startswith(b".") and not image.u64(rva + 8)
    return image.kept(UnnamedNamespaces).settled(raw) if known else b""


def type_record(image: Image, rva: int) -> TypeRecord | None:
    """The record at ``rva``, where a whole one stands there."""
    first = image.read(rva, 4)
    if first[1:] != b"\0\0\0" or rva % 4:
        return None
    try:
        if first[0] == 1 and image.u32(rva + 20) == rva:
            return _Reader(image).locator(rva)
        if first[0] <= _THROW_ATTRIBUTES:
            return _Reader(image).thrown(rva)
    except _NoRecordError:
        pass
    return None


class _Reader:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.parts: dict[int, int] = {}
        self.fields: dict[int, int] = {}
        self.code: list[int] = []
        self.hierarchies: dict[int, Hashable] = {}

    def unpack(self, layout: struct.Struct, rva: int) -> tuple[int, ...]:
        return layout.unpack(self.take(rva, layout.size))

    def take(self, rva: int, size: int) -> bytes:
        section = self.image.section_at(rva)
        raw = self.image.read(rva, size)
        if section is None or section.executable or rva % 4 or len(raw) < size:
            raise _NoRecordError
        self.parts[rva] = max(size, self.parts.get(rva, 0))
        return raw

    def array(self, rva: int, count: int, first: int = 0) -> tuple[int, ...]:
        """The addresses in a table at ``rva``; what stands before the one of number ``first`` is something else."""
        if not 0 < count <= _MOST:
            raise _NoRecordError
        words: tuple[int, ...] = struct.unpack(f"<{first + count}I", self.take(rva, _WORD.size * (first + count)))
        self.fields.update((rva + _WORD.size * number, words[number]) for number in range(first, first + count))
        return words[first:]

    def name(self, site: int, rva: int) -> bytes:
        """Of the type whose descriptor the word at ``site`` says to be at ``rva``; it is what types are told apart by."""
        section = self.image.section_at(rva)
        raw = type_name(self.image, rva)
        if section is None or section.executable or rva not in self.image.pointers or not raw:
            raise _NoRecordError
        self.parts[rva] = TYPE_NAME_AT + len(raw) + 1
        self.fields[site] = rva
        return raw

    def function(self, site: int, rva: int) -> bool:
        """Note the function that the word at ``site`` says to be at ``rva``; whether there is one."""
        if rva:
            section = self.image.section_at(rva)
            if section is None or not section.executable:
                raise _NoRecordError
            self.code.append(rva)
            self.fields[site] = rva
        return bool(rva)

    def record(self, meaning: Hashable, shape: tuple[str, bytes, Hashable]) -> TypeRecord:
        fields = tuple((Rva(field), Rva(target)) for field, target in sorted(self.fields.items()))
        return TypeRecord(meaning, shape, tuple(map(Rva, self.code)), self.parts, fields)

    def locator(self, rva: int) -> TypeRecord:
        _, offset, displacement, kind, hierarchy, _ = self.unpack(_LOCATOR, rva)
        self.fields[rva + 20] = rva
        name, bases = self.name(rva + 12, kind), self.hierarchy(rva + 16, hierarchy)
        return self.record((_CLASS, offset, displacement, name, bases), (_CLASS, name, bases))

    def hierarchy(self, site: int, rva: int) -> Hashable:
        self.fields[site] = rva
        known = self.hierarchies.get(rva)
        if known is None:
            signature, attributes, count, bases = self.unpack(_HIERARCHY, rva)
            if signature or attributes > 7 or len(self.hierarchies) > _MOST:
                raise _NoRecordError
            self.fields[rva + 12] = bases
            self.hierarchies[rva] = True
            known = self.hierarchies[rva] = attributes, tuple(self.base(base) for base in self.array(bases, count))
        return known

    def base(self, rva: int) -> Hashable:
        kind, contained, *place, attributes, hierarchy = self.unpack(_BASE, rva)
        self.hierarchy(rva + 24, hierarchy)
        return self.name(rva, kind), contained, *place, attributes

    def thrown(self, rva: int) -> TypeRecord:
        attributes, destructor, compatibility, types = self.unpack(_THROWN, rva)
        if compatibility:
            raise _NoRecordError
        destroys = self.function(rva + 4, destructor)
        self.fields[rva + 12] = types
        (count,) = self.unpack(_WORD, types)
        found = [self.catchable(one) for one in self.array(types, count, 1)]
        meaning = _THROWS, attributes, destroys, tuple(found)
        return self.record(meaning, (_THROWS, found[0][1], tuple(row[:-1] for row in found)))

    def catchable(self, rva: int) -> tuple[int, bytes, int, int, int, int, bool]:
        properties, kind, member, table, within, size, copies = self.unpack(_CATCHABLE, rva)
        return properties, self.name(rva + 4, kind), member, table, within, size, self.function(rva + 24, copies)
