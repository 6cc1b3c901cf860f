"""What becomes of addresses that a function hands to others, by calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.differ.follow import followed, named_data

if TYPE_CHECKING:
    from hotpatch.differ.view import View
    from hotpatch.image import Function


def steps_back_from(view: View, function: Function, maker: int) -> bool:
    """Whether the address that the instruction at ``maker`` makes is handed to a function that accesses nothing but what is before it.

    Then what ends there is meant, not what begins there. Only where the argument certainly holds that address, and what is called reads or
    writes through it in front of it, and nowhere else by constant distances or an index, before it goes on from what it did first.
    """
    image, architecture = view.image, view.architecture
    names = named_data(image, function)
    instructions, edges = followed(image, function) if len(names.get(maker, ())) == 1 else ([], {})
    if not instructions or instructions[0].address != function.entry:
        return False
    calls = {one.address: one.target for one in instructions if one.flow is Flow.CALL and one.target is not None}
    arguments = architecture.convention.integer_arguments
    handed = (item for item in architecture.held(instructions, names, edges) if item.anchor == maker and item.distance == 0)
    users = {(calls[item.at], item.place) for item in handed if item.at in calls and item.place in arguments}
    return any(_accesses_before(view, callee, place) for callee, place in sorted(users))


def _accesses_before(view: View, entry: int, place: str) -> bool:
    """Whether what the function at ``entry`` accesses through its argument ``place`` lies in front of the address in it."""
    function = view.functions.get(entry)
    instructions, edges = followed(view.image, function) if function is not None else ([], {})
    if not instructions or instructions[0].address != entry:
        return False
    items = [item for item in view.architecture.reached_from_arguments(instructions, edges)[place] if item.width]
    return bool(items) and all(item.distance + item.width <= 0 and not item.indexed for item in items)
