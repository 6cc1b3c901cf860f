"""Whether a datum of the fixed image that nothing matches is new, and how far it extends."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Use
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.pointed import pointed_by
from hotpatch.builder.reaches import reaches
from hotpatch.differ import Verdict
from hotpatch.differ.compared import is_end
from hotpatch.differ.distances import distance_pairs
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Range
    from hotpatch.image.type_records import TypeRecord


_ALIGNMENT = 16
"""Bytes; of what describes types, and more than compilers leave between two."""
_BEGINNING = 32
"""Bytes; by how many constants are looked up."""


class Novelty:
    """Judges data of the fixed image for which the comparison has no counterpart."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base = diff, fixed, base

    def extent(self, rva: Rva) -> Range:
        """See :meth:`hotpatch.differ.view.View.datum`."""
        return self._fixed.datum(rva)

    def is_whole(self, fixed: Rva, base: Rva) -> bool:
        """Whether all of the constant at ``fixed`` is at ``base`` too, not only the part that matches: it may have grown."""
        record = self.same_record(base, fixed)
        if record is not None:
            return record
        part = self.extent(fixed)
        there, size = base, part.end - fixed
        sites = self._fixed.pointers(fixed, part.end)
        if sites != self._base.pointers(there, there + size):
            return False
        if self._base.bare(there, size) != self._fixed.bare(fixed, size):
            old, new = (there, there + size), (int(fixed), int(part.end))
            pairs = None if sites else distance_pairs(self._base, self._fixed, old, new)
        else:
            pairs = [(self._base.pointer(there + site), self._fixed.pointer(fixed + site)) for site in sites]
        return pairs is not None and all(self.is_same(*pair) for pair in pairs)

    def same_record(self, base: int, fixed: int) -> bool | None:
        """Whether two records of C++ types say the same; ``None`` where neither place has one."""
        old, new = self._base.type_records.get(base), self._fixed.type_records.get(fixed)
        if old is None or new is None:
            return None if old is new else False
        return old.meaning == new.meaning and all(self.is_same(*pair) for pair in zip(old.code, new.code, strict=True))

    def same_vtable(self, base: int, fixed: int) -> bool:
        """Whether both are vtables of one class that lead to the same functions."""
        old, new = self._class_of(self._base, base), self._class_of(self._fixed, fixed)
        same = old is not None and new is not None and old.meaning == new.meaning
        return same and self.is_whole(Rva(fixed), Rva(base))

    def is_other_class(self, fixed: int) -> bool:
        """Whether a record of a C++ type, or of the class of a vtable, has only namesakes in the base that lay objects out in another way.

        A copy can say anything, but there may be objects as the base knows them.
        """
        record = self._fixed.type_records.get(fixed) or self._class_of(self._fixed, fixed)
        shapes = set() if record is None else self._shapes.get(record.shape[:2], set())
        return record is not None and bool(shapes) and record.shape not in shapes

    def same_type(self, fixed: int) -> Rva | None:
        """Where the base describes the type that is described at ``fixed``, or around it, by its name alone.

        ``None``, too, where the address may be the end of something else: what describes another type, say, is walked over by nobody.
        """
        starts, names = self._fixed.boundaries, self._fixed.type_names
        at = bisect_left(starts, fixed)
        before = next((one for one in reversed(starts[max(at - 3, 0) : at]) if one in names), None)
        within = before is not None and fixed < self._fixed.type_parts[before]
        if before is None or (not within and (fixed not in names or fixed - self._fixed.type_parts[before] >= _ALIGNMENT)):
            return None
        start = before if within else fixed
        found = [there for there, other in self._base.type_names.items() if other == names[start]]
        return Rva(found[0] + fixed - start) if len(found) == 1 else None

    def _class_of(self, view: View, rva: int) -> TypeRecord | None:
        """The record of the class whose vtable is at ``rva``."""
        front = view.image.pointers.get(Rva(rva - POINTER_SIZE))
        record = view.type_records.get(front) if front is not None else None
        return record if record is not None and record.is_class else None

    @cached_property
    def _vtables(self) -> Mapping[Hashable, list[int]]:
        """What a record says → the pointers in front of the base's vtables that lead to such a record."""
        found: dict[Hashable, list[int]] = defaultdict(list)
        for site, target in sorted(self._base.image.pointers.items()):
            record = self._base.type_records.get(target)
            if record is not None and record.is_class:
                found[record.meaning].append(site)
        return found

    @cached_property
    def _shapes(self) -> Mapping[tuple[str, bytes], set[object]]:
        """How the base says that objects of a type are laid out, by kind of record and name."""
        found: dict[tuple[str, bytes], set[object]] = defaultdict(set)
        for record in self._base.type_records.values():
            found[record.shape[:2]].add(record.shape)
        return found

    def is_same(self, base: int, fixed: int) -> bool:
        """Whether the comparison holds what lies at the two places for the same thing, or both have the same text there."""
        record = self.same_record(base, fixed)
        if record is not None:
            return record
        if self._diff.base_entries.get(Rva(fixed)) == base or self._diff.base_datum(Rva(fixed)) == base:
            return True
        if not all(view.image.holds_constants(view.section(rva)) for view, rva in ((self._base, base), (self._fixed, fixed))):
            return False
        part = self.extent(Rva(fixed))
        size = part.end - fixed
        return not self._fixed.pointers(fixed, part.end) and self.same_content(base, fixed, size)

    def same_content(self, base: int, fixed: int, size: int) -> bool:
        """Whether ``size`` bytes at the two places are the same, with pointers at the same places to the same things."""
        sites = self._fixed.pointers(fixed, fixed + size)
        if sites != self._base.pointers(base, base + size) or self._base.bare(base, size) != self._fixed.bare(fixed, size):
            return False
        return all(self.is_same(self._base.pointer(base + site), self._fixed.pointer(fixed + site)) for site in sites)

    def equal_constant(self, rva: Rva) -> Rva | None:
        """A constant of the base that has no counterpart yet and holds the same bytes and no pointers.

        Either it has the same name and size, or code of the base refers to it. Records of C++ types are equal where they say the same,
        vtables where they are of the same class and lead to the same functions.
        """
        section = self._fixed.image.section_at(rva)
        part = self.extent(rva)
        if rva in self._fixed.type_records:
            return next((Rva(one) for one in sorted(self._base.type_records) if self.same_record(one, rva)), None)
        record = self._class_of(self._fixed, rva)
        if record is not None:
            vtables = (Rva(site + POINTER_SIZE) for site in self._vtables.get(record.meaning, ()))
            return next((there for there in vtables if self.same_vtable(there, rva)), None)
        if section is None or section.writable or part.start != rva or self._fixed.pointers(part.start, part.end):
            return None
        wanted = self._fixed.bare(part.start, part.size)
        named = self._namesake(rva)
        if named is not None and self._base.bare(named, part.size) == wanted and not self._base.pointers(named, named + part.size):
            return named
        for candidate in sorted(self._beginning_as(wanted)):
            extent = self._base.extent(candidate)
            equal = extent.size >= part.size and self._base.bare(candidate, part.size) == wanted
            if equal and not self._base.pointers(candidate, candidate + part.size):
                return Rva(candidate)
        return None

    def _beginning_as(self, wanted: bytes) -> Iterator[int]:
        """The constants of the base without a counterpart that may begin as ``wanted``, which holds no pointers."""
        beginning = wanted[:_BEGINNING]
        for at in range(bisect_left(self._beginnings, (beginning, -1)), len(self._beginnings)):
            content, candidate = self._beginnings[at]
            if not content.startswith(beginning):
                return
            yield candidate

    @cached_property
    def _beginnings(self) -> list[tuple[bytes, int]]:
        """The first bytes of the constants of the base without a counterpart, sorted."""
        sizes = {start: min(self._base.extent(start).size, _BEGINNING) for start in self._left_over_constants}
        return sorted((self._base.image.read(Rva(start), size).ljust(size, b"\0"), start) for start, size in sizes.items())

    def _namesake(self, rva: Rva) -> Rva | None:
        """The only constant of the base with the name and size of the one at ``rva``."""
        symbol = self._fixed.symbol(rva)
        if symbol is None or symbol.rva != rva:
            return None
        found = [datum for datum in self._diff.base.data_symbols if datum.name == symbol.name]
        section = self._base.image.section_at(found[0].rva) if len(found) == 1 and found[0].size == symbol.size else None
        return found[0].rva if section is not None and not section.writable else None

    def objection(self, rva: Rva, unsure: Iterable[int] = ()) -> str | None:
        """Why the datum at ``rva`` may be one that the base has, so that a copy would lose its state; ``None`` where it is new.

        Constants have no state: a copy of what the fixed image has is right. ``unsure``: live data of the base whose counterparts may be
        others.
        """
        section = self._fixed.image.section_at(rva)
        if section is None or not section.writable:
            return None
        symbol = self._fixed.symbol(rva)
        # Compilers that merge data name but the first, in code as in symbols.
        rivals = tuple(sorted({*self.left_over_live, *self._left_over_reached, *unsure}))
        if symbol is not None and self._diff.base.has_symbols:
            if symbol.name in self._base_names:
                return f"{symbol.name} is in both images, and nothing shows which place of the base it is"
            rivals = tuple(rival for rival in rivals if self._base.symbol(rival) is None)
        if not rivals:
            return None
        places = ", ".join(f"0x{rival:x}" for rival in rivals[:4])
        return f"the writable datum at 0x{rva:x} may be new or one that the base has (at {places})"

    @cached_property
    def _base_names(self) -> frozenset[str]:
        return frozenset(datum.name for datum in self._diff.base.data_symbols)

    @cached_property
    def left_over_live(self) -> tuple[int, ...]:
        """Live data of the base without a counterpart: what nothing matches in the fixed image may be any of them."""
        return tuple(sorted(target for target in self._left_over if self._base.writable(target) and not self._is_mere_end(target)))

    def _is_mere_end(self, base: int) -> bool:
        """Whether an array ends there that code goes over, for all of it, and nothing is reached there from before."""
        users = self._base.users.get(base, ())
        if base in self._left_over_reached or base in self._pointed_at or not users:
            return False
        return all(is_end(self._base, self._base.functions[user], base) for user in users)

    @cached_property
    def _pointed_at(self) -> frozenset[int]:
        return frozenset(self._base.image.pointers.values())

    @cached_property
    def _left_over_reached(self) -> frozenset[int]:
        """Live data of the base without a counterpart that code which has changed or is gone accesses at a distance from what it names.

        Not what is only made the address of, as the end of a datum is, or gone over by an index from before what is named.
        """
        bodies = (body_of(self._base.image, function) for function in self._changed_base)
        reached = (several for body in bodies if isinstance(body, Body) for several in reaches(self._base.image, body).values())
        items = {item for several in reached for item in several if item.width and (not item.indexed or item.start >= item.taken)}
        return frozenset(
            item.start
            for item in items
            if self._base.writable(item.start) and (self._is_left_over(item.start) or self._is_behind_unsized(item.start, item.taken))
        )

    def _is_behind_unsized(self, base: int, taken: int) -> bool:
        """Whether it lies behind the start of a datum with a name whose size no symbol tells, and is reached from before that.

        Up to where the next begins, others may follow it that have lost their names.
        """
        index = bisect_right(self._matched_starts, base) - 1
        start = self._matched_starts[index] if index >= 0 else base
        named = self._diff.base.has_symbols and self._base.symbol(start) is None
        return named and taken < start < base < self._matched[start]

    @cached_property
    def _left_over_constants(self) -> frozenset[int]:
        return frozenset(target for target in self._left_over if not self._base.writable(target) and target not in self._base.tables)

    @cached_property
    def _left_over(self) -> frozenset[int]:
        """Data of the base without a counterpart that functions use which have changed or are gone, or come to by pointers in data."""
        used = (target for function in self._changed_base for target in self._targets(function, self._base))
        pointed = (target for target in pointed_by(self._base, self._changed_base) if self._base.writable(target))
        return frozenset(target for target in (*used, *pointed) if self._is_left_over(target))

    @cached_property
    def _changed_base(self) -> tuple[Function, ...]:
        """The base's functions that have changed or are gone."""
        rows = (*self._diff.of(Verdict.CHANGED), *self._diff.of(Verdict.REMOVED))
        return tuple(row.base for row in rows if row.base is not None)

    def _targets(self, function: Function, view: View) -> frozenset[int]:
        """Data that the function refers to."""
        targets = {item.target for part in view.image.references(function) for item in part if item.use is Use.DATA}
        return frozenset(
            target
            for target in targets
            if view.image.function_at(target) is None
            and target not in view.image.imports_by_slot
            and view.image.section_at(target) is not None
        )

    def _is_left_over(self, base: int) -> bool:
        index = bisect_right(self._matched_starts, base) - 1
        return index < 0 or base >= self._matched[self._matched_starts[index]]

    @cached_property
    def _matched(self) -> Mapping[int, int]:
        """Start → end in the base of every matched stretch."""
        ends: dict[int, int] = {}
        for match in self._diff.data:
            ends[match.base] = max(ends.get(match.base, 0), match.base + match.size)
        return ends

    @cached_property
    def _matched_starts(self) -> tuple[int, ...]:
        return tuple(sorted(self._matched))
