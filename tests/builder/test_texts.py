"""Live pointers to texts are told by these, where code has changed so much that nothing else tells them."""

from __future__ import annotations

import pytest

from hotpatch import build
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.applied import Applied
from tests.builder.test_reaches import RETURNS
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, TEXT, Pe

STEP = 0x100
TEXTS = ["first of all", "second of four", "third of four", "last of all"]
LOADS = {
    Machine.X64: "mov {register}, qword ptr [rip + {distance}]",
    Machine.ARM64: "adrp x9, 0x3000; ldr {register}, [x9, #{low}]",
}
REGISTERS = {Machine.X64: ("rax", "rdx"), Machine.ARM64: ("x0", "x1")}
FILLS = {
    Machine.X64: ("add rcx, 5; imul rcx, rcx, 7", "xor r8, r8; not r8; shr r8, 3; sub r8, 9; or r8, 1; ror r8, 5"),
    Machine.ARM64: ("add x2, x2, #5; mul x2, x2, x2", "eor x3, x3, x3; mvn x3, x3; lsr x3, x3, #3; sub x3, x3, #9; neg x3, x3"),
}
JUMPS = {Machine.X64: "jmp {target}", Machine.ARM64: "b {target}"}


def image(machine: Machine, *, shift: int, changed: bool, texts: list[str] = TEXTS):
    """Cells that point at ``texts``; the outer ones are used by functions that stay, the inner ones by a helper that does not."""
    pe = Pe(machine)
    pe.add(bytes(shift))
    places = [pe.add(text.encode().ljust(32, b"\0")) for text in texts]
    cells = [DATA + 0x40 + shift + 8 * at for at in range(len(texts))]
    for cell, place in zip(cells, places, strict=True):
        pe.pointer(cell, place)

    def put(at: int, *lines: str | tuple[int, int]) -> None:
        """Assemble lines and loads (cell, register) one by one: their distances count from where each ends."""
        for line in lines:
            text = line if isinstance(line, str) else ""
            if not isinstance(line, str):
                cell, register = cells[line[0]], REGISTERS[machine][line[1]]
                text = LOADS[machine].format(register=register, distance=cell - at - 7, low=cell - 0x3000)
            at += len(pe_code := assemble(machine, text, at))
            pe.put(at - len(pe_code), pe_code)

    one, other = FILLS[machine]
    helper = TEXT + (6 if changed else 4) * STEP
    if machine is Machine.X64:
        pe.put(TEXT, b"\xcc" * 8 * STEP)
    put(TEXT, (0, 0), "ret")
    put(TEXT + STEP, (3, 0), "ret")
    put(TEXT + 2 * STEP, *[FILLS[machine][0]] * changed, JUMPS[machine].format(target=helper))
    if changed:
        put(helper, *[other] * 3, (1, 0), other, (2, 1), *[other] * 3, "ret")
    else:
        put(helper, (2, 1), *[one] * 10, (1, 0), "ret")
    pe.exports("texts.dll", [("g0", TEXT), ("g3", TEXT + STEP), ("user", TEXT + 2 * STEP)])
    return pe.build("texts.dll"), cells


@pytest.mark.parametrize("machine", Machine)
def test_what_points_at_a_text_of_its_own_in_its_place_is_the_bases(machine):
    base, there = image(machine, shift=0, changed=False)
    fixed, here = image(machine, shift=0x20, changed=True)
    diff = diff_images(base, fixed)
    assert [row.verdict for row in diff.functions if row.name is None] == [Verdict.REMOVED, Verdict.ADDED]
    assert {match.fixed: match.base for match in diff.data if match.writable}.items() >= dict(zip(here, there, strict=True)).items()
    patch = build(diff)
    applied = Applied(base, patch)
    live = applied.base_va + there[1]
    applied.uc.mem_write(live, (4711).to_bytes(8, "little"))
    assert applied.call("user") == 4711


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("texts", [[*TEXTS[:2], TEXTS[1], TEXTS[3]], [TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[3]]], ids=["twice", "exchanged"])
def test_what_points_at_another_text_or_at_one_that_others_point_at_is_not(machine, texts):
    base, _ = image(machine, shift=0, changed=False)
    fixed, _ = image(machine, shift=0x20, changed=True, texts=texts)
    with pytest.raises(NotHotpatchable, match="may be new or one that the base has"):
        build(diff_images(base, fixed))


def table(machine: Machine, text: bytes, number: int) -> tuple[object, int]:
    """``f`` gives the address of a table, which leads to ``text``; others take its last letter as a text of its own, and one before it."""
    pe = Pe(machine)
    start = pe.add(bytes(16))
    before = pe.add(b"epsilon\0" + text + b"\0")
    place = before + 8
    pe.pointer(start, place)
    pe.put(start + 8, number.to_bytes(8, "little"))
    for count, target in enumerate((start, place + len(text) - 1, before)):
        pe.put(TEXT + STEP * count, takes(machine, TEXT + STEP * count, target) + RETURNS[machine])
    pe.exports("table.dll", [("f", TEXT), ("tail", TEXT + STEP), ("before", TEXT + 2 * STEP)])
    return pe.build("table.dll"), start


@pytest.mark.parametrize("machine", Machine)
def test_a_text_travels_whole_though_its_end_is_a_text_too(machine):
    base, fixed = table(machine, b"delta", 1)[0], table(machine, b"kappa", 2)[0]
    applied = Applied(base, build(diff_images(base, fixed), only=("f",)))
    led = int.from_bytes(applied.uc.mem_read(applied.call("f"), 8), "little")
    assert bytes(applied.uc.mem_read(led, 6)) == b"kappa\0"
