"""Addresses with which code does nothing but read and write memory at constant distances from them.

Such an address begins what is accessed: one that is the end of something is compared with others, handed on, kept, or counted down from.
Followed forward from the instruction that makes it, over all ways: which registers *may* hold it, plus which number. Whatever is not
understood counts as something else that is done with it. What a call leaves in registers is trusted no further than that one obeys the
calling convention: those that it may change are held to keep the address, too, for compilers know what some functions leave alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hotpatch.arch.model import Flow
from hotpatch.arch.reach import is_slot
from hotpatch.arch.unread import registers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.arch.model import CallingConvention, Instruction
    from hotpatch.arch.reach import Motion
    from hotpatch.arch.unread import Spelling

_MOST = 64
"""Registers with distances that are followed at once; a loop that counts on comes to more."""
_State: TypeAlias = "frozenset[tuple[str, int]]"
"""Registers that may hold the address, and what is added to it there."""


class Handed(NamedTuple):
    """A function that may get the address, by a call or a jump to ``target``, in the register ``place``."""

    target: int
    place: str


def only_accessed(
    instructions: Sequence[Instruction],
    motions: Sequence[Motion],
    edges: Mapping[int, Collection[int]],
    maker: int,
    convention: CallingConvention,
    spelling: Spelling,
) -> frozenset[Handed] | None:
    """To whom the address that the instruction at ``maker`` makes may be handed, if nothing else is done with it but to access memory.

    ``None`` where something else may be. A call at the end of the function is held not to come back. ``motions``: of ``instructions``,
    none of which is said to name an address. ``edges``: address of a jump through a table → where it leads.
    """
    return _Walk(instructions, motions, edges, convention, spelling).followed(maker)


class _Walk:
    def __init__(
        self,
        instructions: Sequence[Instruction],
        motions: Sequence[Motion],
        edges: Mapping[int, Collection[int]],
        convention: CallingConvention,
        spelling: Spelling,
    ) -> None:
        self._instructions, self._motions, self._edges, self._spelling = instructions, motions, edges, spelling
        self._arguments = frozenset((*convention.integer_arguments, *spelling.given))
        self._seen_behind = frozenset((*spelling.returned, spelling.second, convention.result, *convention.preserved))
        self._index = {instruction.address: number for number, instruction in enumerate(instructions)}
        self._handed: set[Handed] = set()

    def followed(self, maker: int) -> frozenset[Handed] | None:
        number = self._index.get(maker)
        first = None if number is None else self._spelling.widest(self._instructions[number].operands.partition(", ")[0])
        if number is None or first is None or not self._spelling.fills(self._instructions[number]):
            return None
        before: dict[int, _State] = {}
        pending = [(self._next(number), frozenset(((first, 0),)))]
        while pending:
            at, state = pending.pop()
            known = before.get(at, frozenset())
            if state <= known or not state:
                continue
            if at not in range(len(self._instructions)) or len(known | state) > _MOST:
                return None
            before[at] = known | state
            behind = self._behind(at, before[at])
            leads_to = None if behind is None else self._leads_to(at, behind)
            if behind is None or leads_to is None:
                return None
            pending += [(one, behind) for one in leads_to]
        return frozenset(self._handed)

    def _behind(self, number: int, state: _State) -> _State | None:
        """What may hold the address behind an instruction; ``None`` where something else may be done with it."""
        one = self._instructions[number]
        if self._spelling.implicit(one):
            return None
        named = registers(one.operands, self._spelling)
        left = {item for item in state if item[0] not in named}
        for place in {place for place, _ in state} & set(named):
            held = {added for other, added in state if other == place}
            made = self._made(one, self._motions[number], place, named.count(place))
            if made is None:
                return None
            left.update((to, added + more) for to, more in made for added in held)
        return frozenset(left)

    def _made(self, one: Instruction, motion: Motion, place: str, mentions: int) -> list[tuple[str, int]] | None:
        """Which registers get the address, and what on top, from ``place``, which an instruction names so many times; ``None`` as above."""
        if one.flow is not Flow.NEXT:
            return None
        sums = [item for item in motion.sums if item[1] == place]
        accesses = [item for item in motion.accesses if item.place == place]
        is_first = self._spelling.widest(one.operands.partition(", ")[0]) == place
        fills = self._spelling.fills(one) and is_first
        if sums:
            is_lost = any(is_slot(to) for to, _, _ in sums) or bool(accesses) or mentions > 1 + is_first
            overwritten = place in motion.writes or any(to == place for to, _, _ in motion.sums)
            return None if is_lost else [(to, added) for to, _, added in sums] + ([] if overwritten else [(place, 0)])
        if accesses:
            is_plain = not any(item.indexed for item in accesses) and len(accesses) == 1 and mentions == 1 + fills
            return None if not is_plain else [] if fills else [(place, 0)]
        overwritten = place in motion.writes or any(to == place for to, _, _ in motion.sums)
        return [] if mentions == 1 and overwritten and (fills or self._is_second(one, place)) else None

    def _is_second(self, one: Instruction, place: str) -> bool:
        """Whether it is the second of two registers that an instruction loads."""
        return self._spelling.pairs(one) and self._spelling.widest(one.operands.split(", ")[1]) == place

    def _leads_to(self, number: int, state: _State) -> list[int] | None:
        """The instructions to which control goes on with the address; ``None`` where it may go elsewhere with it."""
        one, held = self._instructions[number], sorted({place for place, _ in state})
        match one.flow:
            case Flow.NEXT:
                return [self._next(number)]
            case Flow.RETURN:
                return None if self._seen_behind.intersection(held) else []
            case Flow.JUMP_INDIRECT:
                targets = self._edges.get(one.address)
                return None if targets is None else [self._index.get(target, -1) for target in targets]
            case Flow.CALL_INDIRECT:
                return None if self._arguments.intersection(held) else self._next_if_any(number)
            case Flow.CALL:
                return self._next_if_any(number) if self._hand(one, self._arguments.intersection(held)) else None
            case Flow.JUMP | Flow.BRANCH:
                leads_to = [self._next(number)] if one.flow is Flow.BRANCH else []
                if one.target in self._index:
                    return [*leads_to, self._index[one.target]]
                return leads_to if self._hand(one, held) else None
        return self._next_if_any(number)

    def _hand(self, one: Instruction, places: Collection[str]) -> bool:
        """Note that what an instruction leads to may get the address in ``places``; whether that is known."""
        if one.target is not None:
            self._handed.update(Handed(one.target, place) for place in places)
        return one.target is not None or not places

    def _next(self, number: int) -> int:
        """The instruction right behind another; -1 where that is none of the function's."""
        one = self._instructions[number]
        return self._index.get(one.address + one.size, -1)

    def _next_if_any(self, number: int) -> list[int]:
        """The same; none where the function ends with what does not come back, a call or a trap."""
        behind = self._next(number)
        return [behind] if behind >= 0 else []
