"""Arm64: the tables of distances that code loads from and adds their own address to.

Compilers make them of tables of pointers to constants (LLVM: RelLookupTableConverter), so that they need no relocation:
``adrp``/``add`` table, ``ldrsw`` entry, ``add`` table and entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch.arm64_code import Code
from hotpatch.arch.arm64_facts import Destination
from hotpatch.arch.arm64_flow import Analysis
from hotpatch.arch.model import WIDTHS, DistanceTable

if TYPE_CHECKING:
    from hotpatch.arch.arm64_facts import Entry, Fact, State


class _Distances(Analysis):
    """An analysis that keeps every sum of a table's entry and an anchor."""

    def __init__(self, code: Code, image_base: int) -> None:
        self.sums: list[Destination] = []
        super().__init__(code, image_base=image_base, edges={}, tables=True)

    def collect(self) -> list[Destination]:
        """The sums, by what holds when the analysis is done."""
        self.sums.clear()
        for block in sorted(self._before):
            self._run(block)
        return self.sums

    def _made_for_tables(self, state: State, index: int, word: int, kind: int, made: Fact | None) -> Fact | None:
        fact = super()._made_for_tables(state, index, word, kind, made)
        if isinstance(fact, Destination):
            self.sums.append(fact)
        return fact


def _count(entry: Entry) -> int | None:
    """How many entries there are, where more than the width of the index says so."""
    return entry.entries if entry.sure and (entry.exact or entry.entries not in WIDTHS) else None


def distance_tables(raw: bytes, address: int, image_base: int) -> tuple[DistanceTable, ...]:
    """The tables by address, those of jumps among them."""
    code = Code(raw, address)
    if not code.has_pages():
        return ()
    found = {
        item.entry.table: DistanceTable(item.entry.table, item.entry.size, item.shift, item.entry.signed, _count(item.entry))
        for item in _Distances(code, image_base).collect()
        if item.anchor == item.entry.table
    }
    return tuple(found[at] for at in sorted(found))
