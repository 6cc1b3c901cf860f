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
    "up to the datum's end": ((NEAR, FAR, NEAR), (), None, 3),
    "up to what an entry leads to": ((NEAR, TABLE + 8), (0x100, 0x200), None, 1),
    "up to a text": ((NEAR, FAR), TEXT, None, 2),
    "up to a text, with entries' like behind it": ((NEAR, FAR), (*TEXT, FAR - TABLE), None, 2),
    "as long as the code says": ((NEAR, FAR), (FAR - TABLE,), 2, 2),
    "as long as the code says, and damaged": ((NEAR,), TEXT, 3, 3),
}
"""Where the entries lead, the words behind these, how many the code says there are, and how many must be bound."""


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_where_a_table_ends(machine: Machine, case: str) -> None:
    targets, behind, count, bound = CASES[case]
    pe = Pe(machine)
    words = (*(target - TABLE for target in targets), *behind)
    pe.put(TABLE, struct.pack(f"<{len(words)}i", *words))
    part = Range(Rva(TABLE), Rva(TABLE + 4 * len(words)))
    found = sites(pe.build("table.dll"), DistanceTable(TABLE, 4, 0, True, count), part)
    assert found is not None
    assert [site.target for site in found][: len(targets)] == [target for target in targets if target not in part]
    assert len(found) == bound
