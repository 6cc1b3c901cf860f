"""What single words do, against Unicorn and Capstone."""

from __future__ import annotations

import random
import re
import struct

import capstone
import pytest
from capstone import arm64_const as cs

from hotpatch.arch import Flow, Machine, architecture
from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64

ARM64 = architecture(Machine.ARM64)
CAPSTONE_IS_WRONG = re.compile(
    r"adds|cmp|cmn|tst|ldraa|ldrab|st1|(st|ld|stz|add|sub)2?g|(cas|swp|ld(add|clr|eor|set|smax|smin|umax|umin))(a|al|l)?[bh]?"
    r"|irg|gmi|subps?|casp.*|cpy.*|set[pme].*|setg.*|bl|blr.*"
)
"""Instructions whose register lists Capstone 5 leaves empty or mixes up; those that compilers emit are pinned in WRITES."""


def test_written_registers_are_those_of_an_independent_decoder():
    """Random words that decode, against Capstone's lists of written registers."""
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    decoder.detail = True
    numbers = {decoder.reg_name(getattr(cs, f"ARM64_REG_{size}{n}")): n for size in "XW" for n in range(31)}
    rng = random.Random(3)
    compared = 0
    for _ in range(60000):
        word = rng.getrandbits(32)
        if word >> 25 & 0b1100 == 0:  # reserved, SVE
            continue
        for instruction in decoder.disasm(struct.pack("<I", word), 0):
            of_half = instruction.mnemonic.startswith("fcvt") and ", h" in instruction.op_str
            if of_half or CAPSTONE_IS_WRONG.fullmatch(instruction.mnemonic):
                continue
            _, written = instruction.regs_access()
            expected = {numbers[name] for register in written if (name := instruction.reg_name(register)) in numbers}
            known = {n for n in range(31) if a64.written_registers(word) >> n & 1}
            assert known == expected, f"{word:08x} {instruction.mnemonic} {instruction.op_str}"
            compared += 1
    assert compared > 10000


WRITES = {
    "stp x19, x20, [sp, #16]": (0xA90153F3, set()),
    "stp x29, x30, [x9, #-16]!": (0xA9BF793D, {9}),
    "ldp x19, x20, [x9], #16": (0xA8C15133, {9, 19, 20}),
    "ldp q0, q1, [x9]": (0xAD400520, set()),
    "ldr q0, [x9], #16": (0x3CC10520, {9}),
    "str x1, [x2, #8]": (0xF9000441, set()),
    "ldr x1, [x2, #8]": (0xF9400441, {1}),
    "prfm pldl1keep, [x2]": (0xF9800040, set()),
    "prfum pldl1keep, [x2]": (0xF8800040, set()),
    "prfm pldl1keep, [x2, x3]": (0xF8A36840, set()),
    "ldrsw x1, [x2, x3, lsl #2]": (0xB8A37841, {1}),
    "stlxr w2, x0, [x1]": (0xC802FC20, {2}),
    "stlr x0, [x1]": (0xC89FFC20, set()),
    "ldar x0, [x1]": (0xC8DFFC20, {0}),
    "ldxp x0, x3, [x1]": (0xC87F0C20, {0, 3}),
    "casal x2, x3, [x1]": (0xC8E2FC23, {2}),
    "caspal x2, x3, x4, x5, [x1]": (0x4862FC24, {2, 3}),
    "swpal x2, x3, [x1]": (0xF8E28023, {3}),
    "ccmp w0, #1, #0, eq": (0x7A410800, set()),
    "cmp x0, x1": (0xEB01001F, set()),
    "csel x0, x1, x2, eq": (0x9A820020, {0}),
    "fmov d0, x1": (0x9E670020, set()),
    "fmov x1, d0": (0x9E660001, {1}),
    "fcvtzs w1, s0": (0x1E380001, {1}),
    "scvtf d0, w1": (0x1E620020, set()),
    "umov w1, v0.b[0]": (0x0E013C01, {1}),
    "fadd d0, d1, d2": (0x1E622820, set()),
    "mrs x1, tpidr_el0": (0xD53BD041, {1}),
    "msr tpidr_el0, x1": (0xD51BD041, set()),
    "nop": (a64.NOP, set()),
    "bti c": (0xD503245F, set()),
    "pacibsp": (0xD503237F, {30}),
    "autibsp": (0xD50323FF, {30}),
    "ret": (0xD65F03C0, set()),
    "cbz x1, #0": (0xB4000001, set()),
    "bl": (0x94000001, {*range(18), 30}),
    "blr x8": (0xD63F0100, {*range(18), 30}),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str):
    word, expected = WRITES[name]
    assert {n for n in range(31) if a64.written_registers(word) >> n & 1} == expected


