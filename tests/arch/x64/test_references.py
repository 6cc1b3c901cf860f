"""What x64 instructions refer to."""

from __future__ import annotations

import pytest

from hotpatch.arch import FixupKind, Flow, Machine, Reference, Use, architecture

X64 = architecture(Machine.X64)
AT = 0x1000

REL32, REL8, RVA = FixupKind.REL32, FixupKind.REL8, FixupKind.ADDR32NB

# name, code, offset of the field, kind, use, target, addend: one instruction each
# fmt: off
ONE = (
    ("call-rel32", "e8fb0f0000", 1, REL32, Use.CALL, 0x2000, 0),
    ("call-rel32-backwards", "e8fbefffff", 1, REL32, Use.CALL, 0x0, 0),
    ("jmp-rel32", "e9fb0f0000", 1, REL32, Use.JUMP, 0x2000, 0),
    ("jmp-rel32-bnd", "f2e9fa0f0000", 2, REL32, Use.JUMP, 0x2000, 0),
    ("jmp-rel32-rex", "48e9fa0f0000", 2, REL32, Use.JUMP, 0x2000, 0),
    ("jmp-rel8", "eb10", 1, REL8, Use.JUMP, 0x1012, 0),
    ("je-rel32", "0f84fa0f0000", 2, REL32, Use.BRANCH, 0x2000, 0),
    ("jne-rel8-backwards", "75fe", 1, REL8, Use.BRANCH, 0x1000, 0),
    ("jne-rel8-hinted", "3e75fd", 2, REL8, Use.BRANCH, 0x1000, 0),
    ("jrcxz", "e310", 1, REL8, Use.BRANCH, 0x1012, 0),
    ("jecxz", "67e30f", 2, REL8, Use.BRANCH, 0x1012, 0),
    ("loop", "e2fe", 1, REL8, Use.BRANCH, 0x1000, 0),
    ("loope", "e1fe", 1, REL8, Use.BRANCH, 0x1000, 0),
    ("loopne", "e0fe", 1, REL8, Use.BRANCH, 0x1000, 0),
    ("xbegin", "c7f8fa0f0000", 2, REL32, Use.BRANCH, 0x2000, 0),
    ("load", "488b05f90f0000", 3, REL32, Use.DATA, 0x2000, 0),
    ("load-32", "8b05fa0f0000", 2, REL32, Use.DATA, 0x2000, 0),
    ("lea", "488d0df90f0000", 3, REL32, Use.DATA, 0x2000, 0),
    ("store-imm8", "c605f90f00007f", 2, REL32, Use.DATA, 0x2000, -1),
    ("store-imm16", "66c705f70f00003412", 3, REL32, Use.DATA, 0x2000, -2),
    ("store-imm32", "c705f60f000078563412", 2, REL32, Use.DATA, 0x2000, -4),
    ("store-imm32-to-64", "48c705f50f000078563412", 3, REL32, Use.DATA, 0x2000, -4),
    ("store-imm-equal-to-displacement", "c705f60f0000f60f0000", 2, REL32, Use.DATA, 0x2000, -4),
    ("compare-imm8", "833df90f000005", 2, REL32, Use.DATA, 0x2000, -1),
    ("compare-header-word", "66813df7efffff4d5a", 3, REL32, Use.DATA, 0x0, -2),
    ("shift-imm8", "c125f90f000003", 2, REL32, Use.DATA, 0x2000, -1),
    ("imul-imm32", "6905f60f000064000000", 2, REL32, Use.DATA, 0x2000, -4),
    ("lock-xadd", "f0480fc105f70f0000", 5, REL32, Use.DATA, 0x2000, 0),
    ("movzx", "0fb605f90f0000", 3, REL32, Use.DATA, 0x2000, 0),
    ("sse-load", "0f1005f90f0000", 3, REL32, Use.DATA, 0x2000, 0),
    ("sse-shuffle-imm8", "660f7005f70f00001b", 4, REL32, Use.DATA, 0x2000, -1),
    ("sse-map3-imm8", "660f3a0f05f60f000003", 5, REL32, Use.DATA, 0x2000, -1),
    ("sse-map2", "660f380005f70f0000", 5, REL32, Use.DATA, 0x2000, 0),
    ("vex2", "c5f81005f80f0000", 4, REL32, Use.DATA, 0x2000, 0),
    ("vex3", "c4e17a6f05f70f0000", 5, REL32, Use.DATA, 0x2000, 0),
    ("vex3-imm8", "c4e37d1805f60f000001", 5, REL32, Use.DATA, 0x2000, -1),
    ("evex", "62f17c481005f60f0000", 6, REL32, Use.DATA, 0x2000, 0),
    ("call-through-import", "ff15fa0f0000", 2, REL32, Use.DATA, 0x2000, 0),
    ("jump-through-import", "48ff25f90f0000", 3, REL32, Use.DATA, 0x2000, 0),
)
# fmt: on


