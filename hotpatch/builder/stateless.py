"""Live data of the base that hold nothing but their first value as long as the process goes on: a copy is as good as they are.

What reports a broken stack cookie fills words in which nobody looks up anything any more, since the process ends there. And some words
are only ever set to zero, which they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.arch import WHOLE_KINDS
from hotpatch.differ.follow import ways_from_named
from hotpatch.differ.process_ends import ProcessEnds

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from hotpatch.differ.view import View
    from hotpatch.image import Range


class Stateless:
    """Judges live data of one image by all that goes there."""

    def __init__(self, view: View) -> None:
        """Of ``view``."""
        self._view = view
        self._ends = ProcessEnds(view)
        self._known: dict[int, bool] = {}

    def holds_nothing(self, rva: int) -> bool:
        """Whether what lies at ``rva`` has its first value as long as the process goes on."""
        if rva not in self._known:
            part = self._around(rva)
            exported = any(export.rva is not None and export.rva in part for export in self._view.image.exports)
            known = exported or any(place in part for place in self._view.special_data.values())
            self._known[rva] = not known and self._is_led_to_by_ends_alone(part) and self._is_left_alone(part)
        return self._known[rva]

    def _is_left_alone(self, part: Range) -> bool:
        """Whether every function that names something in ``part``, or reaches it from other data, ends the process or only stores zeros.

        Zeros over zeros, that is.
        """
        named = self._naming(part)
        is_zero = not any(self._view.image.read(part.start, part.size)) and not self._view.pointers(part.start, part.end)
        if not all(self._ends.ends(entry) or (is_zero and self._only_zeroes(entry, part)) for entry in named):
            return False
        reached = {entry for place, entries in self._reached.items() if place in part for entry in entries}
        return bool(named) and all(entry in named or self._ends.ends(entry) for entry in reached)

    def _is_led_to_by_ends_alone(self, part: Range) -> bool:
        """Whether what has a pointer into ``part`` is used by functions alone that end the process."""
        holders = {self._around(site) for site, target in self._view.image.pointers.items() if target in part}
        exports = {export.rva for export in self._view.image.exports}
        return all(
            any(self._naming(holder))
            and all(self._ends.ends(entry) for entry in self._naming(holder))
            and not any(target in holder for target in (*self._view.pointed, *exports) if target is not None)
            for holder in holders
        )

    def _around(self, rva: int) -> Range:
        """The datum in which ``rva`` lies, as far as anything tells."""
        starts = self._view.boundaries
        return self._view.extent(starts[max(bisect_right(starts, rva) - 1, 0)])

    def _naming(self, part: Range) -> Set[int]:
        return {entry for target, entries in self._view.users.items() if target in part for entry in entries}

    def _only_zeroes(self, entry: int, part: Range) -> bool:
        """Whether a function does nothing with what is in ``part`` but store zeros there, and names no other live data."""
        if any(self._view.writable(target) and target not in part for target in self._view.body(entry).whole_targets):
            return False
        links, lines = self._view.links(entry), self._view.lines(entry)
        steps = [step for stretch in self._view.functions[entry].ranges for step in self._view.image.instructions_in(stretch)]
        return all(
            self._view.architecture.stores_zero(step)
            for step, line in zip(steps, lines, strict=True)
            if any(links[number].target in part and links[number].kind in WHOLE_KINDS for number in line.links)
        )

    @cached_property
    def _reached(self) -> Mapping[int, Set[int]]:
        """Places → the functions, by entry, that go there from live data that they name."""
        found: dict[int, set[int]] = defaultdict(set)
        for function in self._view.image.functions:
            if any(self._view.writable(target) for target in self._view.body(function.entry).whole_targets):
                for place, _ in ways_from_named(self._view.image, function):
                    found[place].add(function.entry)
        return found
