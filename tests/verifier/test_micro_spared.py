"""Registers that code keeps something in over a call, because what it calls leaves them alone though it need not."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.verifier import MicroOutcome, verify_functions
from hotpatch.verifier.micro_spared import Spared
from tests.builder.test_reaches import reads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

X64, ARM64 = Machine.X64, Machine.ARM64
each_machine = pytest.mark.parametrize("machine", Machine)
CALLED, INNER, INNERMOST = TEXT + 0x100, TEXT + 0x180, TEXT + 0x1C0
KEPT = {X64: {"r10", "r11"}, ARM64: {f"x{number}" for number in range(8, 16)}}
CALLS = {
    X64: "sub rsp, 40; call {0:#x}; add rsp, 40; ret",
    ARM64: "str x30, [sp, #-16]!; bl {0:#x}; ldr x30, [sp], #16; ret",
}
SPARES = {
    "nothing-of-its-own": ({X64: "mov eax, 1; ret", ARM64: "mov w0, #1; ret"}, KEPT),
    "what-it-calls-writes": (
        {machine: text.format(INNER) for machine, text in CALLS.items()},
        {X64: {"r11"}, ARM64: KEPT[ARM64] - {"x10"}},
    ),
    "on-one-way-alone": (
        {X64: "test ecx, ecx; je 0x1107; inc r11; mov eax, 1; ret", ARM64: "cbz w0, 0x1108; add w15, w15, #1; mov w0, #1; mov w0, #2; ret"},
        {X64: {"r10"}, ARM64: KEPT[ARM64] - {"x15"}},
    ),
    "in-another-function-that-it-goes-on-in": (
        {X64: f"mov eax, 1; jmp {INNER:#x}", ARM64: f"mov w0, #1; b {INNER:#x}"},
        {X64: {"r11"}, ARM64: KEPT[ARM64] - {"x10"}},
    ),
    "a-pointer-is-called": ({X64: "sub rsp, 40; call rcx; add rsp, 40; ret", ARM64: "blr x1; ret"}, {X64: set(), ARM64: set()}),
    "a-pointer-is-jumped-to": ({X64: "jmp rcx", ARM64: "br x1"}, {X64: set(), ARM64: set()}),
    "the-system-is-asked": ({X64: "syscall; ret", ARM64: "svc #1; ret"}, {X64: set(), ARM64: set()}),
    "into-the-middle-of-another": ({X64: f"je {INNER + 6:#x}; ret", ARM64: f"cbz w0, {INNER + 4:#x}; ret"}, {X64: set(), ARM64: set()}),
}
WRITES = {X64: "mov r10d, 3; mov eax, 4; ret", ARM64: "mov w10, #3; mov w0, #4; ret"}
LEAVES = {X64: "mov eax, 6; ret", ARM64: "mov w0, #6; ret"}


@each_machine
@pytest.mark.parametrize("does", SPARES)
def test_what_a_function_leaves_alone(machine: Machine, does: str) -> None:
    texts, spared = SPARES[does]
    pe = Pe(machine)
    pe.put(CALLED, b"\x0f\x05\xc3" if texts[machine].startswith("syscall") else assemble(machine, texts[machine], CALLED))
    pe.put(INNER, assemble(machine, WRITES[machine], INNER))
    pe.exports("spared.dll", [("called", CALLED), ("inner", INNER)])
    assert Spared(pe.build("spared.dll")).by(CALLED) == spared[machine]


def test_what_a_table_of_jumps_leads_to() -> None:
    """Two cases, of which the second writes a register."""
    code = assemble(ARM64, "cmp w0, #1; b.hi 0x1120", CALLED)
    code += architecture(ARM64).bind(FixupKind.REL21, (0x10000009).to_bytes(4, "little"), CALLED + 8, CALLED + 0x40)
    code += (0x38A04928).to_bytes(4, "little")  # ldrsb x8, [x9, w0, uxtw]
    code += assemble(ARM64, "add x8, x9, x8, lsl #2; br x8; mov w0, #1; ret; mov w12, #1; ret", CALLED + 16)
    pe = Pe(ARM64)
    pe.put(CALLED, code)
    pe.put(CALLED + 0x40, bytes((0x100 - 10, 0x100 - 8, 0, 0)))
    pe.exports("spared.dll", [("called", CALLED)])
    image = pe.build("spared.dll")
    assert [table.targets for table in image.jump_tables_in(image.functions[0].ranges[0])] == [(CALLED + 0x18, CALLED + 0x20)]
    assert Spared(image).by(CALLED) == KEPT[ARM64] - {"x8", "x9", "x12"}


def keeps(machine: Machine, at: int, target: int) -> bytes:
    """Code that makes an address, of Arm64 the page alone, before one call, and hands it to another function after it."""
    arch = architecture(machine)
    if machine is X64:
        code = assemble(machine, "sub rsp, 40", at) + b"\x4c\x8d\x15" + arch.bind(FixupKind.REL32, bytes(4), at + 7, target)
        return code + assemble(machine, f"call {CALLED:#x}; mov rcx, r10; call {INNER:#x}; add rsp, 40; ret", at + len(code))
    code = assemble(machine, "str x30, [sp, #-16]!", at)
    code += arch.bind(FixupKind.PAGEBASE_REL21, (0x9000000A).to_bytes(4, "little"), at + 4, target)
    code += assemble(machine, f"bl {CALLED:#x}", at + 8)
    code += arch.bind(FixupKind.PAGEOFFSET_12A, (0x91000140).to_bytes(4, "little"), at + 12, target)
    return code + assemble(machine, f"bl {INNER:#x}; ldr x30, [sp], #16; ret", at + 16)


@each_machine
@pytest.mark.parametrize("writes", [False, True], ids=["left-alone", "written-by-the-bases"])
def test_what_is_kept_over_a_call(machine: Machine, writes: bool) -> None:
    """What is called calls another in its turn, so that it is answered and not run; where the datum lies, the two images differ."""
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        datum = DATA + 0x100 + 0x40 * is_fixed
        pe.put(TEXT, keeps(machine, TEXT, datum) if is_fixed else reads(machine, TEXT, datum, 7))
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, datum, 8))
        pe.put(CALLED, assemble(machine, CALLS[machine].format(INNERMOST), CALLED))
        pe.put(INNER, assemble(machine, "mov eax, dword ptr [rcx]; ret" if machine is X64 else "ldr w0, [x0]; ret", INNER))
        pe.put(INNERMOST, assemble(machine, (WRITES if writes and not is_fixed else LEAVES)[machine], INNERMOST))
        places = {"keeps": TEXT, "reads": TEXT + 0x80, "called": CALLED, "inner": INNER, "innermost": INNERMOST}
        pe.exports("kept.dll", list(places.items()))
        images.append(pe.build("kept.dll"))
    base, fixed = images
    patch = hotpatch.build(hotpatch.diff(base, fixed), leave_out=["innermost"] if writes else [])
    report = verify_functions(base, patch, fixed=fixed, functions=["keeps"]).functions[0]
    assert report.outcome is (MicroOutcome.DIFFER if writes else MicroOutcome.AGREE)
