"""What a function does with the addresses of data that it names or reckons: the instructions that hand them on, store or compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.follow import followed, named_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.differ.view import View
    from hotpatch.image import Function

User = tuple[int, str]
"""Index of an instruction of a function, and the register in which it gets an address."""


class Users(NamedTuple):
    """What uses addresses, as far as it is certain.

    Attributes:
        addresses: User → the address that it gets.
        makers: The indices of the instructions that name an address which a user gets as it is.
    """

    addresses: Mapping[User, int]
    makers: frozenset[int]


def users(view: View, function: Function) -> Users:
    """Of ``function`` in the image that ``view`` shows."""
    image = view.image
    names = named_data(image, function)
    instructions, edges = followed(image, function) if names else ([], {})
    if not instructions or instructions[0].address != function.entry:
        return Users({}, frozenset())
    order = [instruction.address for part in function.ranges for instruction in image.instructions_in(part)]
    index = {address: number for number, address in enumerate(order)}
    addresses = {at: next(iter(targets)) for at, targets in names.items() if len(targets) == 1}
    every = image.architecture.held(instructions, names, edges, addresses)
    held = [item for item in every if not item.moves and item.anchor in addresses]
    found = {(index[item.at], item.place): addresses[item.anchor] + item.distance for item in held}
    return Users(found, frozenset(index[item.anchor] for item in held if not item.distance))
