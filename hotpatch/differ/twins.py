"""Matched functions whose bodies are the same, and what they refer to together.

Nearly all functions are such, and their thousands of references lead to some hundreds of things: these are looked at, each once.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from hotpatch.differ.correlate import aligned_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Body, Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


@dataclass(frozen=True)
class Twins:
    """All matched functions, by whether their bodies are the same.

    Attributes:
        views: Of the base and the fixed image.
        bodies: In both images, of those of the same body; by base entry.
        unlike: The entries of the others.
    """

    views: tuple[View, View]
    bodies: tuple[tuple[Body, Body], ...]
    unlike: tuple[Pair, ...]
    _aligned: dict[Pair, array[int]] = field(default_factory=dict)
    """Of those of the others that were asked for: the indices of links that align, the base's and the fixed image's by turns."""

    @classmethod
    def of(cls, base: View, fixed: View, matching: Matching) -> Twins:
        """Of what ``matching`` says of the functions of two images; extra pairs, which folding makes, apart."""
        there, here = base.bodies, fixed.bodies
        bodies: list[tuple[Body, Body]] = []
        unlike: list[Pair] = []
        for pair in sorted(matching.forward.items()):
            old, new = there[pair[0]], here[pair[1]]
            if old.is_like(new):
                bodies.append((old, new))
            else:
                unlike.append(pair)
        return cls((base, fixed), tuple(bodies), tuple(unlike))

    @cached_property
    def targets(self) -> Collection[Pair]:
        """The addresses that two of the same body refer to in the same place: each pair once, in the order of functions and references."""
        return dict.fromkeys(chain.from_iterable(zip(old.targets, new.targets, strict=True) for old, new in self.bodies)).keys()

    def aligned_links(self, functions: Pair) -> Iterator[tuple[Link, Link]]:
        """Links of two functions of ``unlike`` that stand in instructions that align: worked out once, because several ask."""
        numbers = self._aligned.get(functions)
        if numbers is None:
            numbers = self._aligned[functions] = array("I", chain.from_iterable(aligned_numbers(*self.views, *functions)))
        old, new = (view.links(entry) for view, entry in zip(self.views, functions, strict=True))
        for place in range(0, len(numbers), 2):
            yield old[numbers[place]], new[numbers[place + 1]]
