"""Of which register an instruction stores the lower bytes alone."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble


@pytest.mark.parametrize(
    ("machine", "text", "registers"),
    [
        (Machine.X64, "mov byte ptr [rcx], sil", ("rsi",)),
        (Machine.X64, "mov word ptr [rcx + rax*2], r9w", ("r9",)),
        (Machine.X64, "mov dword ptr [rip + 8], eax", ("rax",)),
        (Machine.X64, "mov qword ptr [rcx], rsi", ()),
        (Machine.X64, "mov byte ptr [rcx], bh", ()),
        (Machine.X64, "mov byte ptr [rcx], 7", ()),
        (Machine.X64, "mov al, byte ptr [rcx]", ()),
        (Machine.X64, "add byte ptr [rcx], al", ()),
        (Machine.ARM64, "strb w9, [x8, #3]", ("x9",)),
        (Machine.ARM64, "sturh w9, [x8, #-1]", ("x9",)),
        (Machine.ARM64, "str w9, [x8, x7]", ("x9",)),
        (Machine.ARM64, "str x9, [x8]", ()),
        (Machine.ARM64, "strb wzr, [x8]", ()),
        (Machine.ARM64, "str s9, [x8]", ()),
        (Machine.ARM64, "ldrb w9, [x8]", ()),
        (Machine.ARM64, "stp w9, w10, [x8]", ("x9", "x10")),
        (Machine.ARM64, "stp wzr, w10, [x8]", ("x10",)),
        (Machine.ARM64, "stp x9, x10, [x8]", ()),
        (Machine.ARM64, "stlr w9, [x8]", ("x9",)),
    ],
)
def test_stored_in_part(machine: Machine, text: str, registers: tuple[str, ...]) -> None:
    arch = architecture(machine)
    (item,) = arch.disassemble(assemble(machine, text, 0), 0)
    assert arch.stored_in_part(item) == registers
