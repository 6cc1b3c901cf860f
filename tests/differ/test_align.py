"""Alignment: pairs of equal tokens, rising, as many as possible."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.differ.align import align, common_length

TABLE = [
    ("nothing at all", "", "", []),
    ("nothing on one side", "abc", "", []),
    ("the same", "abc", "abc", [(0, 0), (1, 1), (2, 2)]),
    ("one inserted", "abd", "abcd", [(0, 0), (1, 1), (2, 3)]),
    ("one removed", "abcd", "abd", [(0, 0), (1, 1), (3, 2)]),
    ("one replaced", "abc", "axc", [(0, 0), (2, 2)]),
    ("nothing in common", "abc", "xyz", []),
    ("unique tokens anchor", "xxaxx", "xaxxx", [(0, 0), (2, 1), (3, 3), (4, 4)]),
    ("a block moved: the longer side stays", "abcdefg", "defgabc", [(3, 0), (4, 1), (5, 2), (6, 3)]),
    ("repeats only, solved exactly", "aabbaab", "babaabb", None),
]


@pytest.mark.parametrize(("base", "fixed", "pairs"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(base, fixed, pairs) -> None:
    found = list(align(base, fixed))
    assert found == pairs if pairs is not None else len(found) == _longest(base, fixed)


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=40))
def test_pairs_are_equal_and_rise(base, fixed) -> None:
    found = align(base, fixed)
    assert all(base[b] == fixed[f] for b, f in found)
    assert all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(found))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_sequence_aligns_with_itself(tokens) -> None:
    assert align(tokens, tokens) == tuple((index, index) for index in range(len(tokens)))


@given(st.lists(st.sampled_from("ab"), max_size=14), st.lists(st.sampled_from("ab"), max_size=14))
def test_repeats_without_common_ends_are_solved_exactly(base, fixed) -> None:
    base, fixed = ["x", *base, "x", *base], ["y", *fixed, "y", *fixed]
    if base[-1] != fixed[-1]:
        assert len(align(base, fixed)) == _longest(base, fixed)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_the_common_length_is_exact(base, fixed) -> None:
    assert common_length(base, fixed) == _longest(base, fixed)


def _longest(base, fixed) -> int:
    """The textbook table."""
    row = [0] * (len(fixed) + 1)
    for token in base:
        above = row[:]
        for index, other in enumerate(fixed):
            row[index + 1] = above[index] + 1 if token == other else max(above[index + 1], row[index])
    return row[-1]
