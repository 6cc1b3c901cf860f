"""Where a constant that an instruction loads ends up, followed forward through one function's code.

The question is narrow: is a number only ever handed to calls as an argument? So everything that is not a copy, a call or the end of the
number's life counts as another use, and whatever is not understood does, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hotpatch.arch.model import CallingConvention, Instruction

_STEP_LIMIT = 20_000
"""Instructions that one constant is followed through at most."""


class Passed(NamedTuple):
    """A call (offset of its instruction in bytes; jumps out of the code are calls) and the argument's place: a register or a stack slot."""

    call: int
    place: str


class Constant(NamedTuple):
    """A number that code loads.

    Attributes:
        offset: Of the instruction from the start of the code, in bytes.
        size: Of the instruction, or of the two that build the number, in bytes.
        place: Register (by its widest name) or stack slot that it is put into.
        value: The number; for a load from a literal pool that pool's address (:attr:`is_literal`).
        is_literal: Whether it lies in a literal pool.
        passed: The calls that get it.
        only_passed: Whether nothing else is done with it, as far as can be seen.
    """

    offset: int
    size: int
    place: str
    value: int
    is_literal: bool
    passed: frozenset[Passed]
    only_passed: bool


class Effect(NamedTuple):
    """What an instruction does with registers and stack slots.

    Attributes:
        reads: Places that it reads for anything but a copy.
        writes: Places that hold something else afterwards.
        copies: Pairs of the place written and the place whose value it takes over.
        value: The number that it puts into its one written place; for a literal the pool's address.
        is_literal: Whether the number lies in a literal pool.
        keeps: Whether ``value`` is a part to put on top of what the place holds (Arm64 MOVK).
        moves_stack: Whether the names of stack slots mean others afterwards.
        opaque: Whether it may read anything.
    """

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    copies: tuple[tuple[str, str], ...] = ()
    value: int | None = None
    is_literal: bool = False
    keeps: bool = False
    moves_stack: bool = False
    opaque: bool = False


_Held = frozenset[tuple[str, bool]]
"""What holds a number: registers and stack slots, and of each whether it got it since the last call."""
_State = tuple[int, _Held]
"""An instruction, by place, and what holds the number before it."""


