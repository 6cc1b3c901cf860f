"""Addresses that code reckons from others by a number, which the patch needs another number for.

Compilers take the address of one datum and count on from it to others. Where the base has these at other distances, the number is encoded
anew. That needs proof that the register holds one address on every way there, and as much evidence of what is meant as if the instruction
named the sum itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import Use
from hotpatch.builder.model import BaseAddress, Reckoning, Site
from hotpatch.builder.reaches import naming_sites
from hotpatch.builder.unwinding import entries_of
from hotpatch.differ.follow import followed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from hotpatch.address import Rva
    from hotpatch.arch import Counted
    from hotpatch.builder.model import Body, Destination, Link
    from hotpatch.builder.reaches import Reach
    from hotpatch.image import Function, Image


class Count(NamedTuple):
    """An instruction that counts on from an address that its register holds for certain.

    Attributes:
        anchor: The site of the instruction that makes the address.
        distance: Of what the register holds, from that address.
        counted: What is added to the register.
    """

    anchor: Site
    distance: int
    counted: Counted

    def target(self, anchor: int) -> int:
        """What the sum is where that address is ``anchor``."""
        return anchor + self.distance + self.counted.number


def counts(image: Image, body: Body, reckoned: Iterable[Site] = ()) -> Mapping[int, Count]:
    """By instruction: what ``body`` counts on from the addresses that it names, or that are ``reckoned``.

    None where control may come in elsewhere than at the entry, by an exception handler, and none from an address that it walks on from:
    all that it counts on to may be one array.
    """
    return counts_as_read(image, body, reckoned, image.read, int)


def counts_as_read(
    image: Image, body: Body, reckoned: Iterable[Site], read: Callable[[int, int], bytes], place: Callable[[int], int]
) -> Mapping[int, Count]:
    """The same of a copy of ``body``'s code: it has at ``place(rva)`` what the image has at ``rva``, and ``read(place, size)`` gives it.

    By the addresses in the image.
    """
    named = naming_sites(image, body, reckoned)
    instructions, edges = followed(image, body.function) if named else ([], {})
    handled = any(entry.handler is not None for entry in entries_of(image, body))
    copies = {place(one.address): (one.address, read(place(one.address), one.size)) for one in instructions}
    decoded = [one for at, (_, code) in sorted(copies.items()) for one in image.architecture.disassemble(code, at)]
    if not decoded or len(decoded) != len(copies) or decoded[0].address != place(body.function.entry) or handled:
        return {}
    found: dict[int, Count] = {}
    anchors = {place(at): sites for at, sites in named.items()}
    ways = {place(jump): [place(target) for target in targets] for jump, targets in edges.items()}
    walked = image.architecture.walked(decoded, anchors, ways)
    for item in image.architecture.held(decoded, anchors, ways):
        sites = anchors[item.anchor] if item.anchor not in walked else ()
        address, code = copies[item.at]
        counted = image.architecture.counted(code, item.at)
        if counted is not None and counted.place == item.place and len(sites) == 1:
            found[address] = Count(sites[0], item.distance, counted)
    return found


class Reckonings:
    """What is encoded anew in the functions that travel."""

    def __init__(self, fixed: Image, ask: Callable[[Function, Site], Destination | str]) -> None:
        """Judge code of ``fixed``; ``ask`` tells what a site is bound to, or why that is unknown."""
        self._fixed, self._ask = fixed, ask
        self._sites: dict[Rva, dict[Site, BaseAddress]] = defaultdict(dict)

    def of(self, body: Body) -> Mapping[Site, BaseAddress]:
        """The instructions of ``body`` that get another number, and what their sums are bound to."""
        return self._sites[body.function.entry]

    def withdraw(self, body: Body, links: Iterable[Link]) -> bool:
        """Take back all of ``body`` where something else that travels leads into its middle; whether there was any."""
        known = self._sites[body.function.entry]
        if not known or not is_entered_elsewhere(body, (link.site for link in links)):
            return False
        known.clear()
        return True

    def add(self, body: Body, items: Sequence[tuple[Site, Reach]], links: Iterable[Link]) -> bool:
        """Encode anew what can be of ``items``, which the base has at other distances: sums, else accesses; whether there was any."""
        known = self.of(body)
        if is_entered_elsewhere(body, (link.site for link in links)):
            return False
        found = counts(self._fixed, body, known)
        added = dict(self._judged(body.function, found, [item for item in items if not item[1].width]))
        if not added:
            added = dict(self._judged(body.function, found, [item for item in items if item[1].width]))
        together = {**known, **added}
        if not added or not {site.instruction for site in together} <= counts(self._fixed, body, together).keys():
            return False
        self._sites[body.function.entry] = together
        return True

    def _judged(
        self, function: Function, found: Mapping[int, Count], items: Iterable[tuple[Site, Reach]]
    ) -> Iterator[tuple[Site, BaseAddress]]:
        for anchor, item in items:
            count = found.get(item.at)
            if count is None or count.anchor != anchor or count.target(anchor.target) != item.start:
                continue
            site = Site(item.at, item.size, item.at, count.counted.kind, Use.DATA, item.start, 0)
            there = self._ask(function, site) if site not in self._sites[function.entry] else None
            if isinstance(there, BaseAddress):
                yield site, there

    def all(self, bodies: Iterable[Body]) -> tuple[Reckoning, ...]:
        """Every one, by instruction, with the address that it counts from."""
        return tuple(
            Reckoning(site, found[site.instruction].anchor, found[site.instruction].distance, there)
            for body in bodies
            if self.of(body)
            for found in [counts(self._fixed, body, self.of(body))]
            for site, there in sorted(self.of(body).items(), key=_instruction)
        )


def new_bytes(image: Image, reckoning: Reckoning, anchor: Rva, target: Rva) -> bytes:
    """The instruction of ``reckoning`` where what it counts from is at ``anchor`` and what it counts to is at ``target``.

    Raises:
        OutOfReach: The number cannot be encoded.
    """
    site = reckoning.site
    code = image.read(site.instruction, site.size)
    return image.architecture.recount(code, site.instruction, target - anchor - reckoning.distance)


def is_entered_elsewhere(body: Body, sites: Iterable[Site]) -> bool:
    """Whether any of ``sites``, of all that travels, leads from outside into the middle of ``body``."""
    parts, entry = body.function.ranges, body.function.entry
    inside = (site for site in sites if site.target != entry and any(site.target in part for part in parts))
    return any(not any(site.instruction in part for part in parts) for site in inside)


def _instruction(item: tuple[Site, BaseAddress]) -> Rva:
    return item[0].instruction
