"""What functions of one image name, looked for once each, which takes long in large functions; all in RVAs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.follow import accessed_from_named, ways_from_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.address import Rva
    from hotpatch.image import Function, Image


class _Found(NamedTuple):
    """By the entry of a function."""

    targets: dict[Rva, frozenset[int]]
    accessed: dict[Rva, frozenset[int]]
    reckoned: dict[Rva, frozenset[int]]
    certain: dict[Rva, frozenset[int]]
    tables: dict[Rva, tuple[range, ...]]


class Named:
    """What functions of an image refer to, and where they come to from there."""

    def __init__(self, image: Image) -> None:
        """Begin with nothing looked for."""
        self._image = image
        self._found = _Found({}, {}, {}, {}, {})

    def targets(self, function: Function) -> frozenset[int]:
        """What ``function`` refers to."""
        known = self._found.targets
        if function.entry not in known:
            known[function.entry] = frozenset(int(reference.target) for part in self._image.references(function) for reference in part)
        return known[function.entry]

    def accessed(self, function: Function) -> frozenset[int]:
        """What ``function`` accesses at constant distances from what it refers to: meant as much as that."""
        known = self._found.accessed
        if function.entry not in known:
            known[function.entry] = accessed_from_named(self._image, function)
        return known[function.entry]

    def reckoned(self, function: Function) -> frozenset[int]:
        """Where ``function`` comes to at constant distances from what it refers to, access it or not."""
        known = self._found.reckoned
        if function.entry not in known:
            known[function.entry] = frozenset(place for place, _ in ways_from_named(self._image, function))
        return known[function.entry]

    def certain(self, function: Function) -> frozenset[int]:
        """The same where no unknown index comes on top."""
        known = self._found.certain
        if function.entry not in known:
            known[function.entry] = frozenset(place for place, indexed in ways_from_named(self._image, function) if not indexed)
        return known[function.entry]

    def tables(self, function: Function) -> tuple[range, ...]:
        """Tables of distances, which are not the same bytes in two images."""
        known = self._found.tables
        if function.entry not in known:
            known[function.entry] = tuple(self._tables(function))
        return known[function.entry]

    def is_in_table(self, rva: int, function: Function) -> bool:
        """Whether ``rva`` lies in one of the :meth:`tables` of ``function``."""
        return any(rva in table for table in self.tables(function))

    def _tables(self, function: Function) -> Iterator[range]:
        image = self._image
        for part in function.ranges:
            yield from (range(table.address, table.address + table.size) for table in image.jump_tables_in(part))
            for table in image.architecture.distance_tables(image.code(part), part.start):
                if table.count is not None:
                    yield range(table.address, table.address + table.entry_size * table.count)

    @cached_property
    def jump_tables(self) -> list[tuple[int, int]]:
        """Where the jump tables of the image begin and end, sorted."""
        tables = (table for function in self._image.functions for table in self._image.jump_tables(function))
        return sorted({(int(table.address), table.address + table.size) for table in tables})
