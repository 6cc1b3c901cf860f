"""One function on both sides, run seed after seed: which runs are made, which count, and what they show together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from hotpatch.errors import FaultKind
from hotpatch.verifier.micro_compare import Comparison
from hotpatch.verifier.micro_doubts import PLACE, Doubts
from hotpatch.verifier.micro_model import Difference, MicroOutcome, MicroReport
from hotpatch.verifier.micro_paths import Explorer, Replay
from hotpatch.verifier.micro_run import RedirectError
from hotpatch.verifier.micro_scenery import Scenery
from hotpatch.verifier.micro_sides import Runs

if TYPE_CHECKING:
    from hotpatch.differ import FunctionMatch
    from hotpatch.verifier.micro_sides import Sides

FUNCTION_BUDGET = 200_000
"""Instructions of both sides after which no further seed is tried."""
_ASTRAY = "runs that are led end in a fault of one side"
_LONG = "longer than what one run is given"
_BARREN = 4
"""Runs led to new code since any was found, after which fewer are made."""
_DIFFERENCES = 64
"""Of one run that are looked at."""


class Trials:
    """The runs of one function, and what they have shown so far."""

    def __init__(self, sides: Sides) -> None:
        """Begin with no run made."""
        self._sides = sides
        self._there = sides.place_in(sides.theirs)
        self._comparison = Comparison(sides.correlation, sides.fixed, sides.own)
        self._whole = frozenset(sides.shape.addresses)
        self._visited: set[int] = set()
        self._compared: set[int] = set()
        self._left_out: Counter[str] = Counter()
        self._tried = self._agreed = self._doubted = 0
        self._executed = self._spent = self._barren = 0
        self._found: tuple[int, Difference] | None = None

    def run(self, first: int, count: int) -> None:
        """Try the seeds from ``first``, ``count`` at most: until one shows a difference, or the function has run long enough."""
        for number in range(count):
            led = self._is_led(number, count)
            if self._sides.alike and not led and self._spent > FUNCTION_BUDGET // 2:
                continue
            self._try(first + number, forgiving=led or number % 2 == 1, led=led)
            if self._found or self._spent > FUNCTION_BUDGET:
                break

    def add(self, block: Trials, what: str) -> None:
        """Count what runs of one ``block`` of the function have shown to what these have; ``what`` is its name."""
        if self._found is None and block._found is not None:
            seed, difference = block._found
            self._found = seed, replace(difference, what=f"{what}, {difference.what}")
        self._visited |= block._visited
        self._compared |= block._compared
        self._executed += block._executed
        self._left_out += block._left_out

    def report(self, row: FunctionMatch, *, patched: bool) -> MicroReport:
        """What the runs have shown of the function whose row in the comparison is ``row``."""
        outcome = MicroOutcome.AGREE if self._agreed > self._doubted else MicroOutcome.INCONCLUSIVE
        ran = self._visited if self._found else self._compared
        seed, difference = self._found or (None, None)
        return MicroReport(
            row.name,
            row.base.entry if row.base else None,
            self._sides.fixed.entry,
            patched,
            MicroOutcome.DIFFER if self._found else outcome,
            self._tried,
            self._agreed,
            self._executed,
            len(ran & self._whole) / len(self._whole) if self._whole else 0.0,
            tuple(self._left_out.items()),
            seed,
            difference,
        )

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _is_led(self, number: int, count: int) -> bool:
        """Whether the run is led round checks, to code that none has come to: in the later half, each fourth once that finds no more."""
        wanted = self._barren < _BARREN and not self._whole <= self._visited
        return self._sides.alike and number >= (count + 1) // 2 and (wanted or number % 4 == 0)

    def _try(self, seed: int, *, forgiving: bool, led: bool) -> None:
        sides = self._sides
        scenery = Scenery(seed, sides.constants, forgiving=forgiving)
        explorer = Explorer(sides.shape, self._visited, seed) if led else None
        self._tried += 1
        other = sides.theirs.run(self._there, scenery, explorer)
        forced = explorer.forced if explorer else {}
        try:
            mine = sides.mine.run(sides.place, scenery, Replay(forced, sides.place.body))
        except RedirectError as astray:
            self._found = seed, Difference("redirect", str(astray), "the function itself")
            return
        self._barren = self._barren + led if other.visited <= self._visited else 0
        self._visited |= other.visited
        self._executed += other.executed
        self._spent += other.executed + mine.executed
        self._judge(seed, Runs(scenery, forced, mine, other), led=led)

    def _judge(self, seed: int, runs: Runs, *, led: bool) -> None:
        """Compare the two runs and count them: a difference that nothing speaks against is found."""
        mine, other = runs.mine, runs.theirs
        # Past a check that the run was led around, an index reaches what lies beside a table: in one image nothing may lie there.
        astray = led and (mine.end == FaultKind.ACCESS_VIOLATION.value) != (other.end == FaultKind.ACCESS_VIOLATION.value)
        doubts = Doubts(self._sides, runs)
        # What is compared stands in the processes until they run again, which doubts make them do.
        differences = list(islice(self._comparison.differences(mine, other, alike=self._sides.alike, astray=astray), _DIFFERENCES))
        doubt = _ASTRAY if astray else None
        for difference in differences:
            speaks = doubts.about(difference)
            # A part of an address depends on where the image lies, too; made up, it tells what else differs.
            if speaks in (None, PLACE) and (without := self._without_parts(runs)) is not None:
                self._judge(seed, without, led=led)
                return
            if speaks is None:
                self._found = seed, difference
                return
            doubt = doubt or speaks
            if difference.is_parting:
                break
        if doubt is not None:
            self._leave_out(doubt)
        elif FaultKind.BUDGET.value in (mine.end, other.end):
            self._left_out[_LONG] += 1
        else:
            self._agreed += 1
            self._compared |= other.visited

    def _without_parts(self, runs: Runs) -> Runs | None:
        """The two runs made again where parts of addresses are made up, the same on both sides; ``None`` where they read no such thing.

        Nor where these parts are the same bytes on both sides, of which nothing that differs can come, or where the addresses do not mean
        the same: what differs may come of that.
        """
        if runs.scenery.makes_up_parts:
            return None
        sides, scenery = self._sides, runs.scenery.with_parts()
        other = sides.theirs.run(self._there, scenery, Replay(runs.forced, self._there.body))
        mine = sides.mine.run(sides.place, scenery, Replay(runs.forced, sides.place.body))
        if not other.parts or [va for va, _, _ in mine.parts] != [va for va, _, _ in other.parts]:
            return None
        if [part for _, _, part in mine.parts] == [part for _, _, part in other.parts]:
            return None
        if other.end == FaultKind.ILLEGAL_INSTRUCTION.value != runs.theirs.end:
            return None  # led astray by a part of where it was to go
        addresses = zip(mine.parts, other.parts, strict=True)
        if not all(sides.correlation.same(one, two, sides.fixed, sides.own) for (_, one, _), (_, two, _) in addresses):
            return None
        return Runs(scenery, runs.forced, mine, other)

    def _leave_out(self, doubt: str) -> None:
        self._left_out[doubt] += 1
        self._doubted += 1
