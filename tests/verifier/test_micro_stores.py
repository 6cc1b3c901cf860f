"""Code that should be the same instruction by instruction stores to the same places, be memory as it was afterwards or not."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.verifier import MicroExecution, MicroOutcome
from tests.emulator.pe import DATA, TEXT, Pe

NOPS = {
    "mov byte ptr [rsp + 8], 7": b"\x0f\x1f\x44\0\0",
    "mov byte ptr [rip + 0x1ff7], 0": b"\x0f\x1f\x80\0\0\0\0",
    "mov qword ptr [rcx], rax": b"\x0f\x1f\0",
}
STORES = [
    (Machine.X64, "mov rax, qword ptr [rcx]", "mov byte ptr [rsp + 8], 7"),
    (Machine.X64, "mov eax, dword ptr [rcx]; nop; nop", "mov byte ptr [rip + 0x1ff7], 0"),
    (Machine.X64, "mov rax, qword ptr [rcx]", "mov qword ptr [rcx], rax"),
    (Machine.ARM64, "ldr x8, [x0]", "sturb w8, [sp, #-8]"),
    (Machine.ARM64, "adrp x8, 0x3000", "strb wzr, [x8, #8]"),
    (Machine.ARM64, "ldr x8, [x0]", "str x8, [x0]"),
]


@pytest.mark.parametrize("kept", ["both", "only-fixed", "only-base"])
@pytest.mark.parametrize(
    ("machine", "first", "store"), STORES, ids=[f"{machine}-{store.partition(',')[0]}" for machine, _, store in STORES]
)
def test_a_store_that_leaves_memory_as_it_was(machine: Machine, first: str, store: str, kept: str) -> None:
    """One to the frame that nobody reads, of zero where zero is, and of what was read at that place."""
    before, after = assemble(machine, first, TEXT), assemble(machine, "ret", TEXT)
    code = assemble(machine, store, TEXT + len(before))
    dropped = NOPS.get(store, b"\x1f\x20\x03\xd5")
    assert len(code) == len(dropped)
    images = []
    for side in ("base", "fixed"):
        pe = Pe(machine)
        pe.put(TEXT, before + (code if kept in ("both", f"only-{side}") else dropped) + after)
        pe.exports("stores.dll", [("walk", TEXT), ("one", DATA), ("behind", DATA + 0x10)])
        images.append(pe.build("stores.dll"))
    execution = MicroExecution(*images)
    (report,) = execution.unpatched([row._replace(verdict=hotpatch.Verdict.RELOCATED) for row in execution.diff.functions], seeds=8)
    assert (report.outcome is MicroOutcome.DIFFER) == (kept != "both"), report.text
    assert report.difference is None or report.difference.what.startswith(("store", "access"))
