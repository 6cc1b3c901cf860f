"""What code reaches at constant distances from addresses that it takes: compilers take the address of one datum and go to its neighbours.

A forward analysis over a function's flow. Each place (a register, or a stack slot with a fixed distance from the stack pointer) holds what
it may: for each instruction that takes an address, the distance from that address, or :data:`ANY` where ways meet with several, as behind
a loop that walks over an array. An index on top is told as such (:class:`Indexed`), without its value. What is reached through memory other
than such slots is not told.
Where a loop begins to walk is told apart: there ways back are not followed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from hotpatch.arch.model import CallingConvention, Instruction

ANY = None
"""A distance that is not constant."""


class Indexed(NamedTuple):
    """A distance to which something unknown was added."""

    distance: int


Distance: TypeAlias = "int | Indexed | None"
"""From an address that was taken, in bytes."""
_Held = dict[int, Distance]
"""Address of the instruction that takes an address → distance from what it takes."""
State = dict[str, _Held]

_LEAVING = frozenset((Flow.JUMP, Flow.JUMP_INDIRECT, Flow.RETURN))


class Reached(NamedTuple):
    """What an instruction reaches.

    Attributes:
        at: Address of the instruction.
        anchor: Address of the instruction that takes the address that it is reached from; the same where it names the place itself.
        distance: From what ``anchor`` takes, in bytes.
        width: Bytes that are read or written there; 0 where it only makes the address.
        indexed: Whether it is reached there where an unknown index is zero.
    """

    at: int
    anchor: int
    distance: int
    width: int
    indexed: bool = False


class Access(NamedTuple):
    """Memory read or written at ``place`` plus ``distance``; ``place`` is ``None`` where the instruction names the address itself.

    ``indexed``: plus something unknown.
    """

    place: str | None
    distance: int
    width: int
    indexed: bool = False


class Motion(NamedTuple):
    """What an instruction does with places that may hold addresses.

    Attributes:
        takes: The place that gets the address that the instruction names.
        sums: Pairs of the place written with the place whose value it takes over, and what is added to it. Several of one place: either.
        indexed: The same of sums to which something unknown is added besides.
        writes: Places that hold something else afterwards, ``sums`` apart.
        accesses: Memory that it reads or writes.
        compared: Places whose values are only compared with others, or a difference is made of.
        subtracted: Those of them that are only taken away from another.
        reads: Places whose values are read for anything else than ``sums``.
        stored: Those of them that are only stored.
        moves_stack: Whether the names of stack slots mean others afterwards.
    """

    takes: str | None = None
    sums: tuple[tuple[str, str, int], ...] = ()
    indexed: tuple[tuple[str, str, int], ...] = ()
    writes: frozenset[str] = frozenset()
    accesses: tuple[Access, ...] = ()
    compared: frozenset[str] = frozenset()
    subtracted: frozenset[str] = frozenset()
    moves_stack: bool = False
    reads: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()


class Reaching:
    """The analysis of one function."""

    def __init__(
        self,
        instructions: Sequence[Instruction],
        motions: Sequence[Motion],
        lost: Collection[str],
        edges: Mapping[int, Collection[int]],
        given: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Analyse ``instructions``, by address, which do ``motions``.

        ``lost``: places that a call leaves undefined. ``edges``: address of a jump through a table → where it leads. ``given``: places that
        hold addresses before the first instruction, each with the number by which what is reached from there is told.
        """
        self._instructions, self._motions, self._lost, self._edges = instructions, motions, lost, edges
        self._given: State = {place: {anchor: 0} for place, anchor in given.items()}
        self._index = {instruction.address: number for number, instruction in enumerate(instructions)}
        self._leaders = self._find_leaders()
        self._ends = dict(zip(self._leaders, [*self._leaders[1:], len(self._instructions)], strict=False))
        self._before: dict[int, State] = {}

    def reached(self) -> tuple[Reached, ...]:
        """Everything that is reached, by address; sums that are compared with others besides are left out: they are ends.

        Not those that are taken away from others: so are beginnings.
        """
        self._solve()
        return self._told()

    def first_reached(self) -> tuple[Reached, ...]:
        """What is reached where no way goes back: what a loop that walks reaches in its first round."""
        rank = {leader: number for number, leader in enumerate(self._onward())}
        self._before = {leader: {} for leader in self._leaders}
        if 0 in self._before:
            self._before[0] = copy_of(self._given)
        for leader in rank:
            state = self._after(leader)
            for successor in self._successors(leader):
                if rank[successor] > rank[leader]:
                    _join(self._before[successor], state)
        return self._told()

    def walked(self) -> frozenset[int]:
        """The instructions that take addresses from which code goes to what no constant distance tells."""
        self._solve()
        found: set[int] = set()
        for leader in sorted(self._before):
            state = copy_of(self._before[leader])
            for number in range(leader, self._ends[leader]):
                motion = self._motions[number]
                plain = {access.place for access in motion.accesses if access.place is not None and not access.indexed}
                for place in motion.reads - motion.compared - motion.stored - plain:
                    found.update(state.get(place, ()))
                for place in (*plain, *(source for _, source, added in motion.sums if added)):
                    found.update(anchor for anchor, distance in state.get(place, {}).items() if distance is ANY)
                self._step(number, state)
        return frozenset(found)

    def only_compared(self, convention: CallingConvention) -> Mapping[int, frozenset[int]]:
        """The instructions that take addresses with which other addresses are compared, and which nothing else is done with.

        Each with the instructions that take those that the others were reckoned from.
        """
        self._solve()
        compared: dict[int, set[int]] = {}
        used: set[int] = set()
        for leader in sorted(self._before):
            state = copy_of(self._before[leader])
            for number in range(leader, self._ends[leader]):
                motion = self._motions[number]
                both = motion.compared - motion.subtracted
                for place in both:
                    others = {anchor for other in both - {place} for anchor in state.get(other, ())}
                    for anchor in state.get(place, ()):
                        compared.setdefault(anchor, set()).update(others)
                        used.update(() if others else (anchor,))
                for place in self._used_by(number, state, convention):
                    used.update(state.get(place, ()))
                if any(access.place is None for access in motion.accesses):
                    used.add(self._instructions[number].address)
                self._step(number, state)
                if self._may_leave(number):
                    for place in convention.integer_arguments:
                        used.update(state.get(place, ()))
        return {anchor: frozenset(others) for anchor, others in compared.items() if anchor not in used}

    def _used_by(self, number: int, state: State, convention: CallingConvention) -> Iterable[str]:
        """The places whose values an instruction does anything with but to copy or compare them."""
        instruction, motion = self._instructions[number], self._motions[number]
        based = {access.place for access in motion.accesses if access.place is not None}
        moved = {source for _, source, added in motion.sums if added} | {source for _, source, _ in motion.indexed}
        handed: Collection[str] = ()
        if instruction.flow is Flow.JUMP_INDIRECT:
            handed = state
        elif instruction.flow is Flow.RETURN:
            handed = (convention.result,)
        elif instruction.flow in (Flow.CALL, Flow.CALL_INDIRECT):
            handed = convention.integer_arguments
        return {*(motion.reads - motion.compared), *motion.subtracted, *based, *moved, *handed}

    def _may_leave(self, number: int) -> bool:
        """Whether control may go from an instruction to code outside of the function: by a jump, or by running on."""
        instruction = self._instructions[number]
        if instruction.flow in (Flow.JUMP, Flow.BRANCH) and instruction.target not in self._index:
            return True
        is_last = number + 1 == len(self._instructions) or self._is_apart(number + 1)
        return is_last and instruction.flow not in _LEAVING and instruction.flow is not Flow.TRAP

    def _told(self) -> tuple[Reached, ...]:
        found: dict[Reached, None] = {}
        compared: set[tuple[int, Distance]] = set()
        for leader in sorted(self._before):
            state = copy_of(self._before[leader])
            for number in range(leader, self._ends[leader]):
                for item in self._reached_by(number, state):
                    found[item] = None
                for place in self._motions[number].compared - self._motions[number].subtracted:
                    compared.update(state.get(place, {}).items())
                self._step(number, state)
        return tuple(sorted(item for item in found if item.width or (item.anchor, _held(item)) not in compared))

    def _reached_by(self, number: int, state: State) -> Iterator[Reached]:
        at, motion = self._instructions[number].address, self._motions[number]
        for access in motion.accesses:
            if access.place is None:
                yield Reached(at, at, 0, access.width)
                continue
            for anchor, held in state.get(access.place, {}).items():
                if held is not ANY:
                    distance, indexed = _plus(held, access.distance, indexed=access.indexed)
                    yield Reached(at, anchor, distance, access.width, indexed)
        for _, source, added in motion.sums:
            for anchor, held in state.get(source, {}).items() if added else ():
                if held is not ANY:
                    distance, indexed = _plus(held, added)
                    yield Reached(at, anchor, distance, 0, indexed)
        for _, source, added in motion.indexed:
            for anchor, held in state.get(source, {}).items():
                if held is not ANY and (distance := _plus(held, added)[0]):
                    yield Reached(at, anchor, distance, 0, indexed=True)

    # the fixed point ---------------------------------------------------------------------------------------------------------------------

    def _find_leaders(self) -> list[int]:
        found = {0} if self._instructions else set()
        for number, instruction in enumerate(self._instructions):
            targets = {instruction.target, *self._edges.get(instruction.address, ())}
            if instruction.flow not in (Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT):
                found.add(number + 1)
                found.update(self._index[target] for target in targets if target in self._index)
            if number and self._is_apart(number):
                found.add(number)
        return sorted(number for number in found if number < len(self._instructions))

    def _is_apart(self, number: int) -> bool:
        before = self._instructions[number - 1]
        return before.address + before.size != self._instructions[number].address

    def _solve(self) -> None:
        work = list(reversed(self._leaders))  # handlers and the like begin with nothing known
        self._before = {leader: {} for leader in self._leaders}
        while work:
            leader = work.pop()
            state = self._after(leader)
            work.extend(successor for successor in self._successors(leader) if _join(self._before[successor], state))

    def _after(self, leader: int) -> State:
        """What places hold behind the instructions from ``leader`` to the next."""
        state = copy_of(self._before[leader])
        for number in range(leader, self._ends[leader]):
            self._step(number, state)
        return state

    def _onward(self) -> list[int]:
        """The leaders, each behind those that lead to it but for ways back: depth first, in the order in which they are left."""
        left: list[int] = []
        seen: set[int] = set()
        for root in self._leaders:
            waiting = [] if root in seen else [(root, self._successors(root))]
            seen.add(root)
            while waiting:
                leader, successors = waiting[-1]
                following = next((one for one in successors if one not in seen), None)
                if following is None:
                    left.append(leader)
                    waiting.pop()
                else:
                    seen.add(following)
                    waiting.append((following, self._successors(following)))
        return left[::-1]

    def _successors(self, leader: int) -> Iterator[int]:
        last = self._ends[leader] - 1
        instruction = self._instructions[last]
        if instruction.flow in (Flow.JUMP, Flow.BRANCH) and instruction.target in self._index:
            yield self._index[instruction.target]
        for target in self._edges.get(instruction.address, ()):
            if target in self._index:
                yield self._index[target]
        if instruction.flow not in _LEAVING and last + 1 < len(self._instructions) and not self._is_apart(last + 1):
            yield last + 1

    def _step(self, number: int, state: State) -> None:
        instruction, motion = self._instructions[number], self._motions[number]
        if instruction.flow in (Flow.CALL, Flow.CALL_INDIRECT):
            for place in self._lost:
                state.pop(place, None)
            return
        made: State = {}
        for sums, by_index in ((motion.sums, False), (motion.indexed, True)):
            for to, source, added in sums:
                _join(made, {to: {anchor: _sum(held, added, indexed=by_index) for anchor, held in state.get(source, {}).items()}})
        for place in motion.writes:
            state.pop(place, None)
        if motion.moves_stack:
            for place in [place for place in state if is_slot(place)]:
                del state[place]
        for to, _, _ in (*motion.sums, *motion.indexed):
            state.pop(to, None)
        state.update((place, held) for place, held in made.items() if held)
        if motion.takes is not None:
            state[motion.takes] = {instruction.address: 0}


