"""What code reaches at constant distances from an address that its first instruction takes."""

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble

X64, ARM64 = Machine.X64, Machine.ARM64
START = 0x1000
TAKES = {X64: "lea rbx, [rip + 0x2000]; ", ARM64: "add x19, x19, #0; "}
CASES = {
    "a-neighbour": (
        {X64: "mov eax, dword ptr [rbx + 8]; ret", ARM64: "ldr w0, [x19, #8]; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "a-neighbour-below": (
        {X64: "mov qword ptr [rbx - 16], rax; ret", ARM64: "stur x0, [x19, #-16]; ret"},
        {X64: [(-16, 8)], ARM64: [(-16, 8)]},
    ),
    "counted-down-behind-an-access": (
        {X64: "mov eax, dword ptr [rbx]; sub rbx, 4; mov ecx, dword ptr [rbx]; ret", ARM64: "ldr w0, [x19], #-4; ldr w1, [x19]; ret"},
        {X64: [(0, 4), (-4, 0), (-4, 4)], ARM64: [(-4, 0), (0, 4), (-4, 4)]},
    ),
    "narrow": (
        {X64: "movzx eax, word ptr [rbx + 2]; mov byte ptr [rbx + 5], al; ret",
         ARM64: "ldrh w0, [x19, #2]; strb w0, [x19, #5]; ldrsw x1, [x19, #8]; ret"},
        {X64: [(2, 2), (5, 1)], ARM64: [(2, 2), (5, 1), (8, 4)]},
    ),
    "two-at-once": (
        {X64: "movups xmm0, xmmword ptr [rbx + 16]; ret", ARM64: "ldp x0, x1, [x19, #16]; stp w0, w1, [x19]; ldr q0, [x19, #32]; ret"},
        {X64: [(16, 16)], ARM64: [(16, 16), (0, 8), (32, 16)]},
    ),
    "vectors": (
        {X64: "movdqa xmmword ptr [rbx], xmm0; ret", ARM64: "str q0, [x19]; ldr d0, [x19, #8]; ret"},
        {X64: [(0, 16)], ARM64: [(0, 16), (8, 8)]},
    ),
    "by-a-sum": (
        {X64: "lea rcx, [rbx + 16]; mov eax, dword ptr [rcx + 4]; ret", ARM64: "add x0, x19, #1, lsl #12; ldr w1, [x0, #4]; ret"},
        {X64: [(16, 0), (20, 4)], ARM64: [(4096, 0), (4100, 4)]},
    ),
    "over-a-call": (
        {X64: "mov rcx, rbx; call 0x3000; mov eax, dword ptr [rbx + 4]; mov edx, dword ptr [rcx + 8]; ret",
         ARM64: "mov x0, x19; bl 0x3000; ldr w2, [x19, #4]; ldr w3, [x0, #8]; ret"},
        {X64: [(4, 4)], ARM64: [(4, 4)]},
    ),
    "through-the-stack": (
        {X64: "mov qword ptr [rsp + 32], rbx; xor ebx, ebx; call 0x3000; mov rax, qword ptr [rsp + 32]; mov ecx, dword ptr [rax + 12]; ret",
         ARM64: "str x19, [sp, #16]; mov x19, #0; bl 0x3000; ldr x8, [sp, #16]; ldr w0, [x8, #12]; ret"},
        {X64: [(12, 4)], ARM64: [(12, 4)]},
    ),
    "what-another-is-taken-away-from": (
        {X64: "lea rcx, [rbx + 16]; lea rdx, [rbx + 32]; sub rax, rcx; cmp rsi, rdx; ret",
         ARM64: "add x0, x19, #16; add x1, x19, #32; sub x2, x2, x0; cmp x3, x1; ret"},
        {X64: [(16, 0)], ARM64: [(16, 0)]},
    ),
    "overwritten": (
        {X64: "mov rbx, qword ptr [rcx]; mov eax, dword ptr [rbx + 8]; ret", ARM64: "ldr x19, [x0]; ldr w0, [x19, #8]; ret"},
        {X64: [], ARM64: []},
    ),
    "on-one-of-two-ways": (
        {X64: "test ecx, ecx; je 0x100e; mov rbx, rdx; mov eax, dword ptr [rbx + 8]; ret",
         ARM64: "cbz w0, 0x100c; mov x19, x1; ldr w0, [x19, #8]; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "either-of-two": (
        {X64: "test ecx, ecx; cmove rbx, rdx; mov eax, dword ptr [rbx + 8]; ret",
         ARM64: "cmp w0, #0; csel x19, x19, x1, eq; ldr w0, [x19, #8]; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "a-walk-over-an-array": (
        {X64: "mov eax, dword ptr [rbx]; add rbx, 4; dec ecx; jne 0x1007; ret",
         ARM64: "ldr w1, [x19], #4; subs w0, w0, #1; b.ne 0x1004; ret"},
        {X64: [], ARM64: []},
    ),
    "an-end-that-is-compared": (
        {X64: "lea rcx, [rbx + 64]; cmp rdx, rcx; ret", ARM64: "add x0, x19, #64; cmp x1, x0; ret"},
        {X64: [], ARM64: []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", CASES)
def test_reached(case: str, machine: Machine) -> None:
    sources, expected = CASES[case]
    code = assemble(machine, TAKES[machine] + sources[machine], START)
    instructions = list(architecture(machine).disassemble(code, START))
    assert sum(instruction.size for instruction in instructions) == len(code)
    found = architecture(machine).reached(instructions, [START], {})
    assert [(item.distance, item.width) for item in found if item.at != START] == expected[machine]
    assert {item.anchor for item in found} <= {START}


BY_INDEX = {
    "added-to-the-address": (
        {X64: "mov eax, dword ptr [rbx + rcx*4 + 8]; ret", ARM64: "add x8, x19, x0, lsl #2; ldr w0, [x8, #8]; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "the-address-is-added": (
        {X64: "add rcx, rbx; mov eax, dword ptr [rcx + 8]; ret", ARM64: "add x19, x19, x0; ldr w1, [x19, #8]; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "as-the-second-of-two": (
        {X64: "mov word ptr [rcx + rbx + 6], ax; ret", ARM64: "add x0, x0, x19; ldrh w1, [x0, #6]; ret"},
        {X64: [(6, 2)], ARM64: [(6, 2)]},
    ),
    "on-top-of-a-distance": (
        {X64: "lea rcx, [rbx + rcx*8 + 16]; mov rax, qword ptr [rcx - 8]; ret",
         ARM64: "add x8, x19, #16; add x8, x8, w0, uxtw #3; ldur x1, [x8, #-8]; ret"},
        {X64: [(8, 8)], ARM64: [(8, 8)]},
    ),
    "by-a-product": (
        {X64: "imul rcx, rcx, 24; add rcx, rbx; mov rax, qword ptr [rcx + 48]; ret",
         ARM64: "mov w9, #24; umaddl x8, w0, w9, x19; ldr x0, [x8, #48]; ret"},
        {X64: [(48, 8)], ARM64: [(48, 8)]},
    ),
    "as-an-index-of-something-else": (
        {X64: "lea rax, [rcx + rbx*2]; mov eax, dword ptr [rax]; mov eax, dword ptr [rcx + rbx*4]; ret",
         ARM64: "add x8, x0, x19, lsl #1; ldr w0, [x8]; ret"},
        {X64: [], ARM64: []},
    ),
    "a-walk-by-unknown-steps": (
        {X64: "mov eax, dword ptr [rbx]; add rbx, rdx; dec ecx; jne 0x1007; ret",
         ARM64: "ldr w1, [x19]; add x19, x19, x2; subs w0, w0, #1; b.ne 0x1004; ret"},
        {X64: [], ARM64: []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", BY_INDEX)
def test_reached_by_an_index(case: str, machine: Machine) -> None:
    sources, expected = BY_INDEX[case]
    code = assemble(machine, TAKES[machine] + sources[machine], START)
    instructions = list(architecture(machine).disassemble(code, START))
    assert sum(instruction.size for instruction in instructions) == len(code)
    found = architecture(machine).reached(instructions, [START], {})
    assert [(item.distance, item.width) for item in found if item.indexed and item.width] == expected[machine]


FIRST = {
    "a-walk-over-an-array": (
        {X64: "add rbx, 16; mov dword ptr [rbx], eax; add rbx, 4; dec ecx; jne 0x100b; ret",
         ARM64: "add x19, x19, #16; str w1, [x19], #4; subs w0, w0, #1; b.ne 0x1008; ret"},
        {X64: [(16, 4)], ARM64: [(16, 4)]},
    ),
    "a-walk-in-a-walk": (
        {X64: "mov eax, dword ptr [rbx]; add rbx, 4; dec ecx; jne 0x1007; mov edx, dword ptr [rbx]; dec esi; jne 0x1007; ret",
         ARM64: "ldr w1, [x19], #4; subs w0, w0, #1; b.ne 0x1004; ldr w2, [x19]; subs w3, w3, #1; b.ne 0x1004; ret"},
        {X64: [(0, 4), (4, 4)], ARM64: [(0, 4), (4, 4)]},
    ),
    "a-loop-that-is-entered-at-its-end": (
        {X64: "jmp 0x100d; add rbx, 4; mov eax, dword ptr [rbx + 8]; dec ecx; jne 0x1009; ret",
         ARM64: "b 0x100c; add x19, x19, #4; ldr w1, [x19, #8]; subs w0, w0, #1; b.ne 0x1008; ret"},
        {X64: [(8, 4)], ARM64: [(8, 4)]},
    ),
    "two-ways-that-differ": (
        {X64: "test ecx, ecx; je 0x100f; add rbx, 4; mov eax, dword ptr [rbx]; ret",
         ARM64: "cbz w0, 0x100c; add x19, x19, #4; ldr w1, [x19]; ret"},
        {X64: [], ARM64: []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", FIRST)
def test_first_reached(case: str, machine: Machine) -> None:
    sources, expected = FIRST[case]
    code = assemble(machine, TAKES[machine] + sources[machine], START)
    instructions = list(architecture(machine).disassemble(code, START))
    found = architecture(machine).first_reached(instructions, [START], {})
    assert [(item.distance, item.width) for item in found if item.at != START and item.width] == expected[machine]


@pytest.mark.parametrize("machine", Machine)
def test_an_address_to_which_an_index_is_added_behind_what_is_named(machine: Machine) -> None:
    """Nothing accesses it here; it is told where something begins, not of the beginning of what is named."""
    source = {
        X64: "lea rax, [rbx + 8]; add rax, rcx; lea rdx, [rbx + rcx*4]; ret",
        ARM64: "add x8, x19, #8; add x8, x8, x0; add x9, x19, x1",
    }
    code = assemble(machine, TAKES[machine] + source[machine], START)
    found = architecture(machine).reached(list(architecture(machine).disassemble(code, START)), [START], {})
    assert [(item.distance, item.width, item.indexed) for item in found if item.at != START] == [(8, 0, False), (8, 0, True)]


WORDS = {
    "ld1 {v0.4s, v1.4s}, [x19]": (0x4C40AA60, [(0, 32)]),
    "st1 {v0.s}[1], [x19]": (0x0D009260, [(0, 4)]),
    "ldaddal w1, w0, [x19]": (0xB8E10260, [(0, 4)]),
    "ldaxr x0, [x19]": (0xC85FFE60, [(0, 8)]),
    "stlxr w1, x0, [x19]": (0xC801FE60, [(0, 8)]),
    "ldarb w0, [x19]": (0x08DFFE60, [(0, 1)]),
    "prfm pldl1keep, [x19, #8]": (0xF9800660, []),
    "ldr w0, [x19, x0, lsl #2]": (0xB8607A60, [(0, 4)]),
    "ldr w0, [x19, w0, sxtw #2]": (0xB860DA60, [(0, 4)]),
    "ldr w0, [x0, x19]": (0xB8736800, [(0, 4)]),
    "ldr w0, [x0, x19, lsl #2]": (0xB8737800, []),
    "str q0, [x19, x0, lsl #4]": (0x3CA07A60, [(0, 16)]),
    "prfm pldl1keep, [x19, x0, lsl #3]": (0xF8A07A60, []),
}


@pytest.mark.parametrize("text", WORDS)
def test_arm64_words(text: str) -> None:
    word, expected = WORDS[text]
    code = assemble(ARM64, TAKES[ARM64], START) + word.to_bytes(4, "little")
    instructions = list(architecture(ARM64).disassemble(code, START))
    assert f"{instructions[1].mnemonic} {instructions[1].operands}" == text
    found = architecture(ARM64).reached(instructions, [START], {})
    assert [(item.distance, item.width) for item in found if item.at != START] == expected


@pytest.mark.parametrize("machine", Machine)
def test_the_cases_of_a_table_are_followed(machine: Machine) -> None:
    jump, load = {X64: ("jmp rcx", "mov eax, dword ptr [rbx + 8]"), ARM64: ("br x0", "ldr w0, [x19, #8]")}[machine]
    code = assemble(machine, f"{TAKES[machine]}{jump}; ret; {load}; ret", START)
    instructions = list(architecture(machine).disassemble(code, START))
    case = instructions[3].address
    assert architecture(machine).reached(instructions, [START], {}) == ()
    found = architecture(machine).reached(instructions, [START], {instructions[1].address: [case]})
    assert [(item.at, item.anchor, item.distance, item.width) for item in found] == [(case, START, 8, 4)]


ARGUMENTS = {
    "in-front-of-it-in-turn": (
        {X64: "sub rcx, 4; mov eax, dword ptr [rcx]; dec edx; jne 0x1000; ret",
         ARM64: "ldr w8, [x0, #-4]!; subs w1, w1, #1; b.ne 0x1000; ret"},
        {X64: {"rcx": [(-4, 4)]}, ARM64: {"x0": [(-4, 4)]}},
    ),
    "two-of-them": (
        {X64: "mov rax, rdx; mov r9d, dword ptr [rax + 8]; mov word ptr [rcx], r9w; ret",
         ARM64: "mov x8, x1; ldr w9, [x8, #8]; strh w9, [x0]; ret"},
        {X64: {"rcx": [(0, 2)], "rdx": [(8, 4)]}, ARM64: {"x0": [(0, 2)], "x1": [(8, 4)]}},
    ),
    "by-an-index": (
        {X64: "mov eax, dword ptr [rcx + rdx*4]; ret", ARM64: "add x8, x0, x1, lsl #2; ldr w0, [x8]; ret"},
        {X64: {"rcx": [(0, 4)]}, ARM64: {"x0": [(0, 4)]}},
    ),
    "behind-a-call": (
        {X64: "mov rbx, rcx; call 0x3000; mov eax, dword ptr [rbx + 4]; mov eax, dword ptr [rcx]; ret",
         ARM64: "mov x19, x0; bl 0x3000; ldr w8, [x19, #4]; ldr w9, [x0]; ret"},
        {X64: {"rcx": [(4, 4)]}, ARM64: {"x0": [(4, 4)]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", ARGUMENTS)
def test_reached_from_arguments(case: str, machine: Machine) -> None:
    sources, expected = ARGUMENTS[case]
    instructions = list(architecture(machine).disassemble(assemble(machine, sources[machine], START), START))
    found = architecture(machine).reached_from_arguments(instructions, {})
    accessed = {place: [(item.distance, item.width) for item in items if item.width] for place, items in found.items()}
    assert {place: items for place, items in accessed.items() if items} == expected[machine]


# what is done with rdx on x64 and x2 on Arm64, and which functions get it as it was; None: something may read it
HANDED_ON = {
    "nothing": ("mov rax, rcx; ret", "mov x1, x0; ret", set()),
    "read": ("mov rax, rdx; ret", "mov x1, x2; ret", None),
    "read-as-half": ("mov eax, edx; ret", "mov w1, w2; ret", None),
    "compared": ("cmp rcx, rdx; ret", "cmp x0, x2; ret", None),
    "accessed": ("mov eax, dword ptr [rdx]; ret", "ldr w1, [x2]; ret", None),
    "set": ("mov edx, 5; mov rax, rdx; ret", "mov w2, #5; mov x1, x2; ret", set()),
    "set-to-zero": ("xor edx, edx; mov rax, rdx; ret", "eor x2, x2, x2; mov x1, x2; ret", set()),
    "set-by-itself": ("lea rdx, [rdx + 8]; ret", "add x2, x2, #8; ret", None),
    "set-in-part": ("mov dl, 5; mov rax, rdx; ret", "movk x2, #5; mov x1, x2; ret", None),
    "loaded": ("mov rdx, qword ptr [rcx]; mov rax, rdx; ret", "ldr x2, [x0]; mov x1, x2; ret", set()),
    "called-with": ("call 0x3000; ret", "bl 0x3000; ret", {0x3000}),
    "read-behind-a-call": ("call 0x3000; mov rax, rdx; ret", "bl 0x3000; mov x1, x2; ret", None),
    "called-with-another": ("mov edx, 1; call 0x3000; ret", "mov w2, #1; bl 0x3000; ret", set()),
    "jumped-with": ("jmp 0x3000", "b 0x3000", {0x3000}),
    "called-by-a-pointer": ("call rax; ret", "blr x8; ret", None),
    "read-on-one-way": ("test ecx, ecx; je 0x{end:x}; xor edx, edx; ret; mov rax, rdx; ret",
                        "cbz w0, 0x{end:x}; mov w2, #0; ret; mov x1, x2; ret", None),
    "branched-on": ("jrcxz 0x{start:x}; ret", "cbz x2, 0x{start:x}; ret", None),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", HANDED_ON)
def test_arguments_that_a_function_does_nothing_with(case: str, machine: Machine) -> None:
    *sources, expected = HANDED_ON[case]
    end = START + {X64: 7, ARM64: 12}[machine]
    code = assemble(machine, sources[machine is ARM64].format(end=end, start=START), START)
    place = "x2" if machine is ARM64 else "rcx" if case == "branched-on" else "rdx"
    found = architecture(machine).handed_on(list(architecture(machine).disassemble(code, START)), {}, place)
    assert found == (None if expected is None else frozenset(expected))


@pytest.mark.parametrize(
    ("code", "place"), [("f3a4c3", "rcx"), ("0f05c3", "r8"), ("f7f1c3", "rdx"), ("0fa2c3", "rcx"), ("f0490fc709c3", "rdx")]
)
def test_instructions_that_read_arguments_without_naming_them(code: str, place: str) -> None:
    instructions = list(architecture(X64).disassemble(bytes.fromhex(code), START))  # rep movsb, syscall, div, cpuid, cmpxchg16b
    assert architecture(X64).handed_on(instructions, {}, place) is None


def test_what_a_function_may_return_is_read_by_its_caller() -> None:
    instructions = list(architecture(ARM64).disassemble(assemble(ARM64, "ret", START), START))
    assert [architecture(ARM64).handed_on(instructions, {}, f"x{number}") for number in range(3)] == [None, None, frozenset()]


# what is done with the index by which the last instruction accesses memory on x64 and Arm64, whether it never rises above zero
COUNTED_DOWN = {
    "from-zero": ("xor r10d, r10d; add r10, -1; {access}", "mov x10, #0; sub x10, x10, #1; {access}", True),
    "of-an-argument": ("xor r8d, r8d; {access8}", "mov x2, xzr; {access8}", True),
    "up": ("xor r10d, r10d; add r10, 1; {access}", "mov x10, #0; add x10, x10, #1; {access}", False),
    "from-one": ("mov r10d, 1; {access}", "mov x10, #1; {access}", False),
    "given": ("add r8, -1; {access8}", "sub x2, x2, #1; {access8}", False),
    "copied": ("xor r10d, r10d; mov r10, rdx; {access}", "mov x10, #0; mov x10, x1; {access}", False),
    "loaded": ("xor r10d, r10d; mov r10, qword ptr [rdx]; {access}", "mov x10, #0; ldr x10, [x1]; {access}", False),
    "lost-by-a-call": ("xor r10d, r10d; call 0x3000; {access}", "mov x10, #0; bl 0x3000; {access}", False),
}  # fmt: skip


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", COUNTED_DOWN)
def test_an_index_that_never_rises(case: str, machine: Machine) -> None:
    *sources, falls = COUNTED_DOWN[case]
    form = {X64: "mov eax, dword ptr [rcx + {}*4 - 4]", ARM64: "ldr w0, [x0, {}]"}[machine]
    used = {"access": form.format({X64: "r10", ARM64: "x10"}[machine]), "access8": form.format({X64: "r8", ARM64: "x2"}[machine])}
    code = assemble(machine, sources[machine is ARM64].format(**used), START)
    instructions = list(architecture(machine).disassemble(code, START))
    assert architecture(machine).index_never_rises(instructions, {}, instructions[-1].address) == falls
    assert not architecture(machine).index_never_rises(instructions, {}, START)


OTHER = {X64: START + 7, ARM64: START + 4}
TAKES_ANOTHER = {X64: "lea rax, [rip + 0x1000]; ", ARM64: "add x0, x0, #0; "}
# what is done with the address in rbx or x19 on x64 and Arm64, whether that is only to compare the one in rax or x0 with it
COMPARED = {
    "compared": ("add rax, 8; cmp rax, rbx; jne 0x{loop:x}; ret", "add x0, x0, #8; cmp x0, x19; b.ne 0x{loop:x}; ret", True),
    "compared-on-the-left": ("cmp rbx, rax; ret", "cmp x19, x0; ret", True),
    "a-copy-is": ("mov rcx, rbx; cmp rax, rcx; ret", "mov x1, x19; cmp x0, x1; ret", True),
    "not-at-all": ("ret", "ret", False),
    "with-something-else": ("cmp rcx, rbx; ret", "cmp x1, x19; ret", False),
    "with-something-else-besides": ("cmp rax, rbx; cmp rcx, rbx; ret", "cmp x0, x19; cmp x1, x19; ret", False),
    "taken-away": ("sub rax, rbx; ret", "sub x0, x0, x19; ret", False),
    "read-besides": ("cmp rax, rbx; mov ecx, dword ptr [rbx]; ret", "cmp x0, x19; ldr w1, [x19]; ret", False),
    "read-before-it": ("cmp rax, rbx; mov ecx, dword ptr [rbx - 4]; ret", "cmp x0, x19; ldur w1, [x19, #-4]; ret", False),
    "added-to": ("cmp rax, rbx; lea rcx, [rbx + 8]; ret", "cmp x0, x19; add x1, x19, #8; ret", False),
    "indexed": ("cmp rax, rbx; mov ecx, dword ptr [rbx + rdx*4]; ret", "cmp x0, x19; ldr w1, [x19, x2]; ret", False),
    "stored": ("cmp rax, rbx; mov qword ptr [rdx], rbx; ret", "cmp x0, x19; str x19, [x2]; ret", False),
    "handed-on": ("cmp rax, rbx; mov rcx, rbx; call 0x3000; ret", "cmp x0, x19; mov x0, x19; bl 0x3000; ret", False),
    "handed-on-at-the-end": ("cmp rax, rbx; mov rcx, rbx; jmp 0x3000", "cmp x0, x19; mov x0, x19; b 0x3000", False),
    "handed-on-by-a-branch": ("cmp rax, rbx; mov rcx, rbx; jne 0x3000; ret", "cmp x0, x19; mov x0, x19; b.ne 0x3000; ret", False),
    "handed-on-by-running-on": ("cmp rax, rbx; mov rcx, rbx", "cmp x0, x19; mov x0, x19", False),
    "returned": ("cmp rax, rbx; mov rax, rbx; ret", "cmp x0, x19; mov x0, x19; ret", False),
}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("case", COMPARED)
def test_only_compared(case: str, machine: Machine) -> None:
    *texts, expected = COMPARED[case]
    given = TAKES[machine] + TAKES_ANOTHER[machine]
    code = assemble(machine, given + texts[machine is ARM64].format(loop=2 * OTHER[machine] - START), START)
    instructions = list(architecture(machine).disassemble(code, START))
    found = architecture(machine).only_compared(instructions, {START, OTHER[machine]}, {})
    assert found.get(START) == ({OTHER[machine]} if expected else None)