@pytest.mark.parametrize(("name", "code", "field", "kind", "use", "target", "addend"), ONE, ids=[row[0] for row in ONE])
def test_one_instruction(name, code, field, kind, use, target, addend):
    instruction = bytes.fromhex(code)
    expected = Reference(0, len(instruction), field, kind, use, target, addend)
    assert X64.references(instruction, AT) == (expected,)
    size = X64.field_size(kind)
    encoded = instruction[field : field + size]
    assert X64.resolve(kind, encoded, AT + field) == target + addend
    assert X64.bind(kind, bytes(size), AT + field, target + addend) == encoded


NONE = ("c3", "ffd0", "ffe0", "ff6108", "488b4108", "488b8100200000", "48b80020000000000000", "6500", "cd29", "0f0b", "488d040500200000")


@pytest.mark.parametrize("code", NONE)
def test_no_reference(code):
    assert X64.references(bytes.fromhex(code), AT) == ()


def test_offsets_run_on_and_stop_at_the_undecodable():
    code = bytes.fromhex("90 e8fb0f0000 90 eb00 06 e800000000")
    assert [(found.offset, found.field) for found in X64.references(code, AT)] == [(1, 2), (7, 8)]


def test_stale_operand_text_is_no_reference():
    # Capstone leaves the tail of longer operand texts of earlier instructions in its buffers.
    code = bytes.fromhex("c705f60f000078563412" + "c3" * 300 + "90" * 300)
    assert len(X64.references(code * 4, AT)) == 4


# name, code, expected (offset, field, target): displacements on a register that holds the image base
IMAGE_RELATIVE = (
    ("loop-keeps-it", "488d1df9efffffe8f47f00000fb78c4300300000", [(12, 16, 0x3000)]),
    ("with-immediate", "488d1df9efffff80bc030031000005", [(7, 10, 0x3100)]),
    ("header-fields-are-none", "488d1df9efffff8b433c8b8398000000", []),
    ("lea-of-a-datum", "488d0df9efffff4c8d8100310000", [(7, 10, 0x3100)]),
    ("killed-by-overwrite", "488d05f9efffff8b018b948800300000c3", []),
    ("killed-by-call", "488d15f9efffffe8f47f0000428b848a00300000c3", []),
    ("killed-by-implicit-write", "488d15f9efffff48f7e18b848a00300000c3", []),
    ("preserved-by-call", "488d1df9efffffe8f47f00008b848b00300000c3", [(12, 15, 0x3000)]),
    ("copied", "488d15f9efffff4889d38b848b00300000c3", [(10, 13, 0x3000)]),
    ("low-half-copied-is-none", "488d15f9efffff89d38b848b00300000c3", []),
    (
        "spilled-and-reloaded",
        "4883ec28488d05f5efffff4889442420e8eb7f0000488b4c24208b8491003000004c8d8100310000c3",
        [(26, 29, 0x3000), (33, 36, 0x3100)],
    ),
    ("as-index", "488d15f9efffff8b841100300000c3", [(7, 10, 0x3000)]),
    ("an-index-added-by-lea", "488d35f9efffff488d3446488db600300000c3", [(11, 14, 0x3000)]),
    ("an-index-added-by-add", "488d15f9efffff4801c20fb68200300000c3", [(10, 13, 0x3000)]),
    ("members-of-a-datum-are-none", "488d0df9efffff4c8d8100310000418b8000200000c3", [(7, 10, 0x3100)]),
    ("on-one-path", "85c97407488d15f5efffff8b848a00300000c3", [(11, 14, 0x3000)]),
    ("displacement-first-scaled", "488d3df9efffff488d2c5d003000004801fd0fb64500c3", [(7, 11, 0x3000)]),
    ("displacement-first-unscaled", "4c8d0df9efffff4d8da0003000004d01cc418a0424c3", [(7, 10, 0x3000)]),
    ("displacement-before-the-base-is-loaded", "488d2c5d00300000488d3df1efffff4801fd0fb64500c3", [(0, 4, 0x3000)]),
    ("displacement-and-base-meet-in-an-operand", "488d3df9efffff488d2c5d003000000fb6443d00c3", [(7, 11, 0x3000)]),
    ("displacement-and-base-meet-in-lea", "488d3df9efffff488d2c5d00300000488d443d04c3", [(7, 11, 0x3000)]),
    ("displacement-first-then-copied", "488d3df9efffff488d2c5d003000004889e94801f98a01c3", [(7, 11, 0x3000)]),
    ("displacement-first-on-one-path", "488d3df9efffff85c97408488d2c5d003000004801fdc3", [(11, 15, 0x3000)]),
    ("members-behind-displacement-first-are-none", "488d3df9efffff488d2c5d003000004801fd8b8500200000c3", [(7, 11, 0x3000)]),
    ("an-index-is-none-beside-a-displacement", "488d3df9efffff488d88002000000fb6840f00300000c3", [(14, 18, 0x3000)]),
    ("an-index-is-none-where-it-is-scaled", "488d3df9efffff488d8800200000488d148fc3", []),
    ("an-index-of-32-bits-is-none", "488d3df9efffff8d2c5d003000004801fdc3", []),
    ("a-displacement-is-none-away-from-the-base", "488d3df9efffff488d2c5d003000004801d5c3", []),
    ("a-displacement-is-lost-in-a-call", "488d3df9efffff488d0c5d00300000e8ec7f00004801f9c3", []),
    ("a-displacement-is-overwritten", "488d3df9efffff488d2c5d003000008bed4801fdc3", []),
    ("behind-a-jump-table", "488d15f9efffff83f901772589c88b8c82002000004801d1ffe1428b848a00300000c3", [(14, 17, 0x2000), (26, 30, 0x3000)]),
)


