"""Where a basic block of one version is several of the other's, because a branch leads into it or out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.align import align, common_length
from hotpatch.differ.blocks import Way
from hotpatch.differ.nodes import TOKEN

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterator, Mapping, Sequence

    from hotpatch.differ.nodes import Graph

_ONLY_WAYS = frozenset({Way.NEXT, Way.JUMP})
"""By which a block could go on in another if the two were one."""


class Cut(NamedTuple):
    """A block that is two on the other side.

    Attributes:
        at: The line of it that begins its second piece.
        parts: The blocks of the other side that its pieces are.
    """

    at: int
    parts: tuple[int, int]


def cuts(whole: Graph, parts: Graph, forward: Mapping[int, int], backward: Mapping[int, int]) -> Mapping[int, Cut]:
    """Of the matched blocks of ``whole``: those whose partner goes on in (or is led up to by) a block that nothing matches, by index.

    No two share a block of ``parts``.
    """
    found: dict[int, Cut] = {}
    matched = set(backward)
    for index, partner in sorted(forward.items()):
        cut = next(_cuts_of(whole, parts, index, partner, matched), None)
        if cut is not None:
            found[index] = cut
            matched.update(cut.parts)
    return found


def _cuts_of(whole: Graph, parts: Graph, index: int, partner: int, matched: Container[int]) -> Iterator[Cut]:
    behind = (target for (way, _), target in parts.exits[partner].items() if way in _ONLY_WAYS and target not in matched)
    before = (source for way, _, source in parts.before[partner] if way in _ONLY_WAYS and source not in matched)
    for first, second in (*((partner, other) for other in behind), *((other, partner) for other in before)):
        one, two = parts.nodes[first].levels[TOKEN], parts.nodes[second].levels[TOKEN]
        at = _place(whole.nodes[index].levels[TOKEN], one, two, second == partner)
        if at is not None:
            yield Cut(at, (first, second))


def _place(says: Sequence[Hashable], first: Sequence[Hashable], second: Sequence[Hashable], is_second: bool) -> int | None:
    """Where ``says`` is to be cut so that its pieces are ``first`` and ``second``, one of which is its partner so far.

    ``None`` where too little of the other would find its like, or no more than does now.
    """
    pairs = align(says, (*first, *second))
    at = next((line for line, other in pairs if other >= len(first)), None)
    if not at:
        return None
    new = sum((other >= len(first)) is not is_second for _, other in pairs)
    now = common_length(says, second if is_second else first)
    return at if 2 * new >= len(first if is_second else second) and len(pairs) > now else None
