"""Numbers that instructions add to registers, read and encoded anew."""

import pytest

from hotpatch.arch import Counted, FixupKind, Machine, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.errors import OutOfReach

X64, ARM64 = Machine.X64, Machine.ARM64
SUM, ACCESS, REL32 = FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L, FixupKind.REL32
AT = 0x1000
ANEW = {  # instruction, what is counted, another number, what it becomes
    "sum": (ARM64, "add x0, x19, #0x450", ("x19", 0x450, SUM), 0x4F0, "add x0, x19, #0x4f0"),
    "sum-below": (ARM64, "add x0, x19, #0x450", ("x19", 0x450, SUM), -8, "sub x0, x19, #8"),
    "difference": (ARM64, "sub x0, x19, #8", ("x19", -8, SUM), 16, "add x0, x19, #0x10"),
    "to-a-page": (ARM64, "add x0, x19, #8", ("x19", 8, SUM), 0x3000, "add x0, x19, #3, lsl #12"),
    "from-a-page": (ARM64, "add x0, x19, #3, lsl #12", ("x19", 0x3000, SUM), 8, "add x0, x19, #8"),
    "load": (ARM64, "ldr x0, [x19, #8]", ("x19", 8, ACCESS), 0x7FF8, "ldr x0, [x19, #0x7ff8]"),
    "store-of-a-byte": (ARM64, "strb w0, [x19, #8]", ("x19", 8, ACCESS), 3, "strb w0, [x19, #3]"),
    "vector": (ARM64, "ldr q0, [x19, #0x10]", ("x19", 16, ACCESS), 0x20, "ldr q0, [x19, #0x20]"),
    "lea": (X64, "lea rcx, [rbx + 16]", ("rbx", 16, REL32), -128, "lea rcx, [rbx - 0x80]"),
    "long-lea": (X64, "lea rcx, [rbx + 0x1000]", ("rbx", 0x1000, REL32), 8, "lea rcx, [rbx + 8]"),
    "move": (X64, "mov dword ptr [r12 + 16], eax", ("r12", 16, REL32), 24, "mov dword ptr [r12 + 0x18], eax"),
    "immediate": (X64, "mov dword ptr [rbx + 16], 7", ("rbx", 16, REL32), 4, "mov dword ptr [rbx + 4], 7"),
}


@pytest.mark.parametrize("name", ANEW)
def test_anew(name: str) -> None:
    machine, text, expected, number, becomes = ANEW[name]
    arch, code = architecture(machine), assemble(machine, text, AT)
    assert arch.counted(code, AT) == Counted(*expected)
    new = arch.recount(code, AT, number)
    (instruction,) = arch.disassemble(new, AT)
    assert len(new) == len(code)
    assert f"{instruction.mnemonic} {instruction.operands}" == becomes
    assert arch.counted(new, AT) == Counted(expected[0], number, expected[2])
    assert arch.recount(new, AT, expected[1]) == code


@pytest.mark.parametrize(
    ("machine", "text", "number"),
    [
        (ARM64, "add x0, x19, #8", 0x1001),
        (ARM64, "add x0, x19, #8", 1 << 24),
        (ARM64, "ldr x0, [x19, #8]", 12),
        (ARM64, "ldr x0, [x19, #8]", -8),
        (ARM64, "ldr w0, [x19, #8]", 0x4000),
        (X64, "lea rcx, [rbx + 16]", 128),
        (X64, "lea rcx, [rbx + 0x1000]", 1 << 31),
    ],
)
def test_what_does_not_fit(machine: Machine, text: str, number: int) -> None:
    with pytest.raises(OutOfReach):
        architecture(machine).recount(assemble(machine, text, AT), AT, number)


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        (ARM64, "add x0, sp, #8"),
        (ARM64, "add w0, w19, #8"),
        (ARM64, "adds x0, x19, #8"),
        (ARM64, "ldr x0, [sp, #8]"),
        (ARM64, "ldr x0, [x19], #8"),
        (ARM64, "ldp x0, x1, [x19, #16]"),
        (ARM64, "ldur x0, [x19, #-8]"),
        (ARM64, "mov x0, x19"),
        (X64, "lea rcx, [rsp + 16]"),
        (X64, "lea rcx, [rip + 16]"),
        (X64, "lea rcx, [rbx + rax*4 + 16]"),
        (X64, "mov rcx, qword ptr [rbx]"),
        (X64, "add rbx, 16"),
    ],
)
def test_what_counts_nothing(machine: Machine, text: str) -> None:
    assert architecture(machine).counted(assemble(machine, text, AT), AT) is None


def test_a_string_instruction_counts_nothing() -> None:
    assert architecture(X64).counted(b"\xf3\xa4\x44\x24\x10", AT) is None
