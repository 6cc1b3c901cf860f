"""Which new datum or function of the fixed image each one of a patch is, as the code that travels refers to them, all of it taken together.

Nothing in a patch says so but names. In one that is right, what is at the same place in a function's code on both sides, or in its data,
refers to the same thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import WHOLE_KINDS, Use
from hotpatch.differ.copies import are_copies
from hotpatch.differ.view import view_of
from hotpatch.image import Function, FunctionSource, Range
from hotpatch.patch import CarriedKind
from hotpatch.verifier.micro_blocks import led_to_by_unwinding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.verifier.micro_carried import CarriedThings


_DATA = (CarriedKind.DATA, CarriedKind.CONSTANT)


class Origins:
    """Where in the fixed image the new data and functions of a patch come from."""

    def __init__(self, diff: ImageDiff, patch: Patch, carried: CarriedThings) -> None:
        """Nothing is looked for until it is asked for."""
        self._diff, self._patch, self._carried = diff, patch, carried

    def agree(self, rva: int, fixed: int) -> bool:
        """Whether what is at ``rva`` of the patch image can be what the fixed image has at ``fixed``."""
        item = self._carried.at(rva)
        if item is not None and item.kind is CarriedKind.FUNCTION:
            function, view = self.function(rva), view_of(self._diff.fixed)
            return function is None or (fixed in view.functions and are_copies(view, function.entry, fixed))
        origin = None if item is None or item.kind is not CarriedKind.DATA else self._found.get(int(item.patch_rva))
        return item is None or origin is None or fixed - origin == rva - item.patch_rva

    def function(self, rva: int) -> Function | None:
        """The function of the fixed image that the patch carries at ``rva``, where names or references tell."""
        return self._walked[0].get(rva)

    def of(self, function: Function) -> int | None:
        """Where the patch image has a ``function`` of the fixed one that it carries."""
        return self._by_fixed.get(function.entry)

    @cached_property
    def _by_fixed(self) -> dict[Rva, int]:
        return {function.entry: rva for rva, function in self._walked[0].items()}

    @cached_property
    def _found(self) -> dict[int, int]:
        """Of each datum of the patch where it begins in the fixed image: where most of what refers to it says."""
        return {start: _most(found) for start, found in self._walked[1].items()}

    @cached_property
    def _walked(self) -> tuple[dict[int, Function], dict[int, Counter[int]]]:
        """The patch's new functions, and for each datum that it carries what speaks for where it begins in the fixed image."""
        fixed = self._diff.fixed
        by_base = {row.base.entry: row.fixed for row in self._diff.functions if row.base and row.fixed}
        replaced = {int(item.patch_rva): by_base.get(item.base_rva) for item in self._patch.functions}
        new = {int(item.patch_rva) for item in self._patch.carried if item.kind is CarriedKind.FUNCTION}
        known = self._of_names()
        votes: dict[int, Counter[int]] = defaultdict(Counter)
        wanted = [(rva, function) for rva, function in (replaced | known).items() if function is not None]
        while wanted:
            led_to = []
            for rva, function in wanted:
                for target, other in self._pairs(rva, function):
                    led_to.append((target, other))
                    item = self._carried.at(target)
                    if item is not None and item.kind in _DATA:
                        votes[int(item.patch_rva)][other - (target - item.patch_rva)] += 1
            led_to += self._pointers(votes)
            wanted = []
            for target, other in led_to:
                called = fixed.function_of_entry(Rva(other)) if target in new - known.keys() else None
                if called is not None:
                    known[target] = called
                    wanted.append((target, called))
        return known, votes

    def _of_names(self) -> dict[int, Function]:
        """The new functions that one name tells, which nothing else has."""
        functions = [item for item in self._patch.carried if item.kind is CarriedKind.FUNCTION]
        here = Counter(item.name for item in functions)
        there = Counter(function.name for function in self._diff.fixed.functions)
        named = {function.name: function for function in self._diff.fixed.functions}
        return {int(item.patch_rva): named[item.name] for item in functions if item.name and here[item.name] == there[item.name] == 1}

    def _pairs(self, rva: int, function: Function) -> Iterator[tuple[int, int]]:
        """What is referred to at the same place of the same code, at ``rva`` in the patch image and in ``function`` of the fixed one.

        By its exception data, too.
        """
        mine = self._patch.image.function_at(rva)
        is_whole = mine is not None and mine.entry == rva  # else without unwind data, or held for a part of another one
        if not is_whole and (size := self._sizes.get(rva)) is not None:
            mine = Function(Rva(rva), (Range(Rva(rva), Rva(rva + size)),), (), FunctionSource.CALL)
        if mine is None:
            return
        there = _references(self._diff.fixed, function)
        yield from ((target, there[place]) for place, target in _references(self._patch.image, mine).items() if place in there)
        for one, other in zip(mine.ranges, function.ranges, strict=False):
            here, there_too = led_to_by_unwinding(self._patch.image, one), led_to_by_unwinding(self._diff.fixed, other)
            for place, entries in here.items():
                others = there_too.get(place, ())
                yield from zip(entries, others, strict=True) if len(entries) == len(others) else ()

    @cached_property
    def _sizes(self) -> dict[int, int]:
        return {int(item.patch_rva): item.size for items in (self._patch.functions, self._patch.carried) for item in items}

    def _pointers(self, votes: dict[int, Counter[int]]) -> Iterator[tuple[int, int]]:
        """Where pointers in the data lead that ``votes`` are for, in the patch image and in the fixed one."""
        for start, found in votes.items():
            item, origin = self._carried.at(start), _most(found)
            for rva in self._carried.pointers(start, 0 if item is None else item.size):
                other = self._diff.fixed.pointers.get(Rva(origin + rva - start))
                if other is not None:
                    yield self._carried.led_to(rva), int(other)


def _most(found: Counter[int]) -> int:
    return min(found, key=lambda place: (-found[place], place))


def _references(image: Image, function: Function) -> dict[tuple[int, int], int]:
    """What a function refers to as a whole, by the number of the range and the instruction's offset in it."""
    parts = zip(function.ranges, image.references(function), strict=True)
    return {
        (number, reference.offset): int(reference.target)
        for number, (_, found) in enumerate(parts)
        for reference in found
        if reference.kind in WHOLE_KINDS or reference.use in (Use.CALL, Use.JUMP)
    }