@pytest.mark.parametrize(("name", "code", "expected"), IMAGE_RELATIVE, ids=[row[0] for row in IMAGE_RELATIVE])
def test_image_relative(name, code, expected):
    found = [reference for reference in X64.references(bytes.fromhex(code), AT) if reference.kind is RVA]
    assert [(reference.offset, reference.field, reference.target) for reference in found] == expected
    assert all(reference.use is Use.DATA and reference.addend == 0 for reference in found)


def test_image_relative_in_a_process():
    base = 0x140000000
    code = bytes.fromhex("488d15f9efffff8b848a00300000c3")
    found = X64.references(code, base + AT, image_base=base)
    assert [(reference.kind, reference.target) for reference in found] == [(REL32, base), (RVA, base + 0x3000)]
    assert X64.resolve(RVA, code[10:14], base + AT + 10, image_base=base) == base + 0x3000


def test_mask_zeroes_fields_only():
    code = bytes.fromhex("e8fb0f0000 7510 c705f60f000078563412 c3")
    assert X64.mask(code, X64.references(code, AT)).hex() == "e800000000" + "7500" + "c70500000000" + "78563412" + "c3"


FLOWS = (
    ("90", Flow.NEXT, None),
    ("e800000000", Flow.CALL, 0x1005),
    ("ffd0", Flow.CALL_INDIRECT, None),
    ("ff15fa0f0000", Flow.CALL_INDIRECT, None),
    ("eb00", Flow.JUMP, 0x1002),
    ("e900000000", Flow.JUMP, 0x1005),
    ("ffe0", Flow.JUMP_INDIRECT, None),
    ("ff25fa0f0000", Flow.JUMP_INDIRECT, None),
    ("7400", Flow.BRANCH, 0x1002),
    ("e2fe", Flow.BRANCH, 0x1000),
    ("e3fe", Flow.BRANCH, 0x1000),
    ("c3", Flow.RETURN, None),
    ("c20800", Flow.RETURN, None),
    ("f3c3", Flow.RETURN, None),
    ("cc", Flow.TRAP, None),
    ("cd29", Flow.TRAP, None),
    ("0f0b", Flow.TRAP, None),
    ("0f05", Flow.NEXT, None),
)


@pytest.mark.parametrize(("code", "flow", "target"), FLOWS)
def test_flow(code, flow, target):
    (instruction,) = X64.disassemble(bytes.fromhex(code), AT)
    assert (instruction.flow, instruction.target, instruction.size) == (flow, target, len(code) // 2)


def test_disassemble_gives_text_and_stops():
    listing = list(X64.disassemble(bytes.fromhex("488b05f90f0000 c3 06 90"), AT))
    assert [(line.address, line.mnemonic, line.operands) for line in listing] == [
        (0x1000, "mov", "rax, qword ptr [rip + 0xff9]"),
        (0x1007, "ret", ""),
    ]


def test_tables_in_code_are_not_decoded():
    code = bytes.fromhex("e8fb0f0000 c3 e8e8e8e8e8 e8f01f0000 c3")
    found = X64.references(code, 0x1000, holes=[(0x1006, 0x100B)])
    assert [(one.offset, one.field, one.target) for one in found] == [(0, 1, 0x2000), (11, 12, 0x3000)]
    assert X64.references(code[:6], 0x1000, holes=[(0x1006, 0x2000)]) == X64.references(code[:6], 0x1000)
