"""x64: the basic blocks of a function, and running an analysis over them until nothing changes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from capstone import x86_const as x86

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.common import holds
from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping

    from hotpatch.arch.common import Rows

_MOST_VISITS = 64
"""Of one block, before what is known at its start is given up: compilers' code takes 20, and a strange function shall not take all day."""


class Edges(NamedTuple):
    """Where a jump through a table leads: addresses of the jump and of its targets, and whether these are all of them for certain."""

    jump: int
    targets: tuple[int, ...]
    exact: bool


class Blocks:
    """A function's instructions and the blocks that they form; positions are indices into ``rows``."""

    def __init__(self, rows: Rows, edges: Iterable[Edges] = ()) -> None:
        """Divide ``rows`` into blocks; ``edges`` are those of the jumps through tables of which it is known where they lead."""
        self.rows = rows
        self.addresses = rows.addresses()
        self.numbers = rows.numbers()
        self.flows = {position: encoding.FLOW[number] for position, number in enumerate(self.numbers) if number in encoding.FLOW}
        self.targets = {position: target for position in self.flows if (target := self._target(position)) is not None}
        self.cases: dict[int, tuple[int, ...]] = {}
        """Of jumps through tables, by position: the leaders of the blocks that they lead to."""
        self.whole: set[int] = set()
        """Those of these jumps that lead nowhere else."""
        for jump, targets, exact in edges:
            position = self._position(jump)
            if position is not None:
                found = (self._position(target) for target in targets)
                self.cases[position] = tuple(sorted({case for case in found if case is not None}))
                self.whole.update((position,) if exact else ())
        self.leaders = self._find_leaders()

    @cached_property
    def operands(self) -> list[tuple[str, ...]]:
        """The operands of each instruction, as text."""
        return [x64_operands.split(row[5]) for row in self.rows]

    @cached_property
    def dispatches(self) -> tuple[int, ...]:
        """Positions of the jumps through a register or an indexed operand."""
        return tuple(
            position
            for position, flow in self.flows.items()
            if flow is Flow.JUMP and position not in self.targets and not holds(self.rows[position][5], b"[rip")
        )

    @cached_property
    def before_dispatches(self) -> frozenset[int]:
        """The leaders of the blocks from which control may come to one of ``dispatches``, with those that these stand in."""
        sources: dict[int, list[int]] = {}
        for leader in self.leaders:
            for successor, _ in self.successors(leader):
                sources.setdefault(successor, []).append(leader)
        found: set[int] = set()
        pending = [self.block_of(position) for position in self.dispatches]
        while pending:
            leader = pending.pop()
            if leader not in found:
                found.add(leader)
                pending += sources.get(leader, ())
        return frozenset(found)

    @cached_property
    def order(self) -> dict[int, int]:
        """The number of each leader in an order in which a block stands before those that it leads to, as far as there are no loops."""
        finished: list[int] = []
        seen: set[int] = set()
        for root in self.leaders:
            pending = [] if root in seen else [(root, iter(self.successors(root)))]
            seen.add(root)
            while pending:
                leader, successors = pending[-1]
                fresh = next((successor for successor, _ in successors if successor not in seen), None)
                if fresh is None:
                    finished.append(leader)
                    pending.pop()
                else:
                    seen.add(fresh)
                    pending.append((fresh, iter(self.successors(fresh))))
        return {leader: len(finished) - number for number, leader in enumerate(finished)}

    def block_of(self, position: int) -> int:
        """The leader of the block that ``position`` lies in."""
        return self.leaders[bisect_right(self.leaders, position) - 1]

    def end(self, leader: int) -> int:
        """The position behind the block's last instruction."""
        following = bisect_right(self.leaders, leader)
        return self.leaders[following] if following < len(self.leaders) else len(self.addresses)

    def is_filler(self, leader: int) -> bool:
        """Whether nothing stands in the block but what compilers fill up with, behind a jump, before code that others lead to."""
        return all(self.numbers[position] == x86.X86_INS_NOP for position in range(leader, self.end(leader)))

    def successors(self, leader: int) -> tuple[tuple[int, bool], ...]:
        """Blocks that control goes to from this one, and whether by a taken branch."""
        end = self.end(leader)
        target = self.targets.get(end - 1)
        taken = self._position(target) if target is not None else None
        successors = [(case, True) for case in self.cases.get(end - 1, ())] if taken is None else [(taken, True)]
        if not self._leaves(end - 1) and end < len(self.addresses):
            successors.append((end, False))
        return tuple(successors)

    def reached(self, within: Container[int]) -> set[int]:
        """The leaders of those blocks ``within`` that control is seen to come to from the function's entry, that one included."""
        found: set[int] = set()
        pending = self.leaders[:1]
        while pending:
            leader = pending.pop()
            if leader not in found:
                found.add(leader)
                pending += [successor for successor, _ in self.successors(leader) if successor in within]
        return found

    def _leaves(self, position: int) -> bool:
        if self.flows.get(position) in (Flow.JUMP, Flow.JUMP_INDIRECT, Flow.RETURN):
            return True
        if self.flows.get(position) is not Flow.TRAP:
            return False
        number, _, _, encoded, _, _ = self.rows[position]
        return encoding.never_returns(number, encoded)

    def _target(self, position: int) -> int | None:
        if self.flows[position] not in (Flow.JUMP, Flow.BRANCH):
            return None
        _, at, size, encoded, _, _ = self.rows[position]
        if (found := encoding.branch_field(encoded, size)) is None:
            return None
        start, width = found
        return at + size + int.from_bytes(encoded[start : start + width], "little", signed=True)

    def _position(self, address: int) -> int | None:
        position = bisect_left(self.addresses, address)
        return position if position < len(self.addresses) and self.addresses[position] == address else None

    def _find_leaders(self) -> list[int]:
        starts = {0}
        starts.update(position + 1 for position, flow in self.flows.items() if flow is not Flow.CALL)
        starts.update(found for target in self.targets.values() if (found := self._position(target)) is not None)
        starts.update(case for cases in self.cases.values() for case in cases)
        return sorted(start for start in starts if start < len(self.addresses))


