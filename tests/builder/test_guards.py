"""Static data of functions that are initialised when control first comes there, where the base has room for them."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.patch import CarriedKind
from tests.emulator.pe import DATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
FRONT, GUARD, VALUE, BEHIND, INDEX = (DATA + at for at in (0x100, 0x108, 0x10C, 0x110, 0xF00))
HEADER, FOOTER, KEEP, PEEK = (TEXT + at for at in (0x100, 0x110, 0x120, 0x140))
BLOCKS = "raw 65 48 8b 04 25 58 00 00 00"
INDEXED = "raw 08 59 69 f8"
"""``mov rax, qword ptr gs:[0x58]`` and ``ldr x8, [x8, w9, uxtw #3]``, which the assembler does not take."""
RETURN = {Machine.X64: "mov eax, 7; ret", Machine.ARM64: "mov w0, #7; ret"}
KEEPS = {
    Machine.X64: ("mov rax, [FRONT]", "add rax, [BEHIND]", "ret"),
    Machine.ARM64: ("adrp x9, 0x3000", "ldr x0, [x9, #0x100]", "ldr x1, [x9, #0x110]", "add x0, x0, x1", "ret"),
}
PEEKS = {
    Machine.X64: ("lea rax, [FRONT]", "mov eax, dword ptr [rax + {distance}]", "ret"),
    Machine.ARM64: ("adrp x9, 0x3000", "add x9, x9, #0x100", "ldr w0, [x9, #{distance}]", "ret"),
}
GUARDED = {
    Machine.X64: (
        "mov ecx, dword ptr [INDEX]",
        BLOCKS,
        "mov edx, 4",
        "mov rax, qword ptr [rax + rcx*8]",
        "mov eax, dword ptr [rdx + rax]",
        "cmp dword ptr [GUARD], eax",
        "jg first",
        "done:",
        "mov eax, dword ptr [VALUE]",
        "ret",
        "first:",
        "lea rcx, [GUARD]",
        "call HEADER",
        "cmp dword ptr [GUARD], -1",
        "jne done",
        "mov eax, 5",
        "mov dword ptr [VALUE], eax",
        "lea rcx, [GUARD]",
        "call FOOTER",
        "jmp done",
    ),
    Machine.ARM64: (
        "adrp x8, 0x3000",
        "ldr w9, [x8, #0xf00]",
        "ldr x8, [x18, #0x58]",
        "adrp x20, 0x3000",
        INDEXED,
        "ldr w9, [x8, #4]",
        "ldr w8, [x20, #0x108]",
        "cmp w8, w9",
        "b.gt first",
        "done:",
        "ldr w0, [x20, #0x10c]",
        "ret",
        "first:",
        "add x0, x20, #0x108",
        "bl HEADER",
        "ldr w8, [x20, #0x108]",
        "cmn w8, #1",
        "b.ne done",
        "mov w8, #5",
        "str w8, [x20, #0x10c]",
        "add x0, x20, #0x108",
        "bl FOOTER",
        "b done",
    ),
}
PLACES = {"FRONT": FRONT, "GUARD": GUARD, "VALUE": VALUE, "BEHIND": BEHIND, "INDEX": INDEX, "HEADER": HEADER, "FOOTER": FOOTER}


def code(machine: Machine, lines: tuple[str, ...], at: int) -> bytes:
    """``lines`` assembled, with labels and with what stands for addresses; in rounds, until no instruction moves any more."""
    labels, sizes = dict.fromkeys([line[:-1] for line in lines if line.endswith(":")], at), dict.fromkeys(range(len(lines)), 4)
    for _ in range(4):
        result, address = b"", at
        for number, line in enumerate(lines):
            if line.endswith(":"):
                labels[line[:-1]] = address
                continue
            text = line
            for name, place in PLACES.items():
                text = text.replace(f"[{name}]", f"[rip + {place - address - sizes[number]}]").replace(f" {name}", f" {place}")
            for name, place in labels.items():
                text = text.replace(f" {name}", f" {place}")
            done = bytes.fromhex(text[4:]) if line.startswith("raw ") else assemble(machine, text, address)
            sizes[number], result, address = len(done), result + done, address + len(done)
    return result


def pair(machine: Machine, walk: tuple[str, ...], peek: int | None = None) -> tuple[hotpatch.Image, hotpatch.Image]:
    """A base without the static, and a fixed image whose function ``walk`` has it; ``peek``: how far from FRONT both read besides."""
    images = []
    for lines in (None, walk):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, RETURN[machine], TEXT) if lines is None else code(machine, lines, TEXT))
        for stub in (HEADER, FOOTER):
            pe.put(stub, assemble(machine, "ret", stub))
        pe.put(KEEP, code(machine, KEEPS[machine], KEEP))
        functions = [("walk", TEXT), ("header", HEADER), ("footer", FOOTER), ("keep", KEEP)]
        if peek is not None:
            pe.put(PEEK, code(machine, tuple(line.format(distance=peek) for line in PEEKS[machine]), PEEK))
            functions.append(("peek", PEEK))
        assert pe.tls(bytes(8), 0, []) == INDEX
        pe.exports("walk.dll", functions)
        images.append(pe.build("walk.dll"))
    return images[0], images[1]


@each_machine
def test_a_guard_and_its_datum_travel_though_the_base_has_room_for_them(machine: Machine) -> None:
    base, fixed = pair(machine, GUARDED[machine])
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    assert [item.size for item in patch.carried if item.kind is CarriedKind.DATA] == [8]


OTHERWISE = {
    "compared-with-no-word-of-the-thread": {
        Machine.X64: (BLOCKS, BLOCKS.replace("58", "60")),
        Machine.ARM64: ("ldr x8, [x18, #0x58]", "ldr x8, [x18, #0x60]"),
    },
    "compared-with-a-word-of-another-module": {
        Machine.X64: ("mov ecx, dword ptr [INDEX]", "mov ecx, dword ptr [BEHIND]"),
        Machine.ARM64: ("ldr w9, [x8, #0xf00]", "ldr w9, [x8, #0x110]"),
    },
    "not-begun": {
        Machine.X64: ("cmp dword ptr [GUARD], -1", "cmp dword ptr [GUARD], -2"),
        Machine.ARM64: ("cmn w8, #1", "cmn w8, #2"),
    },
    "datum-handed-on": {
        Machine.X64: ("mov eax, 5", "lea rdx, [VALUE]"),
        Machine.ARM64: ("mov w8, #5", "add x1, x20, #0x10c"),
    },
}


@each_machine
@pytest.mark.parametrize("kind", OTHERWISE)
def test_what_may_be_something_else_does_not(machine: Machine, kind: str) -> None:
    was, becomes = OTHERWISE[kind][machine]
    assert GUARDED[machine].count(was) == 1
    base, fixed = pair(machine, tuple(becomes if line == was else line for line in GUARDED[machine]))
    with pytest.raises(hotpatch.NotHotpatchable, match="may be new or one that the base has"):
        hotpatch.build(hotpatch.diff(base, fixed))


@each_machine
@pytest.mark.parametrize("distance", [8, 12])
def test_what_the_base_reaches_from_another_datum_does_not(machine: Machine, distance: int) -> None:
    base, fixed = pair(machine, GUARDED[machine], peek=distance)
    with pytest.raises(hotpatch.NotHotpatchable, match="may be new or one that the base has"):
        hotpatch.build(hotpatch.diff(base, fixed))
