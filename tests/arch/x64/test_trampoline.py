"""Moving entries on x64: the bytes, form by form, and every refusal."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.errors import CannotRelocate, HotpatchError, Rule
from tests.arch.x64.rows import FAR, NEAR, ROWS, SOURCE

X64 = architecture(Machine.X64)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_moved_bytes(row):
    moved = X64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)
    assert moved.code.hex() == row.expected
    assert moved.resume_va == SOURCE + row.resume
    assert dict(moved.offsets) == row.offsets


def test_row_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


# name, code, trampoline, displaced, rule, offset of the instruction that is blamed
# fmt: off
REFUSALS = (
    ("rel8-branch-into-displaced", "31c0 ffc1 ffc0 75fa c3", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("rel32-branch-into-displaced", "31c0 ffc1 ffc0 0f85f6ffffff c3", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("jump-into-displaced", "31c0 ffc1 ffc0 ebfa", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("loop-into-displaced", "31c0 ffc1 ffc0 e2fa c3", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("call-into-displaced", "31c0 ffc1 ffc0 e8f7ffffff c3", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("address-of-displaced", "31c0 ffc1 ffc0 488d0df5ffffff ffe1", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("rotated-loop", "eb02 ffc9 85c9 75fa c3", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 6),
    ("branch-into-padding-of-short-function", "c3 90 90 90 90 ebfa", NEAR, 5, Rule.BRANCH_INTO_DISPLACED, 5),
    ("jcc-into-middle-of-moved", "7401 b8c39090c3 c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("call-next", "e800000000 58 c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("call-inside", "e801000000 90 58 c3", NEAR, 7, Rule.CANNOT_RELOCATE, 0),
    ("rip-read-of-displaced", "8b05fcffffff c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("rip-read-of-entry", "8b05faffffff c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("eip-relative", "678b05f90f0000 c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("operand-size-jump", "66e9fa0f0000", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("xbegin-inside", "c7f8faffffff c3", NEAR, 5, Rule.CANNOT_RELOCATE, 0),
    ("rip-operand-beyond-2-gib", "488b05f90f0000 c3", FAR, 5, Rule.OUT_OF_REACH, 0),
    ("rip-operand-just-beyond", "488b0500000000 c3", SOURCE + 2**31 + 1, 5, Rule.OUT_OF_REACH, 0),
    ("xbegin-beyond-2-gib", "c7f8fa0f0000 c3", FAR, 5, Rule.OUT_OF_REACH, 0),
    ("shorter-than-redirect", "33c0 c3", NEAR, 5, Rule.FUNCTION_TOO_SHORT, 0),
    ("empty", "", NEAR, 2, Rule.FUNCTION_TOO_SHORT, 0),
    ("ret-then-other-code", "33c0 c3 4883ec28", NEAR, 5, Rule.FUNCTION_TOO_SHORT, 0),
    ("jump-then-other-code", "eb7e 4883ec28", NEAR, 5, Rule.FUNCTION_TOO_SHORT, 0),
    ("ret-then-partial-padding", "c3 cc cc 33c0", NEAR, 5, Rule.FUNCTION_TOO_SHORT, 0),
    ("ret-then-cut-nop", "c3 0f1f4400", NEAR, 5, Rule.FUNCTION_TOO_SHORT, 0),
    ("undecodable-entry", "06 90909090", NEAR, 2, Rule.UNDECODABLE, 0),
    ("undecodable-second", "33c0 06 9090", NEAR, 5, Rule.UNDECODABLE, 2),
    ("cut-instruction", "4883ec28 48", NEAR, 5, Rule.UNDECODABLE, 4),
    ("undecodable-rest", "4883ec28 90 06" + "90" * 20, NEAR, 5, Rule.UNDECODABLE, 5),
)
# fmt: on


@pytest.mark.parametrize(("name", "code", "trampoline", "displaced", "rule", "offset"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refused(name, code, trampoline, displaced, rule, offset):
    source = bytes.fromhex(code)
    with pytest.raises(CannotRelocate) as caught:
        X64.trampoline(source, source_va=SOURCE, trampoline_va=trampoline, displaced=displaced)
    (refusal,) = caught.value.refusals
    assert refusal.rule == rule
    assert refusal.evidence["address"] == SOURCE + offset
    assert source[offset:].hex().startswith(str(refusal.evidence["bytes"]))
    assert ": " in refusal.reason


def test_a_cut_instruction_behind_the_displaced_ones_is_no_reason():
    moved = X64.trampoline(bytes.fromhex("4883ec28 90 488b"), source_va=SOURCE, trampoline_va=NEAR, displaced=5)
    assert moved.resume_va == SOURCE + 5


def test_call_of_the_entry_goes_through_the_redirect():
    moved = X64.trampoline(bytes.fromhex("ffc9 9090 90 e8f6ffffff c3"), source_va=SOURCE, trampoline_va=NEAR, displaced=5)
    assert moved.resume_va == SOURCE + 5


@pytest.mark.parametrize("back", ["75f9", "ebf9", "e2f9", "0f85f5ffffff"])
def test_branch_back_to_the_entry_is_a_loop_and_refused(back):
    with pytest.raises(CannotRelocate) as caught:
        X64.trampoline(bytes.fromhex(f"ffc9 9090 90 {back} c3"), source_va=SOURCE, trampoline_va=NEAR, displaced=5)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.BRANCH_INTO_DISPLACED
    assert refusal.evidence["bytes"] == back


def test_branch_to_first_instruction_that_stays_is_allowed():
    X64.trampoline(bytes.fromhex("4883ec28 90 ffc9 75fc c3"), source_va=SOURCE, trampoline_va=NEAR, displaced=5)


def test_last_reach_is_used_and_one_more_is_not():
    code = bytes.fromhex("488b0500000000 c3")
    last = SOURCE + 2**31
    assert X64.trampoline(code, source_va=SOURCE, trampoline_va=last, displaced=5).code[:7].hex() == "488b0500000080"


def test_displaced_must_be_positive():
    with pytest.raises(HotpatchError):
        X64.trampoline(b"\x90", source_va=SOURCE, trampoline_va=NEAR, displaced=0)
