"""What is stored is compared, mapped: another value at the same place is a difference, also where it is overwritten before the end."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.verifier import MicroExecution, MicroOutcome
from hotpatch.verifier.micro_model import MicroReport
from tests.emulator.pe import DATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
ONE, TWO = (DATA + 0x120, DATA + 0x240), (DATA + 0x140, DATA + 0x270)
"""Where two data are in the base and in the fixed image."""
NUMBERS = {
    Machine.X64: {
        "argument": "mov dword ptr [rcx], {}; xor eax, eax; ret",
        "datum": "mov dword ptr [rip + 0x1ff6], {}; xor eax, eax; ret",
        "for-a-callee": "sub rsp, 0x28; mov dword ptr [rip + 0x1ff2], {}; call 0x1100; mov dword ptr [rip + 0x1fe3], 0; add rsp, 0x28; ret",
        "for-another-thread": "mov dword ptr [rip + 0x1ff6], {}; mov dword ptr [rip + 0x1fec], 0; xor eax, eax; ret",
        "frame-of-a-callee": "sub rsp, 0x98; lea rcx, [rsp + 0x20]; mov dword ptr [rsp + 0x80], {}; call 0x1100; add rsp, 0x98; ret",
    },
    Machine.ARM64: {
        "argument": "mov w8, #{}; str w8, [x0]; mov x0, #0; ret",
        "datum": "mov w8, #{}; adrp x9, 0x3000; str w8, [x9]; mov x0, #0; ret",
        "for-a-callee": "stp x29, x30, [sp, #-16]!; mov w8, #{}; adrp x9, 0x3000; str w8, [x9]; bl 0x1100; adrp x9, 0x3000; str wzr, [x9];"
        " ldp x29, x30, [sp], #16; ret",
        "for-another-thread": "mov w8, #{}; adrp x9, 0x3000; str w8, [x9]; str wzr, [x9]; mov x0, #0; ret",
        "frame-of-a-callee": "sub sp, sp, #0x90; str x30, [sp, #0x80]; add x0, sp, #16; mov w8, #{}; str w8, [sp, #0x60]; bl 0x1100;"
        " ldr x30, [sp, #0x80]; add sp, sp, #0x90; ret",
    },
}
ADDRESSES = {
    Machine.X64: {
        "argument": "lea rax, [rip + {}]; mov qword ptr [rcx], rax; xor eax, eax; ret",
        "datum": "lea rax, [rip + {}]; mov qword ptr [rip + 0x1ff2], rax; xor eax, eax; ret",
        "for-another-thread": "lea rax, [rip + {}]; mov qword ptr [rip + 0x1ff2], rax; mov qword ptr [rip + 0x1fe7], 0; xor eax, eax; ret",
    },
    Machine.ARM64: {
        "argument": "adrp x8, 0x3000; add x8, x8, #{}; str x8, [x0]; mov x0, #0; ret",
        "datum": "adrp x9, 0x3000; add x8, x9, #{}; str x8, [x9]; mov x0, #0; ret",
        "for-another-thread": "adrp x9, 0x3000; add x8, x9, #{}; str x8, [x9]; str xzr, [x9]; mov x0, #0; ret",
    },
}


def _report(machine: Machine, codes: tuple[str, str]) -> MicroReport:
    images = []
    for at, code in enumerate(codes):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, code, TEXT))
        pe.put(TEXT + 0x100, assemble(machine, "ret", TEXT + 0x100))
        data = [("datum", DATA), ("gap", DATA + 0x10), ("one", ONE[at]), ("two", TWO[at]), ("behind", DATA + 0x300)]
        pe.exports("values.dll", [("walk", TEXT), ("callee", TEXT + 0x100), *data])
        images.append(pe.build("values.dll"))
    execution = MicroExecution(*images)
    rows = [row._replace(verdict=hotpatch.Verdict.RELOCATED) for row in execution.diff.functions if row.name == "walk"]
    (report,) = execution.unpatched(rows, seeds=8)
    return report


@pytest.mark.parametrize(("machine", "way"), [(machine, way) for machine in Machine for way in NUMBERS[machine]])
@pytest.mark.parametrize("other", [7, 9])
def test_a_number_that_is_stored(machine: Machine, way: str, other: int) -> None:
    report = _report(machine, (NUMBERS[machine][way].format(7), NUMBERS[machine][way].format(other)))
    assert report.outcome is (MicroOutcome.AGREE if other == 7 else MicroOutcome.DIFFER), report.text


@pytest.mark.parametrize(("machine", "way"), [(machine, way) for machine in Machine for way in ADDRESSES[machine]])
@pytest.mark.parametrize("other", [ONE[1], TWO[1]])
def test_an_address_that_is_stored(machine: Machine, way: str, other: int) -> None:
    away = [place - (TEXT + 7 if machine is Machine.X64 else DATA) for place in (ONE[0], other)]
    report = _report(machine, (ADDRESSES[machine][way].format(away[0]), ADDRESSES[machine][way].format(away[1])))
    assert report.outcome is (MicroOutcome.AGREE if other == ONE[1] else MicroOutcome.DIFFER), report.text
