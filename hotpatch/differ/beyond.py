"""What functions of the same body reach at constant distances from constants that they name: others, which may differ.

Microsoft's compiler for Arm64 makes the address of one constant from that of another of the same object file. What lies up to the next
symbol, or without symbols up to the next thing that anything refers to, is compared as one with what is named; the rest is looked at here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.arch import WHOLE_KINDS, Flow, Use
from hotpatch.differ.distant import FARTHEST, Distant, accesses, address_of, distant, in_base
from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.handed import does_nothing_with, reads_onward
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Hidden:
    """Constants that begin behind or before what code names, and that are not the same in both images, or have changed places."""

    def __init__(self, relation: Correspondence) -> None:
        """Of two images; ``relation`` has settled what functions of the same body name."""
        base, fixed = relation.base, relation.fixed
        self._are_configured = relation.are_configured
        named = base.image.has_symbols and fixed.image.has_symbols
        self._places = _differing_by_name(relation) if named else _differing_by_place(relation)
        there, here = (_around(some, sorted({pair[side] for pair in relation.settled})) for side, some in enumerate(self._places))
        far = [pair for pair in relation.settled if pair[0] not in there and pair[1] not in here]
        self._far = {pair for pair in far if not relation.are_configured(*pair)}

    def may_reach(self, old: Body, new: Body) -> bool:
        """Whether two functions of the same body name anything that is near one."""
        return not self._far.issuperset(zip(old.targets, new.targets, strict=True))

    def are_near(self, base: int, fixed: int) -> bool:
        """Whether one begins so near to either address that code goes there; so do fields of the load configuration."""
        return self._are_configured(base, fixed) or any(
            _has_near(places, at) for places, at in zip(self._places, (base, fixed), strict=True)
        )


def another_reached(relation: Correspondence, old: Body, new: Body) -> Distant | None:
    """The first instruction of two functions of the same body that reaches another datum in each, at the same distance."""
    if not relation.known.is_disturbed and not relation.hidden.may_reach(old, new):
        return None
    return next(others_reached(relation, old, new), None)


def others_reached(relation: Correspondence, old: Body, new: Body) -> Iterator[Distant]:
    """The same, of all instructions that reach constants; of those that reach live data the first alone."""
    found = distant(relation.known, relation.base, relation.fixed, old, new)
    if found is not None:
        yield found
    if relation.hidden.may_reach(old, new):
        yield from _beyond(relation, old, new)


def _beyond(relation: Correspondence, old: Body, new: Body) -> Iterator[Distant]:
    """Those that reach constants. A register must hold the address for certain, where it is read or written, or handed to a function."""
    links = [
        (one, other)
        for one, other in zip(old.links(), new.links(), strict=True)
        if other.kind in WHOLE_KINDS and other.use is Use.DATA and relation.fixed.place(other.target).kind is PlaceKind.CONSTANT
    ]
    if not any(relation.hidden.are_near(one.target, other.target) and not accesses(relation.fixed, new, other) for one, other in links):
        return  # what is read where it is named is in no register
    named = {address_of(new, other): (one.target, other.target) for one, other in links}
    for at, anchor, distance in _reached(relation.fixed, new, named):
        pair = named[anchor][0] + distance, named[anchor][1] + distance
        if relation.hidden.are_near(*pair) and not relation.same(*pair):
            yield Distant((in_base(old, new, at), at), pair)


def _reached(view: View, body: Body, naming: Mapping[int, Pair]) -> Iterator[tuple[int, int, int]]:
    """Instructions, those whose addresses they use, and how far they go from these.

    What a call gets together with where a constant begins, and where that ends, is the end, unless what is called reads there. Without
    symbols it may be any place up to where something else begins that anything refers to.
    """
    image = view.image
    names = named_data(image, body.function)
    instructions, edges = followed(image, body.function)
    if not instructions or instructions[0].address != body.function.entry:
        return
    architecture = image.architecture
    arguments = set(architecture.convention.integer_arguments)
    calls = {one.address: one for one in instructions if one.flow in (Flow.CALL, Flow.CALL_INDIRECT)}
    held = [item for item in architecture.held(instructions, names, edges) if not item.moves and item.anchor in naming]
    begun = {(item.at, item.anchor) for item in held if item.at in calls and item.distance == 0}
    for item in held:
        if item.distance and item.at in calls and item.place in arguments:
            start = naming[item.anchor][1]
            symbol = view.symbol(start)
            end = start + item.distance
            is_end = symbol.end == end if symbol is not None else not image.has_symbols and end <= view.extent(start).end
            is_meant = (item.at, item.anchor) not in begun or not is_end or reads_onward(view, calls[item.at], item.place)
            if is_meant and not does_nothing_with(view, calls[item.at], item.place):
                yield item.at, item.anchor, item.distance
    certain = {(item.at, item.anchor) for item in held}
    for reached in architecture.reached(instructions, names, edges):
        if reached.width and reached.distance and not reached.indexed and (reached.at, reached.anchor) in certain:
            yield reached.at, reached.anchor, reached.distance


def _differing_by_name(relation: Correspondence) -> tuple[Sequence[int], Sequence[int]]:
    """Where constants of known size begin of which the other image has none of the name that is the same; sorted, of both images.

    With those that have changed places, see :func:`_displaced`.
    """
    there, here = (_named_constants(view) for view in (relation.base, relation.fixed))
    same = {name for name in there.keys() & here.keys() if relation.same(there[name], here[name])}
    differing, others = ({rva for name, rva in side.items() if name not in same} for side in (there, here))
    displaced, elsewhere = _displaced((there[name], here[name]) for name in same)
    return sorted(differing | displaced), sorted(others | elsewhere)


def _named_constants(view: View) -> Mapping[str, int]:
    """Constants of known size by name; of what several have one name, none."""
    found: dict[str, int | None] = {}
    for item in view.image.data_symbols:
        if item.size and item.rva not in view.records and view.place(item.rva).kind is PlaceKind.CONSTANT:
            found[item.name] = None if item.name in found else item.rva
    return {name: rva for name, rva in found.items() if rva is not None}


def _differing_by_place(relation: Correspondence) -> tuple[Sequence[int], Sequence[int]]:
    """Where constants begin that are not the same as what lies as far from their neighbours in the other image; sorted, of both images.

    With those that have changed places, see :func:`_displaced`.
    """
    same = relation.same
    forward = dict(sorted(relation.settled))
    there = _left(relation.base, forward)
    forward |= {rva: place for rva, places in _expected(there, forward) for place in places if same(rva, place)}
    backward = {fixed: base for base, fixed in forward.items()}
    here = _left(relation.fixed, backward)
    backward |= {rva: place for rva, places in _expected(here, backward) for place in places if same(place, rva)}
    places = (pair for pair in forward.items() if pair[0] not in relation.base.functions)
    constants = [pair for pair in places if relation.base.place(pair[0]).kind is PlaceKind.CONSTANT]
    displaced, elsewhere = _displaced(constants)
    return sorted(displaced.union(set(there) - forward.keys())), sorted(elsewhere.union(set(here) - backward.keys()))


def _displaced(pairs: Iterable[Pair]) -> tuple[set[int], set[int]]:
    """Of constants that are the same, those that moved otherwise than what is next to them, no farther than code goes; of both images.

    What lies at one distance from the same constant is then not the same.
    """
    rows = list(pairs)
    sides = ([(base, fixed - base) for base, fixed in rows], [(fixed, fixed - base) for base, fixed in rows])
    there, here = (
        {
            place
            for (before, moved), (behind, another) in pairwise(sorted(side))
            if moved != another and behind - before <= FARTHEST
            for place in (before, behind)
        }
        for side in sides
    )
    return there, here


def _left(view: View, partners: Mapping[int, int]) -> Sequence[int]:
    """Constants that something refers to and that have no partner."""
    return [rva for rva in sorted(view.referenced - partners.keys()) if view.place(rva).kind is PlaceKind.CONSTANT]


def _expected(left: Sequence[int], partners: Mapping[int, int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Where the other image would have each of ``left``, by the partners of what is next to it."""
    known = sorted(partners)
    for rva in left:
        at = bisect_left(known, rva)
        yield rva, sorted({partners[near] + rva - near for near in known[max(at - 1, 0) : at + 1]})


def _around(places: Sequence[int], starts: Sequence[int]) -> Container[int]:
    """Those of ``starts``, sorted, near which one of ``places`` lies."""
    found: set[int] = set()
    for place in places:
        found.update(starts[bisect_left(starts, place - FARTHEST) : bisect_right(starts, place + FARTHEST)])
    return found


def _has_near(places: Sequence[int], at: int) -> bool:
    number = bisect_left(places, at - FARTHEST)
    return number < len(places) and places[number] <= at + FARTHEST
