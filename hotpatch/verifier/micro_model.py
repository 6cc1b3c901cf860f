"""What micro-execution finds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.errors import counted

if TYPE_CHECKING:
    from hotpatch.address import Rva


class MicroOutcome(StrEnum):
    """What running a function on made-up state has shown."""

    AGREE = "agree"
    """No seed showed a difference, and of the runs most could be compared to their ends: more than differed in a way that shows nothing."""
    DIFFER = "differ"
    INCONCLUSIVE = "inconclusive"
    """No difference that shows anything, but hardly a run could be compared to its end either."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the two sides did differently.

    Attributes:
        what: ``result``, ``call 3, argument 1``, ``written at 0x…`` …
        mine: What the patched base (or the base) has.
        theirs: What the fixed image has.
        values: The two values where the difference is between values.
        place: Fields and indices by which the value is found in an observation; empty where there is none.
    """

    what: str
    mine: str
    theirs: str
    values: tuple[int, int] | None = None
    place: tuple[str | int, ...] = ()

    @property
    def is_parting(self) -> bool:
        """Whether the runs went different ways there, so that what else differs may come of that."""
        return self.values is None or self.place[:1] == ("address",)


@dataclass(frozen=True, slots=True)
class MicroReport:
    """One function.

    Attributes:
        name: If known.
        base_rva: Its entry in the base; ``None`` of one that replaces none and is carried.
        fixed_rva: Its entry in the fixed image.
        patched: Whether the patched base ran, or the base as it is.
        outcome: What was found.
        seeds: Tried.
        agreed: Seeds whose runs were compared to their ends, and did the same.
        instructions: That the fixed image's function executed in all of them.
        coverage: Share of its instructions that ran at least once, 0.0 … 1.0; where none differed, in runs compared to their ends.
        left_out: How many runs could not be compared to their ends, or differed in a way that shows nothing, by the reason; 0 where none
            was made.
        seed: That showed ``difference``.
        difference: The first one.
    """

    name: str | None
    base_rva: Rva | None
    fixed_rva: Rva
    patched: bool
    outcome: MicroOutcome
    seeds: int
    agreed: int
    instructions: int
    coverage: float
    left_out: tuple[tuple[str, int], ...] = ()
    seed: int | None = None
    difference: Difference | None = None

    @property
    def rva(self) -> Rva:
        """Its entry in the base, or of one that is carried in the fixed image."""
        return self.fixed_rva if self.base_rva is None else self.base_rva

    @property
    def why(self) -> tuple[str, ...]:
        """Why runs were left out, and how many for each reason."""
        return tuple(f"{counted(count, 'run')} left out: {reason}" if count else reason for reason, count in self.left_out)

    @property
    def text(self) -> str:
        """The finding as one sentence."""
        if self.difference is not None:
            side = "patched base" if self.patched else "base"
            found = self.difference
            return f"seed {self.seed}: {found.what}: {found.mine} in the {side}, {found.theirs} in the fixed image"
        share = f"{self.agreed} of {self.seeds} seeds agree, {self.coverage:.0%} of the instructions ran"
        return "; ".join((share, *self.why))
