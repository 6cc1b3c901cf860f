"""What registers hold for certain of an address that the first instruction takes, where the instructions behind it read them."""

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble
from tests.arch.test_reach import START, TAKES

X64, ARM64 = Machine.X64, Machine.ARM64
CASES = {
    "added-to": (
        {X64: "lea rcx, [rbx + 16]; ret", ARM64: "add x0, x19, #16; ret"},
        {X64: [("rbx", 0, True)], ARM64: [("x19", 0, True)]},
    ),
    "accessed": (
        {X64: "mov eax, dword ptr [rbx + 8]; ret", ARM64: "ldr w0, [x19, #8]; ret"},
        {X64: [("rbx", 0, False)], ARM64: [("x19", 0, False)]},
    ),
    "stored": (
        {X64: "mov qword ptr [rdx], rbx; ret", ARM64: "str x19, [x0]; ret"},
        {X64: [("rbx", 0, False)], ARM64: [("x19", 0, False)]},
    ),
    "handed-to-a-call-and-kept": (
        {X64: "lea rcx, [rbx + 16]; call 0x3000; mov rax, qword ptr [rcx]; mov rax, qword ptr [rbx]; ret",
         ARM64: "add x0, x19, #16; bl 0x3000; ldr x1, [x0]; ldr x2, [x19]; ret"},
        {X64: [("rbx", 0, True), ("rcx", 16, False), ("rbx", 0, False)], ARM64: [("x19", 0, True), ("x0", 16, False), ("x19", 0, False)]},
    ),
    "on-one-of-two-ways": (
        {X64: "test ecx, ecx; je 0x100e; mov rbx, rdx; mov eax, dword ptr [rbx + 8]; ret",
         ARM64: "cbz w0, 0x100c; mov x19, x1; ldr w0, [x19, #8]; ret"},
        {X64: [], ARM64: []},
    ),
    "the-same-on-both-ways": (
        {X64: "test ecx, ecx; je 0x100e; mov rsi, rbx; mov eax, dword ptr [rbx + 8]; ret",
         ARM64: "cbz w0, 0x100c; mov x20, x19; ldr w0, [x19, #8]; ret"},
        {X64: [("rbx", 0, True), ("rbx", 0, False)], ARM64: [("x19", 0, True), ("x19", 0, False)]},
    ),
    "either-of-two": (
        {X64: "test ecx, ecx; cmove rbx, rdx; mov eax, dword ptr [rbx + 8]; ret",
         ARM64: "cmp w0, #0; csel x19, x19, x1, eq; ldr w0, [x19, #8]; ret"},
        {X64: [("rbx", 0, True)], ARM64: [("x19", 0, True)]},
    ),
    "walked": (
        {X64: "mov eax, dword ptr [rbx]; add rbx, 4; dec ecx; jne 0x1007; ret",
         ARM64: "ldr w1, [x19], #4; subs w0, w0, #1; b.ne 0x1004; ret"},
        {X64: [], ARM64: []},
    ),
    "on-the-stack": (
        {X64: "mov qword ptr [rsp + 32], rbx; mov rax, qword ptr [rsp + 32]; mov ecx, dword ptr [rax]; ret",
         ARM64: "str x19, [sp, #16]; ldr x8, [sp, #16]; ldr w0, [x8]; ret"},
        {X64: [("rbx", 0, True)], ARM64: [("x19", 0, True)]},
    ),
    "half-of-it": (
        {X64: "mov eax, ebx; mov ecx, dword ptr [rax]; ret", ARM64: "mov w8, w19; ldr w0, [x8]; ret"},
        {X64: [("rbx", 0, False)], ARM64: []},
    ),
    "where-control-may-come-from-anywhere": (
        {X64: "mov eax, dword ptr [rbx]; jmp rdx", ARM64: "ldr w0, [x19]; br x1"},
        {X64: [], ARM64: []},
    ),
    "the-second-of-a-pair": (
        {X64: "xchg rdx, rbx; mov ecx, dword ptr [rbx]; ret", ARM64: "ldnp x8, x19, [x1]; ldr w0, [x19]; ret"},
        {X64: [("rbx", 0, False)], ARM64: []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_held(case: str, machine: Machine) -> None:
    sources, expected = CASES[case]
    code = assemble(machine, TAKES[machine] + sources[machine], START)
    instructions = list(architecture(machine).disassemble(code, START))
    assert sum(instruction.size for instruction in instructions) == len(code)
    found = architecture(machine).held(instructions, [START], {})
    assert [(item.place, item.distance, item.moves) for item in found] == expected[machine]
    assert {item.anchor for item in found} <= {START}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("given", "told"), [((0x5000, 0x5000), True), ((0x5000, 0x5008), False), ((0x5000, None), False)])
def test_held_where_ways_meet_on_which_two_instructions_made_the_same(given: tuple[int, int | None], told: bool, machine: Machine) -> None:
    """Both make an address in the same register; only what they name, where that is given, shows that it is the same."""
    jumps = {X64: "test ecx, ecx; je 0x1012; ", ARM64: "cbz w0, 0x100c; "}
    ends = {X64: "mov eax, dword ptr [rbx + 8]; ret", ARM64: "ldr w0, [x19, #8]; ret"}
    code = assemble(machine, TAKES[machine] + jumps[machine] + TAKES[machine] + ends[machine], START)
    instructions = list(architecture(machine).disassemble(code, START))
    second, reader = instructions[-3].address, instructions[-2].address
    assert reader == next(one.target for one in instructions if one.target)
    addresses = {at: address for at, address in zip((START, second), given, strict=True) if address is not None}
    found = architecture(machine).held(instructions, [START, second], {}, addresses)
    assert [(item.anchor, item.distance) for item in found if item.at == reader] == ([(START, 0), (second, 0)] if told else [])
    assert all(item.at != reader for item in architecture(machine).held(instructions, [START, second], {}))


WALKED = {
    "an-index": ({X64: "mov eax, dword ptr [rbx + rcx*4]; ret", ARM64: 0xB8607A60}, True),
    "an-index-added": ({X64: "add rbx, rcx; ret", ARM64: "add x1, x19, x0; ret"}, True),
    "a-loop": ({X64: "mov eax, dword ptr [rbx]; add rbx, 4; dec ecx; jne 0x1007; ret",
                ARM64: "ldr w1, [x19], #4; subs w0, w0, #1; b.ne 0x1004; ret"}, True),
    "constants": ({X64: "lea rcx, [rbx + 8]; mov eax, dword ptr [rbx + 4]; mov dword ptr [rcx], eax; ret",
                   ARM64: "add x0, x19, #8; ldr w1, [x19, #4]; str w1, [x0]; ret"}, False),
    "stored": ({X64: "mov qword ptr [rdx], rbx; ret", ARM64: "str x19, [x0]; ret"}, False),
    "stored-into-itself-by-an-index": ({X64: "mov qword ptr [rbx + rdx*8], rbx; ret", ARM64: 0xF8207A73}, True),
    "handed-on": ({X64: "mov rcx, rbx; call 0x3000; ret", ARM64: "mov x0, x19; bl 0x3000; ret"}, False),
    "compared": ({X64: "cmp rbx, rcx; ret", ARM64: "cmp x19, x1; ret"}, False),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", WALKED)
def test_walked(case: str, machine: Machine) -> None:
    sources, expected = WALKED[case]
    source = sources[machine]
    code = assemble(machine, TAKES[machine] + (source if isinstance(source, str) else ""), START)
    code += source.to_bytes(4, "little") if isinstance(source, int) else b""
    instructions = list(architecture(machine).disassemble(code, START))
    assert architecture(machine).walked(instructions, [START], {}) == ({START} if expected else set())
