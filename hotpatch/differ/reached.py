"""Live data that two versions of a function reach at instructions that align, though not both name the address.

Compilers name a datum in one build, and in the next reckon its address from that of a neighbour. What an instruction reaches when control
first comes there is followed in both (:meth:`hotpatch.arch.base.Architecture.first_reached`): a loop that fills an array begins at its
start.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.correspond import loosely_aligned_lines
from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_Place = tuple[int, int]
"""An address and how many bytes of what is there are accessed; none where only the address is made."""


class Alike(NamedTuple):
    """Pairs of addresses that instructions of two functions that align reach, and no others beside them; by base address.

    Attributes:
        accessed: They read or write as many bytes there.
        made: They only make the address.
    """

    accessed: tuple[Pair, ...]
    made: tuple[Pair, ...]


def reached_alike(base: View, fixed: View, functions: Pair, *, indexed: bool = False) -> Alike:
    """What two functions reach alike; ``indexed``: also where an index that is unknown comes on top.

    A pair is left out where an instruction that reaches one of the two aligns with one that reaches something else.
    """
    lines = base.lines(functions[0]), fixed.lines(functions[1])
    aligned = [(lines[0][b].position, lines[1][f].position) for b, f in loosely_aligned_lines(*lines)]
    there, here = _reached(base, functions[0], indexed=indexed), _reached(fixed, functions[1], indexed=indexed)
    accessed, made = (_clear((old.get(b), new.get(f)) for b, f in aligned) for old, new in zip(there, here, strict=True))
    return Alike(accessed, made)


def _clear(places: Iterable[tuple[_Place | None, _Place | None]]) -> tuple[Pair, ...]:
    """The pairs of addresses that have no other partners."""
    partners: dict[int, set[Pair | None]] = defaultdict(set)
    claims: dict[int, set[Pair | None]] = defaultdict(set)
    for old, new in places:
        pair = (old[0], new[0]) if old is not None and new is not None and old[1] == new[1] else None
        if old is not None:
            partners[old[0]].add(pair)
        if new is not None:
            claims[new[0]].add(pair)
    alone = (next(iter(pairs)) for _, pairs in sorted(partners.items()) if len(pairs) == 1)
    return tuple(pair for pair in alone if pair is not None and len(claims[pair[1]]) == 1)


def _reached(view: View, entry: int, *, indexed: bool) -> tuple[Mapping[_Place, _Place], Mapping[_Place, _Place]]:
    """What each instruction of a function, by its position, accesses and makes the address of; several places are left out."""
    function, image = view.functions[entry], view.image
    names = named_data(image, function)
    instructions, edges = followed(image, function) if names else ([], {})
    accessed: dict[int, set[_Place]] = defaultdict(set)
    made: dict[int, set[_Place]] = defaultdict(set)
    for item in view.architecture.first_reached(instructions, names, edges):
        if indexed or not item.indexed:
            (accessed if item.width else made)[item.at].update((name + item.distance, item.width) for name in names[item.anchor])
    found = []
    for places in (accessed, made):
        clear = {at: next(iter(several)) for at, several in places.items() if len(several) == 1}
        parts = [(number, part, at) for at in clear for number, part in enumerate(function.ranges) if at in part]
        found.append({(number, at - part.start): clear[at] for number, part, at in parts})
    return found[0], found[1]


def is_the_same(base: View, fixed: View, pair: Pair, known: Callable[[int, int], bool]) -> bool:
    """Whether what lies at two addresses begins with the same, pointers among it, which lead to the same things.

    Such are what is ``known`` to be, and constants of the same bytes without pointers.
    """
    old, new = pair
    size = min(base.extent(old).size, fixed.extent(new).size)
    sites = base.pointers(old, old + size)
    if not sites or sites != fixed.pointers(new, new + size) or base.bare(old, size) != fixed.bare(new, size):
        return False
    targets = [(base.pointer(old + site), fixed.pointer(new + site)) for site in sites]
    return all(known(*pair) or _equal_constants(base, fixed, *pair) for pair in targets)


def _equal_constants(base: View, fixed: View, old: int, new: int) -> bool:
    if not base.place(old).kind is PlaceKind.CONSTANT is fixed.place(new).kind or base.pointers_from(old) or fixed.pointers_from(new):
        return False
    size = base.extent(old).size
    return size == fixed.extent(new).size and base.bare(old, size) == fixed.bare(new, size)
