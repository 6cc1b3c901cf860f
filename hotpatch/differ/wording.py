"""What an instruction refers to, in words that are the same in both versions: names for addresses, texts of instructions with them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Use
from hotpatch.arch.texts import with_label, with_place
from hotpatch.differ.correspond import aligned_lines
from hotpatch.differ.model import Verdict
from hotpatch.differ.parts import ENTRY, PlaceKind, Position, position_in
from hotpatch.differ.texts import is_printable
from hotpatch.differ.view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.differ.lines import Line
    from hotpatch.differ.model import ImageDiff
    from hotpatch.differ.parts import Link, Place
    from hotpatch.image import Function

_STRING_LIMIT = 40


class Wording:
    """Words for one image of a comparison: those of the base for whatever both have."""

    def __init__(self, diff: ImageDiff, *, is_base: bool) -> None:
        """Speak of the base of ``diff`` or of its fixed image."""
        self._diff, self._is_base = diff, is_base
        self.view = view_of(diff.base if is_base else diff.fixed)

    def text(self, function: Function, line: Line, labels: Callable[[Position], str | None]) -> str:
        """A line of ``function``; places in the function itself are called what ``labels`` says."""
        links = self.view.links(function.entry)

        def name(link: Link) -> str:
            own = _own_position(function, link)
            return (None if own is None else labels(own)) or self._name(link.target)

        text = self.view.text(function.entry, line)
        if line.inner is not None and not line.links:
            text = with_place(text, self._inner_name(function, line.inner, labels))
        for number in line.links:
            link = links[number]
            text = with_label(text, link.kind, link.use, link.target, name(link))
        return text

    def names_other_content(self, function: Function, line: Line) -> bool:
        """Whether a line of the fixed image's ``function``, whose name for it may be the base's, refers to what the base has nowhere.

        That is a constant, or the middle of other code that changed.
        """
        links = self.view.links(function.entry)
        return any(self._is_other_content(function, links[number].target) for number in line.links)

    def _is_other_content(self, function: Function, target: int) -> bool:
        place = self.view.place(target)
        if place.kind is PlaceKind.CONSTANT:
            return self._diff.base_datum(Rva(target)) is None
        if place.function is None or place.kind is not PlaceKind.FUNCTION or place.position == ENTRY or place.function == function:
            return False
        return {function.entry, place.function.entry} <= self._changed

    @cached_property
    def _changed(self) -> frozenset[int]:
        return frozenset(row.fixed.entry for row in self._diff.of(Verdict.CHANGED) if row.fixed)

    def _inner_name(self, function: Function, target: int, labels: Callable[[Position], str | None]) -> str:
        if self.view.place(target).kind is PlaceKind.TABLE:
            return "switch table"
        position = position_in(function, target)
        return labels(position) or f"+0x{position.offset:x}"

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
        position = place.position if self._is_base else self._base_position(function, place.position)
        if position is None:
            return f"new place +0x{place.position.offset:x} in {name}"
        part = f"part {position.part} " if position.part else ""
        return f"{name} {part}+0x{position.offset:x}"

    def _base_position(self, function: Function, position: Position) -> Position | None:
        """Where the base has the instruction at a place in the middle of one of the fixed image's functions."""
        entry = self._diff.base_entries.get(function.entry)
        if entry is None:
            return position
        there, here = view_of(self._diff.base).lines(entry), self.view.lines(function.entry)
        return next((there[b].position for b, f in aligned_lines(there, here) if here[f].position == position), None)

    def _own_name(self, function: Function) -> str:
        entry = function.entry if self._is_base else self._diff.base_entries.get(function.entry)
        partner = self._diff.base.function_of_entry(entry) if entry is not None else None
        return partner.label if partner else f"new {function.label}"

    @cached_property
    def _names(self) -> Mapping[Rva, str]:
        """Of functions that are one in the fixed image: all of them."""
        found: dict[Rva, str] = {}
        for entry, functions in self._diff.folded.items():
            name = "/".join(function.label for function in functions)
            found |= {function.entry: name for function in functions} if self._is_base else {entry: name}
        return found

    def _datum_name(self, target: int, place: Place) -> str:
        symbol = self.view.image.datum_at(Rva(target))
        if symbol is not None:
            return symbol.name + (f"+0x{target - symbol.rva:x}" if target > symbol.rva else "")
        text = self._string(target) if place.kind is PlaceKind.CONSTANT else None
        if text is not None:
            return text
        base = target if self._is_base else self._diff.base_datum(Rva(target))
        kind = "data" if place.kind is PlaceKind.WRITABLE else "constant"
        return f"{kind} 0x{base:x}" if base is not None else f"new {kind} 0x{target:x}"

    def _string(self, target: int) -> str | None:
        raw, end, _ = self.view.image.read(target, _STRING_LIMIT).partition(b"\0")
        if len(raw) < 2 or not is_printable(raw):
            return None
        return ascii(raw.decode("ascii")) + ("" if end else "…")


def _own_position(function: Function, link: Link) -> Position | None:
    """Where in ``function`` a link of its own leads; ``None`` where it leads elsewhere, or names the function as any other would."""
    if not any(link.target in part for part in function.ranges):
        return None
    position = position_in(function, link.target)
    return None if position == ENTRY and link.use not in (Use.JUMP, Use.BRANCH) else position
