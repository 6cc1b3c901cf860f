"""Which functions an image has: the union of what its tables, its symbols and its code say, without overlaps."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Flow, Use
from hotpatch.image.flow import ALIGNED, LEAVING, LONGEST_FILLER, ONWARD, decode, is_left_over, reach, starts_with_padding
from hotpatch.image.followed import PDATA, Followed
from hotpatch.image.gaps import whole_functions
from hotpatch.image.model import Function, FunctionSource, Range, function_of, range_of
from hotpatch.image.type_records import type_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.image.image import Image


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


class _Finder(Followed):
    """Claims that also take in what neither tables nor code speak of: parts that functions go on in, and what stands between them."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.falls: dict[tuple[int, int], bool] = {}
        self.asked: set[int] = set()

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
            elif self.owner[inside] != owner and self.source.get(self.owner[inside]) == PDATA and owner in self.end:
                self._merge(*self._part_and_whole(target, owner))
                self.grown.add(owner)
                joined = True
        return joined

    def _part_and_whole(self, target: int, owner: int) -> tuple[int, int]:
        """Which of two functions in the table is the other's part, where code of ``owner`` leads to ``target``.

        One that is only returned to, in its middle, and that leads to the other's beginning, is no part but the function.
        """
        inside = self.containing(target)
        other = self.owner[target if inside is None else inside]
        returns = (inside != target or self._is_rest(target)) and self.source.get(owner) == FunctionSource.PDATA
        if returns and any(owner in self.branches.get(start, ()) for start in self.owned[other]):
            return owner, other
        return other, owner

    def _stands_alone(self, target: int, owner: int) -> bool:
        """Whether the code at ``target``, which a branch of ``owner`` leads to, is another function that it ends with a call of.

        Such code stands apart, begins where functions do and where nothing runs on, returns by itself and never leads back; a cold part
        fails in one of these.
        What the function table says to be the rest of something else has that one's frame, so that nobody can call it.
        """
        if self._is_rest(target):
            return False
        inside = self.containing(target)
        if inside is not None and self._checks_cookie(owner):
            return True
        if (inside is None and target % ALIGNED) or (inside is not None and self._falls_to(target, inside)):
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

    def _is_rest(self, target: int) -> bool:
        """Whether the function table says that what begins at ``target`` goes on with another entry's frame."""
        entry = self.image.unwind_entry_at(target)
        return entry is not None and entry.range.start == target != entry.primary

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
            if not starts_with_padding(architecture, self.image.read(end, LONGEST_FILLER)):
                tail = start if self.alignment == 1 else max(start, end - 2 * self.alignment)  # of one size: the last two will do
                before, last = deque((None, None, *decode(architecture, self.image.read(tail, end - tail), 0, tail)), 2)
                known = last is not None and last.address + last.size == end and last.flow in ONWARD
                if known and last and before and before.flow in LEAVING:
                    known = not is_left_over(before, last.address, self.image.references_in(Range(Rva(start), Rva(end))))
            self.falls[start, end] = known
        return known

    def _is_others(self, rva: int, owner: int) -> bool:
        """Whether ``rva`` is code that is nobody's, or of a function that only the function table knows."""
        if not self.is_code(rva):
            return False
        inside = self.containing(rva)
        return inside is None or (self.owner[inside] != owner and self.source.get(self.owner[inside]) == PDATA)

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
        """Where code that is nobody's begins behind a function, and where it ends; those apart that hold nothing but filler."""
        fills = self.image.architecture.fillers.fullmatch
        for section in self.executable:
            starts = self.starts[bisect_left(self.starts, section.start) : bisect_left(self.starts, section.end)]
            code, first = self.image.code(section), section.start
            for start, following in pairwise([*starts, section.end]):
                end = self.end[start]
                if end < following and not fills(code, end - first, following - first):
                    yield end, following

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

    def result(self, names: Mapping[Rva, tuple[str, ...]]) -> tuple[Function, ...]:
        """Ranges grouped by owner, neighbours of one owner merged."""
        parts: dict[int, list[Range]] = {}
        for start in self.starts:
            owner, end = self.owner[start], self.end[start]
            own = parts.get(owner)
            if own is None:
                parts[owner] = [range_of((start, end))]
            elif own[-1].end == start != owner:
                own[-1] = range_of((own[-1].start, end))
            else:
                own.append(range_of((start, end)))
        found = []
        sources: dict[int, FunctionSource] = {}
        for owner, ranges in sorted(parts.items()):
            if len(ranges) == 1:
                entry, whole = ranges[0].start, tuple(ranges)
            else:
                entry = Rva(owner) if any(part.start == owner for part in ranges) else ranges[0].start
                first = next(part for part in ranges if part.start == entry)
                whole = (first, *(part for part in ranges if part is not first))
            number = self.source.get(owner, PDATA)
            source = sources.get(number)
            if source is None:
                source = sources[number] = FunctionSource(number)
            found.append(function_of((entry, whole, names.get(entry, ()), source)))
        return tuple(found)
