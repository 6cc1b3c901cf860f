"""What the code of a function names and where it goes from there, as the instruction set tells."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import WHOLE_KINDS, Use
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.arch import Instruction
    from hotpatch.image import Function, Image


def followed(image: Image, function: Function) -> tuple[list[Instruction], dict[int, tuple[int, ...]]]:
    """The instructions of a function by address, and where each of its jumps through a table leads."""
    instructions = [instruction for part in sorted(function.ranges) for instruction in image.instructions_in(part)]
    edges: dict[int, tuple[int, ...]] = {}
    for part in function.ranges:
        edges |= {part.start + table.jump: table.targets for table in image.jump_tables_in(part)}
    return instructions, edges


def named_data(image: Image, function: Function) -> dict[int, set[int]]:
    """The instructions of a function that name whole addresses of data, and those addresses: one, or what a page may be completed to."""
    found: dict[int, set[int]] = defaultdict(set)
    for part, references in zip(function.ranges, image.references(function), strict=True):
        for item in references:
            if item.kind in WHOLE_KINDS and item.use is Use.DATA:
                found[part.start + item.offset].add(item.target)
    return found


class Way(NamedTuple):
    """What a function reaches from data that it names.

    Attributes:
        place: Where.
        width: Bytes that are read or written there; 0 where only the address is made.
        indexed: Whether an index that is unknown comes on top, which need not begin at zero.
    """

    place: int
    width: int
    indexed: bool


def accessed_from_named(image: Image, function: Function) -> frozenset[int]:
    """Where a function reads or writes at constant distances from data that it names: loops in their first round."""
    return frozenset(way.place for way in every_way(image, function) if way.width)


def ways_from_named(image: Image, function: Function) -> frozenset[tuple[int, bool]]:
    """The same, and where it makes the address of something so; what is read or written at once with what is before it, too.

    Each with whether an index that is unknown comes on top.
    """
    return in_words(every_way(image, function))


def in_words(ways: Iterable[Way]) -> frozenset[tuple[int, bool]]:
    """Each word of what is reached, with whether an index comes on top."""
    return frozenset((way.place + at, way.indexed) for way in ways for at in range(0, max(way.width, 1), POINTER_SIZE))


def every_way(image: Image, function: Function) -> frozenset[Way]:
    """All that a function reaches from data that it names."""
    names = named_data(image, function)
    instructions, edges = followed(image, function) if names else ([], {})
    reached = image.architecture.ever_reached(instructions, names, edges)
    return frozenset(Way(name + item.distance, item.width, item.indexed) for item in reached for name in names[item.anchor])
