"""Which functions an image has: the union of what its tables, its symbols and its code say, without overlaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Flow, Use
from hotpatch.image.claims import Claims
from hotpatch.image.entries import Entries
from hotpatch.image.flow import (
    ALIGNED,
    LEAVING,
    decode,
    end_of_function,
    filler_length,
    is_last_step,
    is_left_over,
    padding_length,
    reach,
    starts_with_padding,
)
from hotpatch.image.funclets import funclets
from hotpatch.image.gaps import whole_functions
from hotpatch.image.model import Function, FunctionSource, Range
from hotpatch.image.type_records import type_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.image.image import Image

_ROUND_LIMIT = 1000
_LONGEST_FILLER = 16
_POINTER_KINDS = frozenset({FixupKind.REL32, FixupKind.PAGEOFFSET_12A, FixupKind.REL21})
"""How code takes an address; a load's own displacement (PAGEOFFSET_12L, literals) is data."""
_ONWARD = frozenset({Flow.NEXT, Flow.BRANCH})
_CALL, _DATA, _BRANCH, _JUMP = Use.CALL, Use.DATA, Use.BRANCH, Use.JUMP
_PDATA = int(FunctionSource.PDATA)
"""Asking an enumeration for a member takes as long as all else that is done with a reference."""


def discover(image: Image, names: Mapping[Rva, tuple[str, ...]]) -> tuple[Function, ...]:
    """Every function of ``image`` by entry; ``names`` are those of each entry, best first."""
    finder = _Finder(image)
    finder.take_symbols()
    finder.take_function_table()
    finder.take_named_starts()
    finder.follow()
    while finder.join() or finder.take_thrown() or finder.take_gaps():
        finder.follow()
    return finder.result(names)


