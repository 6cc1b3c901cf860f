"""What code does with what it accesses: with the value that it reads, and how it makes the one that it writes."""

import pytest

from hotpatch.arch import Deed, Machine, architecture
from hotpatch.arch.assembly import assemble

X64, ARM64 = Machine.X64, Machine.ARM64
START, CALLEE = 0x1000, 0x1800
each_machine = pytest.mark.parametrize("machine", Machine)
READS = {X64: "mov rax, qword ptr [rbx]; ", ARM64: "ldr x0, [x21]; "}
DONE = {
    "returned": ({X64: "ret", ARM64: "ret"}, {("return", None)}),
    "handed on": ({X64: "mov rcx, rax; call 0x1800; ret", ARM64: "bl 0x1800; ret"}, {("call", CALLEE)}),
    "overwritten": ({X64: "mov eax, 0; ret", ARM64: "mov w0, #0; ret"}, set()),
    "added to": ({X64: "add rax, rcx; ret", ARM64: "add x0, x0, x1; ret"}, {("add", None)}),
    "lost in a call": ({X64: "call 0x1800; ret", ARM64: "mov x9, x0; mov x0, #1; bl 0x1800; add x1, x9, x9; ret"}, set()),
    "used on one of two ways": ({X64: "je 0x1000; add rax, rcx; ret", ARM64: "b.eq 0x1000; add x0, x0, x1; ret"}, set()),
}
WRITES = {X64: "; mov qword ptr [rbx], rax", ARM64: "; str x0, [x21]"}
MADE = {
    "by a call": ({X64: "call 0x1800", ARM64: "bl 0x1800"}, {("call", CALLEE)}),
    "by a call, and copied": (
        {X64: "call 0x1800; mov rdx, rax; mov rax, rdx", ARM64: "bl 0x1800; mov x9, x0; mov x0, x9"},
        {("call", CALLEE)},
    ),
    "of a number": ({X64: "mov eax, 7", ARM64: "mov w0, #7"}, {("mov", None)}),
    "of a sum": (
        {X64: "mov rax, rdx; sub rax, rcx; add rax, rsi", ARM64: "sub x9, x2, x1; add x0, x9, x3"},
        {("add", None), ("sub", None)},
    ),
    "elsewhere": ({X64: "mov ecx, 5", ARM64: "mov w1, #5"}, set()),
    "before another way came in": ({X64: "mov eax, 7; nop; je 0x1008", ARM64: "mov w0, #7; b.eq 0x1008"}, set()),
}


def deeds_of(machine: Machine, text: str, number: int):
    arch = architecture(machine)
    instructions = list(arch.disassemble(assemble(machine, text, START), START))
    return arch.deeds(instructions, {}).accessing(instructions[number].address)


@each_machine
@pytest.mark.parametrize("what", DONE)
def test_what_is_done_with_a_value_that_is_read(machine: Machine, what: str) -> None:
    texts, expected = DONE[what]
    (deeds,) = deeds_of(machine, READS[machine] + texts[machine], 0)
    assert {deed[1:] for deed in deeds if deed.part == "to"} == expected


@each_machine
@pytest.mark.parametrize("how", MADE)
def test_how_a_value_is_made_that_is_written(machine: Machine, how: str) -> None:
    texts, expected = MADE[how]
    (deeds,) = deeds_of(machine, texts[machine] + WRITES[machine], -1)
    assert {deed[1:] for deed in deeds if deed.part == "from"} == expected


@each_machine
def test_instructions_are_alike_whatever_their_registers(machine: Machine) -> None:
    one, other = {
        X64: ("lea rax, [rcx + rcx*8]; mov qword ptr [rbx], rax", "lea rdx, [rsi + rsi*8]; mov qword ptr [rdi + 24], rdx"),
        ARM64: ("add x0, x1, x1, lsl #3; str x0, [x21]", "add x9, x3, x3, lsl #3; str x9, [x20, #24]"),
    }[machine]
    assert deeds_of(machine, one, -1) == deeds_of(machine, other, -1)
    assert deeds_of(machine, one, -1) != deeds_of(machine, one.replace("*8", "*2").replace("#3", "#2"), -1)


@each_machine
def test_a_number_that_is_written_tells(machine: Machine) -> None:
    text = {X64: "mov dword ptr [rbx], {}", ARM64: "mov w0, #{}; str w0, [x21]"}[machine]
    five, seven = (deeds_of(machine, text.format(number), -1) for number in (5, 7))
    assert five != seven


def test_each_register_of_a_pair_counts_for_its_part() -> None:
    first, second = deeds_of(ARM64, "ldp w8, w9, [x21]; add w8, w8, #1; eor w9, w9, w0", 0)
    assert {deed[1] for deed in first if deed.part == "to"} == {"add"}
    assert {deed[1] for deed in second if deed.part == "to"} == {"eor"}
    first, second = deeds_of(ARM64, "add w8, w1, #1; eor w9, w2, w0; stp w8, w9, [x21]", -1)
    assert {deed[1] for deed in first if deed.part == "from"} == {"add"}
    assert {deed[1] for deed in second if deed.part == "from"} == {"eor"}


@each_machine
def test_who_gets_an_address_that_is_made(machine: Machine) -> None:
    arch = architecture(machine)
    text = {X64: "lea rcx, [rip + 0x100]; call 0x1800; ret", ARM64: "add x0, x9, #0x100; bl 0x1800; ret"}[machine]
    instructions = list(arch.disassemble(assemble(machine, text, START), START))
    deeds = arch.deeds(instructions, {})
    assert Deed("to", "call", CALLEE) in deeds.making(START)
    assert not deeds.making(instructions[-1].address)
    assert not deeds.making(START + 1)
