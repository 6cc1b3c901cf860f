"""Moving entries on x64: original and copy run side by side on Unicorn and must do the same to registers, flags and memory."""

from __future__ import annotations

import random

import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from hotpatch.arch import Machine, Trampoline, architecture
from hotpatch.errors import CannotRelocate, Rule
from tests.arch.x64.rows import FAR, NEAR, NOT_RUN, ROWS, SOURCE, TRAPS
from tests.arch.x64.sidebyside import compare, pointers

X64 = architecture(Machine.X64)
IMAGE, IMAGE_SIZE = 0x140000000, 0x10000
SEEDS = range(14)
LEFT = (unicorn.UC_ERR_OK, unicorn.UC_ERR_FETCH_UNMAPPED)


def image_of(row):
    content = pointers(random.Random(0), IMAGE_SIZE)
    place = SOURCE - IMAGE
    return IMAGE, content[:place] + row.code + content[place + len(row.code) :]


def move(row):
    return X64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in NOT_RUN], ids=str)
def test_copy_does_what_the_original_does(row):
    moved, image = move(row), image_of(row)
    originals = [compare(image, SOURCE, moved, row.trampoline, row.displaced, seed) for seed in SEEDS]
    if row.name not in TRAPS:
        assert any(original.error in LEFT for original in originals)


WRONG = (
    ("jne-rel8", "0f85", "0f84"),
    ("jrcxz", "e302", "e300"),
    ("loop", "e202", "e302"),
    ("rip-load", "f90ff0ff", "f80ff0ff"),
    ("rip-store-imm8", "f90ff0ff", "fa0ff0ff"),
    ("jcc-forward-inside", "0f8402", "0f8404"),
    ("call-rel32", "e8fb", "e8fa"),
)


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_copy_is_noticed(name, right, wrong):
    row = next(row for row in ROWS if row.name == name)
    moved = move(row)
    assert right in moved.code.hex()
    broken = Trampoline(bytes.fromhex(moved.code.hex().replace(right, wrong, 1)), moved.resume_va, moved.offsets)
    with pytest.raises(AssertionError):
        for seed in SEEDS:
            compare(image_of(row), SOURCE, broken, row.trampoline, row.displaced, seed)


PLAIN = (
    "90",
    "ffc0",
    "ffc9",
    "85c9",
    "4883e801",
    "50",
    "5b",
    "9c",
    "4889c3",
    "488b05000e0000",
    "0305000d0000",
    "c605000c00007f",
    "f30f1efa",
)
SHORT_JUMPS = ("eb", "74", "75", "7c", "e3", "67e3", "e2", "e1", "e0")
LEAVING = ("c3", "e900200000", "0f8400200000", "e800200000", "7440", "e340", "ff25000b0000", "cc")


@st.composite
def entries(draw):
    """A run of instructions with jumps among them, forwards and backwards."""
    forms = draw(st.lists(st.sampled_from((*PLAIN, *SHORT_JUMPS, *SHORT_JUMPS, *LEAVING)), min_size=3, max_size=9))
    sizes = [len(form) // 2 + (form in SHORT_JUMPS) for form in forms]
    starts = [sum(sizes[:number]) for number in range(len(forms) + 1)]
    code = b""
    for form, end in zip(forms, starts[1:], strict=True):
        code += bytes.fromhex(form)
        if form in SHORT_JUMPS:
            code += (draw(st.sampled_from(starts)) - end).to_bytes(1, "little", signed=True)
    return code + b"\x90" * 8


@given(entries(), st.sampled_from([2, 5, 9]), st.sampled_from([NEAR, FAR]), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_any_entry_runs_the_same(code, displaced, trampoline, seed):
    try:
        moved = X64.trampoline(code, source_va=SOURCE, trampoline_va=trampoline, displaced=displaced)
    except CannotRelocate as refused:
        assert {refusal.rule for refusal in refused.refusals} <= {Rule.BRANCH_INTO_DISPLACED, Rule.OUT_OF_REACH, Rule.FUNCTION_TOO_SHORT}
        return
    place = SOURCE - IMAGE
    content = pointers(random.Random(0), IMAGE_SIZE)
    compare((IMAGE, content[:place] + code + content[place + len(code) :]), SOURCE, moved, trampoline, displaced, seed)
