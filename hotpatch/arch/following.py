"""Where addresses go that code names, on either machine: only what one instruction does with them differs."""

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING

from hotpatch.arch import unread
from hotpatch.arch.accessed import only_accessed
from hotpatch.arch.base import Architecture
from hotpatch.arch.certain import Certainty
from hotpatch.arch.deeds import Deeds
from hotpatch.arch.model import Flow
from hotpatch.arch.reach import Motion, Reaching

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.accessed import Handed
    from hotpatch.arch.certain import Held
    from hotpatch.arch.model import Instruction
    from hotpatch.arch.reach import Reached
    from hotpatch.arch.unread import Spelling


class Following(Architecture):
    """An instruction set whose addresses are followed by the motions of its instructions."""

    lost: Collection[str]
    """Places that a call leaves undefined."""
    spelling: Spelling
    """What its texts say of registers."""

    @abstractmethod
    def motion(self, instruction: Instruction, *, names: bool) -> Motion:
        """What one instruction does; ``names``: one that names a whole address of data."""

    @abstractmethod
    def reads_fixed_memory(self, instruction: Instruction, motion: Motion) -> bool:
        """Whether an instruction, which does ``motion``, reads memory at an address that does not depend on anything."""

    @abstractmethod
    def thread_blocks(self, instructions: Sequence[Instruction]) -> Mapping[int, str]:
        """The instructions that load where the image's thread-local data are, by address, with the place that gets it."""

    def index_number(self, instructions: Sequence[Instruction], number: int) -> int | None:
        """The number that the index of an access certainly is, by the instructions right before; ``None`` where that is not told."""
        del instructions, number
        return None

    @abstractmethod
    def index_of(self, instruction: Instruction) -> str | None:
        """The register (64 bits) that counts what an instruction with an indexed operand accesses; ``None`` where it has none."""

    @abstractmethod
    def zeroed(self, instruction: Instruction) -> str | None:
        """The register (64 bits) of which an instruction makes zero, if it does."""

    def index_never_rises(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], at: int) -> bool:
        """See :meth:`Architecture.index_never_rises`."""
        index = next((self.index_of(one) for one in instructions if one.address == at), None)
        if index is None or index in self.convention.preserved:
            return False
        if index in self.convention.integer_arguments and self.handed_on(instructions, edges, index) is None:
            return False
        begins = False
        for one, motion in zip(instructions, self._motions(instructions, ()), strict=True):
            steps = [(source, added) for place, source, added in motion.sums if place == index]
            is_lost = one.flow in (Flow.CALL, Flow.CALL_INDIRECT) or (not steps and self._writes(motion, index))
            if self.zeroed(one) == index:
                begins = True
            elif is_lost or any(source != index or added >= 0 for source, added in steps):
                return False
        return begins

    @staticmethod
    def _writes(motion: Motion, place: str) -> bool:
        return place in motion.writes or place == motion.takes or any(to == place for to, _, _ in motion.indexed)

    def handed_on(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], place: str) -> frozenset[int] | None:
        """See :meth:`Architecture.handed_on`."""
        return unread.handed_on(instructions, edges, place, self.spelling)

    @property
    def scratch(self) -> frozenset[str]:
        """See :meth:`Architecture.scratch`."""
        return self.spelling.scratch

    def may_change(self, instruction: Instruction) -> frozenset[str] | None:
        """See :meth:`Architecture.may_change`."""
        return None if self.spelling.implicit(instruction) else frozenset(unread.registers(instruction.operands, self.spelling))

    def thread_offsets(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]) -> frozenset[int]:
        """See :meth:`Architecture.thread_offsets`."""
        blocks = self.thread_blocks(instructions)
        if not blocks:
            return frozenset()
        motions = self._motions(instructions, ())
        places = {instruction.address: number for number, instruction in enumerate(instructions)}
        for address, place in blocks.items():
            motions[places[address]] = Motion(takes=place)
        reaching = Reaching(instructions, motions, self.lost, edges)
        found = set()
        for item in {*reaching.reached(), *reaching.first_reached()}:
            number = self.index_number(instructions, places[item.at]) if item.indexed else 0
            if number is not None and (item.width or item.distance):
                found.add(item.distance + number)
        return frozenset(found)

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
    ) -> Mapping[int, frozenset[int]]:
        """See :meth:`Architecture.only_compared`."""
        return self._reaching(instructions, naming, edges).only_compared(self.convention)

    def only_accessed(
        self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], maker: int
    ) -> frozenset[Handed] | None:
        """See :meth:`Architecture.only_accessed`."""
        return only_accessed(instructions, self._motions(instructions, ()), edges, maker, self.convention, self.spelling)

    def deeds(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]) -> Deeds:
        """See :meth:`Architecture.deeds`."""
        return Deeds(instructions, edges, self.convention, self.spelling, self.operation)

    def held(
        self,
        instructions: Sequence[Instruction],
        naming: Collection[int],
        edges: Mapping[int, Collection[int]],
        addresses: Mapping[int, int] = MappingProxyType({}),
    ) -> tuple[Held, ...]:
        """See :meth:`Architecture.held`."""
        motions = self._motions(instructions, naming)
        leaving = dict.fromkeys(self._leaving(instructions, motions, edges), ())
        return Certainty(instructions, motions, self.convention, {**edges, **leaving}, addresses).held()

    def reached_from_arguments(
        self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]
    ) -> Mapping[str, tuple[Reached, ...]]:
        """See :meth:`Architecture.reached_from_arguments`."""
        arguments = self.convention.integer_arguments
        given = {place: -1 - number for number, place in enumerate(arguments)}
        found = Reaching(instructions, self._motions(instructions, ()), self.lost, edges, given).first_reached()
        return {place: tuple(item for item in found if item.anchor == anchor) for place, anchor in given.items()}

    def _leaving(
        self, instructions: Sequence[Instruction], motions: Sequence[Motion], edges: Mapping[int, Collection[int]]
    ) -> Iterator[int]:
        """The indirect jumps that go where memory at a fixed address says, as tail calls of imports do: out of the function.

        They read it themselves, or an instruction before them loads it into their register, and nothing leads in between.
        """
        led = {one.target for one in instructions}.union(*edges.values())
        for number, jump in enumerate(instructions):
            if jump.flow is not Flow.JUMP_INDIRECT or jump.address in edges:
                continue
            at = number
            while at and jump.operands not in motions[at].writes and _goes_on(instructions, at, led):
                at -= 1
            maker = at if jump.operands in motions[at].writes else number
            if self.reads_fixed_memory(instructions[maker], motions[maker]):
                yield jump.address

    def _reaching(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> Reaching:
        return Reaching(instructions, self._motions(instructions, naming), self.lost, edges)

    def _motions(self, instructions: Sequence[Instruction], naming: Collection[int]) -> list[Motion]:
        return [self.motion(instruction, names=instruction.address in naming) for instruction in instructions]


def _goes_on(instructions: Sequence[Instruction], number: int, led: Collection[int | None]) -> bool:
    """Whether control comes to an instruction from the one before it alone."""
    before, here = instructions[number - 1], instructions[number]
    return here.address not in led and before.flow is Flow.NEXT and before.address + before.size == here.address
