"""Where a table of distances from itself ends, of which code does not say how long it is."""

from __future__ import annotations

import struct

import pytest

from hotpatch.address import Rva
from hotpatch.arch import DistanceTable, Machine
from hotpatch.builder.distances import sites
from hotpatch.image import Range
from tests.emulator.pe import RDATA, Pe

TABLE = RDATA + 0x40
NEAR, FAR = RDATA + 0x20, RDATA + 0x80
TEXT = struct.unpack("<2i", b"/rustc/4")

CASES = {
    "up to the datum's end": ((NEAR, FAR, NEAR), (), None, 9, 3),
    "up to what an entry leads to": ((NEAR, TABLE + 8), (0x100, 0x200), None, 9, 1),
    "up to a text": ((NEAR, FAR), TEXT, None, 9, 2),
    "up to a text, with entries' like behind it": ((NEAR, FAR), (*TEXT, FAR - TABLE), None, 9, 2),
    "up to a number that leads to another section": ((NEAR, FAR), (0x1000, FAR - TABLE), None, 9, 2),
    "up to what is referred to": ((NEAR, FAR), (0x40, 0x40), None, 2, 2),
    "up to what is referred to and may be an entry": ((NEAR, FAR), (NEAR - TABLE, 0x40), None, 2, None),
    "as long as the code says": ((NEAR, FAR), (FAR - TABLE,), 2, 9, 2),
    "as long as the code says, and damaged": ((NEAR,), TEXT, 3, 9, 3),
    "longer by what the code says than what travels": ((NEAR, FAR), (), 3, 9, None),
    "as long as the code says, though something refers to its middle": ((NEAR, FAR, NEAR), (), 3, 1, 3),
}
"""Where the entries lead, the words behind these, how many the code says there are, behind how many something else is referred to, and how
many must be bound; ``None`` where that is not known."""


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_where_a_table_ends(machine: Machine, case: str) -> None:
    targets, behind, count, before, bound = CASES[case]
    pe = Pe(machine)
    words = (*(target - TABLE for target in targets), *behind)
    pe.put(TABLE, struct.pack(f"<{len(words)}i", *words))
    part = Range(Rva(TABLE), Rva(TABLE + 4 * len(words)))
    found = sites(pe.build("table.dll"), DistanceTable(TABLE, 4, 0, True, count), part, TABLE + 4 * before)
    if bound is None:
        assert found is None
        return
    assert found is not None
    assert [site.target for site in found][: len(targets)] == [target for target in targets if target not in part]
    assert len(found) == bound
