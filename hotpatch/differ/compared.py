"""Addresses that code only compares others with: where arrays end. What begins there is nothing that the code means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.image import Function


def only_compares(view: View, function: Function, target: int) -> bool:
    """Whether all that a function does with an address that it names is to compare others with it."""
    image = view.image
    names = named_data(image, function)
    sites = {at for at, named in names.items() if target in named}
    instructions, edges = followed(image, function) if sites else ([], {})
    return bool(sites) and sites <= image.architecture.only_compared(instructions, names, edges)


def are_same_ends(relation: Correspondence, old: Body, new: Body, pair: tuple[int, int]) -> bool:
    """Whether two functions of the same body only compare others with the two addresses of ``pair``, and what ends there is the same."""
    base, fixed = relation.base, relation.fixed
    before = pair[0] - 1, pair[1] - 1
    return (
        base.place(before[0]).kind is PlaceKind.WRITABLE is fixed.place(before[1]).kind
        and relation.live.base_of(before[1]) == before[0]
        and only_compares(base, old.function, pair[0])
        and only_compares(fixed, new.function, pair[1])
    )
