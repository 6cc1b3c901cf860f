"""Where the base has nameless live data of images that both have symbols: what functions that did not change show.

Compilers that merge variables name the first of them at most, so that neither names nor the order of data tell what lies behind it, and
changed code may mean another datum than the base's version did. A function with the same body in both images means the same. Without
one, the same functions must use both, and both must lie in the same place among others that lie between the same neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.builder.bodies import body_of
from hotpatch.builder.counterparts import match_at_or_before
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import FARTHEST
from hotpatch.builder.reaches import reaches
from hotpatch.differ import Verdict
from hotpatch.differ.matching import Evidence
from hotpatch.differ.reached import reached_alike
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.builder.reached import Reached, Users
    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.differ.view import View

_UNSURE = frozenset({Evidence.ALIGNMENT, Evidence.ORDER})
"""Evidence for data that tells nothing by itself of what lies beside them."""


class Proofs:
    """Asks the functions that did not change; each is followed when something near what it names is first asked about."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, there: Reached, here: Reached) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``; ``there`` and ``here``: what functions of either reach."""
        self._diff, self._fixed, self._base, self._there, self._here = diff, fixed, base, there, here
        self._is_asked = diff.fixed.has_symbols and diff.base.has_symbols
        self._places: dict[int, frozenset[tuple[int, int]]] = {}
        """By number of an unchanged function: what it names and reaches in the fixed image, and the place of the same in the base."""

    def is_needed(self, fixed: int) -> bool:
        """Whether live data lie at ``fixed`` that lost their name."""
        return self._is_asked and self._fixed.writable(fixed) and self._fixed.symbol(fixed) is None

    def objection(self, fixed: int, base: int) -> str | None:
        """Why the live datum at ``fixed`` may be another than the base's at ``base``; ``None`` where it has a name or is certain."""
        if not self.is_needed(fixed):
            return None
        shown = self._shown(fixed)
        if shown == {base}:
            return None
        if not shown:
            return None if self._is_framed(fixed, base) else "no function that did not change uses both"
        return f"a function that did not change has 0x{min(shown - {base}):x} there"

    def _is_framed(self, fixed: int, base: int) -> bool:
        """Whether the same functions use both, between surely matched data that have moved as far as the two lie apart.

        All else that code names or reaches between these has moved so, too.
        """
        users = self._here.users(fixed)
        if not users or users != self._there.users(base):
            return False
        frame = self._frame(fixed, base - fixed)
        if frame is None or frame.size > FARTHEST:
            return False
        if not self._is_aligned(fixed, base, users):
            return False
        sides = (self._fixed, self._here, 0), (self._base, self._there, base - fixed)
        here, there = ({place - by for place in _known(view, reached, frame.start + by, frame.end + by)} for view, reached, by in sides)
        return here == there

    def _frame(self, fixed: int, moved: int) -> Range | None:
        """From the surely matched data before ``fixed`` to those behind, or the section's edges; ``None`` unless both ``moved`` so."""
        here, there = self._fixed.section(fixed), self._base.section(fixed + moved)
        if here is None or there is None:
            return None
        at = bisect_right(self._sure, (fixed, self._fixed.image.size_of_image))
        edges = [(here.range.start, there.range.start), *self._sure[max(at - 1, 0) : at + 1], (here.range.end, there.range.end)]
        inside = [(one, other) for one, other in edges if here.range.start <= one <= here.range.end]
        low, high = max(edge for edge in inside if edge[0] <= fixed), min(edge for edge in inside if edge[0] > fixed)
        return Range(Rva(low[0]), Rva(high[0])) if all(other - one == moved for one, other in (low, high)) else None

    def _is_aligned(self, fixed: int, base: int, users: Users) -> bool:
        """Whether corresponding instructions of ``users`` name or reach the two, and none of them one of the two and something else."""
        match = match_at_or_before(self._diff, Rva(fixed))
        named = match is not None and (match.fixed, match.base) == (fixed, base)
        rows = [self._diff.functions[number] for number in sorted(users)]
        pairs = {pair for row in rows if row.base and row.fixed for pair in self._aligned(row.base.entry, row.fixed.entry)}
        touching = {pair for pair in pairs if pair[0] == base or pair[1] == fixed}
        return touching <= {(base, fixed)} and (named or bool(touching))

    def _aligned(self, base: int, fixed: int) -> tuple[tuple[int, int], ...]:
        alike = reached_alike(self._base, self._fixed, (base, fixed), indexed=True)
        return (*alike.accessed, *alike.made)

    @cached_property
    def _sure(self) -> Sequence[tuple[int, int]]:
        """Where the live data begin that more than changed code matches, in the fixed image and in the base."""
        return sorted((match.fixed, match.base) for match in self._diff.data if match.writable and match.matched_by not in _UNSURE)

    def _shown(self, fixed: int) -> set[int]:
        """Every place of the base that an unchanged function uses as it uses ``fixed``."""
        first, last = bisect_left(self._named, (fixed - FARTHEST, 0)), bisect_right(self._named, (fixed + FARTHEST, len(self._unchanged)))
        numbers = dict.fromkeys(number for _, number in self._named[first:last])
        return {there for number in numbers for here, there in self._of(number) if here == fixed}

    def _of(self, number: int) -> frozenset[tuple[int, int]]:
        found = self._places.get(number)
        if found is None:
            found = self._places[number] = frozenset(self._followed(self._unchanged[number]))
        return found

    def _followed(self, row: FunctionMatch) -> set[tuple[int, int]]:
        assert row.base is not None
        assert row.fixed is not None
        named: dict[int, set[int]] = {}
        pairs = self._pairs(row)
        for there, here in pairs:
            named.setdefault(here, set()).add(there)
        body = body_of(self._diff.fixed, row.fixed)
        every = reaches(self._diff.fixed, body) if isinstance(body, Body) else {}
        distances = {(site.target, item.start) for site, items in every.items() for item in items}
        return {(here, there) for there, here in pairs} | {
            (start, there + start - taken) for taken, start in distances for there in named.get(taken, ())
        }

    def _pairs(self, row: FunctionMatch) -> Sequence[tuple[int, int]]:
        """What the two versions of an unchanged function name by whole addresses, base and fixed."""
        assert row.base is not None
        assert row.fixed is not None
        old, new = self._base.body(row.base.entry), self._fixed.body(row.fixed.entry)
        return list(dict.fromkeys(zip(old.whole_targets, new.whole_targets, strict=True))) if old.is_like(new) else []

    @cached_property
    def _unchanged(self) -> Sequence[FunctionMatch]:
        rows = (*self._diff.of(Verdict.IDENTICAL), *self._diff.of(Verdict.RELOCATED))
        return [row for row in rows if row.base is not None and row.fixed is not None]

    @cached_property
    def _named(self) -> Sequence[tuple[int, int]]:
        """The addresses of the fixed image that unchanged functions name, each with the function's number."""
        return sorted({(here, number) for number, row in enumerate(self._unchanged) for _, here in self._pairs(row)})


def _known(view: View, reached: Reached, low: int, high: int) -> Iterator[int]:
    """What is named or reached from ``low`` to before ``high``."""
    yield from view.boundaries[bisect_left(view.boundaries, low) : bisect_left(view.boundaries, high)]
    yield from reached.between(low, high)
