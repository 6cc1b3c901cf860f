"""Two functions side by side, with addresses replaced by what they refer to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.differ.correspond import aligned_lines, loosely_aligned_lines
from hotpatch.differ.parts import ENTRY, PlaceKind, Position
from hotpatch.differ.view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hotpatch.differ.model import FunctionMatch, ImageDiff
    from hotpatch.differ.parts import Line, Link, Place
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_STRING_LIMIT = 40
_LAST_OPERAND = re.compile(r"#?-?(?:0x)?[0-9a-f]+$")
_RIP_RELATIVE = re.compile(r"\[rip(?: [+-] (?:0x)?[0-9a-f]+)?\]")
_BASE_AND_OFFSET = re.compile(r"\[(\w+)(?:, #-?(?:0x)?[0-9a-f]+)?\]")


@dataclass(frozen=True, slots=True)
class ListingLine:
    """One line: an instruction of either function, or one of both that align.

    Attributes:
        kind: ``same``, ``changed`` (same operation, other operands), ``removed`` or ``added``.
        base_rva: Of the base's instruction.
        base: Its text, addresses replaced.
        fixed_rva: Of the fixed image's.
        fixed: Its text.
    """

    kind: str
    base_rva: Rva | None
    base: str | None
    fixed_rva: Rva | None
    fixed: str | None


def listing(diff: ImageDiff, row: FunctionMatch) -> tuple[ListingLine, ...]:
    """The functions of ``row`` side by side; one of an added or removed function alone."""
    sides = _Side(diff, view_of(diff.base), row.base, is_base=True), _Side(diff, view_of(diff.fixed), row.fixed, is_base=False)
    pairs = loosely_aligned_lines(sides[0].lines, sides[1].lines)
    sides[0].label_targets({})
    sides[1].label_targets({sides[1].lines[f].position: sides[0].labels.get(sides[0].lines[b].position) for b, f in pairs})
    found: list[ListingLine] = []
    b0 = f0 = 0
    for b, f in (*pairs, (len(sides[0].lines), len(sides[1].lines))):
        found += [ListingLine("removed", sides[0].rva(index), sides[0].text(index), None, None) for index in range(b0, b)]
        found += [ListingLine("added", None, None, sides[1].rva(index), sides[1].text(index)) for index in range(f0, f)]
        if b < len(sides[0].lines):
            old, new = sides[0].text(b), sides[1].text(f)
            found.append(ListingLine("same" if old == new else "changed", sides[0].rva(b), old, sides[1].rva(f), new))
        b0, f0 = b + 1, f + 1
    return tuple(found)


class _Side:
    """One function's instructions as text."""

    def __init__(self, diff: ImageDiff, view: View, function: Function | None, *, is_base: bool) -> None:
        self.diff, self.view, self.function, self.is_base = diff, view, function, is_base
        self.lines: Sequence[Line] = view.lines(function.entry) if function else ()
        self.labels: dict[Position, str] = {}

    def rva(self, index: int) -> Rva:
        position = self.lines[index].position
        start = self.function.ranges[position.part].start if self.function else Rva(0)
        return Rva(start + position.offset)

    def label_targets(self, known: Mapping[Position, str | None]) -> None:
        """Number what branches lead to; targets that align with the other side's take its labels."""
        targets = {line.inner for line in self.lines if line.inner is not None}
        mark = "L" if self.is_base else "N"
        positions = sorted(line.position for index, line in enumerate(self.lines) if self.rva(index) in targets)
        for position in positions:
            self.labels[position] = known.get(position) or f"{mark}{len(self.labels) + 1}"

    def text(self, index: int) -> str:
        line = self.lines[index]
        label = self.labels.get(line.position)
        return f"{label}: {self._operands(line)}" if label else self._operands(line)

    def _operands(self, line: Line) -> str:
        text = line.text
        if line.inner is not None and self.function is not None and not line.links:
            offset = line.inner - self.function.ranges[line.position.part].start
            label = self.labels.get(Position(line.position.part, offset), f"+0x{offset:x}")
            replaced = _RIP_RELATIVE.sub(lambda _: f"[{label}]", text, count=1)
            return replaced if replaced != text else _LAST_OPERAND.sub(lambda _: label, text)
        links = self.view.body(self.function.entry).links if self.function else ()
        for number in line.links:
            text = _replace(text, links[number], self._name)
        return text

    def _name(self, target: int) -> str:
        place = self.view.place(target)
        match place.kind:
            case PlaceKind.FUNCTION:
                return self._function_name(place)
            case PlaceKind.IMPORT:
                return place.slot.label if place.slot else ""
            case PlaceKind.TABLE:
                return "switch table"
            case PlaceKind.NOTHING:
                return "image base" if target == 0 else f"0x{target:x}"
            case PlaceKind.WRITABLE | PlaceKind.CONSTANT:
                return self._datum_name(target, place)

    def _function_name(self, place: Place) -> str:
        function = place.function
        if function is None:
            return ""
        name = self._names.get(function.entry) or self._own_name(function)
        if place.position == ENTRY:
            return name
        position = place.position if self.is_base else self._base_position(function, place.position)
        if position is None:
            return f"new place +0x{place.position.offset:x} in {name}"
        part = f"part {position.part} " if position.part else ""
        return f"{name} {part}+0x{position.offset:x}"

    def _base_position(self, function: Function, position: Position) -> Position | None:
        """Where the base has the instruction at a place in the middle of one of the fixed image's functions."""
        entry = self.diff.base_entries.get(function.entry)
        if entry is None:
            return position
        there, here = view_of(self.diff.base).lines(entry), self.view.lines(function.entry)
        return next((there[b].position for b, f in aligned_lines(there, here) if here[f].position == position), None)

    def _own_name(self, function: Function) -> str:
        entry = function.entry if self.is_base else self.diff.base_entries.get(function.entry)
        partner = self.diff.base.function_of_entry(entry) if entry is not None else None
        return partner.label if partner else f"new {function.label}"

    @cached_property
    def _names(self) -> Mapping[Rva, str]:
        """Of functions that are one in the fixed image: all of them."""
        found: dict[Rva, str] = {}
        for entry, functions in self.diff.folded.items():
            name = "/".join(function.label for function in functions)
            found |= {function.entry: name for function in functions} if self.is_base else {entry: name}
        return found

    def _datum_name(self, target: int, place: Place) -> str:
        symbol = self.view.image.datum_at(Rva(target))
        if symbol is not None:
            return symbol.name + (f"+0x{target - symbol.rva:x}" if target > symbol.rva else "")
        text = self._string(target) if place.kind is PlaceKind.CONSTANT else None
        if text is not None:
            return text
        base = target if self.is_base else self.diff.base_datum(Rva(target))
        kind = "data" if place.kind is PlaceKind.WRITABLE else "constant"
        return f"{kind} 0x{base:x}" if base is not None else f"new {kind} 0x{target:x}"

    def _string(self, target: int) -> str | None:
        raw, end, _ = self.view.image.read(target, _STRING_LIMIT).partition(b"\0")
        if len(raw) < 2 or not all(byte in b"\t\r\n" or 0x20 <= byte < 0x7F for byte in raw):
            return None
        return ascii(raw.decode("ascii")) + ("" if end else "…")


def _replace(text: str, link: Link, name: Callable[[int], str]) -> str:
    """``text`` with the encoded address of ``link`` replaced by what it refers to."""
    label = name(link.target)
    match link.kind:
        case FixupKind.REL32 if link.use is Use.DATA:
            return _RIP_RELATIVE.sub(lambda _: f"[{label}]", text, count=1)
        case FixupKind.PAGEOFFSET_12A:
            return _LAST_OPERAND.sub(lambda _: f"lo12({label})", text)
        case FixupKind.PAGEOFFSET_12L:
            return _BASE_AND_OFFSET.sub(lambda found: f"[{found[1]}, lo12({label})]", text, count=1)
        case FixupKind.ADDR32NB | FixupKind.ADDR64:
            return text.replace(f"0x{link.target:x}", label)
        case FixupKind.PAGEBASE_REL21:
            return _LAST_OPERAND.sub(lambda _: f"page({label})", text)
        case _:
            return _LAST_OPERAND.sub(lambda _: label, text)
