"""Moving entries on x64: original and copy run side by side on Unicorn and must do the same to registers, flags and memory."""

from __future__ import annotations

import random

import pytest
import unicorn

from hotpatch.arch import Machine, Trampoline, architecture
from tests.arch.x64.rows import NOT_RUN, ROWS, SOURCE, TRAPS
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
