"""Functions of one image that are copies of each other: a linker that folds identical code would have made them one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.names import Names
from hotpatch.differ.parts import position_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.differ.data import Stretch
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Position
    from hotpatch.differ.view import View
    from hotpatch.image import Function


def pair_copies(base: View, fixed: View, matching: Matching, stretches: Iterable[Stretch]) -> None:
    """Where live data that correspond lead to a matched function, and to a copy of its partner that nothing matched, pair these too."""
    names = Names(base, fixed)
    for stretch in stretches:
        for site in base.pointers(stretch.base, stretch.base + stretch.size):
            old, new = base.pointer(stretch.base + site), fixed.image.pointers.get(Rva(stretch.fixed + site))
            if new is None or new not in fixed.functions or new in matching.backward or old not in matching.forward:
                continue
            if are_copies(fixed, matching.forward[old], new) and names.allow(old, new):
                matching.folded.add((old, new))
                matching.nameless.add((old, new))


def are_copies(view: View, one: int, other: int) -> bool:
    """Whether two functions, by their entries, are the same code, refer to the same (or each to its own code), and handle no exception.

    So that either can stand in the place of the other.
    """
    if one == other:
        return True
    first, second = view.bodies[one], view.bodies[other]
    if not first.is_like(second) or any(_handles(view, body.function) for body in (first, second)):
        return False
    return all(
        target == twin or ((position := _position(first.function, target)) is not None and position == _position(second.function, twin))
        for target, twin in zip(first.targets, second.targets, strict=True)
    )


def _handles(view: View, function: Function) -> bool:
    return any(entry.handler is not None for part in function.ranges for entry in view.image.unwind_entries_in(part))


def _position(function: Function, rva: int) -> Position | None:
    return position_in(function, rva) if any(rva in part for part in function.ranges) else None