class _Finder(Claims):
    """Claims that grow with the evidence."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.image = image
        self.source: dict[int, int] = {}
        self.unsized: set[int] = set()
        self.branches: dict[int, tuple[int, ...]] = {}
        self.falls: dict[tuple[int, int], bool] = {}
        self.tables: set[int] = set()
        self.table_ends: set[int] = set()
        self.cases: set[int] = set()
        """What jump tables of known length lead to outside of the range that jumps."""
        self.unbounded: dict[int, Range] = {}
        """Ranges that jump through tables of unknown length, or whose function got more code, with all that they were read with."""
        self.grown: set[int] = set()
        """Functions that got more code since the ranges were looked at: what bounds the index of a table may stand in it."""
        self.pointers: set[int] = set()
        self.takers: dict[int, set[int]] = {}
        """What code takes the address of → the ranges that do."""
        self.merged: dict[int, int] = {}
        self.data: set[int] = set()
        self.constants: set[int] = set()
        self.asked: set[int] = set()

    def note(self, entry: int, source: FunctionSource) -> None:
        self.source[entry] = int.__or__(self.source.get(entry, 0), source)

    # evidence ----------------------------------------------------------------------------------------------------------------------------

    def take_symbols(self) -> None:
        """Procedures with sizes from the PDB, and their separated parts."""
        symbols = self.image.symbols
        sized = {rva: size for rva, size, _ in reversed(symbols.functions) if size is not None and self.is_code(rva)}
        for rva in sorted(sized):
            following = self.containing(rva)
            if following is not None:
                self.split(rva)
            else:
                self.claim(rva, rva + sized[rva], rva)
            self.note(rva, FunctionSource.PDB)
        for entry, start, size in symbols.separated:
            if entry in sized:
                self.claim(start, start + size, entry)

    def take_function_table(self) -> None:
        """Function-table entries, chained ones under their primary; pieces inside of a known procedure are that procedure's."""
        entries = sorted(self.image.unwind_entries, key=lambda entry: (entry.primary != entry.range[0], entry.range))
        for (start, end), _, _, primary, _, _ in entries:
            if not self.is_code(start):
                continue
            inside = self.containing(start)
            owner = self.owner[inside] if inside is not None else self._owner_of(primary)
            if owner in (start, primary) or owner not in self.source:
                self.note(owner, FunctionSource.PDATA)
            self.claim(start, end, owner)

    def _owner_of(self, primary: int) -> int:
        inside = self.containing(primary)
        return self.owner[inside] if inside is not None else primary

    def take_named_starts(self) -> None:
        """Starts without a size that something outside of the code vouches for; they cut a range that they lie in."""
        image = self.image
        rows: list[tuple[int, FunctionSource]] = [(rva, FunctionSource.PDB) for rva, _, _ in image.symbols.functions]
        rows += [(export.rva, FunctionSource.EXPORT) for export in image.exports if export.rva is not None]
        rows += [(symbol.rva, FunctionSource.COFF) for symbol in image.coff_symbols if symbol.is_function]
        rows += [(rva, FunctionSource.GUARD) for rva in image.guard_functions]
        rows += [(rva, FunctionSource.CFFI) for rva in image.cffi_names]
        rows += [(entry.handler, FunctionSource.PDATA) for entry in image.unwind_entries if entry.handler is not None]
        rows += [(rva, FunctionSource.EXCEPTION) for rva in self._funclets()]
        if image.entry_point is not None:
            rows.append((image.entry_point, FunctionSource.ENTRY_POINT))
        if image.tls is not None:
            rows += [(rva, FunctionSource.ENTRY_POINT) for rva in image.tls.callbacks]
        for rva, source in rows:
            if self.is_code(rva):
                self._start(rva, source, cuts=True)

    def _funclets(self) -> list[int]:
        """Entries of the funclets that are functions; the others become parts of those that they belong to.

        Microsoft's compiler makes a procedure of each and lays them apart from their functions. clang counts blocks to the procedure, whose
        section they end, so that no filler of the linker's, which traps, stands before them; its filters are procedures.
        """
        found: list[int] = []
        after: dict[int, int] = {}
        for funclet in funclets(self.image):
            inside = self.containing(funclet.entry)
            if self._is_procedure(inside):
                continue
            home = self.containing(funclet.parents[0]) if len(funclet.parents) == 1 and not funclet.is_filter else None
            start = None if home is None else after.get(self.owner[home], self.end[home])
            if inside is None or start is None or home is None or not self._is_same_section(start, funclet.entry):
                found.append(funclet.entry)
                continue
            after[self.owner[home]] = self.end[inside]
            self.claim(start, funclet.entry, self.owner[home])
            self._merge(self.owner[inside], self.owner[home])
        return found

    def _is_same_section(self, end: int, start: int) -> bool:
        """Whether nothing stands between ``end`` and ``start`` but filler that does not trap."""
        gap = self.image.read(end, start - end) if 0 <= start - end <= _LONGEST_FILLER else None
        architecture = self.image.architecture
        if gap is None or filler_length(architecture, gap) < len(gap):
            return False
        return all(filler.flow is not Flow.TRAP for filler in decode(architecture, gap, 0, end))

    def _is_procedure(self, start: int | None) -> bool:
        """Whether the PDB says how far the function of a range goes."""
        return start is not None and bool(self.source.get(self.owner[start], 0) & FunctionSource.PDB)

    def _start(self, rva: int, source: FunctionSource, *, cuts: bool) -> None:
        inside = self.containing(rva)
        if inside is None:
            self.unsized.add(rva)
        elif inside != rva or self.owner[inside] != rva:
            owner = self.owner[inside]
            if owner in self.unsized:
                self._forget(owner)
                self.unsized.add(rva)
            elif cuts:
                self.split(rva)
                self.give(rva, rva)
            else:
                return
        self.note(rva, source)

    def _forget(self, owner: int) -> None:
        """Give up the bounds of a function that were only followed, so that they are followed anew with what is known now."""
        self.forget(owner)

    # code --------------------------------------------------------------------------------------------------------------------------------

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
            _, tables, outline, leads = self.image.reading(Range(Rva(start), Rva(end)))
            for table in tables:
                self.tables.update((table.address, *(table.index or ())[:1]))
                self.table_ends.add(table.address + table.size)
            if start in again or (tables and not all(table.exact for table in tables)):
                whole = self.unbounded[start] = self._whole(start)
                tables = self.image.jump_tables_in(whole)
            anchors = {table.anchor for table in tables}
            if anchors:
                self._not_taken(anchors, start)
            for table in tables:
                cases = [target for target in table.targets if not start <= target < end] if table.exact else []
                self.cases.update(cases)
                branches += cases
            for (_, _, _, kind, use, _, _), target in zip(outline.outward, leads, strict=True):
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

    def _not_taken(self, anchors: set[int], start: int) -> None:
        """The range at ``start`` counts the entries of tables from ``anchors``, and looked as if it took the addresses of functions."""
        for anchor in anchors & self.takers.keys():
            takers = self.takers[anchor]
            takers.discard(start)
            if not takers and anchor not in self.image.pointers.values():
                self.pointers.discard(anchor)
                if self.source.get(anchor, 0) & _PDATA:
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
        return bool(last) and last[0].address + last[0].size == rva and last[0].flow in _ONWARD

    def _is_last_step(self, rva: int) -> bool:
        return self.containing(rva) is None and is_last_step(self.image.architecture, self.image.read(rva, _LONGEST_FILLER), rva)

    def join(self) -> bool:
        """Give a function the code that it falls, branches or switches into and that nothing else leads to; whether there was any.

        Compilers keep prologues out of short paths: what precedes and follows the part with a frame then has no entry in the function
        table, or one of its own.
        """
        wanted: dict[int, set[int]] = {}
        for start in list(self.starts):
            for target in self._flows_out(start):
                wanted.setdefault(target, set()).add(self.owner[start])
        joined = False
        for target, claimants in sorted(wanted.items()):
            inside = self.containing(target)
            owners = {self._survivor(owner) for owner in claimants}
            if inside is not None:
                owners.discard(self.owner[inside])
            if len(owners) != 1:
                continue
            (owner,) = owners
            if target not in self.cases and self._stands_alone(target, owner):
                self._start(target, FunctionSource.CALL, cuts=True)
                joined = True
            elif inside is None:
                joined |= self._extend(target, owner)
                self.grown.add(owner)
            elif self.owner[inside] != owner and self.source.get(self.owner[inside]) == _PDATA and owner in self.end:
                self._merge(*self._part_and_whole(target, owner))
                self.grown.add(owner)
                joined = True
        return joined

    def _survivor(self, owner: int) -> int:
        """The function that ``owner`` is a part of by now."""
        while owner in self.merged:
            owner = self.merged[owner]
        return owner

    def _part_and_whole(self, target: int, owner: int) -> tuple[int, int]:
        """Which of two functions in the table is the other's part, where code of ``owner`` leads to ``target``.

        One that is only returned to, in its middle, and that leads to the other's beginning, is no part but the function.
        """
        inside = self.containing(target)
        other = self.owner[target if inside is None else inside]
        returns = inside != target and self.source.get(owner) == FunctionSource.PDATA
        if returns and any(owner in self.branches.get(start, ()) for start in self.owned[other]):
            return owner, other
        return other, owner

    def _stands_alone(self, target: int, owner: int) -> bool:
        """Whether the code at ``target``, which a branch of ``owner`` leads to, is another function that it ends with a call of.

        Such code stands apart, begins where functions do, returns by itself and never leads back; a cold part fails in one of these.
        """
        inside = self.containing(target)
        if inside is not None and self._checks_cookie(owner):
            return True
        if inside is None and target % ALIGNED:
            return False
        index = bisect_left(self.starts, target) - 1
        previous = self.starts[index] if index >= 0 else None
        if previous is not None and self.end[previous] == target and self._survivor(self.owner[previous]) == owner:
            return False
        following = self.starts[index + 1] if index + 1 < len(self.starts) else self.high
        end = self.end[inside] if inside is not None else following
        reached = reach(self.image.architecture, self.image.read(target, end - target), target)
        if not any(instruction.flow is Flow.RETURN for instruction in reached):
            return False
        jumps = (
            instruction.target for instruction in reached if instruction.target not in {None, owner} and instruction.flow is not Flow.CALL
        )
        back = (self.containing(jump) for jump in jumps if jump is not None)
        return not any(place is not None and self._survivor(self.owner[place]) == owner for place in back)

    def _checks_cookie(self, owner: int) -> bool:
        """Whether ``owner`` is the check of the security cookie, which branches to what reports a failure; others that read it call."""
        configuration = self.image.load_configuration
        cookie = configuration.security_cookie if configuration is not None else None
        if cookie is None or owner not in self.end:
            return False
        references = self.image.references_in(Range(Rva(owner), Rva(self.end[owner])))
        return any(one.target == cookie for one in references) and not any(one.use is Use.CALL for one in references)

    def _flows_out(self, start: int) -> Iterator[int]:
        """Where the range at ``start`` branches to outside of its function, or falls into behind its end."""
        end, owner = self.end[start], self.owner[start]
        for target in self.branches.get(start, ()):
            if self._is_others(target, owner):
                yield target
        if self._is_others(end, owner) and self._falls_through(start, end):
            yield end

    def _falls_through(self, start: int, end: int) -> bool:
        """Whether the code from ``start`` goes on behind ``end``: neither filler follows nor does the last instruction leave."""
        known = self.falls.get((start, end))
        if known is None:
            architecture = self.image.architecture
            known = False
            if not starts_with_padding(architecture, self.image.read(end, _LONGEST_FILLER)):
                tail = start if self.alignment == 1 else max(start, end - 2 * self.alignment)  # of one size: the last two will do
                before, last = deque((None, None, *decode(architecture, self.image.read(tail, end - tail), 0, tail)), 2)
                known = last is not None and last.address + last.size == end and last.flow in _ONWARD
                if known and last and before and before.flow in LEAVING:
                    known = not is_left_over(before, last.address, self.image.references_in(Range(Rva(start), Rva(end))))
            self.falls[start, end] = known
        return known

    def _is_others(self, rva: int, owner: int) -> bool:
        """Whether ``rva`` is code that is nobody's, or of a function that only the function table knows."""
        if not self.is_code(rva):
            return False
        inside = self.containing(rva)
        return inside is None or (self.owner[inside] != owner and self.source.get(self.owner[inside]) == _PDATA)

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

    def _merge(self, part: int, owner: int) -> None:
        for start in tuple(self.owned.get(part, ())):
            self.give(start, owner)
        self.source.pop(part, None)
        self.merged[part] = owner

    def take_gaps(self) -> bool:
        """Take whole functions that stand between others though nothing leads to them; whether there were any.

        Linkers keep what an object file brings along unless each of its functions is a section of its own.
        """
        data = self.data | self.tables
        fresh = [entry for gap in self._gaps() for entry in whole_functions(self.image, gap, self.unsized, data, self._is_entry)]
        for entry in fresh:
            self._start(entry, FunctionSource.GAP, cuts=False)
        return bool(fresh)

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """Where code that is nobody's begins behind a function, and where it ends."""
        for section in self.executable:
            starts = self.starts[bisect_left(self.starts, section.start) : bisect_left(self.starts, section.end)]
            for start, following in pairwise([*starts, section.end]):
                if self.end[start] < following:
                    yield self.end[start], following

    def take_thrown(self) -> bool:
        """Take what destroys and copies objects that are thrown, which nothing else may lead to; whether there was any."""
        fresh = self.constants - self.asked
        self.asked |= fresh
        records = (type_record(self.image, rva) for rva in sorted(fresh))
        found = [
            code for record in records if record is not None for code in record.code if self.is_code(code) and self.owner.get(code) != code
        ]
        for rva in found:
            self._start(rva, FunctionSource.EXCEPTION, cuts=True)
        return bool(found)

    def _is_entry(self, rva: int) -> bool:
        return self.owner.get(rva) == rva

    def _relocated_pointers(self) -> Iterable[int]:
        return filter(self.is_code, self.image.pointers.values())

    # result ------------------------------------------------------------------------------------------------------------------------------

    def result(self, names: Mapping[Rva, tuple[str, ...]]) -> tuple[Function, ...]:
        """Ranges grouped by owner, neighbours of one owner merged."""
        parts: dict[int, list[Range]] = {}
        for start in self.starts:
            own = parts.setdefault(self.owner[start], [])
            if own and own[-1].end == start and start != self.owner[start]:
                own[-1] = Range(own[-1].start, Rva(self.end[start]))
            else:
                own.append(Range(Rva(start), Rva(self.end[start])))
        found = []
        sources: dict[int, FunctionSource] = {}
        for owner, ranges in sorted(parts.items()):
            if len(ranges) == 1:
                entry, whole = ranges[0].start, tuple(ranges)
            else:
                entry = Rva(owner) if any(part.start == owner for part in ranges) else ranges[0].start
                first = next(part for part in ranges if part.start == entry)
                whole = (first, *(part for part in ranges if part is not first))
            number = self.source.get(owner, _PDATA)
            source = sources.get(number)
            if source is None:
                source = sources[number] = FunctionSource(number)
            found.append(Function(entry, whole, names.get(entry, ()), source))
        return tuple(found)
