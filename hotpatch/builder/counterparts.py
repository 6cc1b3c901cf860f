"""What the base's version of a function says at the instructions that did not change."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import LONGEST_INSTRUCTION
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import PAGES, Body
from hotpatch.builder.reaches import reaches
from hotpatch.builder.users import Users, users
from hotpatch.differ.align import align
from hotpatch.differ.correspond import aligned_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator, Mapping

    from hotpatch.differ import DatumMatch, ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function


class Counterparts:
    """The instructions of a function that only take an address, beside those of the base's version that are the same but for where to."""

    def __init__(self, diff: ImageDiff, base: View, fixed: View, pair: tuple[Function, Function]) -> None:
        """Look at ``pair``, the function in the base and in the fixed image."""
        self._diff, self._base, self._fixed, self._pair = diff, base, fixed, pair

    def told(self, target: int, places: Collection[int]) -> int | None:
        """The one of the base's ``places`` that stands where the function takes ``target``; ``None`` where that is not clear.

        It is clear where every instruction that takes ``target`` has a counterpart, these all take that place, and no others in the base's
        version take any of ``places``: then nothing was inserted or left out that could have been paired instead. Others whose own
        counterparts take what the base has at that place mean that. Where compilers keep addresses in other registers, or reckon one from
        another, the instructions that use them tell in the same way.
        """
        told = self._told_by_takers(target, places)
        return self._told_by_users(target, places) if told is None else told

    def _told_by_takers(self, target: int, places: Collection[int]) -> int | None:
        here = self._taken[1].get(target, ())
        found = {self._lines.get(line) for line in here}
        taken = ((place, line) for place in places for line in self._taken[0].get(place, ()))
        there = {(place, line) for place, line in taken if not self._means_another(line, place, target)}
        chosen = {place for place, line in there if line in found}
        paired = None not in found and len(found) == len(here) == len(there) and {line for _, line in there} == found
        return chosen.pop() if here and paired and len(chosen) == 1 else None

    def taken_there(self, target: int) -> frozenset[int]:
        """What the base's version takes where the function takes ``target``."""
        lines = {self._lines.get(line) for line in self._taken[1].get(target, ())}
        return frozenset(place for place, taken in self._taken[0].items() if lines.intersection(taken))

    def goes_on(self, place: int) -> bool:
        """Whether the base's version goes on from ``place``, which it takes, so that something begins there for it."""
        body = body_of(self._base.image, self._pair[0])
        every = reaches(self._base.image, body).values() if isinstance(body, Body) else ()
        return any(item.taken == place <= item.start and (item.width or item.start > place) for items in every for item in items)

    def handed_there(self, target: int) -> frozenset[int]:
        """What the base's version hands on, stores or compares where the function does so with ``target``, but for what it takes there."""
        old, new = self._users
        lines = self._lines_by_callees
        users = ((line, place) for (line, place), address in new.addresses.items() if address == target and line in lines)
        partners = ((lines[line], place) for line, place in users)
        return frozenset(old.addresses[user] for user in partners if user in old.addresses) - self.taken_there(target)

    def _means_another(self, line: int, place: int, target: int) -> bool:
        """Whether the counterpart of a base instruction takes another address than ``target``, of what the base has at ``place``."""
        return any(
            other != target and line in (self._lines.get(new) for new in lines) and self._diff.base_datum(Rva(other)) == place
            for other, lines in self._taken[1].items()
        )

    def _told_by_users(self, target: int, places: Collection[int]) -> int | None:
        """The same by what hands the address on, stores or compares it; an instruction whose users are not seen may mean anything."""
        (old, new), lines = self._users, self._lines_by_callees
        partners = {(lines[line], place): address for (line, place), address in new.addresses.items() if line in lines}
        here = [user for user, address in new.addresses.items() if address == target]
        there = {
            user: place
            for user, place in old.addresses.items()
            if place in places and (partners.get(user) in (None, target) or self._diff.base_datum(Rva(partners[user])) != place)
        }
        chosen = set(there.values())
        if not here or len(chosen) != 1 or {(lines.get(line), place) for line, place in here} != there.keys():
            return None
        (place,) = chosen
        takers = ((old.makers, self._taken[0].get(place, ())), (new.makers, self._taken[1].get(target, ())))
        return place if all(line in makers for makers, taken in takers for line in taken) else None

    @cached_property
    def _users(self) -> tuple[Users, Users]:
        """In both versions: what uses addresses."""
        old, new = (users(view, function) for view, function in zip((self._base, self._fixed), self._pair, strict=True))
        return old, new

    @cached_property
    def _lines(self) -> Mapping[int, int]:
        """Index of an instruction of the fixed function → of the base's."""
        base, fixed = self._pair
        return {new: old for old, new in aligned_lines(self._base.lines(base.entry), self._fixed.lines(fixed.entry))}

    @cached_property
    def _lines_by_callees(self) -> Mapping[int, int]:
        """The same, told apart by the functions and imports that they refer to."""
        base, fixed = self._pair
        there = [*_with_callees(self._base, base, lambda entry: entry)]
        here = [*_with_callees(self._fixed, fixed, lambda entry: self._diff.base_entries.get(Rva(entry)))]
        return {new: old for old, new in align(there, here)}

    @cached_property
    def _taken(self) -> tuple[Mapping[int, list[int]], Mapping[int, list[int]]]:
        """In both versions: address → the indices of the instructions that take it and access nothing there."""
        found = []
        for view, function in zip((self._base, self._fixed), self._pair, strict=True):
            taken: dict[int, list[int]] = defaultdict(list)
            for target, line in _taken(view, function):
                taken[target].append(line)
            found.append(taken)
        return found[0], found[1]


def match_at_or_before(diff: ImageDiff, rva: int) -> DatumMatch | None:
    """Live data that both images have and that lie at ``rva`` of the fixed image or end there."""
    at = bisect_right(diff.data, rva, key=_fixed_start) - 1
    found = diff.data[at] if at >= 0 else None
    return found if found is not None and found.writable and rva <= found.fixed + found.size else None


def _with_callees(view: View, function: Function, known: Callable[[int], int | None]) -> Iterator[Hashable]:
    """The instructions of a function, addresses set apart, and the names of imports and the ``known`` entries that they refer to."""
    lines, links = view.lines(function.entry), view.links(function.entry)
    for token, line in zip(lines.tokens, lines, strict=True):
        places = [view.place(links[number].target) for number in line.links]
        yield token, *(place.slot.label if place.slot else place.function and known(place.function.entry) for place in places)


def _fixed_start(match: DatumMatch) -> int:
    return match.fixed


def _taken(view: View, function: Function) -> Iterator[tuple[int, int]]:
    body, links = view.body(function.entry), view.links(function.entry)
    for index, line in enumerate(view.lines(function.entry)):
        for link in (links[number] for number in line.links):
            code = body.code[link.part][link.offset : link.offset + LONGEST_INSTRUCTION]
            at = function.ranges[link.part].start + link.offset
            if link.kind not in PAGES and not view.architecture.accesses(link.kind, code, at):
                yield link.target, index
