"""What becomes of addresses that a function hands to others, by calls and by jumps that leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.differ.follow import followed, named_data

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.arch import Instruction, Reached
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_MOST_CALLED = 8
"""Functions that are asked one behind the other what they do with an argument."""


def steps_back_from(view: View, function: Function, maker: int) -> bool:
    """Whether the address that the instruction at ``maker`` makes is handed to a function that accesses nothing but what is before it.

    Then what ends there is meant, not what begins there. Only where the argument certainly holds that address, and what is called reads or
    writes through it in front of it, and nowhere else by constant distances or an index that may rise, before it goes on from what it did
    first.
    """
    return any(_accesses_before(view, callee, place) for callee, place in _handed(view, function, maker))


def goes_onward_from(view: View, function: Function, maker: int) -> bool:
    """Whether the address that the instruction at ``maker`` makes is handed to a function that accesses what begins there.

    Then what ends there is not meant. An index proves nothing: it may be negative, so that it counts down from an end.
    """
    return any(_accesses_onward(view, callee, place, by_index=False) for callee, place in _handed(view, function, maker))


def _handed(view: View, function: Function, maker: int) -> list[tuple[int, str]]:
    """To which functions, and in which of their arguments, the address goes that the instruction at ``maker`` makes."""
    image, architecture = view.image, view.architecture
    names = named_data(image, function)
    instructions, edges = followed(image, function) if len(names.get(maker, ())) == 1 else ([], {})
    if not instructions or instructions[0].address != function.entry:
        return []
    inside = {one.address for one in instructions}
    calls = {one.address: one.target for one in instructions if one.target is not None and _hands_on(one, inside)}
    arguments = architecture.convention.integer_arguments
    handed = (item for item in architecture.held(instructions, names, edges) if item.anchor == maker and item.distance == 0)
    return sorted({(calls[item.at], item.place) for item in handed if item.at in calls and item.place in arguments})


def reads_onward(view: View, instruction: Instruction, place: str) -> bool:
    """Whether what ``instruction`` calls may read or write what begins at the address in its argument ``place``, or lies behind it.

    Then the address may be no end. With an index on top, too, as far as the constant distances tell: what it goes over counts.
    """
    if instruction.flow is not Flow.CALL or instruction.target is None:
        return False
    return _accesses_onward(view, instruction.target, place, by_index=True)


def does_nothing_with(view: View, instruction: Instruction, place: str) -> bool:
    """Whether what ``instruction`` calls for certain does nothing with its argument register ``place``, nor does what that calls.

    Then the register holds what was left there, and is no argument.
    """
    return instruction.flow is Flow.CALL and instruction.target is not None and leaves_alone(view, instruction.target, place)


def leaves_alone(view: View, entry: int, place: str) -> bool:
    """Whether the function at ``entry`` for certain does nothing with what it gets in the register ``place``, nor does what it calls."""
    pending = [entry]
    seen: set[int] = set()
    while pending:
        entry = pending.pop()
        if entry in seen:
            continue
        seen.add(entry)
        function = view.functions.get(entry)
        instructions, edges = followed(view.image, function) if function is not None and len(seen) <= _MOST_CALLED else ([], {})
        starts = bool(instructions) and instructions[0].address == entry
        targets = view.architecture.handed_on(instructions, edges, place) if starts else None
        if targets is None:
            return False
        pending += sorted(targets)
    return True


def _hands_on(instruction: Instruction, inside: Collection[int]) -> bool:
    """Whether it calls a function, or jumps out of its own, whose instructions are those ``inside``."""
    return instruction.flow is Flow.CALL or (instruction.flow in (Flow.JUMP, Flow.BRANCH) and instruction.target not in inside)


def _accesses_before(view: View, entry: int, place: str) -> bool:
    """Whether what the function at ``entry`` accesses through its argument ``place`` lies in front of the address in it."""
    instructions, edges = _past_thunks(view, entry)
    items = _accesses_by(view, instructions, edges, place)
    falls = view.architecture.index_never_rises
    return bool(items) and all(
        item.distance + item.width <= 0 and (not item.indexed or falls(instructions, edges, item.at)) for item in items
    )


def _accesses_onward(view: View, entry: int, place: str, *, by_index: bool) -> bool:
    """Whether the function at ``entry`` accesses what begins at the address in its argument ``place``, ``by_index`` or else."""
    found = _accesses_by(view, *_past_thunks(view, entry), place)
    return any((by_index or not item.indexed) and item.distance + item.width > 0 for item in found)


def _accesses_by(view: View, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], place: str) -> list[Reached]:
    """What a function accesses from its argument ``place``, before it goes on from what it did first."""
    found = view.architecture.reached_from_arguments(instructions, edges)[place] if instructions else ()
    return [item for item in found if item.width]


def _past_thunks(view: View, entry: int) -> tuple[list[Instruction], dict[int, tuple[int, ...]]]:
    """What :func:`.followed` tells of the function that begins at ``entry``, or of the one that it only jumps to; nothing if none does."""
    seen: set[int] = set()
    while (function := view.functions.get(entry)) is not None and entry not in seen:
        seen.add(entry)
        instructions, edges = followed(view.image, function)
        if not instructions or instructions[0].address != entry:
            break
        first = instructions[0]
        if first.flow is not Flow.JUMP or first.target is None or first.target not in view.functions:
            return instructions, edges
        entry = first.target
    return [], {}
