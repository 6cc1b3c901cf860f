"""Why a difference of two runs may show nothing: made-up state can lead a function where the program never would.

A difference counts only where the fixed image's own run is the same when it is made again, has the same value there when the image lies
elsewhere (or the same address in the image), and came upon the same data as the other side's: an index that nothing has checked,
because it was made up, reads what happens to lie beside a table, and that need not be the same in two images. Where it is the same, it
explains no difference: code that names the middle of an array and reads backwards from there finds what the base finds.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.verifier.micro_compare import value_at
from hotpatch.verifier.micro_paths import Replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.verifier.micro_history import History, Stored
    from hotpatch.verifier.micro_model import Difference
    from hotpatch.verifier.micro_observed import Observed
    from hotpatch.verifier.micro_reach import Reach
    from hotpatch.verifier.micro_run import Runner
    from hotpatch.verifier.micro_sides import Runs, Sides

_WORD = 8
_OFTEN = "the function does not do the same twice"
PLACE = "values depend on where the image lies"
_CUT = "made-up pointers lead into each other's words, so that addresses are cut"
_STRAY = "made-up indices lead out of the data that the function refers to, or the images hold something else there"


class Doubts:
    """About the differences of one run of a function of the fixed image from the other side's."""

    def __init__(self, sides: Sides, runs: Runs) -> None:
        """What differs in ``runs`` of a function on both ``sides``."""
        self._sides, self._runs = sides, runs
        self._theirs, self._correlation, self._fixed = sides.theirs, sides.correlation, sides.fixed
        self._first, self._mine = runs.theirs, runs.mine

    def about(self, difference: Difference) -> str | None:
        """Why ``difference`` shows nothing, or ``None``."""
        if self._is_after_stray(difference) or self._is_stray(difference):
            return _STRAY
        if not self._repeats:
            return _OFTEN
        if self._depends(difference) or self._moves_along(difference):
            return PLACE
        return _CUT if self._is_cut(difference) else None

    def _is_stray(self, difference: Difference) -> bool:
        """Whether the two came as far from what the function refers to, where no reference explains it: led out of an array, say.

        Elsewhere they were led by something else, as another member of what a pointer leads to: that is a difference.
        """
        if difference.place[:1] != ("own",) or difference.values is None:
            return False
        mine, theirs = difference.values
        beside = self._reach.is_stray(theirs - self._theirs.process.load_base, own=True)
        return beside and mine in self._correlation.beside(theirs, self._fixed)

    def _again(self, runner: Runner) -> Observed:
        place = self._sides.place_in(runner)
        return runner.run(place, self._runs.scenery, Replay(self._runs.forced, place.body))

    @cached_property
    def _repeats(self) -> bool:
        first, again = self._first, self._again(self._theirs)
        return (again.calls, again.words, again.written, again.end) == (first.calls, first.words, first.written, first.end)

    @cached_property
    def _moved(self) -> tuple[Observed, int] | None:
        runner = self._sides.elsewhere(None)
        if runner is None:
            return None
        return self._again(runner), runner.process.load_base - self._theirs.process.load_base

    @cached_property
    def _reach(self) -> Reach:
        start = self._theirs.process.load_base
        return self._correlation.reach(self._fixed, {Rva(call.callee - start) for call in self._first.calls})

    def _is_after_stray(self, difference: Difference) -> bool:
        """Whether the function came upon something else before there was the difference."""
        if self._stray is None:
            return False
        field, number = (*difference.place, None, None)[:2]
        after = self._first.after.get(str(field), ())
        return not isinstance(number, int) or number >= len(after) or self._stray < after[number]

    @cached_property
    def _stray(self) -> int | None:
        """The number of the first access that came upon something else in the two images, or upon what no reference explains."""
        start, reach = self._theirs.process.load_base, self._reach
        own = {after - 1: number for number, after in enumerate(self._first.after["own"])}
        for number, (va, size) in enumerate(self._first.touched):
            if self._beside_table(number, va, size) or self._correlation.is_cut_entry(va, size, self._fixed):
                return number
            beside = reach.is_stray(va - start, own=False) or self._beyond(number, va)
            if beside and not self._found_the_same(self._mine.touched[number : number + 1], va, size):
                return number
            if not self._correlation.holds_the_same(va - start, size, self._fixed):
                return number
            at = own.get(number)
            if at is not None and reach.is_stray(va - start, own=True) and not self._found_the_same(self._mine.own[at : at + 1], va, size):
                return number
        return None

    def _found_the_same(self, other: Sequence[tuple[int, int]], va: int, size: int) -> bool:
        """Whether the other side came upon the same, at ``other``, where this one came to ``va``, which no reference explains."""
        if any(width == size and self._correlation.alike(place, va, size) for place, width in other):
            return True
        places = self._correlation.beside(va, self._fixed)
        return any((place, size) in self._other_places and self._correlation.alike(place, va, size) for place in places)

    def _beside_table(self, number: int, va: int, size: int) -> bool:
        """Whether both sides come upon what lies beside a jump table: no entry, so that it leads either where nothing is."""
        others = self._mine.touched
        return number < len(others) and self._correlation.is_beside_table(others[number][0], va, size, self._fixed)

    def _beyond(self, number: int, va: int) -> bool:
        """Whether an access that a reference explains by its place goes past what is there, or comes before it."""
        others = self._mine.touched
        if number < len(others) and self._correlation.is_past_carried(others[number][0], va, self._fixed):
            return True
        # Where a run was led round the check of a length, what is left of it is less than what is taken away from an end that it tells.
        led = bool(self._runs.forced) and number < len(others)
        in_front = led and self._correlation.is_in_front_of_carried(others[number][0], va, self._fixed)
        return in_front or self._correlation.is_plain_code(va, self._fixed)

    @cached_property
    def _other_places(self) -> frozenset[tuple[int, int]]:
        return frozenset(self._mine.touched)

    def _depends(self, difference: Difference) -> bool:
        """Whether the value is another where the image lies elsewhere, and no address that moved with the image."""
        if self._moved is None:
            return False
        first, (moved, distance) = self._first, self._moved
        if difference.values is None or not difference.place:
            inside = first.address is not None and self._is_inside(first.address)
            astray = first.address != moved.address and not inside
            return astray or (len(first.calls), first.end) != (len(moved.calls), moved.end)
        theirs = difference.values[1]  # an address in the image moves with it, unless something else led there
        if difference.place[0] != "written" and self._is_inside(theirs):
            return value_at(moved, difference.place) != theirs + distance
        sides = zip(difference.values, (self._correlation.mine, self._correlation.theirs), strict=True)
        if any(0 <= value - process.load_base < process.base.size_of_image for value, process in sides):
            return False
        if self._correlation.are_cut(*difference.values):
            return True
        if difference.place[0] == "written":
            va = int(difference.place[1])
            if not self._is_inside(va) and not any(va + at in first.written for at in range(_WORD)):
                # The other side alone wrote there; this one wrote elsewhere, or nowhere, wherever it lies.
                return self._outside(first, 0) != self._outside(moved, distance)
            there = va + distance if self._is_inside(va) else va
            return any(first.written.get(va + at) != moved.written.get(there + at) for at in _differing(*difference.values))
        return value_at(moved, difference.place) != value_at(first, difference.place)

    def _moves_along(self, difference: Difference) -> bool:
        """Whether the value is the other side's where the fixed image lies so that something is there which the function refers to.

        Of an address taken away from a made-up one the lower bits may be all that is left, which stay the same where the image lies as far
        away as Windows would load it: what the function refers to may have moved by a page.
        """
        if difference.values is None or not difference.place or any(self._is_in_image(value) for value in difference.values):
            return False
        mine = difference.values[0]
        for distance in self._correlation.moved_by_pages(self._fixed):
            runner = self._sides.elsewhere(distance)
            if runner is not None and self._has_there(self._again(runner), difference, mine, distance):
                return True
        return False

    def _has_there(self, moved: Observed, difference: Difference, value: int, distance: int) -> bool:
        """Whether a run of the fixed image, ``distance`` bytes from where it was, has ``value`` at the place of ``difference``."""
        if difference.place[0] != "written":
            return value_at(moved, difference.place) == value
        va = int(difference.place[1])
        there = va + distance if self._is_inside(va) else va
        differing = _differing(*(difference.values or (0, 0)))
        return all(moved.written.get(there + at) == value >> 8 * at & 0xFF for at in differing)

    def _is_in_image(self, value: int) -> bool:
        sides = (self._correlation.mine, self._correlation.theirs)
        return any(0 <= value - process.load_base < process.base.size_of_image for process in sides)

    def _is_cut(self, difference: Difference) -> bool:
        """Whether the bytes that differ come of whole values that mean the same, written to the same places.

        Of an address that another store has overwritten in part, or that was read in part, the lower bytes alone may be left: these are not
        the same in two images, wherever they are loaded.
        """
        if difference.values is None or difference.place[:1] != ("written",) or self._is_inside(int(difference.place[1])):
            return False
        differing = [int(difference.place[1]) + at for at in _differing(*difference.values)]
        mine, theirs = (history.found for history in self._histories)
        return all(at in mine and at in theirs and self._mean_the_same(mine[at], theirs[at]) for at in differing)

    @cached_property
    def _histories(self) -> tuple[History, History]:
        sides, runs = self._sides, self._runs
        there = sides.place_in(sides.theirs)
        mine = sides.mine.history(sides.place, runs.scenery, Replay(runs.forced, sides.place.body))
        return mine, sides.theirs.history(there, runs.scenery, Replay(runs.forced, there.body))

    def _mean_the_same(self, mine: Stored, theirs: Stored) -> bool:
        if (mine.va, mine.at, mine.size, theirs.size) != (theirs.va, theirs.at, _WORD, _WORD):
            return False
        if self._correlation.same(mine.value, theirs.value, self._fixed, self._sides.own):
            return True
        return self._correlation.are_cut(mine.value, theirs.value)

    def _outside(self, run: Observed, distance: int) -> list[int]:
        """What a run wrote to outside of the image, which lies ``distance`` bytes from where the first run's does."""
        return sorted(va for va in run.written if not self._is_inside(va - distance))

    def _is_inside(self, va: int) -> bool:
        process = self._theirs.process
        return 0 <= va - process.load_base < process.base.size_of_image


def _differing(one: int, other: int) -> list[int]:
    """Which bytes of two words are not the same."""
    return [at for at in range(_WORD) if (one ^ other) >> 8 * at & 0xFF]
