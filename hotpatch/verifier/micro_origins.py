"""Which new datum of the fixed image each new datum of a patch is, as the code that travels refers to them, all of it taken together.

Nothing in a patch says so. In one that is right, what is at the same place in a function's code on both sides refers to the same thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.arch import WHOLE_KINDS, Use
from hotpatch.patch import CarriedKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image
    from hotpatch.patch import Patch
    from hotpatch.verifier.micro_carried import CarriedThings


class Origins:
    """Where in the fixed image the data of a patch come from."""

    def __init__(self, diff: ImageDiff, patch: Patch, carried: CarriedThings) -> None:
        """Nothing is looked for until it is asked for."""
        self._diff, self._patch, self._carried = diff, patch, carried

    def agree(self, rva: int, fixed: int) -> bool:
        """Whether what is at ``rva`` of the patch image can be what the fixed image has at ``fixed``."""
        item = self._carried.at(rva)
        origin = None if item is None else self._found.get(int(item.patch_rva))
        return item is None or origin is None or fixed - origin == rva - item.patch_rva

    @cached_property
    def _found(self) -> dict[int, int]:
        """Of each datum of the patch where it begins in the fixed image: where most of what refers to it says."""
        votes: dict[int, Counter[int]] = defaultdict(Counter)
        for rva, fixed in self._pairs():
            item = self._carried.at(rva)
            if item is not None and item.kind is CarriedKind.DATA:
                votes[int(item.patch_rva)][fixed - (rva - item.patch_rva)] += 1
        return {start: min(found, key=lambda place: (-found[place], place)) for start, found in votes.items()}

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """What is referred to at the same place of the same code, in the patch image and in the fixed one."""
        fixed = self._diff.fixed
        by_base = {row.base.entry: row.fixed for row in self._diff.functions if row.base and row.fixed}
        new = {int(item.patch_rva) for item in self._patch.carried if item.kind is CarriedKind.FUNCTION}
        known = {int(item.patch_rva): by_base.get(item.base_rva) for item in self._patch.functions}
        wanted = [(rva, function) for rva, function in known.items() if function is not None]
        for rva, function in wanted:  # grows by the new functions that these call
            mine, theirs = self._patch.image.function_at(rva), _references(fixed, function)
            for place, target in _references(self._patch.image, mine).items() if mine is not None else ():
                if place not in theirs:
                    continue
                yield target, theirs[place]
                called = fixed.function_of_entry(theirs[place]) if target in new - known.keys() else None
                if called is not None:
                    known[target] = called
                    wanted.append((target, called))


def _references(image: Image, function: Function) -> dict[tuple[int, int], int]:
    """What a function refers to as a whole, by the number of the range and the instruction's offset in it."""
    parts = zip(function.ranges, image.references(function), strict=True)
    return {
        (number, reference.offset): int(reference.target)
        for number, (_, found) in enumerate(parts)
        for reference in found
        if reference.kind in WHOLE_KINDS or reference.use in (Use.CALL, Use.JUMP)
    }
