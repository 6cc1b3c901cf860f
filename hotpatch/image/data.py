"""Named data: what the PDB, the exports and the COFF symbols call, and how far each reaches."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.model import Datum, DatumSource

if TYPE_CHECKING:
    from hotpatch.image.image import Image


_TEXT = re.compile(r"\?\?_C@_[01](?:([0-9])|([A-P]+)@)")
_VTABLE = "`vftable'"
_POINTER_SIZE = 8
"""Bytes."""
_SELF = 20
"""Where a locator holds its own RVA; bytes."""
_HEXADECIMAL = str.maketrans("ABCDEFGHIJKLMNOP", "0123456789ABCDEF")


def named_data(image: Image) -> tuple[Datum, ...]:
    """All named data by RVA and name; one row per name."""
    found: dict[tuple[Rva, str], Datum] = {}
    for datum in image.symbols.data:
        if _is_data(image, datum.rva):
            found[datum.rva, datum.name] = datum
    for export in image.exports:
        if export.rva is not None and export.name is not None and _is_data(image, export.rva):
            found.setdefault((export.rva, export.name), Datum(export.rva, None, export.name, DatumSource.EXPORT))
    for symbol in image.coff_symbols:
        if not symbol.is_function and not symbol.name.startswith(".") and _is_data(image, symbol.rva):
            found.setdefault((symbol.rva, symbol.name), Datum(symbol.rva, None, symbol.name, DatumSource.COFF))
    return tuple(_without_locator(image, _with_length(found[key])) for key in sorted(found))


def _with_length(datum: Datum) -> Datum:
    """A text with its length in bytes, its zero among them, as its name tells it: a linker lets one text be the end of another.

    In ``??_C@_0…`` and ``??_C@_1…`` a digit means that and one more, letters from A are hexadecimal digits up to ``@``
    (LLVM's MicrosoftMangle.cpp, ``mangleStringLiteral`` and ``mangleNumber``).
    """
    found = _TEXT.match(datum.name) if datum.size is None else None
    if found is None:
        return datum
    digit, letters = found.groups()
    return replace(datum, size=int(digit) + 1 if digit else int(letters.translate(_HEXADECIMAL), 16))


def _without_locator(image: Image, datum: Datum) -> Datum:
    """A vtable without the pointer in front of it, to the locator of its class, which Microsoft's PDBs count to it: its name stands behind.

    A locator holds its own RVA 20 bytes in (``_RTTICompleteObjectLocator``, ``rttidata.h`` of Visual C++).
    """
    front = image.pointers.get(Rva(datum.rva - _POINTER_SIZE)) if datum.size and _VTABLE in datum.name else None
    if front is None or datum.size is None or datum.size <= _POINTER_SIZE or image.u32(front + _SELF) != front:
        return datum
    return replace(datum, size=datum.size - _POINTER_SIZE)


def _is_data(image: Image, rva: Rva) -> bool:
    section = image.section_at(rva)
    return section is not None and not section.executable


@dataclass(frozen=True, slots=True)
class DataIndex:
    """Data by address: the best-known datum of each start, with its size derived where the source has none."""

    starts: tuple[Rva, ...]
    data: tuple[Datum, ...]

    @classmethod
    def of(cls, image: Image) -> DataIndex:
        """The index of ``image``."""
        best: dict[Rva, Datum] = {}
        for datum in image.data_symbols:
            known = best.get(datum.rva)
            if known is None or (known.size is None and datum.size is not None):
                best[datum.rva] = datum
        starts = tuple(sorted(best))
        contributions = sorted((start, start + size) for start, size, _ in image.symbols.contributions)
        edges = [start for start, _ in contributions]
        data = []
        for index, rva in enumerate(starts):
            datum = best[rva]
            if datum.size is None:
                section = image.section_at(rva)
                end: int = section.range.end if section else rva
                if index + 1 < len(starts):
                    end = min(end, starts[index + 1])
                at = bisect_right(edges, rva) - 1
                if at >= 0 and rva < contributions[at][1]:
                    end = min(end, contributions[at][1])
                datum = replace(datum, size=end - rva)
            data.append(datum)
        return cls(starts, tuple(data))

    def at(self, rva: int) -> Datum | None:
        """The datum that covers ``rva``."""
        index = bisect_right(self.starts, rva) - 1
        if index < 0:
            return None
        datum = self.data[index]
        return datum if rva < datum.end else None
