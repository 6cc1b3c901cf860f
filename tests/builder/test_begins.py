"""Where a live datum ends that is matched, one may begin that is not: what is done with an address taken there tells which is meant."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable
from hotpatch.patch import CarriedKind
from tests.builder.test_reaches import RETURNS, reads
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, TEXT, Pe

ARRAY, NEW = DATA + 0x100, DATA + 0x140
USER = TEXT + 0x40
STORES = {
    Machine.X64: (bytes.fromhex("c7400405000000"), bytes.fromhex("c70007000000")),
    Machine.ARM64: (struct.pack("<I", 0xB9000401), struct.pack("<I", 0xB9000001)),
}
"""Four bytes behind the address in the register of results, and right there."""
each_machine = pytest.mark.parametrize("machine", Machine)


def compared(machine: Machine, does: bytes):
    """A function that returns at once in the base; in the fixed image it takes the address behind an array, and ``does`` something with it.

    What the base has there lies elsewhere now.
    """
    images = []
    for code, moved in ((b"", NEW), (takes(machine, USER, NEW) + does, NEW + 0x80)):
        pe = Pe(machine)
        trap = architecture(machine).trap
        pe.put(TEXT, trap * (0x200 // len(trap)))
        pe.put(USER, code + RETURNS[machine])
        pe.put(TEXT + 0x80, takes(machine, TEXT + 0x80, ARRAY) + RETURNS[machine])
        pe.put(TEXT + 0xC0, reads(machine, TEXT + 0xC0, ARRAY + 0x20, 3))
        pe.put(TEXT + 0x100, reads(machine, TEXT + 0x100, NEW + 8, 4))
        pe.put(TEXT + 0x140, reads(machine, TEXT + 0x140, moved, 5))
        pe.exports(
            "begins.dll", [("user", USER), ("whole", TEXT + 0x80), ("part", TEXT + 0xC0), ("behind", TEXT + 0x100), ("moved", TEXT + 0x140)]
        )
        images.append(pe.build("begins.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1,)], ids=["second-first", "in-order", "the-first-alone"])
def test_what_is_written_there_begins_there(machine: Machine, order: tuple[int, ...]) -> None:
    patch = build_patch(compared(machine, b"".join(STORES[machine][number] for number in order)))
    assert [row.kind for row in patch.carried] == [CarriedKind.DATA]


@each_machine
def test_an_address_that_is_only_taken_may_be_the_end(machine: Machine) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(compared(machine, b""))
    assert {"or the end of the one before it" in refusal.reason for refusal in refused.value.refusals} == {True}


@each_machine
def test_what_an_index_goes_over_may_lie_before_it(machine: Machine) -> None:
    """Loops count up to zero from minus an array's length, and name its end."""
    indexed = {Machine.X64: bytes.fromhex("c7048805000000"), Machine.ARM64: struct.pack("<I", 0xB8217801)}[machine]
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(compared(machine, indexed))
    assert {"or the end of the one before it" in refusal.reason for refusal in refused.value.refusals} == {True}
