"""Changed functions that do the same: they differ in line numbers that they pass on (``__LINE__``), or in versions, dates and times.

A number is a line number only where that is evident. With PDBs it is, where it is the line of the code that passes it, in both images.
Without, all numbers that reach one parameter of one function are looked at together: those of a source file into which lines were put keep
their order, move by the same amount between two insertions, and rise with the addresses of the code. A handful of sizes or limits does not
do that, and a single number never shows it.

A number is a time stamp where in both images it is a time, in seconds since 1970, of at most a day before the image was linked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import FixupKind, Use
from hotpatch.differ.beyond import others_reached
from hotpatch.differ.endings import takes_another_end
from hotpatch.differ.parts import PlaceKind
from hotpatch.differ.texts import differ_in_provenance, version_numbers, versions, whole_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from hotpatch.arch.constants import Constant, Passed
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View

LARGEST_LINE = 1_000_000
_LEAST_VALUES = 6
"""Different changed numbers that the comparison of numbers alone needs."""
_LEAST_RISING = 0.75
"""Share of neighbours in address order whose numbers rise."""
_CALLER_LIMIT = 2_000
"""Functions that call one parameter's function and are looked at."""
_LITERAL_BYTES = 4
_COMPILED_BEFORE = 24 * 60 * 60
"""Seconds, at most, from when a function is compiled to when the image is linked, as far as its numbers are believed to be time stamps."""
_FIRST_TIME = 631_152_000
"""The first of January 1990, before which no Windows file of this kind was linked: what a header has below that is a number of its maker's,
and small numbers near it are no times."""
_PAIR_LIMIT = 4_000
"""Pairs of constants that one reference leads to and that are looked at."""


class Parameter(NamedTuple):
    """A parameter of a function that both images have: the function (entry in the base, or an import's label) and its place."""

    callee: int | str
    place: str


@dataclass(frozen=True, slots=True)
class Number:
    """A number that aligned instructions of two functions load: in ``function`` at ``at`` (RVAs of the base).

    ``parameters``: those that get it; none where something else is done with it, too.
    """

    function: int
    at: int
    old: int
    new: int
    parameters: frozenset[Parameter]
    is_line: bool = False
    """Whether the PDBs say so."""


def cosmetic_pairs(relation: Correspondence, matching: Matching, changed: Iterable[tuple[int, int]]) -> Mapping[tuple[int, int], str]:
    """Of ``changed`` pairs (base and fixed entry) those that do the same, each with what differs."""
    changed = tuple(changed)
    search = _Search(relation, matching, frozenset(base for base, _ in changed))
    numbers = {pair: found for pair in changed if (found := search.numbers(*pair)) is not None}
    open_parameters = {parameter for found in numbers.values() for number in found if not number.is_line for parameter in number.parameters}
    everything = [number for found in numbers.values() for number in found]
    lines = search.line_parameters(open_parameters, everything)
    sure = {number for number in everything if number.is_line or (number.parameters and number.parameters <= lines)}
    file = _File(sure)
    return {
        pair: "only line numbers, versions or dates differ"
        for pair, found in numbers.items()
        if all(
            number in sure or (number.old, number.new) in search.versions or search.are_times(number) or file.fits(number)
            for number in found
        )
    }


class _File:
    """The lines that are known to be such."""

    def __init__(self, lines: Iterable[Number]) -> None:
        self._moved = {number.old: number.new for number in lines}
        self._order = sorted(self._moved)

    def fits(self, number: Number) -> bool:
        """Whether a number that is only passed on lies between two lines and moved as they did."""
        above = bisect_left(self._order, number.old)
        if not number.parameters or above == len(self._order) or (above == 0 and self._order[0] != number.old):
            return False
        near = {self._order[above], self._order[above - (self._order[above] != number.old)]}
        return {self._moved[line] - line for line in near} == {number.new - number.old}


