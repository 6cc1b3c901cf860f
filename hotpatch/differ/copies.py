"""Functions of one image that are copies of each other: a linker that folds identical code would have made them one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Use
from hotpatch.differ.parts import position_in

if TYPE_CHECKING:
    from hotpatch.differ.parts import Position
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_CALLS = frozenset({Use.CALL, Use.JUMP, Use.BRANCH})


def are_copies(view: View, one: int, other: int) -> bool:
    """Whether either of two functions, by their entries, can stand in the place of the other.

    They are the same code and refer to the same (or each to its own code). They neither switch nor handle exceptions, for tables of these
    may differ, and no code takes their addresses but to call them: it could tell them apart.
    """
    if one == other:
        return True
    first, second = view.bodies[one], view.bodies[other]
    if not first.is_like(second) or not all(_is_plain(view, body.function) for body in (first, second)):
        return False
    return all(
        target == twin or ((position := _position(first.function, target)) is not None and position == _position(second.function, twin))
        for target, twin in zip(first.targets, second.targets, strict=True)
    )


def _is_plain(view: View, function: Function) -> bool:
    if view.image.jump_tables(function):
        return False
    if any(entry.handler is not None for part in function.ranges for entry in view.image.unwind_entries_in(part)):
        return False
    links = (link for user in view.users.get(function.entry, ()) for link in view.links(user))
    return all(link.use in _CALLS for link in links if link.target == function.entry)


def _position(function: Function, rva: int) -> Position | None:
    return position_in(function, rva) if any(rva in part for part in function.ranges) else None
