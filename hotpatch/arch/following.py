"""Where addresses go that code names, on either machine: only what one instruction does with them differs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from hotpatch.arch.base import Architecture
from hotpatch.arch.certain import Certainty
from hotpatch.arch.reach import Reaching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.arch.certain import Held
    from hotpatch.arch.model import Instruction
    from hotpatch.arch.reach import Motion, Reached


class Following(Architecture):
    """An instruction set whose addresses are followed by the motions of its instructions."""

    lost: Collection[str]
    """Places that a call leaves undefined."""

    @abstractmethod
    def motion(self, instruction: Instruction, *, names: bool) -> Motion:
        """What one instruction does; ``names``: one that names a whole address of data."""

    def reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """See :meth:`Architecture.reached`."""
        return self._reaching(instructions, naming, edges).reached()

    def first_reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """See :meth:`Architecture.first_reached`."""
        return self._reaching(instructions, naming, edges).first_reached()

    def ever_reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """See :meth:`Architecture.ever_reached`."""
        reaching = self._reaching(instructions, naming, edges)
        return tuple(sorted({*reaching.reached(), *reaching.first_reached()}))

    def walked(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> frozenset[int]:
        """See :meth:`Architecture.walked`."""
        return self._reaching(instructions, naming, edges).walked()

    def only_compared(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> frozenset[int]:
        """See :meth:`Architecture.only_compared`."""
        return self._reaching(instructions, naming, edges).only_compared(self.convention)

    def held(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> tuple[Held, ...]:
        """See :meth:`Architecture.held`."""
        return Certainty(instructions, self._motions(instructions, naming), self.convention, edges).held()

    def reached_from_arguments(
        self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]
    ) -> Mapping[str, tuple[Reached, ...]]:
        """See :meth:`Architecture.reached_from_arguments`."""
        arguments = self.convention.integer_arguments
        given = {place: -1 - number for number, place in enumerate(arguments)}
        found = Reaching(instructions, self._motions(instructions, ()), self.lost, edges, given).first_reached()
        return {place: tuple(item for item in found if item.anchor == anchor) for place, anchor in given.items()}

    def _reaching(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> Reaching:
        return Reaching(instructions, self._motions(instructions, naming), self.lost, edges)

    def _motions(self, instructions: Sequence[Instruction], naming: Collection[int]) -> list[Motion]:
        return [self.motion(instruction, names=instruction.address in naming) for instruction in instructions]
