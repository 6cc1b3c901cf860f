"""Which way a run takes at branches: left alone, led to code that has not run yet, or led as another run was.

Made-up state does not meet every condition. So some runs are *led*: at a conditional branch, or a jump through a table, the run of the
fixed image is sent where code lies that no run has reached, and out of a loop that it has gone round often enough. The other side is then
sent the same way at the same branches, counted from the function's entry. What is compared is code that should be the same instruction by
instruction, so that it must do the same on every path, be it one that a program can take or not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hotpatch.arch import Flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hotpatch.arch import Instruction

ROUNDS = 12
"""How often one run may go one way at one branch before it is sent the other way."""

_LEFT_ALONE = 0.6
"""How often a led run goes its own way where both ways lead to nothing new."""


class Block(NamedTuple):
    """Instructions up to and with the first that may go elsewhere.

    Attributes:
        addresses: Of the instructions, VAs.
        flow: The last one's (``NEXT``: none goes elsewhere).
        target: Where a direct one leads, a VA.
        follow: What stands behind it, a VA.
    """

    addresses: tuple[int, ...]
    flow: Flow
    target: int | None
    follow: int


class Guide(Protocol):
    """Asked after each conditional branch and indirect jump of the function itself."""

    def turn(self, block: Block, pc: int) -> int:
        """Where the run goes on; ``pc`` is where it would by itself. Both are VAs."""


class Shape:
    """The control flow of a function of the fixed image, in VAs."""

    def __init__(
        self, entry: int, instructions: Iterable[Instruction], tables: Sequence[tuple[int, tuple[int, ...]]], *, switches: bool
    ) -> None:
        """``tables`` are the jumps through tables with their targets; where not ``switches``, no run is led there."""
        self.entry = entry
        decoded = sorted(instructions)
        self.addresses = [item.address for item in decoded]
        jumps = {jump: tuple(dict.fromkeys(targets)) for jump, targets in tables}
        self.switches: Mapping[int, tuple[int, ...]] = jumps if switches else {}
        leaders = {target for targets in jumps.values() for target in targets}
        for item in decoded:
            if item.flow in (Flow.BRANCH, Flow.JUMP):
                leaders.update(place for place in (item.target, item.address + item.size) if place is not None)
        self._starts = [item.address for item in decoded[:1]]
        self._before: dict[int, list[int]] = {}
        ahead = 0
        for item in decoded:
            if item.address in leaders and self._starts[-1] != item.address:
                if ahead == item.address:
                    self._before.setdefault(item.address, []).append(self._starts[-1])
                self._starts.append(item.address)
            elif ahead != item.address and self._starts[-1] != item.address:
                self._starts.append(item.address)
            here = self._starts[-1]
            leads = jumps.get(item.address, ()) if item.flow is Flow.JUMP_INDIRECT else ()
            if item.target is not None and item.flow in (Flow.BRANCH, Flow.JUMP):
                leads = (item.target,)
            for target in leads:
                self._before.setdefault(target, []).append(here)
            ahead = item.address + item.size if item.flow in (Flow.NEXT, Flow.BRANCH, Flow.CALL, Flow.CALL_INDIRECT) else 0

    def block(self, va: int) -> int:
        """Start of the basic block that holds ``va``."""
        return self._starts[max(bisect_right(self._starts, va) - 1, 0)]

    def leading(self, covered: set[int]) -> dict[int, int]:
        """Blocks from which code can be reached that is not among ``covered`` addresses, each with the number of blocks to there."""
        wanted = [start for start in self._starts if start not in covered]
        found = dict.fromkeys(wanted, 0)
        for start in wanted:  # grows while it is walked: breadth first
            for before in self._before.get(start, ()):
                if before not in found:
                    found[before] = found[start] + 1
                    wanted.append(before)
        return found


class Explorer:
    """Leads a run of the fixed image to code that has not run yet, and remembers where it did."""

    def __init__(self, shape: Shape, covered: set[int], seed: int) -> None:
        """``covered`` are VAs of instructions that have run."""
        self._shape = shape
        self._leading = shape.leading(covered)
        self._draw = Random(seed)
        self._number = 0
        self._taken: Counter[tuple[int, int]] = Counter()
        self.forced: dict[int, int] = {}
        """By the number of the branch in the run: 0 straight on, 1 taken; of a jump, where to, from the entry."""

    def turn(self, block: Block, pc: int) -> int:
        """See :class:`Guide`."""
        number = self._number
        self._number += 1
        branch = block.addresses[-1]
        options: tuple[int, ...] = self._shape.switches.get(branch, ())
        if block.flow is Flow.BRANCH and block.target is not None:
            options = (block.follow, block.target)
        if len(options) < 2:
            return pc
        chosen = self._choose(branch, options, pc)
        self._taken[branch, chosen] += 1
        if self._leading.get(self._shape.block(chosen)) == 0:
            del self._leading[self._shape.block(chosen)]
        if chosen != pc:
            self.forced[number] = options.index(chosen) if block.flow is Flow.BRANCH else chosen - self._shape.entry
        return chosen

    def _choose(self, branch: int, options: tuple[int, ...], pc: int) -> int:
        distances = {place: self._leading.get(self._shape.block(place)) for place in options}
        fresh = [place for place in options if self._taken[branch, place] < ROUNDS]
        if not fresh:
            return min(options, key=lambda place: self._taken[branch, place])
        leading = [place for place in fresh if distances[place] is not None]
        if not leading:
            # Everything from here on has run, but not on every path: data decide, too.
            return pc if pc in fresh and self._draw.random() < _LEFT_ALONE else self._draw.choice(fresh)
        if self._draw.random() < 0.25:
            return self._draw.choice(leading)
        return min(leading, key=lambda place: (distances[place] or 0, place != pc))


class Replay:
    """Leads a run as an :class:`Explorer` has led another."""

    def __init__(self, forced: Mapping[int, int], body: int) -> None:
        """``body`` is the VA of the function's first instruction."""
        self._forced, self._body, self._number = forced, body, 0

    def turn(self, block: Block, pc: int) -> int:
        """See :class:`Guide`."""
        forced = self._forced.get(self._number)
        self._number += 1
        if forced is None:
            return pc
        if block.flow is Flow.BRANCH and block.target is not None and forced in (0, 1):
            return (block.follow, block.target)[forced]
        return self._body + forced if block.flow is Flow.JUMP_INDIRECT else pc
