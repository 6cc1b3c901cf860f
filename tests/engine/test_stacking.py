"""What a newer patch may drop of older ones, and what it gives back."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hotpatch.engine import Stacking
from hotpatch.errors import ApplyRefused, Rule
from hotpatch.patch import Terms


class Row(NamedTuple):
    """Functions of each patch, the newest last, as digits, with ``!`` where it is obligatory; what becomes of that one."""

    patches: str
    refused: str = ""
    """Functions for which it is refused."""
    given_back: int = 0
    results: str = "12"
    """What functions 1 and 2 return then: their number, ``o`` where that is the original's."""


ROWS = {
    "drops one": Row("12 1", given_back=1, results="1o"),
    "drops one of an obligatory patch": Row("12! 1", refused="2"),
    "drops both of an obligatory patch": Row("12! 3", refused="12"),
    "replaces all of an obligatory patch": Row("12! 12"),
    "is itself obligatory": Row("12 1!", given_back=1, results="1o"),
    "drops what only an older patch has, under an obligatory one": Row("12 1! 1", results="1o"),
    "drops what is not the obligatory patch's": Row("1! 12 1", given_back=1, results="1o"),
    "drops what is an obligatory patch's two below": Row("12! 12 1", refused="2"),
    "drops what is given back already": Row("12 1 1", results="1o"),
    "takes up again what was given back": Row("12 1 12"),
    "drops what was taken up again": Row("12 1 12 1", given_back=1, results="1o"),
    "adds to an obligatory patch": Row("1! 12"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_a_newer_patch_drops(here, row):
    """And reverting it brings back what was in force before."""
    *older, newest = row.patches.split()
    for sequence, text in enumerate(older, 1):
        here.engine.apply(patch(here, text, sequence))
    before, known = [here.result(number) for number in (1, 2)], here.fake.snapshot()
    if row.refused:
        with pytest.raises(ApplyRefused) as caught:
            here.engine.apply(patch(here, newest, len(older) + 1))
        assert [(refusal.rule, refusal.function) for refusal in caught.value.refusals] == [
            (Rule.OBLIGATORY, f"f{each}") for each in row.refused
        ]
        assert here.fake.snapshot() == known
        return
    applied = here.engine.apply(patch(here, newest, len(older) + 1))
    assert [details["given_back"] for kind, details in here.fake.events if kind == "apply"][-1] == row.given_back
    sequence = {"1": len(older) + 1, "2": len(older) + 1}
    wanted = [
        int(number) if wanted == "o" else 100 * sequence[number] + int(number) for number, wanted in zip("12", row.results, strict=True)
    ]
    assert [here.result(number) for number in (1, 2)] == wanted
    applied.revert()
    assert [here.result(number) for number in (1, 2)] == before


def test_an_additional_patch_gives_nothing_back(here):
    here.engine.apply(patch(here, "12!", 1))
    applied = here.engine.apply(patch(here, "1", 2), stacking=Stacking.ADDITIONAL)
    assert [here.result(number) for number in (1, 2)] == [201, 102]
    applied.revert()
    assert [here.result(number) for number in (1, 2)] == [101, 102]


def patch(here, text: str, sequence: int):
    """One whose functions return their number and a hundred for each sequence number."""
    numbers = {int(digit): 100 * sequence + int(digit) for digit in text.rstrip("!")}
    return here.patch(numbers, sequence=sequence, name=f"fix{sequence}.dll", terms=Terms(obligatory=text.endswith("!")))