class _Search:
    def __init__(self, relation: Correspondence, matching: Matching, changed: frozenset[int]) -> None:
        self.relation, self.matching, self.changed = relation, matching, changed
        self.base, self.fixed = relation.base, relation.fixed
        self.versions: set[tuple[int, int]] = set()
        """Version numbers of both images that belong to differing texts of versions."""

    def are_times(self, number: Number) -> bool:
        """Whether a number says in both images when the function was compiled."""
        values = (self.base.image.linked_at, number.old), (self.fixed.image.linked_at, number.new)
        return all(linked is not None and value >= _FIRST_TIME and 0 <= linked - value <= _COMPILED_BEFORE for linked, value in values)

    # one pair ----------------------------------------------------------------------------------------------------------------------------

    def numbers(self, base: int, fixed: int) -> tuple[Number, ...] | None:
        """The numbers in which a pair differs, if it differs in such and in texts of versions alone; ``None`` otherwise."""
        old, new = self.base.body(base), self.fixed.body(fixed)
        if [len(code) for code in old.masked] != [len(code) for code in new.masked] or len(old.targets) != len(new.targets):
            return None
        if not self.relation.same_tables(old, new):
            return None
        others = [found.places for found in others_reached(self.relation, old, new)]
        if takes_another_end(self.relation, old, new) or not all(provenance_only(self.base, self.fixed, *pair) for pair in others):
            return None
        literals: set[tuple[int, int]] = set()
        for there, here in zip(self.base.links(base), self.fixed.links(fixed), strict=True):
            if there[:4] != here[:4]:
                return None
            if self.relation.same_link(there, here):
                continue
            if there.kind is FixupKind.LITERAL19 and here.kind is FixupKind.LITERAL19:
                literals.add((there.part, there.offset))
            elif not self._same_but_for_provenance(there, here):
                return None
        found: list[Number] = []
        for part, (before, after) in enumerate(zip(old.masked, new.masked, strict=True)):
            differing = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other] if before != after else []
            wanted = {offset for owner, offset in literals if owner == part}
            if not differing and not wanted:
                continue
            some = self._numbers_in(base, fixed, part, differing, wanted)
            if some is None:
                return None
            found += some
        return tuple(found)

    def _same_but_for_provenance(self, there: Link, here: Link) -> bool:
        if there.use is not Use.DATA:
            return False
        if not provenance_only(self.base, self.fixed, there.target, here.target):
            return False
        texts = whole_text(self.base, there.target), whole_text(self.fixed, here.target)
        found = versions(texts[0][0], texts[1][0]) if texts[0] and texts[1] else None
        if found is not None:
            self.versions.update(zip(version_numbers(found[0]), version_numbers(found[1]), strict=True))
        return True

    def _numbers_in(self, base: int, fixed: int, part: int, differing: Sequence[int], literals: set[int]) -> list[Number] | None:
        """The numbers of one range that account for every byte of ``differing`` and for the loads at ``literals``."""
        ranges = self.base.functions[base].ranges[part], self.fixed.functions[fixed].ranges[part]
        there, here = _constants(self.base, base, part, ()), _constants(self.fixed, fixed, part, ())
        if [(c.offset, c.size, c.place, c.is_literal) for c in there] != [(c.offset, c.size, c.place, c.is_literal) for c in here]:
            return None
        open_bytes = set(differing)
        open_loads = set(literals)
        moved: dict[int, tuple[int, int]] = {}
        for old, new in zip(there, here, strict=True):
            values = _value(self.base, old), _value(self.fixed, new)
            if values[0] == values[1]:
                continue
            moved[old.offset] = values
            open_bytes -= set(range(old.offset, old.offset + old.size))
            if old.is_literal:
                at = old.value - ranges[0].start
                open_bytes -= set(range(at, at + _LITERAL_BYTES))
                open_loads.discard(old.offset)
        if open_bytes or open_loads:
            return None
        found: list[Number] = []
        for old, new in zip(_constants(self.base, base, part, moved), _constants(self.fixed, fixed, part, moved), strict=True):
            if old.offset in moved:
                values = moved[old.offset]
                parameters = self._parameters(base, fixed, part, old, new)
                known = self._known_line((ranges[0].start, ranges[1].start), old, *values)
                found.append(Number(base, ranges[0].start + old.offset, *values, parameters, known))
        return found

    def _parameters(self, base: int, fixed: int, part: int, old: Constant, new: Constant) -> frozenset[Parameter]:
        """The parameters that a number reaches, where it reaches nothing else."""
        if not (old.only_passed and new.only_passed) or old.passed != new.passed:
            return frozenset()
        found = set()
        for passed in old.passed:
            callee = self._callee(base, fixed, part, passed)
            if callee is None:
                return frozenset()
            found.add(Parameter(callee, passed.place))
        return frozenset(found)

    def _callee(self, base: int, fixed: int, part: int, passed: Passed) -> int | str | None:
        there = _link_at(self.base, base, part, passed.call)
        here = _link_at(self.fixed, fixed, part, passed.call)
        if there is None or here is None or not self.relation.same(there.target, here.target):
            return None
        return _callee(self.base, there)

    def _known_line(self, starts: tuple[int, int], constant: Constant, old: int, new: int) -> bool:
        """Whether the PDBs say that the numbers are those of the lines."""
        offsets = [constant.offset, *(passed.call for passed in constant.passed)]
        return any(
            self.base.image.line_at(starts[0] + offset) == old and self.fixed.image.line_at(starts[1] + offset) == new for offset in offsets
        )

    # all numbers of a parameter ----------------------------------------------------------------------------------------------------------

    def line_parameters(self, wanted: set[Parameter], changed: Sequence[Number]) -> frozenset[Parameter]:
        """Those of ``wanted`` that get line numbers."""
        by_parameter: dict[Parameter, list[Number]] = defaultdict(list)
        for number in changed:
            for parameter in number.parameters:
                by_parameter[parameter].append(number)
        likely = {parameter for parameter in wanted if len({number.old for number in by_parameter[parameter]}) >= _LEAST_VALUES}
        for number in self._unchanged(likely):
            for parameter in number.parameters & likely:
                by_parameter[parameter].append(number)
        return frozenset(parameter for parameter in likely if are_lines(by_parameter[parameter]))

    def _unchanged(self, parameters: set[Parameter]) -> Iterator[Number]:
        """The numbers that functions of the same body pass to ``parameters``."""
        callees = {parameter.callee for parameter in parameters}
        if not callees:
            return
        looked_at = 0
        for base in sorted(self.matching.forward):
            if base in self.changed:
                continue
            parts = {link.part for link in self.base.links(base) if _callee(self.base, link) in callees}
            looked_at += bool(parts)
            if looked_at > _CALLER_LIMIT:
                return
            for part in sorted(parts):
                start = self.base.functions[base].ranges[part].start
                for constant in _constants(self.base, base, part):
                    calls = ((_link_at(self.base, base, part, passed.call), passed.place) for passed in constant.passed)
                    reached = frozenset(
                        Parameter(callee, place)
                        for link, place in calls
                        if link is not None and (callee := _callee(self.base, link)) in callees and callee is not None
                    )
                    value = _value(self.base, constant)
                    if reached & parameters:
                        yield Number(base, start + constant.offset, value, value, reached)


