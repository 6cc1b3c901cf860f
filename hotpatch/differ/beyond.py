"""What functions of the same body reach at constant distances from constants that they name: others, to which nothing else leads.

Microsoft's compiler for Arm64 makes the address of one constant from that of another of the same object file. Without symbols, all up to
the next thing that anything refers to is compared as one; symbols part the two.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.arch import WHOLE_KINDS, Flow, Use
from hotpatch.differ.distant import FARTHEST, Distant, address_of, distant, in_base
from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair
    from hotpatch.image import Datum


class Hidden:
    """Constants with names to which no reference leads, and that are not the same in both images."""

    def __init__(self, relation: Correspondence) -> None:
        """Of two images; none where either has no symbols."""
        base, fixed = relation.base, relation.fixed
        there, here = (_hidden(view) if base.image.has_symbols and fixed.image.has_symbols else {} for view in (base, fixed))
        same = {name for name in there.keys() & here.keys() if relation.same(there[name].rva, here[name].rva)}
        self._places = tuple(tuple(sorted(item.rva for name, item in side.items() if name not in same)) for side in (there, here))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self._places)

    def are_near(self, base: int, fixed: int) -> bool:
        """Whether one begins so near to either address that code goes there."""
        return any(_has_near(places, at) for places, at in zip(self._places, (base, fixed), strict=True))


def another_reached(relation: Correspondence, old: Body, new: Body) -> Distant | None:
    """The first instruction of two functions of the same body that reaches another datum in each, at the same distance."""
    found = distant(relation.known, relation.base, relation.fixed, old, new)
    return found if found is not None or not relation.hidden else _beyond(relation, old, new)


def _beyond(relation: Correspondence, old: Body, new: Body) -> Distant | None:
    """The same, of constants. Only where a register certainly holds the address, when it is read or written, or handed to a function."""
    named = {
        address_of(new, other): (one.target, other.target)
        for one, other in zip(old.links(), new.links(), strict=True)
        if other.kind in WHOLE_KINDS and other.use is Use.DATA and relation.fixed.place(other.target).kind is PlaceKind.CONSTANT
    }
    if not any(relation.hidden.are_near(*pair) for pair in named.values()):
        return None
    for at, anchor, distance in _reached(relation.fixed, new, named):
        pair = named[anchor][0] + distance, named[anchor][1] + distance
        if relation.hidden.are_near(*pair) and not relation.same(*pair):
            return Distant((in_base(old, new, at), at), pair)
    return None


def _reached(view: View, body: Body, naming: Mapping[int, Pair]) -> Iterator[tuple[int, int, int]]:
    """Instructions, those whose addresses they use, and how far they go from these.

    What a call gets together with where a constant begins, and where that ends, is the end.
    """
    image = view.image
    names = named_data(image, body.function)
    instructions, edges = followed(image, body.function)
    if not instructions or instructions[0].address != body.function.entry:
        return
    architecture = image.architecture
    arguments = set(architecture.convention.integer_arguments)
    calls = {one.address for one in instructions if one.flow in (Flow.CALL, Flow.CALL_INDIRECT)}
    held = [item for item in architecture.held(instructions, names, edges) if not item.moves and item.anchor in naming]
    begun = {(item.at, item.anchor) for item in held if item.at in calls and item.distance == 0}
    for item in held:
        if item.distance and item.at in calls and item.place in arguments:
            start = naming[item.anchor][1]
            symbol = view.symbol(start)
            if (item.at, item.anchor) not in begun or symbol is None or symbol.end != start + item.distance:
                yield item.at, item.anchor, item.distance
    certain = {(item.at, item.anchor) for item in held}
    for reached in architecture.reached(instructions, names, edges):
        if reached.width and reached.distance and not reached.indexed and (reached.at, reached.anchor) in certain:
            yield reached.at, reached.anchor, reached.distance


def _hidden(view: View) -> Mapping[str, Datum]:
    """Constants of known size that nothing refers to, by name; of what several have one name, none."""
    led = sorted(view.referenced)
    found: dict[str, Datum | None] = {}
    for item in view.image.data_symbols:
        at = bisect_left(led, item.rva)
        is_led = at < len(led) and led[at] < item.end
        if item.size and not is_led and item.rva not in view.records and view.place(item.rva).kind is PlaceKind.CONSTANT:
            found[item.name] = None if item.name in found else item
    return {name: item for name, item in found.items() if item is not None}


def _has_near(places: tuple[int, ...], at: int) -> bool:
    number = bisect_left(places, at - FARTHEST)
    return number < len(places) and places[number] <= at + FARTHEST
