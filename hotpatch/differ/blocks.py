"""The basic blocks of a function: stretches of instructions that run from the first to the last, and where each leads."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import Flow
from hotpatch.differ.flows import instructions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.arch import Instruction, JumpTable
    from hotpatch.differ.flows import Endings
    from hotpatch.differ.view import View

_RUNS_ON = frozenset({Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT, Flow.BRANCH})
_STAYS = frozenset({Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT})


class Way(StrEnum):
    """How control leaves a block."""

    NEXT = "next"
    """To what lies behind it."""
    TAKEN = "taken"
    """By its conditional branch."""
    JUMP = "jump"
    CASE = "case"
    """Through a jump table."""


class Exit(NamedTuple):
    """Where a block leads within its function.

    Attributes:
        way: How.
        number: Of the entry of a jump table, else 0.
        target: Which block.
    """

    way: Way
    number: int
    target: int


class Block(NamedTuple):
    """Instructions ``first`` to ``end`` (exclusive; indices into :meth:`View.lines`) and what follows them within the function."""

    first: int
    end: int
    exits: tuple[Exit, ...]


def blocks(view: View, entry: int, endings: Endings) -> tuple[Block, ...]:
    """Of the function that starts at ``entry``, in the order of its instructions; every instruction is in exactly one.

    A block ends behind what does not go on to the next instruction for certain (a call that never returns is such) and before whatever
    else in the function leads to, its exception handlers apart, and where the code has a gap: between its ranges, and where a jump table
    stands.
    """
    reader = _Reader(view, entry, endings)
    starts = reader.starts()
    of_line = {line: number for number, line in enumerate(starts)}
    return tuple(
        Block(first, end, tuple(Exit(way, number, of_line[line]) for way, number, line in reader.exits(end - 1)))
        for first, end in pairwise((*starts, len(reader.steps)))
    )


class _Reader:
    """A function's instructions with their places."""

    def __init__(self, view: View, entry: int, endings: Endings) -> None:
        self.lines, self.steps = view.lines(entry), tuple(instructions(view, entry))
        self.at = {step.address: number for number, step in enumerate(self.steps)}
        self.entry, self.endings = entry, endings
        ranges = view.functions[entry].ranges
        self.arms: Mapping[int, JumpTable] = {
            part.start + table.jump: table for part in ranges for table in view.image.jump_tables_in(part)
        }

    def starts(self) -> Sequence[int]:
        """Lines that begin a block."""
        found = {0} if self.steps else set()
        for number, step in enumerate(self.steps):
            if number and self.steps[number - 1].address + self.steps[number - 1].size != step.address:
                found.add(number)
            if number + 1 < len(self.steps) and self._ends_block(number, step):
                found.add(number + 1)
            inner = self.lines[number].inner
            found |= {line for _, _, line in self.exits(number, stays=False)}
            found |= {self.at[inner]} if inner in self.at else set()
        return sorted(found)

    def exits(self, number: int, *, stays: bool = True) -> Iterator[tuple[Way, int, int]]:
        """Way, number of a table's entry, and line that may run after line ``number``: with ``stays`` also the one behind it."""
        step = self.steps[number]
        if stays and step.flow in _RUNS_ON and not self._never_returns(number, step):
            behind = self.at.get(step.address + step.size)
            if behind is not None:
                yield Way.NEXT, 0, behind
        if step.flow in (Flow.BRANCH, Flow.JUMP) and step.target in self.at:
            yield (Way.TAKEN if step.flow is Flow.BRANCH else Way.JUMP), 0, self.at[step.target]
        table = self.arms.get(step.address)
        for place, target in enumerate(table.targets) if table else ():
            if target in self.at:
                yield Way.CASE, place, self.at[target]

    def _ends_block(self, number: int, step: Instruction) -> bool:
        """Whether what stands behind is another block; the trap that compilers put behind a call that never returns is none of its own."""
        return step.flow not in _STAYS or (self.steps[number + 1].flow is not Flow.TRAP and self._never_returns(number, step))

    def _never_returns(self, number: int, step: Instruction) -> bool:
        return self.endings.is_last(self.entry, self.lines[number], step)
