"""Ranges looked up by what they overlap."""

from __future__ import annotations

import random

from hotpatch.builder.spans import Spans


def test_what_overlaps_is_found_and_nothing_else() -> None:
    drawn = random.Random(1)
    for _ in range(50):
        ranges = [(start, start + drawn.randrange(12)) for start in drawn.choices(range(60), k=drawn.randrange(12))]
        spans = Spans((start, end, number) for number, (start, end) in enumerate(ranges))
        for start in range(64):
            end = start + drawn.randrange(1, 20)
            wanted = {number for number, (first, last) in enumerate(ranges) if first < end and start < last}
            assert set(spans.overlapping(start, end)) == wanted
            assert set(spans.covering(start)) == {number for number, (first, last) in enumerate(ranges) if first <= start < last}


def test_no_ranges_cover_nothing() -> None:
    assert list(Spans[int](()).covering(0)) == []
