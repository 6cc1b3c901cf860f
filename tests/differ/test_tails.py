"""Functions that go on in the middle of others: changed only where what runs from there on is."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import Verdict, diff_images
from tests.differ.test_elsewhere import RETURNS
from tests.emulator.pe import TEXT, Pe

F, G, K = TEXT, TEXT + 0x40, TEXT + 0x80


def jump(machine: Machine, at: int, target: int, *, calls: bool = False) -> bytes:
    if machine is Machine.X64:
        return (b"\xe8" if calls else b"\xe9") + struct.pack("<i", target - at - 5)
    return struct.pack("<I", (0x94000000 if calls else 0x14000000) | ((target - at) // 4 & 0x3FFFFFF))


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("returns", [False, True], ids=["a-call-that-never-returns", "a-call-that-returns"])
def test_what_stands_behind_a_function_that_another_goes_on_in(machine: Machine, returns: bool) -> None:
    """``g`` ends with a call, and ``f`` jumps there; behind that stands ``h``, or the rest of ``g``, which differs."""

    def side(number: int) -> object:
        pe = Pe(machine)
        before = {Machine.X64: b"\x48\x8b\xc1", Machine.ARM64: struct.pack("<I", 0xAA0003E2)}[machine]  # mov rax, rcx; mov x2, x0
        middle = G + len(before)
        call = jump(machine, middle, K, calls=True)
        pe.put(F, jump(machine, F, middle))
        value = b"\xb8" + struct.pack("<I", number) if machine is Machine.X64 else struct.pack("<I", 0x52800000 | number << 5)
        pe.put(G, before + call + value + RETURNS[machine])
        pe.put(K, RETURNS[machine])
        behind = [] if returns else [("h", middle + len(call))]
        pe.exports("tails.dll", [("f", F), ("g", G), ("k", K), *behind])
        return pe.build("tails.dll")

    diff = diff_images(side(1), side(2))
    assert {row.name for row in diff.functions if row.verdict is Verdict.CHANGED} == ({"f", "g"} if returns else {"h"})
