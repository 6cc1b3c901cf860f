"""Functions that are parts of others: compilers cut one that was whole in the other build, or took one in that was apart.

A function that the other image has not, and that one function alone uses, does what that one did there, or part of it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.differ import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.builder.reached import Users
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View


class Wholes:
    """Tells which functions of one image are parts of which; functions by their number among the rows of the comparison."""

    def __init__(self, diff: ImageDiff, view: View, *, base: bool) -> None:
        """Judge the functions of the image seen as ``view``, the ``base`` or the fixed one of ``diff``."""
        self._diff, self._view = diff, view
        self._apart = Verdict.REMOVED if base else Verdict.ADDED
        self._entries = [row.base if base else row.fixed for row in diff.functions]

    def of(self, numbers: Users) -> Users:
        """The functions, each part among them replaced by what it is a part of."""
        return frozenset(self._wholes.get(number, number) for number in numbers)

    def with_parts(self, numbers: Users) -> Users:
        """The functions and all that are parts of them."""
        return numbers.union(*(self._parts.get(number, ()) for number in numbers))

    @cached_property
    def _wholes(self) -> Mapping[int, int]:
        numbers: dict[int, int] = {function.entry: number for number, function in enumerate(self._entries) if function is not None}
        used_by: dict[int, int] = {}
        for number, (row, function) in enumerate(zip(self._diff.functions, self._entries, strict=True)):
            if row.verdict is not self._apart or function is None or function.names or function.entry in self._view.pointed:
                continue
            users = set(self._view.users.get(function.entry, ())) - {function.entry}
            if len(users) == 1 and (user := numbers.get(next(iter(users)))) is not None:
                used_by[number] = user
        found = {}
        for number in used_by:
            whole, steps = used_by[number], 0
            while whole in used_by and steps < len(used_by):
                whole, steps = used_by[whole], steps + 1
            if whole not in used_by:
                found[number] = whole
        return found

    @cached_property
    def _parts(self) -> Mapping[int, frozenset[int]]:
        found: dict[int, set[int]] = defaultdict(set)
        for part, whole in self._wholes.items():
            found[whole].add(part)
        return {whole: frozenset(parts) for whole, parts in found.items()}