def _held(item: Reached) -> Distance:
    return Indexed(item.distance) if item.indexed else item.distance


def _plus(held: int | Indexed, added: int, *, indexed: bool = False) -> tuple[int, bool]:
    """A distance and whether an index comes on top, after ``added`` was added and, where ``indexed``, an index."""
    return (held.distance + added, True) if isinstance(held, Indexed) else (held + added, indexed)


def _sum(held: Distance, added: int, *, indexed: bool) -> Distance:
    if held is ANY:
        return ANY
    distance, by_index = _plus(held, added, indexed=indexed)
    return Indexed(distance) if by_index else distance


def copy_of(state: State) -> State:
    """A copy that can be changed."""
    return {place: dict(held) for place, held in state.items()}


def _join(known: State, other: State) -> bool:
    """Add what ``other`` says to ``known``; whether that changed it."""
    changed = False
    for place, held in other.items():
        mine = known.setdefault(place, {})
        for anchor, distance in held.items():
            if anchor not in mine:
                mine[anchor] = distance
                changed = True
            elif mine[anchor] is not ANY and mine[anchor] != distance:
                mine[anchor] = ANY
                changed = True
    return changed


def is_slot(place: str) -> bool:
    """Whether ``place`` is a stack slot (:func:`hotpatch.arch.constants.slot_name`)."""
    return place.startswith("sp+")
