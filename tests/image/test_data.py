"""How far named data reach."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hotpatch.address import Rva
from hotpatch.image.data import named_data
from hotpatch.image.model import Datum, DatumSource

VTABLE, LOCATOR = 0x2008, 0x3000

# the name, its size in the PDB, whether a pointer stands in front of it, what the locator says of itself, the size that it has
TABLES = [
    pytest.param("C::`vftable'", 24, True, LOCATOR, 16, id="with-a-locator"),
    pytest.param("C::`vftable'{for `D'}", 16, True, LOCATOR, 8, id="of-a-base"),
    pytest.param("C::`vftable'", 24, False, LOCATOR, 24, id="without-types-at-run-time"),
    pytest.param("C::`vftable'", 24, True, 0, 24, id="behind-another-pointer"),
    pytest.param("C::table", 24, True, LOCATOR, 24, id="no-vtable"),
    pytest.param("??_7C@@6B@", None, True, LOCATOR, None, id="without-a-size"),
]


@pytest.mark.parametrize(("name", "size", "pointed", "itself", "expected"), TABLES)
def test_a_vtable_ends_without_the_pointer_in_front_of_it(name, size, pointed, itself, expected):
    image = SimpleNamespace(
        symbols=SimpleNamespace(data=[Datum(Rva(VTABLE), size, name, DatumSource.PDB)]),
        exports=(),
        coff_symbols=(),
        section_at=lambda _: SimpleNamespace(executable=False),
        pointers={Rva(VTABLE - 8): LOCATOR} if pointed else {},
        u32=lambda rva: itself if rva == LOCATOR + 20 else 1,
    )
    assert [datum.size for datum in named_data(image)] == [expected]
