"""Parts of addresses are not the same bytes in two images; they are read or stored where a callee is not run that makes them good."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.verifier import MicroExecution, MicroOutcome
from hotpatch.verifier.micro_model import MicroReport
from tests.emulator.pe import DATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
ONE, TWO = (DATA + 0x120, DATA + 0x240), (DATA + 0x140, DATA + 0x270)
"""Where two data are in the base and in the fixed image: neither of the lowest bytes is the same."""
ENTER = {
    Machine.X64: "sub rsp, 0x48; lea rbx, [rip + {distance}]; mov qword ptr [rsp + 0x30], rbx; lea rcx, [rsp + 0x30]; call {callee}; ",
    Machine.ARM64: "sub sp, sp, #0x40; str x30, [sp, #0x38]; adrp x19, 0x3000; add x19, x19, #{low}; str x19, [sp, #0x30];"
    " add x0, sp, #0x30; bl {callee}; ",
}
"""Stores an address in its frame, and hands it to a callee, which may store something else there."""
LEAVE = {
    Machine.X64: "; add eax, {added}; add rsp, 0x48; ret",
    Machine.ARM64: "; add w0, w0, #{added}; ldr x30, [sp, #0x38]; add sp, sp, #0x40; ret",
}
READS = {
    Machine.X64: {
        "first-byte": "movzx eax, byte ptr [rsp + 0x30]",
        "second-byte": "movzx eax, byte ptr [rsp + 0x31]",
        "two-bytes": "movzx eax, word ptr [rsp + 0x30]",
        "across": "mov rax, qword ptr [rsp + 0x29]; shr rax, 56",
        "compared": "xor eax, eax; cmp byte ptr [rsp + 0x31], 0x31; sete al",
        "cut": "mov dword ptr [rsp + 0x31], 0; mov rax, qword ptr [rsp + 0x30]",
        "copied": "mov rax, qword ptr [rsp + 0x30]; mov qword ptr [rsp + 0x20], rax; movzx eax, byte ptr [rsp + 0x21]",
    },
    Machine.ARM64: {
        "first-byte": "ldrb w0, [sp, #0x30]",
        "second-byte": "ldrb w0, [sp, #0x31]",
        "two-bytes": "ldrh w0, [sp, #0x30]",
        "across": "ldur x0, [sp, #0x29]; lsr x0, x0, #56",
        "compared": "ldrb w0, [sp, #0x31]; cmp w0, #0x31; cset w0, eq",
        "cut": "stur wzr, [sp, #0x31]; ldr x0, [sp, #0x30]",
        "copied": "ldr x0, [sp, #0x30]; str x0, [sp, #0x20]; ldrb w0, [sp, #0x21]",
    },
}
STORES = {
    Machine.X64: {
        "byte": "mov byte ptr [rsp + 0x38], bl; movzx eax, byte ptr [rsp + 0x38]",
        "word": "mov word ptr [rsp + 0x38], bx; movzx eax, word ptr [rsp + 0x38]",
    },
    Machine.ARM64: {
        "byte": "strb w19, [sp, #0x28]; ldrb w0, [sp, #0x28]",
        "word": "strh w19, [sp, #0x28]; ldrh w0, [sp, #0x28]",
        "pair": "mov w20, #1; stp w20, w19, [sp, #0x28]; ldr w0, [sp, #0x2c]",
    },
}
WAYS = [(machine, what) for machine in Machine for what in (*READS[machine], *STORES[machine])]
each_way = pytest.mark.parametrize(("machine", "way"), WAYS)


def _report(machine: Machine, codes: tuple[str, str], places: tuple[int, int] = ONE, added: tuple[int, int] = (1, 1)) -> MicroReport:
    """Of a function said to be only relocated, with a datum at one of ``places`` each, which does something of ``codes`` after a call."""
    images = []
    for at, (code, place) in enumerate(zip(codes, places, strict=True)):
        pe = Pe(machine)
        callee = TEXT + 0x100
        text = ENTER[machine] + code + LEAVE[machine]
        pe.put(TEXT, assemble(machine, text.format(distance=place - TEXT - 11, low=place - DATA, callee=callee, added=added[at]), TEXT))
        pe.put(callee, assemble(machine, "nop", callee) + architecture(machine).trap)
        pe.exports("parts.dll", [("walk", TEXT), ("callee", callee), ("one", ONE[at]), ("two", TWO[at]), ("behind", DATA + 0x300)])
        images.append(pe.build("parts.dll"))
    execution = MicroExecution(*images)
    rows = [row._replace(verdict=hotpatch.Verdict.RELOCATED) for row in execution.diff.functions if row.name == "walk"]
    (report,) = execution.unpatched(rows, seeds=8)
    return report


def _code(machine: Machine, way: str) -> str:
    return (READS[machine] | STORES[machine])[way]


@each_way
def test_a_part_of_the_same_address_is_no_difference(machine: Machine, way: str) -> None:
    report = _report(machine, (_code(machine, way),) * 2)
    assert (report.outcome, report.agreed) == (MicroOutcome.AGREE, 8), report.text


@each_way
def test_a_part_of_another_address_is_a_difference(machine: Machine, way: str) -> None:
    report = _report(machine, (_code(machine, way),) * 2, (ONE[0], TWO[1]))
    assert report.outcome is MicroOutcome.DIFFER, report.text


@each_way
def test_what_else_differs_is_found_where_parts_are_read(machine: Machine, way: str) -> None:
    report = _report(machine, (_code(machine, way),) * 2, added=(1, 5))
    assert report.outcome is MicroOutcome.DIFFER, report.text
    assert report.difference is not None
    assert report.difference.what == "result"


@each_machine
@pytest.mark.parametrize(("one", "other"), [("first-byte", "second-byte"), ("second-byte", "byte")])
def test_another_part_is_a_difference(machine: Machine, one: str, other: str) -> None:
    report = _report(machine, (_code(machine, one), _code(machine, other)))
    assert report.outcome is MicroOutcome.DIFFER, report.text


RARELY = {
    Machine.X64: "movzx ecx, byte ptr [rsp + 0x31]; cmp cl, 0x33; mov eax, 7; mov edx, {}; cmove eax, edx",
    Machine.ARM64: "ldrb w1, [sp, #0x31]; mov w0, #7; mov w2, #{}; cmp w1, #0x33; csel w0, w2, w0, eq",
}
"""Does something where a byte of the address is what made-up bytes seldom are."""


@each_machine
def test_what_differs_comes_of_no_part_that_is_the_same(machine: Machine) -> None:
    one, other = (RARELY[machine].format(number) for number in (1, 5))
    report = _report(machine, (one, other), (DATA + 0x300, DATA + 0x300))
    assert report.outcome is MicroOutcome.DIFFER, report.text
