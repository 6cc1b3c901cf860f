"""Which way code goes from an address that it takes first: to what begins there, or maybe back over what ends there."""

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.arch.assembly import assemble

X64, ARM64 = Machine.X64, Machine.ARM64
START = 0x1000
TAKEN = {X64: "lea rdx, [rip + 0x100]; ", ARM64: "add x8, x8, #0x100; "}
ONWARD = {
    "indexed": {X64: "mov eax, dword ptr [rdx + rcx*4]; ret", ARM64: "ldr w0, [x8, x9]; ret"},
    "behind it, after a branch": {
        X64: "test ecx, ecx; je 0x1020; movzx eax, byte ptr [rdx + 8]; ret",
        ARM64: "cbz w1, 0x1020; ldrb w0, [x8, #8]; ret",
    },
    "an element's address": {X64: "lea rax, [rdx + rcx*8 + 16]; ret", ARM64: "add x0, x8, x1; ret"},
    "the index counts on": {
        X64: "xor ecx, ecx; add eax, dword ptr [rdx + rcx]; add rcx, 4; cmp rcx, 24; jne 0x1009; ret",
        ARM64: "mov x9, #0; ldr w10, [x8, x9]; add x9, x9, #4; cmp x9, #24; b.ne 0x1008; ret",
    },
    "counted up, with another counted down": {
        X64: "add eax, dword ptr [rdx]; add rdx, 4; sub rcx, 1; jne 0x1007; ret",
        ARM64: "ldr w9, [x8], #4; sub x1, x1, #1; cbnz x1, 0x1004; ret",
    },
    "something else is counted down in its register": {
        X64: "mov eax, dword ptr [rdx]; mov rdx, rcx; sub rdx, 4; mov dword ptr [rdx], eax; ret",
        ARM64: "ldr w0, [x8]; mov x8, x1; sub x8, x8, #4; str w0, [x8]; ret",
    },
    "another number is negative": {X64: "mov r8, -5; mov eax, dword ptr [rdx + rcx]; ret", ARM64: "mov w5, #-5; ldr w0, [x8, x9]; ret"},
}
MAYBE_BACK = {
    "handed on": {X64: "mov rcx, rdx; call 0x2000; ret", ARM64: "mov x0, x8; bl 0x2000; ret"},
    "in an argument's register": {X64: "call 0x2000; ret", ARM64: "bl 0x2000; ret"},
    "the element before it": {X64: "mov eax, dword ptr [rdx - 4]; ret", ARM64: "ldur w0, [x8, #-4]; ret"},
    "indexed before it": {X64: "mov eax, dword ptr [rdx + rcx*4 - 4]; ret", ARM64: "ldr w0, [x8, #-4]!; ret"},
    "the index counts up to zero": {
        X64: "mov rcx, -24; add eax, dword ptr [rdx + rcx]; add rcx, 4; jne 0x100e; ret",
        ARM64: "mov x9, #-24; ldr w10, [x8, x9]; adds x9, x9, #4; b.ne 0x1008; ret",
    },
    "the index is a difference": {X64: "sub rcx, 6; mov eax, dword ptr [rdx + rcx]; ret", ARM64: "sub x9, x1, #6; ldr w0, [x8, x9]; ret"},
    "the index is turned": {X64: "neg rcx; mov eax, dword ptr [rdx + rcx]; ret", ARM64: "neg x9, x9; ldr w0, [x8, x9]; ret"},
    "the index is one less": {X64: "dec rcx; mov eax, dword ptr [rdx + rcx]; ret", ARM64: "sub x9, x9, #1; ldr w0, [x8, x9]; ret"},
    "counted down from the last element": {
        X64: "add eax, dword ptr [rdx]; sub rdx, 4; cmp rdx, rcx; jne 0x1007; ret",
        ARM64: "ldr w9, [x8]; add w0, w0, w9; sub x8, x8, #4; cmp x8, x1; b.ne 0x1004; ret",
    },
    "counted down by another form": {
        X64: "add eax, dword ptr [rdx]; cmp rdx, rcx; lea rdx, [rdx - 4]; jne 0x1007; ret",
        ARM64: "ldr w9, [x8], #-4; add w0, w0, w9; cmp x8, x1; b.ne 0x1004; ret",
    },
    "less is added": {X64: "add rdx, -8; mov eax, dword ptr [rdx]; ret", ARM64: "sub x8, x8, #8; ldr w0, [x8]; ret"},
}


