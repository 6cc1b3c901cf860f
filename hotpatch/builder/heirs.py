"""Live data without names of which changed functions say something else than what matches them: one datum that became two, or two one.

Where one function uses another datum than before and is the same otherwise, and a second one changed in something else, what both used
goes on in one of the two, and code does not tell in which: the function that is the same may be the one that was changed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import LONGEST_INSTRUCTION
from hotpatch.builder.model import PAGES
from hotpatch.builder.spans import Spans
from hotpatch.differ import Verdict
from hotpatch.differ.alignments import Alignments
from hotpatch.differ.model import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.builder.reached import Reached
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Heirs:
    """Finds data of the fixed image for which two are as likely."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View, there: Reached, here: Reached) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``, of which functions reach what ``here`` and ``there`` say."""
        self._diff, self._fixed, self._base, self._there, self._here = diff, fixed, base, there, here

    def objection(self, target: int) -> str | None:
        """Why nothing tells whether ``target`` is what the comparison has for it, or new."""
        found = self._contested.get(target)
        if found is None:
            return None
        base, fixed = found
        return (
            f"0x{target:x} may be the datum at 0x{base:x} of the base or another: changed code has 0x{fixed:x} where it had that, and "
            "one other function at most says otherwise"
        )

    @cached_property
    def _contested(self) -> Mapping[int, Pair]:
        """Data of the fixed image → what a changed function had, and has in its place."""
        found: dict[int, Pair] = {}
        alignments = Alignments(self._base, self._fixed)
        for row in self._diff.of(Verdict.CHANGED):
            if row.base is None or row.fixed is None:
                continue
            for pair in self._exchanged(alignments, (row.base.entry, row.fixed.entry)):
                found.update(dict.fromkeys(self._rivals(pair, row.base.entry, row.fixed.entry), pair))
        return found

    def _exchanged(self, alignments: Alignments, functions: Pair) -> Iterator[Pair]:
        """Nameless live data that two versions of a function read or write at instructions that correspond, and that are not matched."""
        for old, new in alignments.links(functions):
            base, fixed = old.target, new.target
            live = self._base.writable(base) and self._fixed.writable(fixed)
            if not live or self._base.symbol(base) is not None or self._fixed.symbol(fixed) is not None:
                continue
            if self._diff.base_datum(Rva(fixed)) != base and self._accesses(self._fixed, functions[1], new):
                yield base, fixed

    @staticmethod
    def _accesses(view: View, entry: int, link: Link) -> bool:
        """Whether what refers there reads or writes there, as no instruction does that makes the address of a page or an end."""
        at = view.functions[entry].ranges[link.part].start + link.offset
        code = view.body(entry).code[link.part][link.offset : link.offset + LONGEST_INSTRUCTION]
        return link.kind not in PAGES and view.architecture.accesses(link.kind, code, at)

    def _rivals(self, pair: Pair, old: int, new: int) -> tuple[int, ...]:
        """What of the fixed image either of two may be: what is new and what the base's became, or what two of the base became.

        None where the two begin otherwise.
        """
        base, fixed = pair
        size = min(self._base.extent(base).size, self._fixed.extent(fixed).size)
        if self._base.bare(base, size) != self._fixed.bare(fixed, size):
            return ()
        before, after = self._diff.base_datum(Rva(fixed)), self._fixed_datum(base)
        if before is None and after is not None and after not in self._fixed.body(new).whole_targets and self._is_weak(self._there, base):
            return fixed, after
        if after is None and before is not None and before not in self._base.body(old).whole_targets and self._is_weak(self._here, fixed):
            return (fixed,)
        return ()

    def _fixed_datum(self, base: int) -> int | None:
        moved = next(self._moved.covering(base), None)
        return None if moved is None else base + moved

    @cached_property
    def _moved(self) -> Spans[int]:
        """By where live data lie in the base: how much further the fixed image has them."""
        return Spans((match.base, match.base + match.size, match.fixed - match.base) for match in self._diff.data if match.writable)

    def _is_weak(self, reached: Reached, place: int) -> bool:
        """Whether no more than one function that did not change reads or writes what is at ``place``."""
        return sum(self._diff.functions[number].verdict in UNCHANGED for number in reached.accessing(place)) <= 1
