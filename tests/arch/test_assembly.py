"""The checked assembler: what it takes, what it refuses, and Keystone as a second opinion on our own encodings."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.errors import InputError

VA = 0x140001000

GOOD = [
    (Machine.X64, "mov eax, 1", "b801000000"),
    (Machine.X64, "jmp 0x140001080", "eb7e"),
    (Machine.X64, "jmp 0x140009000", "e9fb7f0000"),
    (Machine.X64, "jz 0x140001002", "7400"),
    (Machine.X64, "cmp dword ptr [rip + 0x10], 0", "833d1000000000"),
    (Machine.X64, "lea rcx, [rbx + rsi*4 - 8]", "488d4cb3f8"),
    (Machine.X64, "mov rax, qword ptr [rsp]", "488b0424"),
    (Machine.X64, "push rbx; ret", "53c3"),
    (Machine.ARM64, "b 0x140002000", "00040014"),
    (Machine.ARM64, "cbz w0, 0x140001008", "40000034"),
    (Machine.ARM64, "stp x29, x30, [sp, #-0x10]!", "fd7bbfa9"),
    (Machine.ARM64, "ldr x0, [x1]", "200040f9"),
    (Machine.ARM64, "add x0, x1, x2, lsl #3", "200c028b"),
    (Machine.ARM64, "b.lo 0x140001000", "03000054"),
    (Machine.ARM64, "mov w0, #1\nret", "20008052c0035fd6"),
]

BAD = [
    (Machine.X64, "jmp 0x1ffffffff0000", "wraps without a word in Keystone"),
    (Machine.X64, "pop rip", "becomes pop rax in Keystone"),
    (Machine.X64, "nop dword ptr [rax]", "becomes a prefetch in Keystone"),
    (Machine.X64, "jrcxz 0x140008000", "becomes a jump to itself in Keystone"),
    (Machine.X64, "mov eax, label", "no symbols"),
    (Machine.X64, ".byte 1", "no directives"),
    (Machine.X64, "mov eax, [[rax]]", "malformed"),
    (Machine.X64, 'mov eax, "text"', "malformed"),
    (Machine.X64, "endbr64", "not known to Keystone"),
    (Machine.ARM64, "b 0x150002000", "wraps without a word in Keystone"),
    (Machine.ARM64, "tbz w0, #3, 0x140019000", "wraps without a word in Keystone"),
    (Machine.ARM64, "paciasp", "not known to Keystone"),
    (Machine.ARM64, "adr x0, #8", "wrong in Keystone"),
]


@pytest.mark.parametrize(("machine", "text", "code"), GOOD, ids=[f"{row[0]}: {row[1]}" for row in GOOD])
def test_assembles(machine: Machine, text: str, code: str) -> None:
    assert assemble(machine, text, VA).hex() == code


@pytest.mark.parametrize(("machine", "text", "why"), BAD, ids=[f"{row[0]}: {row[1]}" for row in BAD])
def test_refuses(machine: Machine, text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        assemble(machine, text, VA)
    assert text.split("\n")[0] in str(caught.value), why


@pytest.mark.parametrize("distance", [0x1000, 0x7FFF00, -0x4000])
def test_direct_redirects_are_what_keystone_assembles(distance: int) -> None:
    x64, arm64 = architecture(Machine.X64), architecture(Machine.ARM64)
    inline = x64.redirect_writes(Redirect.INLINE, VA, VA + distance)[-1]
    assert inline.new == assemble(Machine.X64, f"jmp {VA + distance:#x}", inline.va)
    padding, entry = x64.redirect_writes(Redirect.DIRECT, VA, VA + distance)
    assert padding.new == assemble(Machine.X64, f"jmp {VA + distance:#x}", padding.va)
    assert entry.new == assemble(Machine.X64, f"jmp {padding.va:#x}", entry.va)
    branch = arm64.redirect_writes(Redirect.DIRECT, VA, VA + distance)[-1]
    assert branch.new == assemble(Machine.ARM64, f"b {VA + distance:#x}", branch.va)
