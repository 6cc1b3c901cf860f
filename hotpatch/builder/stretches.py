"""Which constants must travel together, because code computes addresses in them and the base does not have them all alike."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.ownership import FARTHEST
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.builder.ownership import Ownership, Usage
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Datum

_LITERAL = "??_C@"
"""How the decorated names of literal texts begin."""


class Stretches:
    """Which constants must travel together, because a function computes addresses in them and the base does not have them all alike."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, ownership: Ownership) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base, self._ownership = diff, fixed, base, ownership
        self._found_around: dict[int, Range | None] = {}
        self._known_runs: dict[Range, Range] = {}

    def together(self, usage: Usage, apart: Collection[int]) -> Mapping[int, Range]:
        """Target → what travels for it, for the targets of a function that must not be bound to the base one by one.

        ``apart``: targets that are something else than constants.
        """
        targets = [target for target in usage.targets if target not in apart and self._constant(target)]
        parts: list[tuple[Range, list[int]]] = []
        for target in targets:
            reach = self._reach(usage, target)
            if parts and reach.start < parts[-1][0].end + (not self._diff.fixed.has_symbols and reach.start == parts[-1][0].end):
                last, members = parts[-1]
                parts[-1] = (Range(last.start, max(last.end, reach.end)), [*members, target])
            else:
                parts.append((reach, [target]))
        return {
            target: part
            for part, members in parts
            if not self._exact(usage, part, members) and not self._alike(part, members)
            for target in members
        }

    def _constant(self, rva: int) -> bool:
        return self._fixed.image.holds_constants(self._fixed.section(rva))

    def _exact(self, usage: Usage, part: Range, members: Sequence[int]) -> bool:
        """Whether each member is a datum of its own that is used as such."""
        if self._diff.fixed.has_symbols:
            return len(members) == 1 and part == self._fixed.datum(members[0])
        return all(target not in usage.taken for target in members)

    def _reach(self, usage: Usage, rva: int) -> Range:
        """What code may reach from an address: the datum, and with an address only taken, the one that ends there.

        With symbols that is also so where the function names nothing else in it, for it may hand the end on to another.
        """
        symbol = self._fixed.symbol(rva)
        own = self._fixed.datum(rva)
        if rva not in usage.taken:
            return own
        if self._diff.fixed.has_symbols:
            before, _ = self._ownership.neighbours(rva)
            ends = before is not None and before.end <= rva and (symbol is None or symbol.rva == rva)
            if before is not None and ends and (_is_end(before, rva) or usage.within(before.rva, before.end, rva)):
                return Range(before.rva, own.end)
            return own
        if symbol is not None:
            return own
        if rva in self._fixed.type_parts:
            ending = self.ending_at(usage, Rva(rva))
            return Range(ending.start, own.end) if ending is not None else own
        if self._is_text(own) or rva in self._fixed.tables:
            ending = self.ending_at(usage, Rva(rva)) or self._bare_numbers_before(Rva(rva))
            return Range(ending.start, own.end) if ending is not None else own
        return self._whole(own)

    def _whole(self, own: Range) -> Range:
        """What is of one kind around what begins where ``own`` does, in images without symbols, and numbers that may end there."""
        whole = self._run(own)
        before = self._bare_numbers_before(own.start) if whole.start == own.start else None
        return whole if before is None else Range(before.start, whole.end)

    def ending_at(self, usage: Usage, rva: Rva) -> Range | None:
        """Constants that end where a text or a jump table begins, if the function takes that address and uses them too."""
        if rva not in usage.taken:
            return None
        if self._diff.fixed.has_symbols:
            before, _ = self._ownership.neighbours(rva)
            part = Range(before.rva, before.end) if before is not None and before.end <= rva else None
        else:
            part = self._numbers_before(rva)
        return part if part is not None and usage.within(part.start, part.end, rva) else None

    def _numbers_before(self, rva: Rva) -> Range | None:
        at = bisect_left(self._fixed.boundaries, rva) - 1
        start = self._fixed.boundaries[at] if at >= 0 else rva
        known = start in self._fixed.tables or start in self._fixed.records
        if not self._constant(start) or known or self._is_text(Range(Rva(start), rva)):
            return None
        return Range(self._run(Range(Rva(start), rva)).start, rva)

    def _bare_numbers_before(self, rva: Rva) -> Range | None:
        """The same, but behind the last pointer among them: a copy of numbers is as good as they are."""
        found = self._numbers_before(rva)
        sites = self._fixed.pointers(found.start, rva) if found is not None else ()
        if found is None or not sites:
            return found
        start = Rva(found.start + sites[-1] + POINTER_SIZE)
        return Range(start, rva) if start < rva else None

    def around(self, target: int) -> Range | None:
        """What travels for a pointer in data to where one constant ends and another may begin, unless the base has both in one piece."""
        if target not in self._found_around:
            self._found_around[target] = self._find_around(target)
        return self._found_around[target]

    def _find_around(self, target: int) -> Range | None:
        if not self._diff.fixed.has_symbols:
            own = self._fixed.extent(target)
            whole = own if self._is_text(own) or target in self._fixed.type_parts else self._whole(own)
            return None if whole == own or self._alike(whole, (target,)) else whole
        before, _ = self._ownership.neighbours(target)
        if before is None or not _is_end(before, target) or not self._constant(before.rva):
            return None
        part = Range(before.rva, Rva(max(self._fixed.datum(target).end, target + 1)))
        return None if self._alike(part, (before.rva, target)) else part

    def _is_text(self, part: Range) -> bool:
        """Whether a text, no pointer, begins there: what ends in zero and is printable, behind the zero that ends another."""
        if self._fixed.pointers(part.start, part.start + POINTER_SIZE):
            return False
        raw = self._diff.fixed.read(part.start, part.size)
        text = raw.split(b"\0", 1)[0]
        printable = len(text) > 1 and b"\0" in raw and all(32 <= byte < 127 for byte in text)
        return printable and self._diff.fixed.read(Rva(part.start - 1), 1) == b"\0"

    def _run(self, part: Range) -> Range:
        """What is of one kind around ``part``: all with pointers, or all without and no texts.

        Without symbols any reference looks like the start of a datum, also one into the middle of an array or before its first element.
        """
        if part not in self._known_runs:
            self._known_runs[part] = self._find_run(part)
        return self._known_runs[part]

    def _find_run(self, part: Range) -> Range:
        section = self._fixed.section(part.start)
        starts, pointing = self._fixed.boundaries, bool(self._fixed.pointers(part.start, part.end))
        start, end = part.start, part.end
        if section is None:
            return part
        at = bisect_left(starts, start) - 1
        while at >= 0 and starts[at] >= section.range.start and part.start - starts[at] <= FARTHEST:
            if not self._is_like(Range(Rva(starts[at]), start), pointing=pointing):
                sites = self._fixed.pointers(starts[at], start)
                start = Rva(starts[at] + sites[-1] + POINTER_SIZE) if sites and not pointing else start
                break
            start, at = Rva(starts[at]), at - 1
        at = bisect_right(starts, end)
        while at < len(starts) and starts[at] <= section.range.end and starts[at] - part.end <= FARTHEST:
            if not self._is_like(Range(end, Rva(starts[at])), pointing=pointing):
                break
            end, at = Rva(starts[at]), at + 1
        return Range(start, end)

    def _is_like(self, part: Range, *, pointing: bool) -> bool:
        return (
            part.start not in self._fixed.tables
            and part.start not in self._fixed.type_parts
            and bool(self._fixed.pointers(part.start, part.end)) is pointing
            and (pointing or not self._is_text(part))
        )

    def _alike(self, part: Range, members: Sequence[int]) -> bool:
        """Whether the base has all of it in one piece."""
        found = {self._ownership.displacement(target) for target in members}
        if len(found) != 1 or None in found:
            return False
        start = part.start + (found.pop() or 0)
        end = start + part.size
        section = self._base.section(start)
        if section is None or end > section.range.end:
            return False
        sites = self._fixed.pointers(part.start, part.end)
        if sites != self._base.pointers(start, end) or self._base.bare(start, part.size) != self._fixed.bare(part.start, part.size):
            return False
        pairs = ((self._fixed.pointer(part.start + site), self._base.pointer(start + site)) for site in sites)
        return all(self._diff.base_entries.get(Rva(new)) == old or self._diff.base_datum(Rva(new)) == old for new, old in pairs)


def _is_end(datum: Datum, rva: int) -> bool:
    """Whether code may take ``rva`` for the end of ``datum``: of no literal text, which has no name to compute it by."""
    return datum.end == rva and not datum.name.startswith(_LITERAL)
