"""Whether the code that a jump into the middle of a function leads to is the same in both images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow, Use
from hotpatch.differ.flows import flows
from hotpatch.differ.parts import ENTRY, PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.lines import Line
    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_LEAVING = frozenset({Flow.RETURN, Flow.JUMP, Flow.TRAP})
_CALLS = frozenset({Flow.CALL, Flow.CALL_INDIRECT})
_GOES = frozenset({Use.CALL, Use.JUMP, Use.BRANCH})


def enters_changed_code(relation: Correspondence, old: Link, new: Link) -> bool:
    """Whether control goes, by two references to corresponding places, into the middle of functions that differ from there on.

    A base function that does so runs old code in the middle of a function that has been replaced: only its entry leads to the new one.
    """
    if old.use not in _GOES:
        return False
    there = relation.base.place(old.target)
    if there.kind is not PlaceKind.FUNCTION or there.position == ENTRY:
        return False
    return not _Tails(relation).same(old.target, new.target)


class _Tails:
    """Follows control in both images at once."""

    def __init__(self, relation: Correspondence) -> None:
        self.relation = relation
        self.base = _Reader(relation.base)
        self.fixed = _Reader(relation.fixed)

    def same(self, base: int, fixed: int) -> bool:
        """Whether all instructions that control reaches from the two addresses do the same, without entering a function at its start."""
        seen: set[Pair] = set()
        waiting = [(base, fixed)]
        while waiting:
            pair = waiting.pop()
            if pair in seen:
                continue
            seen.add(pair)
            following = self._step(*pair)
            if following is None:
                return False
            waiting += following
        return True

    def _step(self, base: int, fixed: int) -> list[Pair] | None:
        """Where control goes from two instructions, or ``None`` where they differ."""
        there, here = self.base.at(base), self.fixed.at(fixed)
        if there is None or here is None:
            return None
        (old, flow), (new, _) = there, here
        if old.token != new.token or (old.inner is None) != (new.inner is None):
            return None
        following: list[Pair] = []
        for one, other in zip(self.base.links(base, old), self.fixed.links(fixed, new), strict=True):
            if not self.relation.same(one.target, other.target):
                return None
            place = self.relation.base.place(one.target)
            if one.use in _GOES and place.kind is PlaceKind.FUNCTION and place.position != ENTRY:
                following.append((one.target, other.target))
        if old.inner is not None and new.inner is not None:
            if not old.takes_inner:
                following.append((old.inner, new.inner))
            elif not self.relation.same(old.inner, new.inner):
                return None
        if flow is Flow.JUMP_INDIRECT:
            arms = self.base.arms(base), self.fixed.arms(fixed)
            if len(arms[0]) != len(arms[1]):
                return None
            following += zip(*arms, strict=True)
        elif flow not in _LEAVING:
            behind = base + old.size, fixed + new.size
            if not (flow in _CALLS and self.base.is_last(base, behind[0]) and self.fixed.is_last(fixed, behind[1])):
                following.append(behind)
        return following


class _Reader:
    """Instructions of one image by address."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._known: dict[int, Mapping[int, tuple[Line, Flow]]] = {}

    def at(self, rva: int) -> tuple[Line, Flow] | None:
        function = self.view.place(rva).function
        if function is None:
            return None
        lines = self._known.get(function.entry)
        if lines is None:
            lines = self._known[function.entry] = dict(self._lines(function.entry))
        return lines.get(rva)

    def _lines(self, entry: int) -> Iterator[tuple[int, tuple[Line, Flow]]]:
        ranges = self.view.functions[entry].ranges
        for line, flow in zip(self.view.lines(entry), flows(self.view, entry), strict=True):
            yield ranges[line.position.part].start + line.position.offset, (line, flow)

    def is_last(self, rva: int, behind: int) -> bool:
        """Whether no code of the function stands at ``behind``, but its end or data: a call before that, at ``rva``, never returns."""
        function = self.view.place(rva).function
        return function is not None and (self.view.place(behind).function is not function or self.at(behind) is None)

    def links(self, rva: int, line: Line) -> list[Link]:
        function = self.view.place(rva).function
        links = self.view.links(function.entry) if function else ()
        return [links[number] for number in line.links]

    def arms(self, rva: int) -> tuple[int, ...]:
        """Where a jump through a table leads, in its order."""
        function = self.view.place(rva).function
        stretch = next((part for part in function.ranges if rva in part), None) if function else None
        tables = self.view.image.jump_tables_in(stretch) if stretch else ()
        return next((tuple(map(int, table.targets)) for table in tables if stretch and stretch.start + table.jump == rva), ())