def are_lines(numbers: Sequence[Number]) -> bool:
    """Whether the numbers that one parameter gets, changed and unchanged ones, can only be line numbers."""
    moved = {number.old: number.new for number in numbers}
    if any(moved[number.old] != number.new for number in numbers) or not all(0 < value <= LARGEST_LINE for value in moved):
        return False
    changed = [old for old, new in moved.items() if old != new]
    if len(changed) < _LEAST_VALUES or not any(old % 2 for old in changed) or not any(moved[old] % 2 for old in changed):
        return False
    order = sorted(moved)
    if any(moved[one] >= moved[other] for one, other in pairwise(order)):
        return False
    insertions = sum(moved[one] - one != moved[other] - other for one, other in pairwise(order))
    if insertions > len(order) // 2:
        return False
    rising = [one.old <= other.old for one, other in pairwise(sorted(numbers, key=lambda number: number.at))]
    return sum(rising) >= _LEAST_RISING * len(rising)


def provenance_only(base: View, fixed: View, old: int, new: int) -> bool:
    """Whether the constants at ``old`` and ``new`` are texts that differ in versions, dates and folders of sources alone."""
    if base.place(old).kind is not PlaceKind.CONSTANT or fixed.place(new).kind is not PlaceKind.CONSTANT:
        return False
    there, here = whole_text(base, old), whole_text(fixed, new)
    return there is not None and here is not None and there[1] == here[1] and differ_in_provenance(there[0], here[0])


def same_but_for_provenance(relation: Correspondence, old: int, new: int) -> bool:
    """Whether ``old`` and ``new`` are the same thing but for texts that differ in provenance: there, or where constants there lead.

    What begins as a text may have pointers behind it, which belong to it or to something that nothing refers to by its start.
    """
    seen, waiting = {(old, new)}, [(old, new)]
    while waiting:
        pair = waiting.pop()
        if relation.same(*pair) or provenance_only(relation.base, relation.fixed, *pair):
            continue
        further = relation.constant_content(*pair)
        if not further or len(seen) > _PAIR_LIMIT:
            return False
        waiting += [one for one in further if one not in seen]
        seen.update(further)
    return True


def _constants(view: View, entry: int, part: int, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
    stretch = view.functions[entry].ranges[part]
    return view.architecture.constants(view.image.code(stretch), stretch.start, followed=followed)


def _value(view: View, constant: Constant) -> int:
    return view.image.u32(constant.value) if constant.is_literal else constant.value


def _link_at(view: View, entry: int, part: int, offset: int) -> Link | None:
    return next((link for link in view.links(entry) if link.part == part and link.offset == offset), None)


def _callee(view: View, link: Link) -> int | str | None:
    place = view.place(link.target)
    if place.slot is not None:
        return place.slot.label
    return place.function.entry if place.function is not None and link.target == place.function.entry else None
