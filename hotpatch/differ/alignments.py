"""Links of two functions that stand in instructions that align."""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING

from hotpatch.differ.correspond import loosely_aligned_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Alignments:
    """Of functions of two images: each two are aligned once, because several ask."""

    def __init__(self, base: View, fixed: View) -> None:
        """Align functions of ``base`` with functions of ``fixed``."""
        self._views = base, fixed
        self._numbers: dict[Pair, array[int]] = {}
        """The indices of links that align, the base's and the fixed image's by turns."""

    def links(self, functions: Pair) -> Iterator[tuple[Link, Link]]:
        """Of two functions, by their entries."""
        numbers = self._numbers.get(functions)
        if numbers is None:
            numbers = self._numbers[functions] = array("I", chain.from_iterable(self._align(functions)))
        old, new = (view.links(entry) for view, entry in zip(self._views, functions, strict=True))
        for place in range(0, len(numbers), 2):
            yield old[numbers[place]], new[numbers[place + 1]]

    def _align(self, functions: Pair) -> Iterator[tuple[int, int]]:
        there, here = (view.lines(entry) for view, entry in zip(self._views, functions, strict=True))
        for old, new in loosely_aligned_lines(there, here):
            yield from zip(there.links_of(old), here.links_of(new), strict=False)
