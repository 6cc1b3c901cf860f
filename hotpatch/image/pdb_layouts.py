"""What lies where in the types of a PDB's type stream, to tell whether two builds lay the same datum out alike.

A layout is what memory holds, whatever the source calls it: numbers and pointers at offsets. Names of members are kept beside, since two
members of one type that change places leave the same memory with another meaning. Pointers are not followed.

Layouts after microsoft/microsoft-pdb ``include/cvinfo.h`` and LLVM's "The PDB TPI and IPI Streams".
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from hotpatch.image.pdb_types import Leaf, numeric, simple_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.image.pdb_types import TypeSizes

_DEPTH_LIMIT = 32
_MOST = 1 << 16
"""Numbers, pointers and names of a type that are told; of a type with more nothing is said."""
_SPREAD = 64
"""Parts of an array that are told one by one; of a longer one the element and the count are."""
_MOST_DEFINITIONS = 8

INTEGER, FLOATING, POINTER, MEMBER_POINTER = "integer", "floating-point number", "pointer", "pointer to a member"
_MEMBER_POINTER_MODES = (2, 3)
_FLOATING_KINDS = range(0x40, 0x60)
"""Simple types: real numbers, and complex ones, which are two of them."""
_COMPLEX_KINDS = range(0x50, 0x60)

_FIELD = struct.Struct("<HI")
_BIT_FIELD = struct.Struct("<IBB")
_LF_PAD = 0xF0
_INTRODUCES = (4, 6)
"""Properties of a virtual method that is new in its class: its offset in the vtable follows."""


class _UnknownError(Exception):
    """The stream does not say, or not in a form that is known."""


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """Equal parts, one behind another; ``start`` and ``width`` in bits.

    Attributes:
        kind: What each is; ``elements`` where it is made up of those.
    """

    start: int
    width: int
    kind: str
    count: int
    elements: tuple[Run, ...] = ()

    @property
    def end(self) -> int:
        """Behind the last, in bits."""
        return self.start + self.width * self.count

    @property
    def words(self) -> str:
        """What one of them is."""
        size = f"{self.width // 8} bytes" if self.width % 8 == 0 and self.width > 8 else f"{self.width} bits"
        return f"{'an' if self.kind == INTEGER else 'a'} {self.kind} of {size}"

    def at(self, bits: int) -> bool:
        """Whether one of them begins at ``bits``."""
        return self.start <= bits < self.end and (bits - self.start) % self.width == 0


@dataclass(frozen=True, slots=True)
class Layout:
    """What a type lays where: equal parts, merged as far as they go, and the offset in bits of each member by its path."""

    runs: tuple[Run, ...]
    names: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LayoutDifference:
    """Where two layouts part: ``offset`` in bytes, and what both have there, in words; ``member`` where it is one that has moved."""

    offset: int
    before: str
    after: str
    member: str | None = None


def layout_difference(base: Layout, fixed: Layout) -> LayoutDifference | None:
    """The first difference of two layouts: a member that has moved, or what is laid somewhere.

    Other names at the same places, and integers of another sign, are none.
    """
    moved = [name for name, place in base.names.items() if fixed.names.get(name, place) != place]
    if moved:
        name = min(moved, key=lambda name: (base.names[name], name))
        old, new = base.names[name], fixed.names[name]
        return LayoutDifference(old // 8, _place(old), _place(new), name)
    there, here = set(base.runs), set(fixed.runs)
    if there == here:
        return None
    bits = int(min(_parting(there, here), _parting(here, there)))
    return LayoutDifference(bits // 8, _what(base, bits), _what(fixed, bits))


def _parting(these: set[Run], those: set[Run]) -> float:
    """Where, in bits, the first part begins that only ``these`` have."""
    counts = {(run.start, run.width, run.kind, run.elements): run.count for run in those}
    lasting = ((run, counts.get((run.start, run.width, run.kind, run.elements), 0)) for run in these - those)
    return min((run.start + run.width * count for run, count in lasting if count < run.count), default=inf)


def _place(bits: int) -> str:
    return f"byte {bits // 8}" + (f", bit {bits % 8}" if bits % 8 else "")


def _what(layout: Layout, bits: int) -> str:
    found = dict.fromkeys(run.words for run in layout.runs if run.at(bits))
    return " or ".join(found) or "nothing that begins there"


@dataclass(frozen=True, slots=True)
class DatumType:
    """The type of a datum: its index in the stream of ``layouts``."""

    layouts: TypeLayouts
    index: int

    def layout(self) -> Layout | None:
        """What lies where; ``None`` where the PDB does not say."""
        return self.layouts.layout(self.index)


class TypeLayouts:
    """Layouts of the types of one type stream, each told once, when it is asked for."""

    def __init__(self, types: TypeSizes) -> None:
        """Of the records of ``types``."""
        self._types = types
        self._known: dict[int, Layout | None] = {}

    def layout(self, index: int) -> Layout | None:
        """What a variable of type ``index`` lays where; ``None`` where the stream does not say."""
        if index not in self._known:
            try:
                self._known[index] = self._layout(index, _DEPTH_LIMIT)
            except (_UnknownError, struct.error, IndexError):
                self._known[index] = None
        return self._known[index]

    def _part(self, index: int, depth: int) -> Layout:
        """As :meth:`layout`, of a part of another type."""
        if index in self._known:
            known = self._known[index]
        else:
            known = self._known[index] = self._layout(index, depth)
        if known is None:
            raise _UnknownError
        return known

    def _layout(self, index: int, depth: int) -> Layout:
        if not depth:
            raise _UnknownError
        record = self._types.record(index)
        if record is None:
            return _simple(index)
        kind, body = record
        if kind == Leaf.POINTER:
            attributes = int.from_bytes(body[4:8], "little")
            pointer = MEMBER_POINTER if attributes >> 5 & 7 in _MEMBER_POINTER_MODES else POINTER
            return _single((attributes >> 13 & 0x3F) * 8, pointer)
        if kind == Leaf.MODIFIER:
            return self._part(int.from_bytes(body[:4], "little"), depth - 1)
        if kind == Leaf.ENUM:
            return self._part(int.from_bytes(body[4:8], "little"), depth - 1)
        if kind == Leaf.ARRAY:
            return self._array(index, int.from_bytes(body[:4], "little"), depth)
        return self._compound(index, body, depth)

    def _array(self, index: int, element: int, depth: int) -> Layout:
        part, total, size = self._part(element, depth - 1), self._types.size(index), self._types.size(element)
        if not size or total is None or total % size:
            raise _UnknownError
        count = total // size
        runs: tuple[Run, ...]
        if len(part.runs) == 1 and part.runs[0].start == 0 and part.runs[0].end == size * 8:
            runs = (Run(0, part.runs[0].width, part.runs[0].kind, part.runs[0].count * count, part.runs[0].elements),)
        elif len(part.runs) * count <= _SPREAD:
            runs = _merged(_moved(run, size * 8 * number) for number in range(count) for run in part.runs)
        else:
            runs = (Run(0, size * 8, "structure", count, part.runs),)
        return Layout(runs if count else (), {f"[]{'.' * (not name.startswith('['))}{name}": at for name, at in part.names.items()})

    def _compound(self, index: int, body: bytes, depth: int) -> Layout:
        """A structure's, class's or union's, of which ``index`` may be a forward declaration."""
        definitions = self._types.definitions_of(index)
        if definitions and definitions != (index,):
            found = [self._part(definition, depth - 1) for definition in definitions[:_MOST_DEFINITIONS]]
            if len(definitions) > _MOST_DEFINITIONS or any(layout != found[0] for layout in found):
                raise _UnknownError  # C lets each source file have its own structure of a name
            return found[0]
        if not definitions:
            raise _UnknownError
        runs: list[Run] = []
        names: dict[str, int] = {}
        twice: set[str] = set()
        for name, bits, member in self._members(int.from_bytes(body[4:8], "little"), depth):
            runs += (_moved(run, bits) for run in member.runs)
            inner = {f"{name}{'.' * bool(name and not path.startswith('['))}{path}": bits + at for path, at in member.names.items()}
            for path, at in (inner | ({name: bits} if name else {})).items():
                if names.setdefault(path, at) != at:
                    twice.add(path)
            if len(runs) + len(names) > _MOST:
                raise _UnknownError
        return Layout(_merged(runs), {path: at for path, at in names.items() if path not in twice})

    def _members(self, fields: int, depth: int) -> Iterator[tuple[str, int, Layout]]:
        """Name (none of a base class), offset in bits and layout of each member."""
        if not depth:
            raise _UnknownError
        record = self._types.record(fields) if fields else (Leaf.FIELD_LIST, b"")
        if record is None or record[0] != Leaf.FIELD_LIST:
            raise _UnknownError
        body, at = record[1], 0
        while at < len(body):
            if body[at] >= _LF_PAD:
                at += body[at] & 0xF or 1
                continue
            kind = int.from_bytes(body[at : at + 2], "little")
            attributes, index = _FIELD.unpack_from(body, at + 2)
            at += 2 + _FIELD.size
            if kind == Leaf.MORE:
                yield from self._members(index, depth - 1)
            elif kind == Leaf.VTABLE:
                yield "", 0, self._part(index, depth - 1)
            elif kind == Leaf.BASE_CLASS:
                offset, at = _offset(body, at)
                yield "", offset * 8, self._part(index, depth - 1)
            elif kind == Leaf.MEMBER:
                offset, at = _offset(body, at)
                name, at = _name(body, at)
                yield name, *self._member(index, offset, depth)
            elif kind in (Leaf.STATIC_MEMBER, Leaf.NESTED, Leaf.METHODS):
                _, at = _name(body, at)
            elif kind == Leaf.METHOD:
                _, at = _name(body, at + 4 * (attributes >> 2 & 7 in _INTRODUCES))
            else:  # virtual bases, whose places only the class's table of them tells, among them
                raise _UnknownError

    def _member(self, index: int, offset: int, depth: int) -> tuple[int, Layout]:
        record = self._types.record(index)
        if record is None or record[0] != Leaf.BIT_FIELD:
            return offset * 8, self._part(index, depth - 1)
        _, width, position = _BIT_FIELD.unpack_from(record[1])
        return offset * 8 + position, _single(width, INTEGER)


