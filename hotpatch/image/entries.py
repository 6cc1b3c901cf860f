"""Whether a function may begin where nothing but an address that is taken leads to."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.image.flow import ALIGNED, LONGEST_FILLER, ONWARD, decode, end_of_function, filler_length, is_whole, padding_length, reach
from hotpatch.image.gaps import whole_functions

if TYPE_CHECKING:
    from hotpatch.image.claims import Claims
    from hotpatch.image.image import Image

_LITERALS = (4, 8, 16)
"""Bytes of what one instruction loads from a literal pool."""
_GAP_LIMIT = 64
"""Bytes before a possible entry that are looked at for filler."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Judges places by what stands before them and what they hold; what it knows grows while functions are looked for.

    Attributes:
        image: Whose code it is.
        claims: Which code is whose.
        unsized: Entries whose functions have no end yet.
        data: Addresses that code reads from or takes.
        table_ends: Where jump tables end.
    """

    image: Image
    claims: Claims
    unsized: set[int]
    data: set[int]
    table_ends: set[int]

    def may_begin(self, rva: int) -> bool:
        """Whether a function may begin at an address that is only ever taken: after filler, other code or its literals; decodable."""
        claims = self.claims
        index = bisect_left(claims.starts, rva) - 1
        previous = claims.end[claims.starts[index]] if index >= 0 else 0
        section = next(part for part in claims.executable if rva in part)
        start = max(previous, section.start)
        gap = self.image.read(max(start, rva - _GAP_LIMIT), rva - max(start, rva - _GAP_LIMIT))
        apart = not gap or padding_length(self.image.architecture, gap)
        if not apart and (rva % ALIGNED or not (self._ends_function(start, rva) or self._ends_whole_functions(start, rva))):
            return False
        following = claims.starts[index + 1] if index + 1 < len(claims.starts) else section.end
        code = self.image.read(rva, min(following, section.end) - rva)
        if not apart and not is_whole(self.image.architecture, code, rva):
            return False
        return end_of_function(self.image.architecture, code, rva, self.unsized, self.image.read, self.image.table_limit) is not None

    def _ends_in_literal(self, start: int, end: int) -> bool:
        """Whether what stands from ``start`` to ``end`` is filler, then literals that code reads."""
        filler = filler_length(self.image.architecture, self.image.read(start, min(end - start, LONGEST_FILLER)))
        begins = any(at in self.data for at in range(start, start + filler + 1, self.claims.alignment))
        return begins and any(end - size in self.data for size in _LITERALS)

    def _ends_function(self, start: int, end: int) -> bool:
        """Whether what stands from ``start`` to ``end`` ends as functions do: with a jump table, a literal or a return."""
        return end in self.table_ends or self._ends_in_literal(start, end) or self._ends_in_return(end)

    def _ends_whole_functions(self, start: int, end: int) -> bool:
        """Whether what stands from ``start`` to ``end`` is whole functions that nothing leads to, none of which goes on at ``end``."""
        found = whole_functions(self.image, (start, end), self.unsized, self.data, lambda rva: self.claims.owner.get(rva) == rva)
        steps = (step for entry in found for step in reach(self.image.architecture, self.image.read(entry, end - entry), entry))
        return bool(found) and not any(end in (step.target, step.address + step.size if step.flow in ONWARD else None) for step in steps)

    def _ends_in_return(self, end: int) -> bool:
        """Whether the instruction before ``end`` is a return, where instructions are of one size."""
        start = end - self.claims.alignment
        before = decode(self.image.architecture, self.image.read(start, self.claims.alignment), 0, start)
        return self.claims.alignment > 1 and any(step.flow is Flow.RETURN for step in before)