def goes_onward(machine: Machine, rest: str) -> bool:
    return architecture(machine).goes_onward(assemble(machine, TAKEN[machine] + rest, START), START, 0)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", ONWARD)
def test_goes_onward(machine, name) -> None:
    assert goes_onward(machine, ONWARD[name][machine])


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", MAYBE_BACK)
def test_may_go_back(machine, name) -> None:
    assert not goes_onward(machine, MAYBE_BACK[name][machine])


@pytest.mark.parametrize(
    ("machine", "kind", "code", "accesses"),
    [
        (Machine.X64, FixupKind.REL32, "488d0500000000", False),  # lea rax, [rip]
        (Machine.X64, FixupKind.REL32, "488b0500000000", True),  # mov rax, [rip]
        (Machine.X64, FixupKind.REL32, "ff0500000000", True),  # inc dword ptr [rip]
        (Machine.ARM64, FixupKind.PAGEOFFSET_12A, "20000091", False),  # add x0, x1, #0
        (Machine.ARM64, FixupKind.PAGEOFFSET_12L, "200040f9", True),  # ldr x0, [x1]
        (Machine.ARM64, FixupKind.LITERAL19, "00000058", True),  # ldr x0, .
        (Machine.ARM64, FixupKind.REL21, "00000010", False),  # adr x0, .
    ],
)
def test_taking_an_address_is_no_access(machine: Machine, kind: FixupKind, code: str, accesses: bool) -> None:
    assert architecture(machine).accesses(kind, bytes.fromhex(code), 0x1000) is accesses


@pytest.mark.parametrize(
    ("machine", "kind", "code", "alignment"),
    [
        (Machine.X64, FixupKind.REL32, "0f280500000000", 16),  # movaps xmm0, [rip]
        (Machine.X64, FixupKind.REL32, "660fef0500000000", 16),  # pxor xmm0, [rip]
        (Machine.X64, FixupKind.REL32, "0f100500000000", 1),  # movups xmm0, [rip]
        (Machine.X64, FixupKind.REL32, "f20f580500000000", 1),  # addsd xmm0, [rip]
        (Machine.X64, FixupKind.REL32, "c5fc280500000000", 32),  # vmovaps ymm0, [rip]
        (Machine.X64, FixupKind.REL32, "c5fc580500000000", 1),  # vaddps ymm0, ymm0, [rip]
        (Machine.X64, FixupKind.REL32, "488b0500000000", 1),  # mov rax, [rip]
        (Machine.ARM64, FixupKind.PAGEOFFSET_12L, "2000c03d", 16),  # ldr q0, [x1]
        (Machine.ARM64, FixupKind.PAGEOFFSET_12L, "200040f9", 8),  # ldr x0, [x1]
        (Machine.ARM64, FixupKind.PAGEOFFSET_12L, "20004039", 1),  # ldrb w0, [x1]
        (Machine.ARM64, FixupKind.PAGEOFFSET_12A, "20000091", 1),  # add x0, x1, #0
    ],
)
def test_what_addresses_must_be_multiples_of(machine: Machine, kind: FixupKind, code: str, alignment: int) -> None:
    assert architecture(machine).alignment(kind, bytes.fromhex(code), 0x1000) == alignment


@pytest.mark.parametrize(
    ("machine", "code", "repeats"),
    [
        (Machine.X64, "f3a4", True),  # rep movsb
        (Machine.X64, "f2ae", True),  # repne scasb
        (Machine.X64, "a4", False),  # movsb
        (Machine.X64, "f3c3", False),  # rep ret
        (Machine.X64, "f390", False),  # pause
        (Machine.ARM64, "00000014", False),  # b .
    ],
)
def test_what_is_repeated_counts_by_rounds(machine: Machine, code: str, repeats: bool) -> None:
    (item,) = architecture(machine).disassemble(bytes.fromhex(code), 0)
    assert architecture(machine).repeats(item) is repeats