class Follower:
    """Follows constants through the instructions of one stretch of code."""

    def __init__(
        self,
        instructions: Sequence[Instruction],
        effects: Sequence[Effect],
        convention: CallingConvention,
        volatile: Collection[str],
        taken_slots: Collection[int],
        kept: Collection[str] = (),
    ) -> None:
        """Follow through ``instructions``, which do ``effects``.

        ``volatile``: registers that a call changes. ``taken_slots``: stack offsets whose address is taken. ``kept``: registers that code
        may read behind a call although they are volatile, because what it calls leaves them alone.
        """
        self._kept = frozenset(kept)
        self._instructions, self._effects = instructions, effects
        self._arguments, self._result = convention.integer_arguments, convention.result
        self._home = convention.home_space
        self._volatile = frozenset(volatile)
        self._lowest_taken = min(taken_slots, default=None)
        self._index = {instruction.address: number for number, instruction in enumerate(instructions)}
        self._start = instructions[0].address if instructions else 0

    def constants(self, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
        """See :meth:`hotpatch.arch.base.Architecture.constants`; by offset."""
        found = []
        for number, effect in enumerate(self._effects):
            if effect.value is None or effect.keeps or not effect.writes:
                continue
            (place,) = effect.writes
            last, value = self._whole(number, place, effect.value)
            first = self._instructions[number]
            end = self._instructions[last].address + self._instructions[last].size
            unknown = self._is_exposed(place) or (followed is not None and first.address - self._start not in followed)
            passed, only = (set(), False) if unknown else self._follow(last + 1, place)
            found.append(
                Constant(first.address - self._start, end - first.address, place, value, effect.is_literal, frozenset(passed), only)
            )
        return tuple(found)

    def never_reads(self, offset: int, place: str) -> bool:
        """Whether nothing, and no call, gets what ``place`` holds before the instruction at ``offset``."""
        start = self._index.get(self._start + offset)
        passed, only = (set[Passed](), False) if start is None else self._follow(start, place)
        return only and not passed

    def _whole(self, number: int, place: str, value: int) -> tuple[int, int]:
        """The last instruction that builds the number, and the number: a second one may follow at once."""
        following = self._effects[number + 1] if number + 1 < len(self._effects) else None
        if following is not None and following.keeps and following.value is not None and place in following.writes:
            return number + 1, value | following.value
        return number, value

    def _follow(self, start: int, place: str) -> tuple[set[Passed], bool]:
        """The calls that get what ``place`` holds before instruction ``start``, and whether nothing else does."""
        passed: set[Passed] = set()
        waiting: list[_State] = [(start, frozenset([(place, True)]))]
        seen: set[_State] = set()
        while waiting:
            at, held = waiting.pop()
            if not held or (at, held) in seen:
                continue
            seen.add((at, held))
            if at >= len(self._instructions) or len(seen) > _STEP_LIMIT or not self._only_moves(at, held):
                return passed, False
            if self._hands_on(at):
                passed |= self._handed(self._instructions[at], held)
            following = self._onward(at, held)
            if following is None:
                return passed, False
            waiting += following
        return passed, True

    def _hands_on(self, at: int) -> bool:
        """Whether arguments are passed: by a call, or by a jump out of the function, as tail calls are."""
        instruction = self._instructions[at]
        if instruction.flow is Flow.JUMP:
            return instruction.target not in self._index
        return instruction.flow in (Flow.CALL, Flow.CALL_INDIRECT) or (instruction.flow is Flow.JUMP_INDIRECT and self._leaves(at))

    def _onward(self, at: int, held: _Held) -> list[_State] | None:
        """What comes next and what holds the number then; ``None`` where that is not known, or where the caller gets the number."""
        instruction = self._instructions[at]
        target = self._index.get(instruction.target) if instruction.target is not None else None
        match instruction.flow:
            case Flow.NEXT:
                return [(at + 1, self._moved(at, held))]
            case Flow.CALL | Flow.CALL_INDIRECT:
                return [(at + 1, self._after_call(held))]
            case Flow.BRANCH:
                return None if target is None else [(target, held), (at + 1, held)]
            case Flow.JUMP:
                return [] if target is None else [(target, held)]
            case Flow.JUMP_INDIRECT:
                return [] if self._leaves(at) else None
            case Flow.RETURN:
                return None if any(name == self._result for name, _ in held) else []
            case Flow.TRAP:
                return []

    def _only_moves(self, at: int, held: _Held) -> bool:
        effect = self._effects[at]
        places = {place for place, _ in held}
        if self._instructions[at].flow in (Flow.CALL, Flow.CALL_INDIRECT, Flow.JUMP, Flow.JUMP_INDIRECT):
            return not effect.reads & places
        slots = any(fresh and _slot(place) is not None for place, fresh in held)
        exposed = any(source in places and self._is_exposed(to) for to, source in effect.copies)
        return not (effect.opaque or exposed or effect.reads & places or (slots and effect.moves_stack))

    def _is_exposed(self, place: str) -> bool:
        """Whether something may reach a stack slot through a pointer."""
        slot = _slot(place)
        return slot is not None and self._lowest_taken is not None and slot >= self._lowest_taken

    def _leaves(self, at: int) -> bool:
        """Whether an indirect jump goes through memory at a fixed address, as tail calls of imports do."""
        return not self._effects[at].reads

    def _moved(self, at: int, held: _Held) -> _Held:
        effect = self._effects[at]
        places = {place for place, _ in held}
        gained = {to for to, source in effect.copies if source in places}
        lost = (effect.writes | {to for to, _ in effect.copies}) - gained
        if effect.moves_stack:
            lost |= {place for place, fresh in held if not fresh}
        return frozenset(
            {(place, fresh) for place, fresh in held if place not in lost and place not in gained} | {(p, True) for p in gained}
        )

    def _handed(self, instruction: Instruction, held: _Held) -> set[Passed]:
        call = instruction.address - self._start
        return {Passed(call, place) for place, fresh in held if fresh and self._is_argument(place)}

    def _is_argument(self, place: str) -> bool:
        slot = _slot(place)
        return place in self._arguments if slot is None else bool(self._home) and slot >= self._home and not slot % 8

    def _after_call(self, held: _Held) -> _Held:
        return frozenset(
            (place, fresh and _slot(place) is None and place not in self._kept) for place, fresh in held if place not in self._volatile
        )


def slot_name(offset: int) -> str:
    """The name of the stack slot ``offset`` bytes above the stack pointer."""
    return f"sp+{offset}"


def _slot(place: str) -> int | None:
    return int(place[3:]) if place.startswith("sp+") else None
