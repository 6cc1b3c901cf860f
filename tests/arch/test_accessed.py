"""What code does with an address that it makes besides reading and writing memory at constant distances from it."""

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.accessed import Handed
from hotpatch.arch.assembly import assemble

X64, ARM64 = Machine.X64, Machine.ARM64
START = 0x1000
TAKES = {X64: "lea rbx, [rip + 0x100]; ", ARM64: "add x21, x9, #0x100; "}
NOTHING_ELSE = {
    "accessed over calls": {
        X64: "mov eax, dword ptr [rbx]; call qword ptr [rip + 0x40]; mov rax, qword ptr [rbx + 24]; pop rbx; ret",
        ARM64: "ldr w0, [x21]; blr x8; ldr x0, [x21, #24]; ldp x20, x21, [sp]; ret",
    },
    "overwritten by what is read there": {X64: "mov rbx, qword ptr [rbx]; push rbx; ret", ARM64: "ldr x21, [x21]; str x21, [x0]; ret"},
    "copied, and a number added": {
        X64: "lea r9, [rbx + 8]; mov eax, dword ptr [r9]; mov ebx, 0; ret",
        ARM64: "add x9, x21, #8; ldr w0, [x9]; mov w21, #0; ret",
    },
    "one of two": {
        X64: "cmove rbx, rdx; mov eax, dword ptr [rbx]; mov ebx, 0; ret",
        ARM64: "csel x21, x21, x2, eq; ldr w0, [x21]; mov w21, #0; ret",
    },
    "in a loop": {
        X64: "mov eax, dword ptr [rbx]; sub ecx, 1; jne 0x1007; pop rbx; ret",
        ARM64: "ldr w0, [x21]; sub w1, w1, #1; cbnz w1, 0x1004; mov x21, #0; ret",
    },
}
SOMETHING_ELSE = {
    "read at an index": {X64: "mov eax, dword ptr [rbx + rcx]; mov ebx, 0; ret", ARM64: "ldr w0, [x21, x1]; mov w21, #0; ret"},
    "the index of something": {X64: "mov eax, dword ptr [rcx + rbx]; mov ebx, 0; ret", ARM64: "ldr w0, [x1, x21]; mov w21, #0; ret"},
    "compared": {X64: "cmp rbx, rcx; mov ebx, 0; ret", ARM64: "cmp x21, x1; mov w21, #0; ret"},
    "compared with nothing": {X64: "test rbx, rbx; mov ebx, 0; ret", ARM64: "cbz x21, 0x1008; mov w21, #0; ret"},
    "taken away": {X64: "sub rcx, rbx; mov ebx, 0; ret", ARM64: "sub x1, x1, x21; mov w21, #0; ret"},
    "a part of it": {X64: "mov ecx, ebx; mov ebx, 0; ret", ARM64: "mov w1, w21; mov w21, #0; ret"},
    "stored": {X64: "mov qword ptr [rcx], rbx; mov ebx, 0; ret", ARM64: "stp x1, x21, [x2]; mov w21, #0; ret"},
    "stored where it points": {X64: "mov qword ptr [rbx], rbx; mov ebx, 0; ret", ARM64: "str x21, [x21]; mov w21, #0; ret"},
    "kept on the stack": {X64: "push rbx; mov ebx, 0; ret", ARM64: "str x21, [sp, #16]; mov w21, #0; ret"},
    "handed to a pointer": {X64: "mov rcx, rbx; mov ebx, 0; call rax; ret", ARM64: "mov x0, x21; mov w21, #0; blr x9; ret"},
    "where a result is wanted": {X64: "mov rcx, rbx; call rax; ret", ARM64: "mov x8, x21; mov w21, #0; blr x9; ret"},
    "returned": {X64: "mov rax, rbx; mov ebx, 0; ret", ARM64: "mov x0, x21; mov w21, #0; ret"},
    "returned as the second of two values": {
        X64: "mov rdx, rbx; mov ebx, 0; ret",
        ARM64: "mov x1, x21; mov w21, #0; ret",
    },
    "still kept at the return": {X64: "mov eax, dword ptr [rbx]; ret", ARM64: "ldr w0, [x21]; ret"},
    "counted on from in a loop": {
        X64: "mov eax, dword ptr [rbx]; add rbx, 4; sub ecx, 1; jne 0x1007; mov ebx, 0; ret",
        ARM64: "ldr w0, [x21]; add x21, x21, #4; sub w1, w1, #1; cbnz w1, 0x1004; mov w21, #0; ret",
    },
    "called": {X64: "call rbx; mov ebx, 0; ret", ARM64: "blr x21; mov w21, #0; ret"},
    "jumped away with, nobody knows where": {X64: "jmp rax", ARM64: "br x9"},
    "run on with": {X64: "mov eax, dword ptr [rbx]", ARM64: "ldr w0, [x21]"},
    "on one way alone": {
        X64: "test ecx, ecx; je 0x1010; mov ebx, 0; ret; cmp rbx, rdx; mov ebx, 0; ret",
        ARM64: "cbz w1, 0x1010; mov w21, #0; ret; cmp x21, x2; mov w21, #0; ret",
    },
}


def only_accessed(machine: Machine, rest: str) -> frozenset[Handed] | None:
    arch = architecture(machine)
    instructions = list(arch.disassemble(assemble(machine, TAKES[machine] + rest, START), START))
    return arch.only_accessed(instructions, {}, START)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("does", NOTHING_ELSE)
def test_only_accessed(machine: Machine, does: str) -> None:
    assert only_accessed(machine, NOTHING_ELSE[does][machine]) == frozenset()


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("does", SOMETHING_ELSE)
def test_something_else_may_be_done(machine: Machine, does: str) -> None:
    assert only_accessed(machine, SOMETHING_ELSE[does][machine]) is None


@pytest.mark.parametrize(
    ("machine", "text", "place"),
    [(X64, "mov rcx, rbx; pop rbx; call 0x2000; ret", "rcx"), (ARM64, "mov x3, x21; mov w21, #0; bl 0x2000; ret", "x3")],
)
def test_who_may_get_it_is_told(machine: Machine, text: str, place: str) -> None:
    assert only_accessed(machine, text) == frozenset((Handed(0x2000, place),))


@pytest.mark.parametrize("text", ["rep movsb", "mul rcx", "cmpxchg qword ptr [rcx], rdx", "xlatb", "cpuid", "leave"])
def test_instructions_that_use_more_than_they_name(text: str) -> None:
    arch = architecture(X64)
    code = (
        assemble(X64, TAKES[X64], START)
        + {
            "rep movsb": b"\xf3\xa4",
            "mul rcx": b"\x48\xf7\xe1",
            "cmpxchg qword ptr [rcx], rdx": b"\x48\x0f\xb1\x11",
            "xlatb": b"\xd7",
            "cpuid": b"\x0f\xa2",
            "leave": b"\xc9",
        }[text]
        + assemble(X64, "mov ebx, 0; ret", 0)
    )
    assert arch.only_accessed(list(arch.disassemble(code, START)), {}, START) is None