FLOWS = {
    "b #0x1010": (0x14000004, Flow.JUMP, 0x1010),
    "bl #0x1010": (0x94000004, Flow.CALL, 0x1010),
    "b.eq #0x1010": (0x54000080, Flow.BRANCH, 0x1010),
    "b.al #0x1010": (0x5400008E, Flow.JUMP, 0x1010),
    "b.nv #0x1010": (0x5400008F, Flow.JUMP, 0x1010),
    "bc.eq #0x1010": (0x54000090, Flow.BRANCH, 0x1010),
    "cbz w0, #0xff0": (0x34FFFF80, Flow.BRANCH, 0xFF0),
    "cbnz x0, #0x1010": (0xB5000080, Flow.BRANCH, 0x1010),
    "tbz w0, #3, #0x1010": (0x36180080, Flow.BRANCH, 0x1010),
    "tbnz x0, #0x23, #0x1010": (0xB7180080, Flow.BRANCH, 0x1010),
    "br x16": (0xD61F0200, Flow.JUMP_INDIRECT, None),
    "blr x8": (0xD63F0100, Flow.CALL_INDIRECT, None),
    "blraaz x8": (0xD63F091F, Flow.CALL_INDIRECT, None),
    "ret": (0xD65F03C0, Flow.RETURN, None),
    "retab": (0xD65F0FFF, Flow.RETURN, None),
    "brk #0xf000": (0xD43E0000, Flow.TRAP, None),
    "udf #0": (0x00000000, Flow.TRAP, None),
    "hlt #0": (0xD4400000, Flow.TRAP, None),
    "svc #0": (0xD4000001, Flow.NEXT, None),
    "adr x0, #0x1010": (0x10000080, Flow.NEXT, None),
    "ldr x0, #0x1010": (0x58000080, Flow.NEXT, None),
    "cmp w0, #3": (0x71000C1F, Flow.NEXT, None),
}


@pytest.mark.parametrize("text", FLOWS)
def test_flow(text: str):
    word, flow, target = FLOWS[text]
    (instruction,) = ARM64.disassemble(struct.pack("<I", word), 0x1000)
    assert f"{instruction.mnemonic} {instruction.operands}".strip() == text
    assert (instruction.address, instruction.size, instruction.flow, instruction.target) == (0x1000, 4, flow, target)


def test_disassembly_stops_at_the_first_undecodable_word():
    code = struct.pack("<3I", a64.NOP, 0xFFFFFFFF, a64.NOP)
    assert [one.address for one in ARM64.disassemble(code, 0x40)] == [0x40]


def test_every_pc_relative_word_is_one_for_capstone_too():
    """Random words of each form decode, and Capstone prints the target that the masks give."""
    rng = random.Random(1)
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    address = 0x140001000
    for form in a64.PC_RELATIVE:
        for _ in range(200):
            word = rng.choice(form.tops) << 24 | rng.getrandbits(24)
            rows = list(decoder.disasm_lite(struct.pack("<I", word), address))
            assert rows, f"{form.name} {word:08x}"
            target = fields.decode(form.kind, word, address) & 2**64 - 1
            assert rows[0][3].split("#")[-1] == (f"{target:#x}" if target > 9 else str(target)), f"{word:08x} {rows}"
            assert rows[0][2].startswith(form.name.split("-")[0].split(".")[0])


def test_padding_is_whole_instructions_longest_first():
    sizes = [len(padding) for padding in ARM64.padding_bytes]
    assert sizes == sorted(sizes, reverse=True)
    assert [next(iter(ARM64.disassemble(padding, 0))).mnemonic for padding in ARM64.padding_bytes] == ["udf", "nop", "brk"]
