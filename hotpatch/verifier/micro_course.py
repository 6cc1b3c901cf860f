"""How far a run of micro-execution has come, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.verifier.micro_observed import Place
    from hotpatch.verifier.micro_scenery import Scenery


@dataclass(frozen=True, slots=True)
class Leaf:
    """A callee that is run.

    Attributes:
        back: Where it returns to.
        start: Of its code.
        end: Of its code.
        since: How many instructions had been executed when it was called.
        registers: The stack pointer, and what it has to keep, then.
    """

    back: int
    start: int
    end: int
    since: int
    registers: dict[str, int]


@dataclass(slots=True)
class Course:
    """How far a run has come.

    Attributes:
        place: The function.
        scenery: What answers its calls.
        entry_sp: The stack pointer at its entry.
        calling: Whether a call was made that has not come to the callee yet.
        leaves: Of the callees that are run, the innermost last.
    """

    place: Place
    scenery: Scenery
    entry_sp: int
    calling: bool = False
    leaves: list[Leaf] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Whether the function's own code is next."""
        return not self.calling and not self.leaves
