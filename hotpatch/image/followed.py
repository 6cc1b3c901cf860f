"""Which functions code leads to, and how far the code of a function goes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import LONGEST_INSTRUCTION, FixupKind, Use
from hotpatch.image.entries import Entries
from hotpatch.image.flow import ONWARD, decode, end_of_function, is_last_step, padding_length
from hotpatch.image.model import FunctionSource, Range, range_of
from hotpatch.image.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from hotpatch.image.image import Image

_ROUND_LIMIT = 1000
_POINTER_KINDS = frozenset({FixupKind.REL32, FixupKind.PAGEOFFSET_12A, FixupKind.REL21})
"""How code takes an address; a load's own displacement (PAGEOFFSET_12L, literals) is data."""
_CALL, _DATA, _BRANCH, _JUMP = Use.CALL, Use.DATA, Use.BRANCH, Use.JUMP
_NONE: frozenset[int] = frozenset()
PDATA = int(FunctionSource.PDATA)
"""Asking an enumeration for a member takes as long as all else that is done with a reference."""


class Followed(Told):
    """Claims that grow with what code leads to.

    Attributes:
        branches: Start of each range → where it branches to outside of itself.
        tables: Addresses of jump tables and of their tables of entry numbers.
        table_ends: Where jump tables end.
        cases: What jump tables of known length lead to outside of the range that jumps.
        unbounded: Ranges that jump through tables of unknown length, or whose function got more code, with all that they were read with.
        grown: Functions that got more code since the ranges were looked at: what bounds the index of a table may stand in it.
        pointers: Addresses of code that are taken.
        takers: What code takes the address of → the ranges that do.
        data: What code refers to as data between the first byte of code and the last.
        constants: Whatever it leads to elsewhere.
    """

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.branches: dict[int, tuple[int, ...]] = {}
        self.tables: set[int] = set()
        self.table_ends: set[int] = set()
        self.cases: set[int] = set()
        self.unbounded: dict[int, Range] = {}
        self.grown: set[int] = set()
        self.pointers: set[int] = set()
        self.takers: dict[int, set[int]] = {}
        self.data: set[int] = set()
        self.constants: set[int] = set()

    def follow(self) -> None:
        """Bound what has no size, decode, take new targets, until nothing new turns up."""
        pointers, entries = self.pointers, Entries(self.image, self, self.unsized, self.data, self.table_ends)
        pointers.update(self._relocated_pointers())
        for _ in range(_ROUND_LIMIT):
            self._bound()
            calls, taken = self._targets()
            pointers.update(taken)
            fresh = [(rva, FunctionSource.CALL) for rva in calls if self._is_fresh(rva)]
            if not fresh:
                candidates = (rva for rva in sorted(pointers) if self._is_fresh_pointer(rva) and entries.may_begin(rva))
                fresh = [(rva, FunctionSource.POINTER) for rva in candidates]
            self._note_entries(calls, FunctionSource.CALL)
            for rva, source in fresh:
                self._start(rva, source, cuts=False)
            if not fresh:
                break
        self._note_entries(pointers, FunctionSource.POINTER)

    def _note_entries(self, targets: Iterable[int], source: FunctionSource) -> None:
        for rva in targets:
            if self.owner.get(rva) == rva:
                self.note(rva, source)

    def _is_fresh(self, rva: int) -> bool:
        inside = self.containing(rva)
        if inside is None:
            return rva not in self.unsized
        return inside != rva and self.owner[inside] in self.unsized

    def _is_fresh_pointer(self, rva: int) -> bool:
        return self.containing(rva) is None and rva not in self.unsized and rva not in self.tables and not self._is_among_constants(rva)

    def _is_among_constants(self, rva: int) -> bool:
        """Whether code reads from the section, and nothing but addresses that are taken speaks for code there.

        Assemblers make sections executable whose names they do not know, constants' among them (NASM: ``.rodata``).
        """
        section = next(part for part in self.executable if rva in part)
        if len(self.executable) == 1 or any(source != FunctionSource.POINTER and entry in section for entry, source in self.source.items()):
            return False
        return any(self._reads(start, section) for start in self.starts)

    def _reads(self, start: int, section: Range) -> bool:
        """Whether the code in the range at ``start`` reads or writes what lies in ``section``."""
        architecture, part = self.image.architecture, Range(Rva(start), Rva(self.end[start]))
        code = self.image.code(part)
        return any(
            one.use is _DATA
            and one.target in section
            and architecture.accesses(one.kind, code[one.offset : one.offset + one.size], start + one.offset)
            for one in self.image.references_in(part)
        )

    def _bound(self) -> None:
        for start, following in pairwise([*sorted(self.unsized), self.high]):
            if start not in self.end and not self._extend(start, start, following):
                self.unsized.discard(start)
                self.source.pop(start, None)

    def _targets(self) -> tuple[list[int], list[int]]:
        """Call and tail-call targets, and addresses taken, of ranges not looked at yet."""
        calls: set[int] = set()
        taken: set[int] = set()
        low, high, constants, data = self.low, self.high, self.constants, self.data
        grown = (start for start, whole in self.unbounded.items() if start in self.end and self._whole(start) != whole)
        again = {start for owner in self.grown for start in self.owned.get(self._survivor(owner), ()) if self._is_read_anew(start)}
        fresh, self.fresh = sorted(self.fresh.union(grown, again)), set()
        self.grown.clear()
        for start in fresh:
            end = self.end[start]
            owner = self.owner[start]
            branches: list[int] = []
            _, tables, outline, leads = self.image.reading(range_of((start, end)))
            for table in tables:
                self.tables.update((table.address, *(table.index or ())[:1]))
                self.table_ends.add(table.address + table.size)
            if start in again or (tables and not all(table.exact for table in tables)):
                whole = self.unbounded[start] = self._whole(start)
                tables = self.image.jump_tables_in(whole)
            anchors = {table.anchor for table in tables} if tables else _NONE
            if anchors:
                self._not_taken(anchors, start)
            for table in tables:
                cases = [target for target in table.ways if not start <= target < end] if table.exact else []
                self.cases.update(cases)
                branches += cases
            for (_, _, kind, use, _), target in zip(outline.outward[1], leads, strict=True):
                if not low <= target < high:
                    constants.add(target)
                elif start <= target < end:
                    continue
                elif use is _CALL:
                    calls.add(target)
                elif use is _DATA:
                    if kind in _POINTER_KINDS and target not in anchors:
                        taken.add(target)
                        self.takers.setdefault(target, set()).add(start)
                    data.add(target)
                elif use is _BRANCH or (use is _JUMP and target == end and self._is_last_step(target)):
                    branches.append(target)
                elif use is _JUMP:
                    inside = self.containing(target)
                    if inside is None or (self.owner[inside] != owner and not self._falls_to(target, inside)):
                        calls.add(target)
            self.branches[start] = tuple(branches)
        return sorted(filter(self.is_code, calls)), sorted(filter(self.is_code, taken))

    def _not_taken(self, anchors: Set[int], start: int) -> None:
        """The range at ``start`` counts the entries of tables from ``anchors``, and looked as if it took the addresses of functions."""
        for anchor in anchors & self.takers.keys():
            takers = self.takers[anchor]
            takers.discard(start)
            if not takers and anchor not in self.image.pointers.values():
                self.pointers.discard(anchor)
                if self.source.get(anchor, 0) & PDATA:
                    self.source[anchor] &= ~int(FunctionSource.POINTER)

    def _is_read_anew(self, start: int) -> bool:
        return self._whole(start) != self.unbounded.get(start, Range(Rva(start), Rva(self.end[start])))

    def _whole(self, start: int) -> Range:
        """The range at ``start`` with those of its function that touch it: what bounds the index of a table may stand in another."""
        at, owner = bisect_left(self.starts, start), self.owner[start]
        first, last = at, at
        while first and self.owner[self.starts[first - 1]] == owner and self.end[self.starts[first - 1]] == self.starts[first]:
            first -= 1
        while (
            last + 1 < len(self.starts)
            and self.owner[self.starts[last + 1]] == owner
            and self.end[self.starts[last]] == self.starts[last + 1]
        ):
            last += 1
        return Range(Rva(self.starts[first]), Rva(self.end[self.starts[last]]))

    def _falls_to(self, rva: int, start: int) -> bool:
        """Whether control goes on, in the range at ``start``, to ``rva`` in its middle: then a jump there enters a tail that is shared."""
        code = self.image.read(start, rva - start)
        if rva == start or padding_length(self.image.architecture, code):
            return False
        last = deque(decode(self.image.architecture, code, 0, start), 1)
        return bool(last) and last[0].address + last[0].size == rva and last[0].flow in ONWARD

    def _is_last_step(self, rva: int) -> bool:
        return self.containing(rva) is None and is_last_step(self.image.architecture, self.image.read(rva, LONGEST_INSTRUCTION), rva)

    def _extend(self, start: int, owner: int, following: int | None = None) -> bool:
        """Claim the code at ``start``, which is nobody's and goes on to ``following`` at most, for ``owner``."""
        index = bisect_right(self.starts, start)
        section_end = next(high for low, high in self.executable if low <= start < high)
        limit = min(section_end, following or section_end, self.starts[index] if index < len(self.starts) else section_end)
        code = self.image.read(start, limit - start)
        end = end_of_function(self.image.architecture, code, start, self.unsized, self.image.read, self.image.table_limit)
        if end is None:
            return False
        self.claim(start, end, owner)
        return True

    def _relocated_pointers(self) -> Iterable[int]:
        return filter(self.is_code, self.image.pointers.values())
