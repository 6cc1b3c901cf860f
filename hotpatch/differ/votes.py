"""Evidence that two addresses are the same thing, counted and weighed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Pair = tuple[int, int]
"""A base RVA and the fixed RVA that is said to be the same thing."""


_Witness = TypeVar("_Witness")


class Site(NamedTuple):
    """Who votes: the functions and the instructions whose aligned operands name the pair (RVAs)."""

    base_function: int
    fixed_function: int
    base: int
    fixed: int


@dataclass(frozen=True, slots=True)
class Tie:
    """Pairs that exclude each other with equally much evidence."""

    pairs: tuple[Pair, ...]


@dataclass(slots=True)
class Votes(Generic[_Witness]):
    """Who says that which addresses are the same thing. One function votes once for a pair, however often it names it."""

    _voters: dict[Pair, dict[int, _Witness]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, pair: Pair, voter: int, witness: _Witness) -> None:
        """Count the vote of the base's function ``voter``, and keep what it shows with its first."""
        self._voters[pair].setdefault(voter, witness)

    def witnesses(self, pair: Pair) -> tuple[_Witness, ...]:
        """What those show who voted for ``pair``, by function."""
        return tuple(witness for _, witness in sorted(self._voters.get(pair, {}).items()))

    def pairs(self) -> tuple[Pair, ...]:
        """All pairs that have a vote, sorted."""
        return tuple(sorted(self._voters))

    def clear_winners(self, taken: Mapping[int, int], weight: Mapping[Pair, int] | None = None) -> tuple[tuple[Pair, ...], tuple[Tie, ...]]:
        """The pairs that have more votes than every pair that shares an address with them, and the ties among the others.

        Args:
            taken: Base → fixed of what is settled; pairs that touch it neither win nor tie.
            weight: Added to the count of a pair.
        """
        taken_fixed = set(taken.values())
        count = {
            pair: len(voters) + (weight or {}).get(pair, 0)
            for pair, voters in self._voters.items()
            if pair[0] not in taken and pair[1] not in taken_fixed
        }
        winners: list[Pair] = []
        by_base: dict[int, list[Pair]] = defaultdict(list)
        by_fixed: dict[int, list[Pair]] = defaultdict(list)
        for pair in sorted(count):
            by_base[pair[0]].append(pair)
            by_fixed[pair[1]].append(pair)
        settled: set[Pair] = set()
        ties: dict[Pair, None] = {}
        for pair in sorted(count, key=lambda pair: (-count[pair], pair)):
            if pair in settled:
                continue
            rivals = [rival for rival in (*by_base[pair[0]], *by_fixed[pair[1]]) if rival != pair and rival not in settled]
            if any(count[rival] >= count[pair] for rival in rivals):
                ties[pair] = None
                continue
            winners.append(pair)
            settled.add(pair)
            settled.update(rivals)
        return tuple(sorted(winners)), tuple(_clusters(pair for pair in ties if pair not in settled))


def _clusters(pairs: Iterable[Pair]) -> list[Tie]:
    """Ties that share addresses, gathered."""
    clusters: list[set[Pair]] = []
    for pair in sorted(pairs):
        touching = [cluster for cluster in clusters if any(pair[0] == other[0] or pair[1] == other[1] for other in cluster)]
        merged = {pair}.union(*touching)
        clusters = [cluster for cluster in clusters if cluster not in touching]
        clusters.append(merged)
    return [Tie(tuple(sorted(cluster))) for cluster in sorted(clusters, key=min)]
