"""x64: what registers hold, as far as jump tables need it.

A register or stack slot holds a known address, an entry loaded from a table, a table entry made into an address, or an unknown value that
is named by where it came from, so that copies of it share its bound. Where paths meet with different values the result is unknown, but for
the image base, which stays where any path has it (:mod:`hotpatch.arch.x64_image_base` says why).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from capstone import x86_const as x86

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.x64_flow import Analysis, Blocks
from hotpatch.arch.x64_needed import COMPARISONS, COPIES, EXTENSIONS_IN_PLACE, Needed
from hotpatch.arch.x64_operands import PARENTS, stack_slot

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.arch.x64_operands import Memory


class Unknown(NamedTuple):
    """A value made at address ``at`` (-1: at the function's entry) in ``place``."""

    at: int
    place: str


class Entry(NamedTuple):
    """An entry loaded from the table at address ``table`` by ``selector``, which is below ``limit`` where a check or a mask was seen.

    ``exact`` where it was a check, and not an equality: one value is told by that, and not how many there are.
    """

    table: int
    size: int
    signed: bool
    selector: Value
    limit: int | None
    exact: bool


class Destination(NamedTuple):
    """``entry`` with ``anchor`` added."""

    entry: Entry
    anchor: int


Value = int | Unknown | Entry | Destination
"""An ``int`` is a known address."""


class Dispatch(NamedTuple):
    """An indirect jump through a table; ``anchor`` is ``None`` where entries are whole addresses."""

    jump: int
    entry: Entry
    anchor: int | None


@dataclass(slots=True)
class State:
    """What places hold, what is known to be below what, and what the flags compare."""

    values: dict[str, Value] = field(default_factory=dict)
    bounds: dict[Value, int] = field(default_factory=dict)
    compared: tuple[Value, int] | None = None

    def copy(self) -> State:
        """Another state that changes by itself."""
        return State(dict(self.values), dict(self.bounds), self.compared)

    def get(self, place: str) -> Value:
        """What ``place`` holds."""
        return self.values.get(place, Unknown(-1, place))

    def join(self, other: State, block: int, image_base: int, masked: dict[Value, int], equal: set[tuple[Value, int]]) -> bool:
        """Merge ``other`` in, at the start of ``block``; whether anything changed.

        A place that each way brings another value to is below the larger of their bounds; ``masked`` are those that no check gave, and
        ``equal`` those that come from what a value was found equal to.
        """
        changed = False
        fresh: dict[Value, int | None] = {}
        renewed: dict[str, Value] = {}
        """Kept apart, since bounds are told by what places hold before, and the places come in no order."""
        values, others, bounded = self.values, other.values, bool(self.bounds)
        apart = [place for place, held in values.items() if others.get(place) is not held]  # most are one object, as copies keep them
        apart += [place for place in others if place not in values]
        for place in apart:
            mine, theirs = values.get(place), others.get(place)
            if mine in (theirs, image_base):
                continue
            if mine == (block, place) and mine not in self.bounds and theirs != image_base:
                continue  # the same as when ways met here before
            mine, theirs = Unknown(-1, place) if mine is None else mine, Unknown(-1, place) if theirs is None else theirs
            if mine == theirs:
                continue
            merged: Value = image_base if theirs == image_base else Unknown(block, place)
            if bounded:
                fresh[merged] = self._common_bound(other, place, merged, masked, equal)
            if merged != mine:
                renewed[place] = merged
                changed = True
        values.update(renewed)
        for value in fresh.keys() | self.bounds.keys():
            bound = self.bounds.get(value)
            wider = fresh[value] if value in fresh else other.bounds.get(value)
            if value not in fresh and wider is not None and bound is not None:
                wider = max(wider, bound)
            if wider == bound:
                continue
            changed = True
            if wider is None:
                del self.bounds[value]
            else:
                self.bounds[value] = wider
        if self.compared is not None and self.compared != other.compared:
            self.compared = None
            changed = True
        return changed

    def _common_bound(self, other: State, place: str, merged: Value, masked: dict[Value, int], equal: set[tuple[Value, int]]) -> int | None:
        """What ``merged``, which ``place`` holds from here on, is below; ``None`` where an older value of that name is about."""
        mine, theirs = self.get(place), other.get(place)
        one, two = self.bounds.get(mine), other.bounds.get(theirs)
        if one is None or two is None:
            return None
        if any(where != place and value == merged for state in (self, other) for where, value in state.values.items()):
            return None
        bound = max(one, two)
        if masked.get(mine) == one or masked.get(theirs) == two:
            masked[merged] = bound
        if (mine, bound) in equal or (theirs, bound) in equal:
            equal.add((merged, bound))
        return bound


_SIGNED_LOADS = frozenset((x86.X86_INS_MOVSX, x86.X86_INS_MOVSXD))
_POINTER_SIZE = 8
_EQUALITIES = frozenset((x86.X86_INS_JE, x86.X86_INS_JNE))
_KEEPS_FLAGS = COPIES | encoding.instruction_numbers(
    "LEA CDQE CWDE CDQ CQO NOP PUSH POP MOVAPS MOVUPS MOVDQA MOVDQU MOVQ MOVD MOVSS MOVSD XORPS PXOR "
    "JA JAE JB JBE JE JNE CMOVA CMOVAE CMOVB CMOVBE CMOVE CMOVNE SETA SETAE SETB SETBE SETE SETNE"
)


def _number(text: str) -> int | None:
    return int(text, 0) if text[0].isdigit() or text[0] == "-" else None


class Values(Analysis[State]):
    """The values of one function, as far as they bear on what some of its instructions do."""

    def __init__(self, blocks: Blocks, image_base: int, sinks: Collection[int], within: Collection[int]) -> None:
        """Analyse ``blocks`` of an image at ``image_base``, those in ``within``, for the operands of the instructions at ``sinks``."""
        super().__init__(blocks)
        self.image_base = image_base
        self._needed = Needed(blocks, sinks, within)
        self._masked: dict[Value, int] = {}
        self._equal: set[tuple[Value, int]] = set()

    def initial(self) -> State:
        """Nothing is known at the entry."""
        return State()

    def merge(self, known: State, other: State, leader: int) -> bool:
        """See :meth:`State.join`."""
        return known.join(other, self.blocks.addresses[leader], self.image_base, self._masked, self._equal)

    def along(self, state: State, position: int, *, taken: bool) -> State:
        """``state`` with what the branch at ``position`` tells about the value that was compared."""
        state = state.copy()
        if state.compared is None:
            return state
        number = self.blocks.numbers[position]
        value, limit = state.compared
        if number == (x86.X86_INS_JBE if taken else x86.X86_INS_JA):
            state.bounds[value] = limit + 1
        elif number == (x86.X86_INS_JB if taken else x86.X86_INS_JAE) or (
            number == (x86.X86_INS_JNE if taken else x86.X86_INS_JE) and state.bounds.get(value) == limit + 1
        ):
            if (value, limit + 1) in self._equal and number in _EQUALITIES:
                self._equal.add((value, limit))
            state.bounds[value] = limit
        elif number == (x86.X86_INS_JE if taken else x86.X86_INS_JNE):
            self._equal.add((value, limit + 1))
            state.bounds[value] = limit + 1
        return state

    def concerns(self, leader: int) -> bool:
        """See :meth:`Analysis.concerns`."""
        return self._needed.has(leader)

    def begins(self, leader: int) -> bool:
        """See :meth:`Analysis.begins`."""
        return leader == 0 or not self._needed.at(leader)

    def reduce(self, state: State, leader: int) -> None:
        """See :meth:`Analysis.reduce`; of what no place holds, no bound is of use but that of what was compared last."""
        held, needed = state.values, self._needed.at(leader)
        state.values = {place: held[place] for place in needed if place in held}
        if state.bounds:
            named = set(map(state.get, needed))
            if state.compared is not None:
                named.add(state.compared[0])
            state.bounds = {value: bound for value, bound in state.bounds.items() if value in named}

    def give_up(self, known: State, leader: int) -> None:
        """See :meth:`Analysis.give_up`: each place that the function ever writes holds what nothing is known of, but for the image base."""
        at = self.blocks.addresses[leader]
        for place in sorted(self._places.union(known.values)):
            if known.values.get(place) != self.image_base:
                known.values[place] = Unknown(at, place)
        known.bounds, known.compared = {}, None

    @cached_property
    def _places(self) -> frozenset[str]:
        """What any of the instructions may write to, as far as it is followed."""
        found: set[str] = set()
        for position in range(len(self.blocks.addresses)):
            state = State()
            self.step(position, state)
            found.update(state.values)
        return frozenset(found)

    def dispatches(self) -> list[Dispatch]:
        """The indirect jumps that go through tables, as far as blocks were reached."""
        found = []
        for position in self.blocks.dispatches:
            if self.blocks.block_of(position) not in self.entries:
                continue
            state = self.at(position)
            operands = self.blocks.operands[position]
            accessed = x64_operands.accessed(operands)
            value: Value | None
            value = self._loaded(state, accessed, signed=False) if accessed is not None else state.get(PARENTS.get(operands[0], ""))
            at = self.blocks.addresses[position]
            if isinstance(value, Destination):
                found.append(Dispatch(at, value.entry, value.anchor))
            elif isinstance(value, Entry) and value.size == _POINTER_SIZE:
                found.append(Dispatch(at, value, None))
        return found

    def step(self, position: int, state: State) -> None:
        """Change ``state`` as the instruction at ``position`` does."""
        number, at = self.blocks.numbers[position], self.blocks.addresses[position]
        if number == encoding.CALL:
            for register in x64_operands.VOLATILE:
                state.values[register] = Unknown(at, register)
            state.compared = None
            return
        if number == encoding.JUMP:
            return
        operands = self.blocks.operands[position]
        accessed = x64_operands.accessed(operands)
        compared = self._comparison(state, number, operands, accessed)
        if compared is not None or number not in _KEEPS_FLAGS:
            state.compared = compared
        self._assign(state, number, position, operands, accessed)

    def _comparison(self, state: State, number: int, operands: tuple[str, ...], accessed: Memory | None) -> tuple[Value, int] | None:
        if number not in COMPARISONS or (limit := _number(operands[1])) is None or limit < 0:
            return None
        place = PARENTS.get(operands[0]) or stack_slot(accessed)
        return None if place is None else (state.get(place), limit)

    def _assign(self, state: State, number: int, position: int, operands: tuple[str, ...], accessed: Memory | None) -> None:
        at = self.blocks.addresses[position]
        if number in EXTENSIONS_IN_PLACE:
            if isinstance(state.get("rax"), int):
                state.values["rax"] = Unknown(at, "rax")
            return
        new = self._result(state, number, position, operands, accessed)
        registers = x64_operands.written(number, operands)
        slot = stack_slot(accessed) if operands and operands[0][-1] == "]" and number != x86.X86_INS_CMP else None
        for register in registers:
            state.values[register] = Unknown(at, register)
        if "rsp" in registers:
            for place in [place for place in state.values if place.startswith("rsp +") or place == "[rsp]"]:
                del state.values[place]
        if slot is not None:
            state.values[slot] = Unknown(at, slot) if new is None else new
        elif new is not None and operands[0] in PARENTS:
            state.values[PARENTS[operands[0]]] = new

    def _result(self, state: State, number: int, position: int, operands: tuple[str, ...], accessed: Memory | None) -> Value | None:
        """What the first operand holds afterwards, where that is more than unknown."""
        if number == x86.X86_INS_LEA and accessed is not None:
            return self._address(state, sum(self.blocks.rows.place(position)), accessed)
        if number in COPIES:
            return self._copied(state, number, operands, accessed)
        if number == x86.X86_INS_ADD and operands[0] in PARENTS:
            left = state.get(PARENTS[operands[0]])
            if operands[1] in PARENTS:
                return _sum(left, state.get(PARENTS[operands[1]]))
            increment = _number(operands[1])
            return left + increment if isinstance(left, int) and increment is not None else None
        if number == x86.X86_INS_AND and operands[0] in PARENTS and (limit := _number(operands[1])) is not None and limit >= 0:
            masked = Unknown(self.blocks.addresses[position], PARENTS[operands[0]])
            state.bounds[masked] = self._masked[masked] = limit + 1
            return masked
        return None

    def _address(self, state: State, end: int, accessed: Memory) -> Value | None:
        if accessed.base == "rip":
            return end + accessed.displacement
        terms = [state.get(register) for register in (accessed.base, accessed.scaled) if register is not None]
        if accessed.scaled is not None and accessed.scale != 1:
            return None
        if len(terms) == 1:
            only = terms[0]
            return only + accessed.displacement if isinstance(only, int) else only if accessed.displacement == 0 else None
        return _sum(*terms) if len(terms) == 2 and accessed.displacement == 0 else None

    def _copied(self, state: State, number: int, operands: tuple[str, ...], accessed: Memory | None) -> Value | None:
        if accessed is None:
            source = PARENTS.get(operands[1])
            if source is None:
                return None
            value = state.get(source)
            return None if isinstance(value, int) and operands[1] != source else value
        if operands[0][-1] == "]":
            source = PARENTS.get(operands[1])
            return None if source is None else state.get(source)
        if (slot := stack_slot(accessed)) is not None:
            value = state.get(slot)
            return None if isinstance(value, int) and accessed.size != 8 else value
        return self._loaded(state, accessed, signed=number in _SIGNED_LOADS)

    def _loaded(self, state: State, accessed: Memory, *, signed: bool) -> Entry | None:
        """The entry that a load by index from a known address gives."""
        first, second = accessed.base, accessed.scaled
        table: Value | None = state.get(first) if first is not None else 0
        if not isinstance(table, int) and accessed.scale == 1 and second is not None:
            first, second = second, first
            table = state.get(first)
        if not isinstance(table, int) or second is None or accessed.scale != accessed.size:
            return None
        selector = state.get(second)
        bound = state.bounds.get(selector)
        exact = bound is not None and bound != self._masked.get(selector) and (selector, bound) not in self._equal
        return Entry(table + accessed.displacement, accessed.size, signed, selector, bound, exact)


def _sum(left: Value, right: Value) -> Value | None:
    if isinstance(left, int) and isinstance(right, Entry):
        left, right = right, left
    return Destination(left, right) if isinstance(left, Entry) and isinstance(right, int) else None
