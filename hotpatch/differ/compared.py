"""Addresses that code only compares others with: where arrays end. What begins there is nothing that the code means.

Something that begins there may be meant, too, the head of a list, say, that is compared with by its address alone. So what is compared
must have been reckoned from the array that ends there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.follow import followed, named_data
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.image import Function


def is_end(view: View, function: Function, target: int) -> bool:
    """Whether all that a function does with an address is to compare others with it that it reckons from the datum that ends there."""
    names = named_data(view.image, function)
    sites = {at for at, named in names.items() if target in named}
    before = {at for at, named in names.items() if all(target - 1 in view.datum(one) for one in named)}
    if not sites or not before:
        return False
    instructions, edges = followed(view.image, function)
    compared = view.image.architecture.only_compared(instructions, names, edges)
    return all(site in compared and compared[site] <= before for site in sites)


def are_same_ends(relation: Correspondence, old: Body, new: Body, pair: tuple[int, int]) -> bool:
    """Whether two functions of the same body take the two addresses of ``pair`` for ends, and what ends there is the same."""
    base, fixed = relation.base, relation.fixed
    before = pair[0] - 1, pair[1] - 1
    return (
        base.place(before[0]).kind is PlaceKind.WRITABLE is fixed.place(before[1]).kind
        and relation.live.base_of(before[1]) == before[0]
        and is_end(base, old.function, pair[0])
        and is_end(fixed, new.function, pair[1])
    )
