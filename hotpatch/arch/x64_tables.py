"""x64: the tables that switches jump through.

Forms: entries relative to the table (clang, gcc), to the image base with or without a table of byte-sized indices in front (MSVC), and
whole addresses. The number of entries comes from the bound check before the jump, and a mask gives the most that there can be; without
either, a table ends where an entry leads out of the function or another table begins. Without a check it ends at the latest where the
caller's limit is. MSVC leaves zeros for values that cannot be (``__assume``).
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch.model import JumpTable
from hotpatch.arch.x64_flow import Blocks, Edges
from hotpatch.arch.x64_scan import scan
from hotpatch.arch.x64_values import Dispatch, Entry, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAY_DISPATCH = re.compile(rb"\xff[\xe0-\xe7\x24\x64\xa4]")
"""``jmp r/m64`` (FF /4) through a register or an indexed operand, wherever it may stand in the bytes."""
_LOADS_ENTRY = re.compile(rb"\*[248]|byte ptr \[")
"""What the operands of every load of a table's entry hold: an index scaled by the entry's size, unless that is one byte."""
_MOST_ENTRIES = 0x4000
_MOST_INDICES = 0x100
"""Of tables of byte-sized indices that nothing bounds, and entries behind them."""
_MOST_ROUNDS = 16
"""Switches in the cases of others: each round may find more."""
_ALLOCATION_GRANULARITY = 0x10000
"""Image bases are multiples of it (PE format, "ImageBase")."""


def jump_tables(
    code: bytes,
    address: int,
    read: Callable[[int, int], bytes],
    image_base: int,
    limit: Callable[[int, int], int] | None = None,
) -> tuple[JumpTable, ...]:
    """The tables that indirect jumps in ``code`` go through, by jump."""
    if not MAY_DISPATCH.search(code):
        return ()

    def tables(found: _Found) -> tuple[JumpTable, ...]:
        reader = _Reader(code, found.dispatches, address, read, limit)
        return tuple(table for dispatch in found.dispatches if (table := reader.table(dispatch)) is not None)

    found = _find(code, address, image_base)
    return tables(found) if found.is_all else _by_cases(code, address, image_base, tables(found), tables)


def _by_cases(
    code: bytes, address: int, image_base: int, tables: tuple[JumpTable, ...], read: Callable[[_Found], tuple[JumpTable, ...]]
) -> tuple[JumpTable, ...]:
    """``tables`` and those that are found once it is known where the jumps through them lead.

    A loop around a switch may keep the table's address in a register, and it is the switch's cases that lead back. So the loop is first
    taken to be all that there is, and what that shows must still hold when the cases are known.
    """
    edges: tuple[Edges, ...] = ()
    for _ in range(_MOST_ROUNDS):
        reached = read(_find(code, address, image_base, edges, from_entry=True))
        again = tuple(Edges(address + table.jump, table.ways, table.exact) for table in reached)
        if again == edges:
            break
        edges = again
    if len(edges) <= len(tables):
        return tables
    settled = read(_find(code, address, image_base, edges))
    confirmed = {Edges(address + table.jump, table.ways, table.exact) for table in settled}
    lost = {table.jump for table in tables} - {table.jump for table in settled}
    return settled if confirmed.issuperset(edges) and not lost else tables


class _Found(NamedTuple):
    """Jumps that go through tables, and whether these are all that there may be."""

    dispatches: tuple[Dispatch, ...]
    is_all: bool


@lru_cache(maxsize=1 << 11)
def _find(code: bytes, address: int, image_base: int, edges: tuple[Edges, ...] = (), *, from_entry: bool = False) -> _Found:
    """The jumps in ``code`` that go through tables; the same code is asked for again as more of its surroundings becomes known.

    Args:
        code: The function.
        address: Where it lies.
        image_base: In the caller's space.
        edges: Of the jumps of which it is known where they lead.
        from_entry: Whether to look at nothing but what control is seen to come to.
    """
    known = scan(code, address)
    if known is not None and not known.dispatches:
        return _Found((), is_all=True)
    blocks = Blocks(encoding.decoder().rows(code, address), edges)
    if not blocks.dispatches or not blocks.rows.hold(_LOADS_ENTRY):
        return _Found((), is_all=True)
    values = Values(blocks, image_base, blocks.dispatches, blocks.before_dispatches)
    (values.run_from_entry if from_entry else values.run)(blocks.before_dispatches)
    found = tuple(values.dispatches())
    return _Found(found, is_all=len(found) == len(blocks.dispatches))


class _Reader:
    """Reads the tables of one function."""

    def __init__(
        self,
        code: bytes,
        dispatches: tuple[Dispatch, ...],
        address: int,
        read: Callable[[int, int], bytes],
        limit: Callable[[int, int], int] | None,
    ) -> None:
        self.code, self.address, self.end = code, address, address + len(code)
        self.read, self.limit = read, limit
        self.starts = sorted({dispatch.entry.table for dispatch in dispatches})

    @cached_property
    def instructions(self) -> frozenset[int]:
        """Where instructions begin."""
        return frozenset(encoding.decoder().rows(self.code, self.address).addresses())

    def table(self, dispatch: Dispatch) -> JumpTable | None:
        """The table of one jump; ``None`` where what is read does not look like one."""
        entry = dispatch.entry
        index = self._index_table(entry)
        exact = entry.exact or index is not None
        count = entry.limit
        if count is not None and not exact:
            count = min(count, self._room(entry))
        if index is not None:
            count = 1 + max(self.read(*index), default=-1)
        else:
            index = self._unchecked_index_table(dispatch)
        values = self._values(entry, count)
        anchor = dispatch.anchor if dispatch.anchor is not None else self._anchor(values)
        if anchor is None:
            return None
        targets = [value + anchor for value in values]
        if count is None or dispatch.anchor is None:
            inside = self._inside(values, targets)
            if count is not None and inside < count:
                return None  # a table of functions, called last
            targets = targets[:inside]
        if not targets:
            return None
        holes = frozenset(
            number for number, value in enumerate(values[: len(targets)]) if not value and targets[number] not in self.instructions
        )
        return JumpTable(
            dispatch.jump - self.address, entry.table, entry.size, 0, entry.signed, anchor, tuple(targets), index, exact, holes
        )

    def _inside(self, values: Sequence[int], targets: Sequence[int]) -> int:
        """How many of the entries there are, if nothing bounds them: up to the last that leads into the function, with zeros between."""
        last = 0
        for number, target in enumerate(targets):
            if target in self.instructions:
                last = number + 1
            elif values[number]:
                break
        return last

    def _index_table(self, entry: Entry) -> tuple[int, int] | None:
        """Address and size of the table of indices in front."""
        front = entry.selector
        if not isinstance(front, Entry) or front.size != 1 or front.limit is None or front.limit > _MOST_ENTRIES:
            return None
        return front.table, front.limit

    def _unchecked_index_table(self, dispatch: Dispatch) -> tuple[int, int] | None:
        """The same where nothing bounds the index, as for a switch whose other cases cannot be.

        MSVC puts it right behind the entries, so that these tell which indices there can be, and the first byte that is none ends it. All
        that the entries lead to must be the function's own, but for a zero that stands for the other cases.
        """
        entry, anchor = dispatch.entry, dispatch.anchor
        front = entry.selector
        if not isinstance(front, Entry) or front.size != 1 or front.limit is not None or anchor is None:
            return None
        count, rest = divmod(front.table - entry.table, entry.size)
        if rest or not 0 < count <= _MOST_INDICES:
            return None
        entries = self._values(entry, count)
        ways = [value + anchor for value in entries if value]
        if len(entries) < count or not ways or not self.instructions.issuperset(ways):
            return None
        end = self.end if self.address <= front.table < self.end else front.table + _MOST_INDICES
        room = end - front.table if self.limit is None else min(end, self.limit(front.table, 1)) - front.table
        raw = self.read(front.table, min(max(room, 0), _MOST_INDICES))
        size = next((at for at, number in enumerate(raw) if number >= count), len(raw))
        return (front.table, size) if size else None

    def _values(self, entry: Entry, count: int | None) -> list[int]:
        wanted = min(count if count is not None else _MOST_ENTRIES, _MOST_ENTRIES)
        if count is None:
            following = next((start for start in self.starts if start > entry.table), None)
            if following is not None:
                wanted = min(wanted, (following - entry.table) // entry.size)
            wanted = min(wanted, self._room(entry))
            block = self.read(entry.table, min(wanted * entry.size, _ALLOCATION_GRANULARITY))
        else:
            block = self.read(entry.table, wanted * entry.size)
        whole = len(block) - len(block) % entry.size
        signed = entry.signed and entry.size < 8
        return [int.from_bytes(block[place : place + entry.size], "little", signed=signed) for place in range(0, whole, entry.size)]

    def _room(self, entry: Entry) -> int:
        """The most entries that the caller's limit leaves room for."""
        if self.limit is None:
            return _MOST_ENTRIES
        return max(0, self.limit(entry.table, entry.size) - entry.table) // entry.size

    def _anchor(self, values: list[int]) -> int | None:
        """What to add to whole addresses to come into the caller's space: nothing, or minus the base that the file prefers."""
        if not values:
            return None
        first = values[0]
        if self.address <= first < self.end:
            return 0
        shift = (first - self.address) % _ALLOCATION_GRANULARITY
        candidates = range(self.address + shift, self.end, _ALLOCATION_GRANULARITY)
        return candidates[0] - first if len(candidates) == 1 else None