def _simple(index: int) -> Layout:
    size = simple_size(index)
    if not size:
        raise _UnknownError
    if index >> 8 & 0xF:
        return _single(size * 8, POINTER)
    kind = index & 0xFF
    if kind in _COMPLEX_KINDS:
        return Layout((Run(0, size * 4, FLOATING, 2),), {})
    return _single(size * 8, FLOATING if kind in _FLOATING_KINDS else INTEGER)


def _single(width: int, kind: str) -> Layout:
    if not width:
        raise _UnknownError
    return Layout((Run(0, width, kind, 1),), {})


def _moved(run: Run, bits: int) -> Run:
    return Run(run.start + bits, run.width, run.kind, run.count, run.elements)


def _merged(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs of equal parts as long as they go: an array and as many members of its element's type are the same."""
    groups: dict[tuple[int, str, tuple[Run, ...]], list[Run]] = defaultdict(list)
    for run in sorted(runs):
        group = groups[run.width, run.kind, run.elements]
        if group and run.start <= group[-1].end and (run.start - group[-1].start) % run.width == 0:
            last = group.pop()
            run = Run(last.start, run.width, run.kind, (max(last.end, run.end) - last.start) // run.width, run.elements)
        group.append(run)
    return tuple(sorted(run for group in groups.values() for run in group))


def _offset(body: bytes, at: int) -> tuple[int, int]:
    offset, at = numeric(body, at)
    if offset is None or offset < 0:
        raise _UnknownError
    return offset, at


def _name(body: bytes, at: int) -> tuple[str, int]:
    end = body.find(b"\0", at)
    if end < 0:
        raise _UnknownError
    return body[at:end].decode("utf-8", "replace"), end + 1
