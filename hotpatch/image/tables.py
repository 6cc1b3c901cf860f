"""Where jump tables end whose number of entries the code does not tell: at the next thing in the image."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.metadata import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hotpatch.arch import JumpTable
    from hotpatch.image.decoded import Decoded
    from hotpatch.image.image import Image
    from hotpatch.image.model import Function, Range

_POINTER_SIZE = 8
_MOST_ROUNDS = 8
"""Tables bound one another, so that a shorter one can make another table known; each round may."""


class TableLimits:
    """The addresses that no table reaches across; more of them become known with the functions."""

    def __init__(self, image: Image) -> None:
        self._size = image.size_of_image
        self._sites = frozenset(image.relocations)
        self._edges = tuple(sorted(_edges(image)))
        self._with_sites = tuple(sorted({*self._edges, *self._sites}))

    def add(self, edges: Iterable[int]) -> None:
        """Take more addresses that things begin or end at."""
        self._edges = tuple(sorted({*self._edges, *edges}))
        self._with_sites = tuple(sorted({*self._edges, *self._sites}))

    def limit(self, address: int, entry_size: int) -> int:
        """One past the last byte that a table at ``address`` can have. Only whole addresses can be relocated, and must."""
        narrow = entry_size < _POINTER_SIZE
        edges = self._with_sites if narrow else self._edges
        index = bisect_right(edges, address)
        end = edges[index] if index < len(edges) else self._size
        if narrow:
            return address if address in self._sites else end
        while self._sites and address + _POINTER_SIZE <= end and address in self._sites:
            address += _POINTER_SIZE
        return min(address, end) if self._sites else end


def settle(image: Image, functions: tuple[Function, ...], decoded: Decoded, limits_of_image: Callable[[], TableLimits]) -> None:
    """Read those tables anew that were counted up to a limit, now that all code is known, and tell ``decoded`` what comes out otherwise.

    ``limits_of_image`` gathers where tables end: only where there are such tables, for it takes long.
    """
    parts = [part for function in functions for part in function.ranges]
    known = {part: tables for part in parts if (tables := decoded.known_tables(part))}
    before = {part: tables for part, tables in known.items() if any(not table.exact for table in tables)}
    if not before:
        return
    limits = limits_of_image()
    limits.add(_referenced(decoded, parts))
    for _ in range(_MOST_ROUNDS):
        limits.add(_starts(known, parts))
        again = {part: image.architecture.jump_tables(image.code(part), part.start, image.read, limit=limits.limit) for part in before}
        stable = all(known[part] == found for part, found in again.items())
        known.update(again)
        if stable:
            break
    decoded.correct({part: known[part] for part, found in before.items() if known[part] != found})


def _edges(image: Image) -> Iterator[int]:
    """What the file itself and its symbols say."""
    yield from image.pointers.values()
    for section in image.sections:
        yield from section.range
    for datum in image.data_symbols:
        yield from (datum.rva, datum.end)
    for start, size, _ in image.symbols.contributions:
        yield from (start, start + size)
    for part in (*metadata(image), *image.import_address_tables):
        yield from part
    yield from image.imports_by_slot
    yield from (export.rva for export in image.exports if export.rva is not None)


def _referenced(decoded: Decoded, parts: Iterable[Range]) -> Iterator[int]:
    """What code begins at and refers to."""
    for part in parts:
        yield part.start
        yield from decoded.targets_in(part)


def _starts(known: Mapping[Range, tuple[JumpTable, ...]], parts: Iterable[Range]) -> Iterator[int]:
    for part in parts:
        for table in known.get(part, ()):
            yield Rva(table.address)
            if table.index is not None:
                yield Rva(table.index[0])
                yield Rva(sum(table.index))
