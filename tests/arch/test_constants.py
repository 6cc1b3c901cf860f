"""Numbers that code loads: which calls get them, and whether anything else is done with them."""

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.arch.assembly import assemble

X64, ARM64 = Machine.X64, Machine.ARM64
START = 0x1000
CASES = {
    "an-argument": (
        {X64: "mov ecx, 1234; call 0x2000; ret", ARM64: "mov w0, #1234; bl 0x2000; ret"},
        {X64: (1234, {"rcx"}, True), ARM64: (1234, {"x0"}, True)},
    ),
    "through-another-register": (
        {X64: "mov ebx, 1234; call 0x2000; mov edx, ebx; call 0x3000; mov ebx, 7; ret",
         ARM64: "mov w19, #1234; bl 0x2000; mov w1, w19; bl 0x3000; mov w19, #7; ret"},
        {X64: (1234, {"rdx"}, True), ARM64: (1234, {"x1"}, True)},
    ),
    "through-the-stack": (
        {X64: "mov eax, 1234; mov dword ptr [rsp + 64], eax; xor eax, eax; call 0x2000; mov r8d, dword ptr [rsp + 64]; call 0x3000; ret",
         ARM64: "mov w8, #1234; str w8, [sp, #16]; mov w8, #0; bl 0x2000; ldr w2, [sp, #16]; bl 0x3000; mov x0, #0; ret"},
        {X64: (1234, {"r8", "sp+64"}, True), ARM64: (1234, {"x2"}, True)},
    ),
    "added": (
        {X64: "mov ecx, 1234; add ecx, edx; call 0x2000; ret", ARM64: "mov w0, #1234; add w0, w0, w1; bl 0x2000; ret"},
        {X64: (1234, set(), False), ARM64: (1234, set(), False)},
    ),
    "compared": (
        {X64: "mov ecx, 1234; cmp edx, ecx; call 0x2000; ret", ARM64: "mov w0, #1234; cmp w1, w0; bl 0x2000; ret"},
        {X64: (1234, set(), False), ARM64: (1234, set(), False)},
    ),
    "stored": (
        {X64: "mov ecx, 1234; mov dword ptr [rdx], ecx; call 0x2000; ret", ARM64: "mov w0, #1234; str w0, [x1]; bl 0x2000; ret"},
        {X64: (1234, set(), False), ARM64: (1234, set(), False)},
    ),
    "returned": (
        {X64: "mov eax, 1234; ret", ARM64: "mov w0, #1234; ret"},
        {X64: (1234, set(), False), ARM64: (1234, set(), False)},
    ),
    "a-tail-call": (
        {X64: "mov ecx, 1234; jmp 0x2000", ARM64: "mov w0, #1234; b 0x2000"},
        {X64: (1234, {"rcx"}, True), ARM64: (1234, {"x0"}, True)},
    ),
    "where-paths-part": (
        {X64: "mov edx, 1234; cmp ecx, 5; je 0x2000", ARM64: "mov w1, #1234; cmp w2, #5; b.eq 0x2000"},
        {X64: (1234, set(), False), ARM64: (1234, set(), False)},
    ),
}  # fmt: skip


def constants(machine, text):
    return architecture(machine).constants(assemble(machine, text, START), START)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_a_number(name, machine):
    texts, wanted = CASES[name]
    value, places, only = wanted[machine]
    first = constants(machine, texts[machine])[0]
    assert (first.value, first.only_passed) == (value, only)
    if only:
        assert {passed.place for passed in first.passed} == places


def test_x64_fifth_argument():
    (found,) = constants(X64, "mov dword ptr [rsp + 0x20], 1234; call 0x2000; add rsp, 0x28; ret")
    assert (found.value, {passed.place for passed in found.passed}, found.only_passed) == (1234, {"sp+32"}, True)


def test_x64_local_whose_address_is_taken():
    (found,) = constants(X64, "mov dword ptr [rsp + 0x20], 1234; lea rcx, [rsp + 0x20]; call 0x2000; ret")
    assert not found.only_passed


def test_arm64_two_halves():
    (found,) = constants(ARM64, "mov w0, #0xaee; movk w0, #1, lsl #16; bl 0x2000; ret")
    assert (found.value, found.size, found.only_passed) == (0x10AEE, 8, True)


def test_arm64_literal():
    code = bytes.fromhex("60000018") + assemble(ARM64, "bl 0x2000; ret", START + 4) + (70000).to_bytes(4, "little")
    found = architecture(ARM64).constants(code, START)[0]
    assert (found.value, found.is_literal, found.only_passed) == (START + 12, True, True)


@pytest.mark.parametrize("machine", Machine)
def test_only_those_asked_for_are_followed(machine):
    """It takes as long as the code behind each is: a function of thousands of numbers must not be gone through for every one."""
    texts = CASES["a-tail-call"][0]
    code = assemble(machine, texts[machine], START)
    asked, others = (architecture(machine).constants(code, START, followed=offsets) for offsets in ((0,), ()))
    assert asked == architecture(machine).constants(code, START)
    assert [(one.value, one.passed, one.only_passed) for one in others] == [(1234, frozenset(), False)]
