"""Many functions: the comparison finds the few that changed, and takes no longer for each where there are more."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from weakref import ref

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import Verdict, diff_images
from hotpatch.image import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from synthetic import CHANGED, make


def _changed(machine: Machine, functions: int) -> tuple[int, int, float]:
    images = [Image.from_bytes(make(machine, functions, fixed=fixed)) for fixed in (False, True)]
    start = time.process_time()
    rows = diff_images(*images).functions
    seconds = time.process_time() - start
    assert {row.verdict for row in rows} == {Verdict.IDENTICAL, Verdict.RELOCATED, Verdict.CHANGED}
    return len(rows), sum(row.verdict is Verdict.CHANGED for row in rows), seconds


@pytest.mark.parametrize("machine", list(Machine))
def test_exactly_the_changed_functions_are_found(machine) -> None:
    assert _changed(machine, 300)[:2] == (300, CHANGED)


@pytest.mark.exhaustive
@pytest.mark.parametrize("machine", list(Machine))
def test_ten_times_the_functions_take_about_ten_times_as_long(machine) -> None:
    few = min(_changed(machine, 1_000)[2] for _ in range(3))
    count, changed, many = _changed(machine, 10_000)
    assert (count, changed) == (10_000, CHANGED)
    assert many < 25 * few


@pytest.mark.parametrize("machine", list(Machine))
def test_images_that_were_compared_are_freed_with_the_comparison(machine) -> None:
    images = [Image.from_bytes(make(machine, 10, fixed=fixed)) for fixed in (False, True)]
    diff = diff_images(*images)
    alive = [ref(image) for image in images]
    assert diff.base is alive[0]()
    del images, diff
    gc.collect()
    assert [image() for image in alive] == [None, None]
