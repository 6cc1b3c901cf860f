"""Code that ends in a call which never returns has nothing behind it but a trap, however close other code stands."""

from __future__ import annotations

import struct

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from hotpatch.image import Image
from tests.emulator.pe import TEXT, Pe

STOP, SIZE = TEXT + 0x80, 16
SELF = {Machine.X64: b"\xeb\xfe", Machine.ARM64: struct.pack("<I", 0x14000000)}


def fails(machine: Machine, at: int, number: int) -> bytes:
    """Sixteen bytes that call what never returns with a number, as error paths do."""
    arch = architecture(machine)
    if machine is Machine.X64:
        call = b"\xe8" + arch.bind(FixupKind.REL32, bytes(4), at + 12, STOP)
        return b"\xb9" + struct.pack("<I", number) + b"\x0f\x1f\x44\x00\x00\x90" + call
    call = arch.bind(FixupKind.BRANCH26, struct.pack("<I", 0x94000000), at + 12, STOP)
    return struct.pack("<3I", 0x52800000 | number << 5, 0xD503201F, 0xD503201F) + call


def unwind(pe: Pe, machine: Machine, entries: list[int]) -> tuple[int, int]:
    """A function table, so that the functions end with their calls; none has a frame."""
    if machine is Machine.X64:
        record = pe.add(b"\x01\0\0\0")
        rows = [struct.pack("<3I", entry, entry + SIZE, record) for entry in entries]
    else:
        rows = [struct.pack("<2I", entry, 1 | SIZE // 4 << 2) for entry in entries]
    return pe.add(b"".join(rows)), sum(map(len, rows))


def image(machine: Machine, number: int) -> Image:
    pe = Pe(machine)
    places = {"first": TEXT, "second": TEXT + 0x20, "stop": STOP}
    for at in range(TEXT, TEXT + 0x100, 4):
        pe.put(at, architecture(machine).trap * (4 // len(architecture(machine).trap)))
    for name in ("first", "second"):
        pe.put(places[name], fails(machine, places[name], number))
    pe.put(STOP, SELF[machine])
    pe.directories["exception"] = unwind(pe, machine, [places["first"], places["second"]])
    pe.exports("ends.dll", list(places.items()))
    return pe.build("ends.dll")


@pytest.mark.parametrize("machine", Machine)
def test_a_trap_stands_behind(machine: Machine) -> None:
    patch = build(diff_images(image(machine, 1), image(machine, 2)))
    trap = architecture(machine).trap
    assert [function.size for function in patch.functions] == [SIZE, SIZE]
    for function in patch.functions:
        assert patch.image.read(function.patch_rva + function.size, len(trap)) == trap
