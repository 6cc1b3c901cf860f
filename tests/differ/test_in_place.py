"""Functions without names between the same neighbours: whether the new one is the old one, changed, or another in its place."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import Verdict, diff_images
from tests.emulator.pe import RDATA, TEXT, Pe

BETWEEN, LAST = TEXT + 0x100, TEXT + 0x200
COMMON = {
    Machine.X64: ["imul rcx, rcx, 7", "shr rcx, 3", "xor rcx, rdx", "add rcx, 5", "not rdx", "ror rdx, 5"],
    Machine.ARM64: ["mul x0, x0, x0", "lsr x0, x0, #3", "eor x0, x0, x1", "add x0, x0, #5", "mvn x1, x1", "ror x1, x1, #5"],
}
OWN = {
    Machine.X64: (["lea rax, [rcx + rdx]"] * 4, ["sub rdx, 9"] * 7),
    Machine.ARM64: (["madd x2, x0, x1, x1"] * 4, ["neg x1, x1"] * 7),
}
CALLS = {Machine.X64: f"call {BETWEEN}", Machine.ARM64: f"bl {BETWEEN}"}
SETS = {Machine.X64: "mov eax, 5", Machine.ARM64: "mov x0, #5"}


def image(machine: Machine, *, changed: bool, called: bool):
    """Three functions; the one between the others is ``called`` by the first, or a table leads to it."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x300)
    pe.cursor = RDATA + 0x100
    lines = {
        TEXT: [SETS[machine]] * changed + [CALLS[machine]] * called,
        BETWEEN: COMMON[machine] + OWN[machine][changed],
        LAST: [SETS[machine]] * 3,
    }
    for at, several in lines.items():
        pe.put(at, assemble(machine, "; ".join([*several, "ret"]), at))
    if not called:
        pe.pointer(RDATA, BETWEEN)
    pe.exports("between.dll", [("first", TEXT), ("last", LAST)])
    return pe.build("between.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("called", [(True, True), (False, False), (True, False), (False, True)])
def test_one_somewhat_like_another_is_it_where_the_same_lead_to_it(machine: Machine, called: tuple[bool, bool]) -> None:
    diff = diff_images(image(machine, changed=False, called=called[0]), image(machine, changed=True, called=called[1]))
    verdicts = [row.verdict for row in diff.functions if row.name is None]
    assert verdicts == ([Verdict.CHANGED] if called[0] == called[1] else [Verdict.REMOVED, Verdict.ADDED])
