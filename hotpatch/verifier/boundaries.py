"""Walking a call one instruction at a time, and applying or reverting the patch at each boundary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

from hotpatch.errors import Refusal, Refused, Rule
from hotpatch.verifier.model import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hotpatch.address import Va
    from hotpatch.patch import Patch
    from hotpatch.process import ProcessSnapshot
    from hotpatch.verifier.model import Outcome
    from hotpatch.verifier.oracle import Versions
    from hotpatch.verifier.runs import Scene

HORIZON = 1_000_000
"""Instructions of a call that are walked one at a time; boundaries behind are not tried."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one boundary.

    Attributes:
        boundary: Instructions executed before it.
        pc: The next one.
        function: That it lies in.
        begun: Calls of patched functions that had begun.
        on_the_way: Whether the thread was on its way through a redirect: one more call may count as begun, or not.
        outcome: What the call gave.
    """

    boundary: int
    pc: Va
    function: str | None
    begun: int
    on_the_way: bool
    outcome: Outcome

    @property
    def allowed(self) -> tuple[int, ...]:
        """How many calls may keep the version that they were called in."""
        return (self.begun, self.begun + 1) if self.on_the_way else (self.begun,)


@dataclass(slots=True)
class Refusals:
    """What the engine refused, once for each rule, with how often and where first."""

    first: dict[Rule, Refusal] = field(default_factory=dict)
    times: dict[Rule, int] = field(default_factory=dict)

    def add(self, refused: Refused, action: Action, boundary: int, call: str) -> None:
        """Count the rules of one refusal."""
        for refusal in {item.rule: item for item in reversed(refused.refusals)}.values():
            evidence = dict(refusal.evidence) | {"call": call, "action": action.value, "first_boundary": boundary}
            self.first.setdefault(refusal.rule, replace(refusal, evidence=evidence))
            self.times[refusal.rule] = self.times.get(refusal.rule, 0) + 1

    def collected(self) -> tuple[Refusal, ...]:
        """By rule; ``boundaries`` in the evidence is how many it was."""
        counted = {rule: dict(first.evidence) | {"boundaries": self.times[rule]} for rule, first in self.first.items()}
        return tuple(replace(self.first[rule], evidence=counted[rule]) for rule in sorted(counted))


def chosen(count: int, bound: int, seed: int) -> Sequence[int]:
    """Which of ``count`` boundaries to try, at most ``bound``, ascending.

    All; or the first half of ``bound``, and a seeded one in each of as many equal stretches of the rest.
    """
    if count <= bound:
        return range(count)
    head = (bound + 1) // 2
    draw, stretches = Random(seed), bound - head
    starts = [head + (count - head) * index // stretches for index in range(stretches)] if stretches else []
    return [*range(head), *(draw.randrange(start, end) for start, end in pairwise([*starts, count]))]


class Entered:
    """Counts calls of patched functions that have begun, as the thread goes along.

    A call has begun when an instruction of the function has run, of whichever version: without the patch, when the thread leaves the entry;
    with it, when it leaves the new function's first instruction after coming through the entry. What lies between is the redirect. A thread
    there has run neither version, and either is right for it. A call instruction that leads to the new function past the redirect counts
    too: such a call is no longer taken back by a revert, which is then found.
    """

    def __init__(self, functions: Iterable[Versions], action: Action, is_call: Callable[[Va], bool]) -> None:
        """Count for a walk without the patch (apply) or with it (revert); ``is_call`` tells whether a call stands at an address."""
        self.begun = 0
        self._entries = {item.entry for item in functions}
        self._new = {item.new for item in functions} if action is Action.REVERT else None
        self.on_the_way = False
        self._is_call = is_call
        self._left: Va | None = None

    def leaves(self, pc: Va) -> None:
        """The instruction at ``pc`` is about to be executed."""
        if self._new is None:
            self.begun += pc in self._entries
        elif pc in self._entries:
            self.on_the_way = True
        elif pc in self._new and (self.on_the_way or (self._left is not None and self._is_call(self._left))):
            self.on_the_way = False
            self.begun += 1
        self._left = pc


def try_boundaries(
    scene: Scene,
    start: ProcessSnapshot,
    patch: Patch,
    functions: tuple[Versions, ...],
    action: Action,
    boundaries: Sequence[int],
    refusals: Refusals,
    call: str,
    *,
    to_end: bool,
) -> tuple[list[Trial], int | None]:
    """Apply (or, on a run with the patch from its beginning, revert) at each of ``boundaries``, ascending.

    Returns:
        What came of each that was not refused, and how many calls of patched functions began in the whole call, ``None`` where that is not
        walked to its end (``to_end``, and at most :data:`HORIZON` instructions).
    """
    scene.restore(start)
    applied = scene.process.apply(patch) if action is Action.REVERT else None
    entered = Entered(functions, action, scene.is_call)
    trials: list[Trial] = []
    outcomes: dict[Outcome, Outcome] = {}
    for boundary in boundaries:
        while scene.executed < boundary:
            entered.leaves(scene.pc)
            scene.step()
        pc = scene.pc
        here = scene.snapshot()
        try:
            if applied is None:
                scene.process.apply(patch)
            else:
                scene.process.revert(applied)
        except Refused as refused:
            refusals.add(refused, action, boundary, call)
        else:
            outcome = scene.finish()
            function = scene.process.guest.function_name(pc)
            trials.append(Trial(boundary, pc, function, entered.begun, entered.on_the_way, outcomes.setdefault(outcome, outcome)))
        scene.restore(here)
    under_way = True
    while to_end and under_way and scene.executed < HORIZON:
        entered.leaves(scene.pc)
        under_way = scene.step()
    return trials, None if under_way else entered.begun
