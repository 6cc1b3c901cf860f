"""For the self-check: instructions of a patch that differ from the fixed image's in nothing but a number that they count on by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva
from hotpatch.builder.reckonings import counts, counts_as_read, is_entered_elsewhere
from hotpatch.errors import OutOfReach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hotpatch.arch import Instruction
    from hotpatch.builder.model import Body
    from hotpatch.builder.reckonings import Count
    from hotpatch.image import Image


class Recount(NamedTuple):
    """An instruction that differs so: what it counts on from, in the fixed image and, by the patch's own bytes, there."""

    at: Rva
    size: int
    fixed: Count
    patch: Count


def recounts(
    fixed: Image,
    body: Body,
    bodies: Iterable[Body],
    differing: Iterable[Instruction],
    read: Callable[[int, int], bytes],
    place: Callable[[int], int],
) -> Iterator[Recount | Instruction]:
    """The ``differing`` instructions of ``body``; those that differ in anything else as they are.

    The patch has at ``place(rva)`` what ``fixed`` has at ``rva``, and ``read(place, size)`` gives it. ``bodies``: all that travels.
    """
    alone = not is_entered_elsewhere(body, (site for other in bodies for site in other.sites))
    here = counts(fixed, body) if alone else {}
    there = counts_as_read(fixed, body, (), read, place) if alone else {}
    for one in differing:
        old, new = here.get(one.address), there.get(one.address)
        code, copy = fixed.read(one.address, one.size), read(place(one.address), one.size)
        if old is None or new is None or old.anchor != new.anchor or _with(fixed, code, one.address, new.counted.number) != copy:
            yield one
        else:
            yield Recount(Rva(one.address), one.size, old, new)


def _with(image: Image, code: bytes, address: int, number: int) -> bytes | None:
    try:
        return image.architecture.recount(code, address, number)
    except OutOfReach:
        return None
