"""x64: which registers and stack slots bear on what is asked of a function, so that an analysis need not carry the others along.

A large function keeps hundreds of values on its stack, and hardly any of them has to do with its switches.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from capstone import x86_const as x86

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.x64_operands import PARENTS, stack_slot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from hotpatch.arch.x64_flow import Blocks
    from hotpatch.arch.x64_operands import Memory

COPIES = frozenset((x86.X86_INS_MOV, x86.X86_INS_MOVABS, x86.X86_INS_MOVZX, x86.X86_INS_MOVSX, x86.X86_INS_MOVSXD))
COMPARISONS = frozenset((x86.X86_INS_CMP, x86.X86_INS_SUB))
EXTENSIONS_IN_PLACE = frozenset((x86.X86_INS_CDQE, x86.X86_INS_CWDE))
_ALWAYS = 1
"""The bit of what always matters."""


class _Step(NamedTuple):
    """How an instruction bears on what matters, against the flow of control; places as bits.

    Attributes:
        test: If any of these matters behind it,
        clear: these do not in front of it, as it overwrites them,
        add: but these do.
    """

    test: int
    clear: int
    add: int


class Needed:
    """The places that bear on what some instructions of a function make of their operands.

    A place matters as (a part of) an address, or as what selects an entry of a table. What selects is followed through copies and tables
    alone, as nothing else leaves it a name. A place that is compared with a number matters, too, where another that selects may hold the
    same, as one is copied to the other somewhere: the outcome bounds both.
    """

    def __init__(self, blocks: Blocks, sinks: Collection[int], within: Collection[int]) -> None:
        """Find them.

        Args:
            blocks: The function.
            sinks: Positions of the instructions: jumps through tables, or sums of two registers.
            within: Leaders of the blocks that are looked at.
        """
        self._blocks = blocks
        self._sinks = sinks
        self._bits: dict[str, int] = {}
        """Place → its bit as an address; that as what selects is the next."""
        self._copied: dict[str, set[str]] = {}
        """Places, with those that they are copied to or from."""
        for leader in within:
            self._take_copies(leader)
        self._steps = {leader: list(self._steps_of(leader))[::-1] for leader in within}
        self._before, self._behind = self._settle()
        self._places: dict[int, tuple[str, ...]] = {}

    def at(self, leader: int) -> tuple[str, ...]:
        """The places that matter at the start of a block."""
        places = self._places.get(leader)
        if places is None:
            found = self._before.get(leader, _ALWAYS)
            places = self._places[leader] = tuple([place for place, bit in self._bits.items() if found & (bit | bit << 1)])
        return places

    def has(self, leader: int) -> bool:
        """Whether anything matters in a block, or behind it."""
        return self._behind.get(leader, _ALWAYS) != _ALWAYS or any(step.test == _ALWAYS for step in self._steps.get(leader, ()))

    def _take_copies(self, leader: int) -> None:
        blocks = self._blocks
        for position in range(leader, blocks.end(leader)):
            if blocks.numbers[position] in COPIES:
                first, second = (_place(operand) for operand in blocks.operands[position])
                if first is not None and second is not None:
                    self._copied.setdefault(first, set()).add(second)
                    self._copied.setdefault(second, set()).add(first)

    def _steps_of(self, leader: int) -> Iterator[_Step]:
        """What the instructions of a block do, in order."""
        blocks = self._blocks
        for position in range(leader, blocks.end(leader)):
            number = blocks.numbers[position]
            if number == encoding.CALL:
                yield self._overwritten(x64_operands.VOLATILE)
            elif number == encoding.JUMP:
                if position in self._sinks:
                    yield self._jump(blocks.operands[position])
            elif number not in EXTENSIONS_IN_PLACE:
                yield from self._steps_at(position, number, blocks.operands[position])

    def _steps_at(self, position: int, number: int, operands: tuple[str, ...]) -> Iterator[_Step]:
        if number in COMPARISONS and operands[1][0].isdigit() and (place := _place(operands[0])) is not None:
            selects = self._as_selector(place)
            yield _Step(selects | self._as_selector(*sorted(self._copied.get(place, ()))), 0, selects)
        if position in self._sinks:
            yield _Step(_ALWAYS, 0, self._made_of(number, operands)[0])
        written = x64_operands.written(number, operands)
        into = _place(operands[0]) if operands else None
        if into is not None and (into in written or (operands[0][-1] == "]" and number != x86.X86_INS_CMP)):
            address, selector = self._as_address(into), self._as_selector(into)
            of_address, of_selector = self._made_of(number, operands)
            yield _Step(address, address, of_address)
            yield _Step(selector, selector, of_selector)
        written.discard(into or "")
        if written:
            yield self._overwritten(sorted(written))

    def _jump(self, operands: tuple[str, ...]) -> _Step:
        accessed = x64_operands.accessed(operands)
        return _Step(_ALWAYS, 0, self._as_address(PARENTS.get(operands[0])) if accessed is None else self._selected(accessed))

    def _overwritten(self, places: Iterable[str]) -> _Step:
        bits = self._as_address(*places) | self._as_selector(*places)
        return _Step(bits, bits, 0)

    def _made_of(self, number: int, operands: tuple[str, ...]) -> tuple[int, int]:
        """What tells the first operand afterwards, where it matters as an address and as what selects."""
        if number in COPIES:
            accessed = x64_operands.memory(operands[1])
            if accessed is not None and stack_slot(accessed) is None:
                return (selected := self._selected(accessed)), selected
            source = _place(operands[1])
            return self._as_address(source), self._as_selector(source)
        if number == x86.X86_INS_ADD:
            return self._as_address(*(PARENTS.get(operand) for operand in operands)), 0
        accessed = x64_operands.accessed(operands) if number == x86.X86_INS_LEA else None
        if accessed is None or accessed.base == "rip":
            return 0, 0
        terms = self._as_address(accessed.base, accessed.scaled if accessed.scale == 1 else None)
        return terms, self._as_selector(accessed.base) if accessed.scaled is None and not accessed.displacement else 0

    def _selected(self, accessed: Memory) -> int:
        """What tells which entry of which table an access by index reads."""
        if accessed.scaled is None:
            return 0
        bits = self._as_address(accessed.base) | self._as_selector(accessed.scaled)
        return bits if accessed.scale > 1 else bits | self._as_address(accessed.scaled) | self._as_selector(accessed.base)

    def _as_address(self, *places: str | None) -> int:
        bits = 0
        for place in places:
            if place is not None:
                bits |= self._bits.setdefault(place, _ALWAYS << 1 + 2 * len(self._bits))
        return bits

    def _as_selector(self, *places: str | None) -> int:
        return self._as_address(*places) << 1

    def _settle(self) -> tuple[dict[int, int], dict[int, int]]:
        """What matters at the start of each block and behind it, carried against the flow of control until nothing changes."""
        before = dict.fromkeys(self._steps, 0)
        behind = dict.fromkeys(self._steps, _ALWAYS)
        sources: dict[int, list[int]] = {leader: [] for leader in before}
        for leader in before:
            for successor in self._after(leader):
                sources[successor].append(leader)
        pending = sorted(before)
        waiting = set(pending)
        while pending:
            leader = pending.pop()
            waiting.discard(leader)
            found = behind[leader]
            for test, clear, add in self._steps[leader]:
                if found & test:
                    found = found & ~clear | add
            if found == before[leader]:
                continue
            before[leader] = found
            for earlier in sources[leader]:
                if found & ~behind[earlier]:
                    behind[earlier] |= found
                    if earlier not in waiting:
                        waiting.add(earlier)
                        pending.append(earlier)
        return before, behind

    def _after(self, leader: int) -> set[int]:
        """Where control goes from a block; it may be to any that nothing is seen to lead to, where that is not known."""
        last = self._blocks.end(leader) - 1
        after = self._seen_after(leader)
        return after | self._unreached if last in self._blocks.dispatches and last not in self._blocks.whole else after

    def _seen_after(self, leader: int) -> set[int]:
        return {successor for successor, _ in self._blocks.successors(leader) if successor in self._steps}

    @cached_property
    def _unreached(self) -> set[int]:
        """The blocks that control is not seen to come to from the function's entry."""
        return set(self._steps) - self._blocks.reached(self._steps)


def _place(operand: str) -> str | None:
    """The register or stack slot that an operand is, or is a part of."""
    return PARENTS.get(operand) or stack_slot(x64_operands.memory(operand))
