"""Functions of one image that are copies of each other: a linker that folds identical code would have made them one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.parts import position_in

if TYPE_CHECKING:
    from hotpatch.differ.parts import Position
    from hotpatch.differ.view import View
    from hotpatch.image import Function


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
