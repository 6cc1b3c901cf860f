"""Where a live datum ends that is matched, one may begin that is not: what is done with an address taken there tells which is meant."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble
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


NOTHING_DONE, READ_THERE = TEXT + 0x200, TEXT + 0x220
HELPERS = {
    Machine.X64: ("mov eax, 8; ret", "mov eax, dword ptr [rcx - 4]; ret"),
    Machine.ARM64: ("mov w0, #8; ret", "ldur w0, [x0, #-4]; ret"),
}
ONLY_ACCESSED = {
    "over-a-branch": {
        Machine.X64: "mov r10, rax; test ecx, ecx; je 0x1051; mov ecx, dword ptr [r10]; mov eax, dword ptr [r10]",
        Machine.ARM64: "mov x9, x0; cbz w1, 0x1054; ldr w1, [x9]; ldr w0, [x9]",
    },
    "at-a-distance-too": {
        Machine.X64: "mov ecx, dword ptr [rax]; mov eax, dword ptr [rax + 8]",
        Machine.ARM64: "ldr w1, [x0]; ldr w0, [x0, #8]",
    },
    "left-over-in-an-argument-that-is-none": {
        Machine.X64: f"mov rcx, rax; mov eax, dword ptr [rcx]; call {NOTHING_DONE:#x}",
        Machine.ARM64: f"ldr w1, [x0]; bl {NOTHING_DONE:#x}; mov w0, #7",
    },
}
DONE_BESIDES = {
    "compared": {Machine.X64: "mov ecx, dword ptr [rax]; cmp rax, rdx; mov eax, 7", Machine.ARM64: "ldr w1, [x0]; cmp x0, x2; mov w0, #7"},
    "stored": {
        Machine.X64: "mov ecx, dword ptr [rax]; mov qword ptr [rdx], rax; mov eax, 7",
        Machine.ARM64: "ldr w1, [x0]; str x0, [x2]; mov w0, #7",
    },
    "kept-on-the-stack": {
        Machine.X64: "mov ecx, dword ptr [rax]; mov qword ptr [rsp + 8], rax; mov eax, 7",
        Machine.ARM64: "ldr w1, [x0]; str x0, [sp, #8]; mov w0, #7",
    },
    "handed-on": {
        Machine.X64: f"mov rcx, rax; mov eax, dword ptr [rcx]; call {READ_THERE:#x}",
        Machine.ARM64: f"ldr w1, [x0]; bl {READ_THERE:#x}; mov w0, #7",
    },
    "counted-down-from": {
        Machine.X64: "mov ecx, dword ptr [rax]; sub rax, rdx; mov ecx, dword ptr [rax]; mov eax, 7",
        Machine.ARM64: "ldr w1, [x0]; sub x0, x0, x2; ldr w1, [x0]; mov w0, #7",
    },
    "returned": {Machine.X64: "mov ecx, dword ptr [rax]", Machine.ARM64: "ldr w1, [x0]"},
}


def moved(machine: Machine, text: str):
    """The same where what begins behind the array is matched, and has moved by 16 bytes; ``text``: what is done with its address."""
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        trap = architecture(machine).trap
        pe.put(TEXT, trap * (0x200 // len(trap)))
        begins = NEW + 0x10 * is_fixed
        code = takes(machine, USER, begins)
        pe.put(USER, (code + assemble(machine, text, USER + len(code)) if is_fixed else b"") + RETURNS[machine])
        pe.put(TEXT + 0x80, takes(machine, TEXT + 0x80, ARRAY) + RETURNS[machine])
        for number, read in enumerate((ARRAY + 0x20, begins, begins + 8, begins + 0x20), 3):
            pe.put(TEXT + 0x40 * number, reads(machine, TEXT + 0x40 * number, read, number))
        for at, does in zip((NOTHING_DONE, READ_THERE), HELPERS[machine], strict=True):
            pe.put(at, assemble(machine, does, at))
        entries = [("user", USER), ("whole", TEXT + 0x80), ("idle", NOTHING_DONE), ("reading", READ_THERE)]
        pe.exports("moved.dll", [*entries, *((f"g{number}", TEXT + 0x40 * number) for number in range(3, 7))])
        images.append(pe.build("moved.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("does", ONLY_ACCESSED)
def test_what_is_done_nothing_with_but_to_access_memory_is_no_end(machine: Machine, does: str) -> None:
    patch = build_patch(moved(machine, ONLY_ACCESSED[does][machine]))
    assert not patch.carried


@each_machine
@pytest.mark.parametrize("does", DONE_BESIDES)
def test_what_is_accessed_and_more_is_done_with_may_be_an_end(machine: Machine, does: str) -> None:
    with pytest.raises(NotHotpatchable, match="or the end of the one before it"):
        build_patch(moved(machine, DONE_BESIDES[does][machine]))
