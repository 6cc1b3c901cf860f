"""What the self-check holds to be the same thing, by the comparison of the images alone."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Use
from hotpatch.builder.novelty import Novelty
from hotpatch.builder.spans import Spans
from hotpatch.differ import Verdict
from hotpatch.differ.view import view_of
from hotpatch.image import DOS_HEADER_SIZE

if TYPE_CHECKING:
    from hotpatch.builder.reaches import Reach
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function
    from hotpatch.patch import PatchImport


_ELEMENT = 16
"""Bytes; how far outside of an array code may compute with an address: one element."""


class Sameness:
    """Judges bound references; every answer is a problem as the end of "refers to …", or ``None``."""

    def __init__(self, diff: ImageDiff) -> None:
        """Judge by ``diff``."""
        self._diff, self._base, self._fixed = diff, diff.base, diff.fixed
        self._pairs = {(row.base.entry, row.fixed.entry): row.verdict for row in diff.functions if row.base and row.fixed}
        self._matched = {fixed for _, fixed in self._pairs}
        base, fixed = self._base_view, self._view = view_of(diff.base), view_of(diff.fixed)
        self._roles = [{rva: role for role, rva in view.special_data.items()} for view in (base, fixed)]
        self._novelty = Novelty(diff, fixed, base)

    def is_pair(self, base: Rva, fixed: Rva) -> bool:
        """Whether the two entries are one function."""
        return (base, fixed) in self._pairs

    def base_problem(self, base: int, fixed: int) -> str | None:
        """A reference to ``base`` where the fixed image refers to ``fixed``."""
        wanted = self._fixed.imports_by_slot.get(Rva(fixed))
        if wanted is not None:
            slot = self._base.imports_by_slot.get(Rva(base))
            return (
                None if slot is not None and slot.label == wanted.label else f"0x{base:x} of the base instead of the slot of {wanted.label}"
            )
        there, here = self._base.function_at(base), self._fixed.function_at(fixed)
        if here is not None:
            return self._function_problem(base, fixed, there, here)
        if 0 <= fixed == base < DOS_HEADER_SIZE:
            return None
        if self._roles[0].get(base) is not None and self._roles[0].get(base) == self._roles[1].get(fixed):
            return None
        if self._diff.base_datum(Rva(fixed)) == base:
            return self._datum_problem(base, fixed)
        if self._novelty.same_type(fixed) == base or self._beside_namesakes(base, fixed) or self._behind_a_neighbour(base, fixed):
            return None
        section = self._fixed.section_at(fixed)
        if section is not None and not section.writable and self._equal_constant(base, fixed):
            return None
        return f"0x{base:x} of the base, which is not known to be what the fixed image has at 0x{fixed:x}"

    def _beside_namesakes(self, base: int, fixed: int) -> bool:
        """Whether no symbol covers ``fixed``, and it is as far from the end or start of one as ``base`` is from its namesake's.

        Where another begins at the end of one, it may still be the end.
        """
        sized = [datum for datum in self._fixed.data_symbols if datum.size]
        ends = [datum for datum in sized if datum.end == fixed]
        if any(datum.rva < fixed < datum.end or (datum.rva == fixed and not ends) for datum in sized):
            return False
        if any(datum.rva == fixed for datum in sized):
            return any(self._place_of(datum.name, base) + (datum.size or 0) == base for datum in ends)
        near = [datum for datum in sized if -_ELEMENT <= fixed - datum.rva < (datum.size or 0) + _ELEMENT]
        names = {(datum.name, datum.size) for datum in near if datum.rva - fixed == self._place_of(datum.name, base) - base}
        return bool(names)

    def _place_of(self, name: str, near: int) -> int:
        """The base's datum of that name that lies nearest."""
        places = [datum.rva for datum in self._base.data_symbols if datum.name == name]
        return min(places, key=lambda place: abs(place - near), default=-1)

    def _behind_a_neighbour(self, base: int, fixed: int) -> bool:
        """Whether the live data before both, in images without symbols, have moved as far as these two lie apart.

        It may be a part of those that nothing else refers to, or their end.
        """
        if self._fixed.has_symbols and self._base.has_symbols:
            return False
        live = sorted((match.fixed, match.base) for match in self._diff.data if match.writable)
        return [there - here for here, there in live if here < fixed][-1:] == [base - fixed]

    def _datum_problem(self, base: int, fixed: int) -> str | None:
        """A constant must be there as a whole; live data may differ, and the comparison has judged their layout."""
        section = self._fixed.section_at(fixed)
        if section is None or section.writable or fixed in self._roles[1] or self._novelty.is_whole(Rva(fixed), Rva(base)):
            return None
        return f"0x{base:x} of the base, which has only a part of the constant at 0x{fixed:x}"

    def _function_problem(self, base: int, fixed: int, there: Function | None, here: Function) -> str | None:
        if there is None:
            return f"0x{base:x} of the base, which is no function, instead of {here.label}"
        verdict = self._pairs.get((there.entry, here.entry))
        if verdict is None:
            return f"{there.label} of the base instead of {here.label}"
        if base == there.entry and fixed == here.entry:
            return None
        same_place = any(
            base - one.start == fixed - other.start and base in one for one, other in zip(there.ranges, here.ranges, strict=False)
        )
        if same_place and verdict in (Verdict.IDENTICAL, Verdict.RELOCATED):
            return None
        return f"0x{base:x} in {there.label} of the base, which is not known to be what the fixed image has at 0x{fixed:x}"

    def _equal_constant(self, base: int, fixed: int) -> bool:
        record = self._novelty.same_record(base, fixed)
        if record is not None:
            return record
        if self._novelty.same_vtable(base, fixed):
            return True
        part = self._view.extent(fixed)
        section = self._base.section_at(base)
        return (
            section is not None
            and not section.writable
            and part.size > 0
            and not self._fixed.relocations_in(part)
            and self._base.read(base, part.size) == self._fixed.read(fixed, part.size)
        )

    def is_own_index(self, reach: Reach) -> bool:
        """Whether an index goes over what begins, for all that is known, with what is named, or counts from in front of it."""
        return reach.indexed and reach.start < self._view.datum(reach.taken).end

    def reach_problem(self, reach: Reach, base: int) -> str | None:
        """Code that reaches ``base`` from what it names where the fixed image reaches ``reach``."""
        one, section = self._fixed.section_at(reach.taken), self._fixed.section_at(reach.start)
        if section is None or (one is not None and one is not section):
            return None
        what = f"0x{base:x} of the base, from 0x{base + reach.taken - reach.start:x}, where the fixed image has 0x{reach.start:x}"
        size, moved = reach.end - reach.start, base - reach.start
        if not section.writable:
            if not reach.width and reach.start in self._view.records and reach.start == self._view.extent(reach.taken).end:
                return None  # an end: nothing goes over what the loader or the unwinder reads
            if not reach.width:  # only the address is made, so that nothing tells how much is meant
                size = self._view.extent(reach.start).end - reach.start
            same = reach.start in self._fixed.imports_by_slot or self._novelty.same_content(base, reach.start, size)
            return None if same else what
        if not reach.width and (reach.start, base) in self._data_ends:
            return None  # where both have the end of one datum, whatever begins there
        displacements = chain(self._here.overlapping(reach.start, reach.end), self._there.overlapping(base, base + size))
        return what if any(displacement != moved for displacement in displacements) else None

    @cached_property
    def _data_ends(self) -> frozenset[tuple[int, int]]:
        """Where data end that both images have, in the fixed image and in the base."""
        return frozenset((match.fixed + match.size, match.base + match.size) for match in self._diff.data)

    @cached_property
    def _here(self) -> Spans[int]:
        """Live data of the fixed image that the base has too: how much further it has them."""
        return Spans((match.fixed, match.fixed + match.size, match.base - match.fixed) for match in self._diff.data if match.writable)

    @cached_property
    def _there(self) -> Spans[int]:
        """The same by where the base has them."""
        return Spans((match.base, match.base + match.size, match.base - match.fixed) for match in self._diff.data if match.writable)

    def import_problem(self, slot: PatchImport, fixed: int) -> str | None:
        """A reference to an import of the patch."""
        wanted = self._fixed.imports_by_slot.get(Rva(fixed))
        if wanted is None or (wanted.library.lower(), wanted.name, wanted.ordinal) != (slot.library.lower(), slot.name, slot.ordinal):
            return f"the import {slot.library}!{slot.name or slot.ordinal}"
        if any(entry.label == wanted.label for entry in self._base.imports):
            return f"a slot of its own for {wanted.label}, which the base imports"
        return None

    def copy_problem(self, function: Function | None, fixed: int, use: Use) -> str | None:
        """A reference to the patch's own copy of what the fixed image has at ``fixed``, where the base's would be right."""
        owner = self._fixed.function_at(fixed)
        if owner is not None:
            inner = function is not None and owner.entry == function.entry and use in (Use.JUMP, Use.BRANCH)
            if fixed == owner.entry and owner.entry in self._matched and not inner:
                return f"the patch's own {owner.label} instead of the base's entry"
            return None
        section = self._fixed.section_at(fixed)
        if section is not None and section.writable and self._diff.base_datum(Rva(fixed)) is not None:
            return f"a copy of 0x{fixed:x}, which is live in the base"
        if section is not None and section.writable:
            return self._live_copy_problem(fixed)
        return None

    def _live_copy_problem(self, fixed: int) -> str | None:
        """A copy of live data must be of something that the base cannot have: a symbol of its own, or a place that the base has not.

        The base has not the place where its neighbours were, if other data are there that correspond to others of the fixed image.
        """
        if self._fixed.has_symbols and self._base.has_symbols:
            near = [item for item in self._fixed.data_symbols if item.size and -_ELEMENT <= fixed - item.rva <= item.size]
            names = {datum.name for datum in self._base.data_symbols}
            if any(item.name not in names for item in near):
                return None
            if any(item.rva <= fixed < item.end for item in near):
                return f"a copy of 0x{fixed:x}, which no symbol of new data covers"
        section = self._fixed.section_at(fixed)
        live = sorted((match.fixed, match.base, match.size) for match in self._diff.data if match.writable)
        moved = [(here, there - here) for here, there, _ in live if section is not None and here in section.range]
        before = [distance for here, distance in moved if here < fixed][-1:]
        behind = [distance for here, distance in moved if here > fixed][:1]
        taken = any(there <= fixed + distance < there + size for _, there, size in live for distance in before)
        if before and before == behind and not taken:
            return f"a copy of 0x{fixed:x}, which lies between live data of the base"
        return None
