"""Votes: who wins, what ties, what waits."""

from __future__ import annotations

import pytest

from hotpatch.differ.votes import Votes

TABLE = [
    ("one vote, unopposed", {(1, 10): 1}, {}, {}, [(1, 10)], []),
    ("more votes win on the base's side", {(1, 10): 3, (1, 20): 1}, {}, {}, [(1, 10)], []),
    ("more votes win on the fixed side", {(1, 10): 1, (2, 10): 2}, {}, {}, [(2, 10)], []),
    ("equal votes are a tie, not a choice", {(1, 10): 2, (1, 20): 2}, {}, {}, [], [((1, 10), (1, 20))]),
    ("a tie takes weaker pairs of its addresses along", {(1, 10): 2, (1, 20): 2, (2, 20): 1}, {}, {}, [], [((1, 10), (1, 20), (2, 20))]),
    ("weight decides a tie", {(1, 10): 2, (1, 20): 2}, {}, {(1, 20): 1}, [(1, 20)], []),
    ("what is settled neither wins nor ties", {(1, 10): 5, (1, 20): 5, (2, 30): 1}, {1: 99}, {}, [(2, 30)], []),
    ("nor on the fixed side", {(1, 10): 5}, {7: 10}, {}, [], []),
    ("a winner frees nothing that it beat", {(1, 10): 3, (1, 20): 2, (2, 20): 2}, {}, {}, [(1, 10), (2, 20)], []),
    ("a chain", {(1, 10): 3, (2, 10): 2, (2, 20): 1}, {}, {}, [(1, 10), (2, 20)], []),
]


@pytest.mark.parametrize(("counts", "taken", "weight", "winners", "ties"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(counts, taken, weight, winners, ties) -> None:
    votes = Votes()
    for pair, count in counts.items():
        for voter in range(count):
            votes.add(pair, voter, None)
    found, tied = votes.clear_winners(taken, weight)
    assert (list(found), [tie.pairs for tie in tied]) == (winners, ties)


def test_a_function_votes_once_for_a_pair() -> None:
    votes = Votes()
    for _ in range(5):
        votes.add((1, 10), 7, "first")
    votes.add((1, 20), 8, "second")
    votes.add((1, 20), 7, "third")
    votes.add((1, 20), 7, "fourth")
    assert votes.clear_winners({})[0] == ((1, 20),)
    assert votes.witnesses((1, 20)) == ("third", "second")
