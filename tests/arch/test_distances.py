"""Tables of distances from themselves: which code is seen to use one, and 32-bit distances in data."""

import struct

import pytest

from hotpatch.arch import DistanceTable, FixupKind, Machine, architecture
from hotpatch.errors import OutOfReach

X64, ARM64 = Machine.X64, Machine.ARM64
# lea rcx, [rip+0xff9]; movsxd rax, [rcx+rax*4]; add rax, rcx; ret: the table is at 0x2000
USE = {X64: "488d0df90f0000" + "48630481" + "4801c8" + "c3"}
CHECKED = {X64: "83f90677" + "10" + "89c8" + "488d0df20f0000" + "48630481" + "4801c8" + "c3"}
# adrp x8, 0x2000; add x8, x8, #0; ldrsw x9, [x8, w0, uxtw #2]; add x0, x8, x9; ret
USE[ARM64] = struct.pack("<5I", 0xB0000008, 0x91000108, 0xB8A05909, 0x8B090100, 0xD65F03C0).hex()
# cmp w0, #6; b.hi +0x18 in front
CHECKED[ARM64] = struct.pack("<2I", 0x7100181F, 0x540000C8).hex() + USE[ARM64] + "c0035fd6"
each_machine = pytest.mark.parametrize("machine", Machine)


def tables(machine, code, address=0x1000):
    return architecture(machine).distance_tables(bytes.fromhex(code), address)


@each_machine
def test_a_sum_of_table_and_entry(machine):
    assert tables(machine, USE[machine]) == (DistanceTable(0x2000, 4, 0, True, None),)


@each_machine
def test_the_check_of_the_index_gives_the_count(machine):
    (table,) = tables(machine, CHECKED[machine])
    assert table == DistanceTable(0x2000, 4, 0, True, 7)


@each_machine
@pytest.mark.parametrize(("bits", "count"), [(3, 8), (8, None), (16, None)])
def test_the_width_of_the_index_does_not_give_the_count(machine, bits, count):
    """A mask of fewer bits does."""
    mask = (1 << bits) - 1
    front = {X64: "89c8" + "25" + struct.pack("<I", mask).hex(), ARM64: struct.pack("<I", 0x12000000 | bits - 1 << 10).hex()}[machine]
    (table,) = tables(machine, front + USE[machine])
    assert table.count == count


@each_machine
def test_an_entry_that_is_added_to_something_else(machine):
    """x64 adds rdx, Arm64 x1: an offset table, right wherever it is."""
    other = {X64: USE[X64].replace("4801c8", "4801d0"), ARM64: USE[ARM64].replace("0001098b", "2000098b")}[machine]
    assert other != USE[machine]
    assert tables(machine, other) == ()


@each_machine
@pytest.mark.parametrize("distance", [0, 4, -4, 2**31 - 1, -(2**31)])
def test_distance_in_data(machine, distance):
    arch, site = architecture(machine), 0x140005000
    field = arch.bind(FixupKind.REL32, bytes(4), site, site + 4 + distance)
    assert struct.unpack("<i", field) == (distance,)
    assert arch.resolve(FixupKind.REL32, field, site) == site + 4 + distance


@each_machine
@pytest.mark.parametrize("distance", [2**31, -(2**31) - 1])
def test_distance_out_of_reach(machine, distance):
    with pytest.raises(OutOfReach):
        architecture(machine).bind(FixupKind.REL32, bytes(4), 0x140005000, 0x140005004 + distance)
