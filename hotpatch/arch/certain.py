"""What registers hold on every way through a function: addresses that it names, and sums of these with constants.

Unlike :mod:`hotpatch.arch.reach`, which tells what a register *may* hold, this tells what it must, so that a number can be encoded anew
that is added to it. Whatever may come from elsewhere is left out: stack slots, what calls may change, code behind jumps whose targets are
unknown.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import Flow
from hotpatch.arch.reach import Reaching, copy_of, is_slot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.model import CallingConvention, FixupKind, Instruction
    from hotpatch.arch.reach import Distance, Motion, State


_CALLS = (Flow.CALL, Flow.CALL_INDIRECT)


class Held(NamedTuple):
    """What a register that an instruction reads holds on every way there.

    Attributes:
        at: Address of the instruction.
        place: The register.
        anchor: Address of the instruction that makes the address.
        distance: From what ``anchor`` makes, in bytes.
        moves: Whether the instruction does nothing with it but copy it or add to it.
    """

    at: int
    place: str
    anchor: int
    distance: int
    moves: bool


class Counted(NamedTuple):
    """A number that an instruction adds to a register to make an address, or to read or write there.

    Attributes:
        place: The register.
        number: In bytes.
        kind: By which an instruction that does the same would name the sum.
    """

    place: str
    number: int
    kind: FixupKind


class Certainty(Reaching):
    """The analysis of one function whose entry is its first instruction.

    A state has, for each place, the instructions that make the address it holds, each with the distance from what that makes: where ways
    meet, several may have made the same.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        motions: Sequence[Motion],
        convention: CallingConvention,
        edges: Mapping[int, Collection[int]],
        addresses: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Analyse ``instructions``, by address, which do ``motions``.

        ``edges``: address of an indirect jump → where in the function it leads, if that is known; nowhere where it leaves. ``addresses``:
        instructions that make addresses → which; where ways meet that have the same of two of them, that is certain.
        """
        super().__init__(instructions, motions, (), edges)
        self._addresses = addresses
        self._preserved, self._arguments = frozenset(convention.preserved), convention.integer_arguments

    def held(self) -> tuple[Held, ...]:
        """Everything that is certain, by address; nothing where control may go anywhere."""
        if any(one.flow is Flow.JUMP_INDIRECT and one.address not in self._edges for one in self._instructions):
            return ()
        self._solve()
        found: list[Held] = []
        for leader in sorted(self._before):
            state = copy_of(self._before[leader])
            for number in range(leader, self._ends[leader]):
                found += self._read_by(number, state)
                self._step(number, state)
        return tuple(found)

    def _read_by(self, number: int, state: State) -> Iterator[Held]:
        instruction, motion = self._instructions[number], self._motions[number]
        used = {*motion.reads, *motion.compared, *(access.place for access in motion.accesses if access.place is not None)}
        if instruction.flow in _CALLS or self._leaves(instruction):
            used.update(self._arguments)
        moved = {source for _, source, _ in motion.sums}
        for place in sorted(used | moved):
            for anchor, distance in state.get(place, {}).items():
                if isinstance(distance, int):
                    yield Held(instruction.address, place, anchor, distance, place not in used)

    def _leaves(self, instruction: Instruction) -> bool:
        """Whether it jumps out of the function, which is a call that never comes back."""
        if instruction.flow is Flow.JUMP_INDIRECT:
            return not self._edges.get(instruction.address)
        return instruction.flow in (Flow.JUMP, Flow.BRANCH) and instruction.target is not None and instruction.target not in self._index

    def _solve(self) -> None:
        """Take for certain what every way says; ways that were not walked yet say nothing."""
        led = {successor for leader in self._leaders for successor in self._successors(leader)}
        work = [leader for leader in self._leaders if leader not in led or leader == 0]
        self._before = {leader: {} for leader in work}
        while work:
            leader = work.pop()
            state = self._after(leader)
            for successor in self._successors(leader):
                known = self._before.get(successor)
                if known is None:
                    self._before[successor] = copy_of(state)
                    work.append(successor)
                elif known != (common := self._common(known, state)):
                    self._before[successor] = common
                    work.append(successor)

    def _common(self, one: State, other: State) -> State:
        """What places hold in both states: by the same instructions, or by others that make the same address."""
        found: State = {}
        for place, held in one.items():
            there = other.get(place)
            if there == held:
                found[place] = held
            elif there is not None and (address := self._address(held)) is not None and self._address(there) == address:
                found[place] = {**held, **there}
        return found

    def _address(self, held: Mapping[int, Distance]) -> int | None:
        """The address that a place holds, where it is told of all instructions that made it, and the same."""
        told = [self._addresses[anchor] + known for anchor, known in held.items() if anchor in self._addresses and isinstance(known, int)]
        return told[0] if len(told) == len(held) and len(set(told)) == 1 else None

    def _step(self, number: int, state: State) -> None:
        instruction, motion = self._instructions[number], self._motions[number]
        if instruction.flow in _CALLS:
            for place in [place for place in state if place not in self._preserved]:
                del state[place]
            return
        made: State = {}
        for to, source, added in motion.sums:
            distances = state.get(source, {}).items()
            held: dict[int, Distance] = {anchor: known + added for anchor, known in distances if isinstance(known, int)}
            made[to] = held if made.get(to, held) == held else {}
        for place in (*motion.writes, *made):
            state.pop(place, None)
        state.update((to, held) for to, held in made.items() if held and not is_slot(to))
        if motion.takes is not None:
            state[motion.takes] = {instruction.address: 0}
