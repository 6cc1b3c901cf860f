"""Which bytes of a function travel in one piece."""

from dataclasses import dataclass

import pytest

from hotpatch.address import Rva
from hotpatch.builder.bodies import _blocks
from hotpatch.image import Function, FunctionSource, Range


@dataclass(frozen=True)
class _Section:
    executable: bool


class _Image:
    """Code below 0x2000, constants above."""

    def section_at(self, rva):
        return _Section(executable=rva < 0x2000)


def stretch(start, end):
    return Range(Rva(start), Rva(end))


ROWS = {
    "one-part": ([(0x1000, 0x1040)], [], [(0x1000, 0x1040)]),
    "parts-that-touch": ([(0x1000, 0x1040), (0x1040, 0x1060)], [], [(0x1000, 0x1060)]),
    "parts-apart": ([(0x1000, 0x1040), (0x1080, 0x1090)], [], [(0x1000, 0x1040), (0x1080, 0x1090)]),
    "a-table-inside": ([(0x1000, 0x1040)], [(0x1020, 0x1030)], [(0x1000, 0x1040)]),
    "a-table-past-the-end": ([(0x1000, 0x1034)], [(0x1030, 0x1048)], [(0x1000, 0x1048)]),
    "a-table-right-behind": ([(0x1000, 0x1040)], [(0x1040, 0x1050)], [(0x1000, 0x1050)]),
    "a-table-behind-filler": ([(0x1000, 0x103D)], [(0x1040, 0x1050)], [(0x1000, 0x1050)]),
    "a-table-elsewhere-in-code": ([(0x1000, 0x1040)], [(0x1800, 0x1810)], [(0x1000, 0x1040)]),
    "a-table-among-constants": ([(0x1FF0, 0x2000)], [(0x2000, 0x2010)], [(0x1FF0, 0x2000)]),
}


@pytest.mark.parametrize("name", ROWS)
def test_blocks(name):
    """Entries of a table among code may reach no further than it stands from the code, so that it must not move alone."""
    parts, tables, wanted = ROWS[name]
    ranges = tuple(stretch(*part) for part in parts)
    function = Function(ranges[0].start, ranges, (), FunctionSource.PDATA)
    assert _blocks(_Image(), function, [stretch(*table) for table in tables]) == tuple(stretch(*part) for part in wanted)