class State(Protocol):
    """What an analysis knows at one place."""

    def copy(self) -> State:
        """Another one that changes by itself."""


S = TypeVar("S", bound=State)


class Analysis(Generic[S]):
    """A forward analysis.

    Blocks that nothing is seen to lead to start with what those indirect jumps leave of which it is not known where they lead.
    """

    def __init__(self, blocks: Blocks) -> None:
        """Analyse ``blocks``."""
        self.blocks = blocks
        self.entries: dict[int, S] = {}

    def initial(self) -> S:
        """What is known at the function's entry."""
        raise NotImplementedError

    def step(self, position: int, state: S) -> None:
        """Change ``state`` as the instruction does."""
        raise NotImplementedError

    def merge(self, known: S, other: S, leader: int) -> bool:
        """Merge ``other`` into ``known`` where paths meet at ``leader``; whether ``known`` changed."""
        raise NotImplementedError

    def along(self, state: S, position: int, *, taken: bool) -> S:
        """A copy of ``state`` as it is on one side of the branch at ``position``."""
        raise NotImplementedError

    def reduce(self, state: S, leader: int) -> None:
        """Have ``state`` forget what bears on nothing from the start of the block on."""

    def give_up(self, known: S, leader: int) -> None:
        """Make ``known``, at the start of a block that was visited very often, something that hardly any path changes any more.

        An analysis that ends soon enough in any function leaves it as it is.
        """

    def concerns(self, leader: int) -> bool:
        """Whether what is known in the block, or behind it, is of use."""
        return True

    def begins(self, leader: int) -> bool:
        """Whether nothing that leads to the block bears on what is known at its start."""
        return leader == 0

    def run(self, wanted: Collection[int] | None = None) -> None:
        """Fill ``entries``: what is known at the start of each block but filler, or of those in ``wanted``, to which no others lead."""
        chosen = frozenset(filter(self.concerns, self.blocks.leaders if wanted is None else wanted))
        self._begin(chosen)
        for leader in self.blocks.leaders:
            if leader in chosen and leader not in self.entries and not (leader and self.blocks.is_filler(leader)):
                self._settle({leader: self._left_by_dispatches(leader)}, chosen)

    def run_from_entry(self, wanted: Collection[int]) -> None:
        """Fill ``entries`` for those of ``wanted`` alone that control is seen to come to."""
        self._begin(frozenset(filter(self.concerns, self.blocks.reached(wanted))))

    def _begin(self, chosen: Collection[int]) -> None:
        self._settle({leader: self.initial() for leader in self.blocks.leaders if leader in chosen and self.begins(leader)}, chosen)

    def at(self, position: int) -> S:
        """What is known before the instruction at ``position``, in a block that was reached."""
        leader = self.blocks.block_of(position)
        state: S = self.entries[leader].copy()  # type: ignore[assignment]
        for earlier in range(leader, position):
            self.step(earlier, state)
        return state

    def _settle(self, starts: Mapping[int, S], wanted: Collection[int]) -> None:
        """Have ``starts`` hold and carry on what follows from them until nothing changes: what is left holds on every path."""
        order = self.blocks.order if starts else {}
        work, waiting = sorted((order[start], start) for start in starts), set(starts)
        for start, state in starts.items():
            self.reduce(state, start)
            self.entries[start] = state
        visits: dict[int, int] = {}
        while work:
            _, leader = heappop(work)
            waiting.discard(leader)
            visits[leader] = visits.get(leader, 0) + 1
            if visits[leader] == _MOST_VISITS:
                self.give_up(self.entries[leader], leader)
                self.reduce(self.entries[leader], leader)
            last = self.blocks.end(leader) - 1
            left = self.at(last)
            self.step(last, left)
            for successor, taken in self.blocks.successors(leader):
                if successor not in wanted:
                    continue
                arriving = self.along(left, last, taken=taken)
                self.reduce(arriving, successor)
                known = self.entries.get(successor)
                if known is None:
                    self.entries[successor] = arriving
                elif not self.merge(known, arriving, successor):
                    continue
                if successor not in waiting:
                    waiting.add(successor)
                    heappush(work, (order[successor], successor))

    def _left_by_dispatches(self, leader: int) -> S:
        left: S | None = None
        for position in self.blocks.dispatches:
            if position in self.blocks.whole or self.blocks.block_of(position) not in self.entries:
                continue
            state = self.at(position)
            if left is None:
                left = state
            else:
                self.merge(left, state, leader)
        return self.initial() if left is None else left
