"""Arm64: a function's basic blocks, and which of them each leads to by itself."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_words as a64
from hotpatch.arch.model import Flow, Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hotpatch.arch.arm64_code import Code

_JUMP, _BRANCH = Use.JUMP, Use.BRANCH
_FALLS_THROUGH = frozenset((Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT, Flow.BRANCH, Flow.TRAP))


class Blocks:
    """Blocks by number, in the code's order; calls do not end them.

    Attributes:
        starts: Index of the first word of each.
    """

    __slots__ = ("_code", "_data", "_ends", "starts")

    def __init__(self, code: Code, edges: Mapping[int, tuple[int, ...]], data: frozenset[int]) -> None:
        """Divide ``code``, whose jumps through tables lead along ``edges``; words that are ``data`` are blocks that nothing leads to."""
        self._code, self._data = code, data
        self._ends: dict[int, tuple[bool, int | None]] = {}
        """Of each word that ends a block: whether control goes on behind it, and where else it leads."""
        starts, ends, words, count = {0}, self._ends, code.words, len(code.words)
        for index, form, address in code.direct():
            use = form.use
            if (use is _BRANCH or use is _JUMP) and index not in data:
                target = address - code.address >> 2
                inside = 0 <= target < count
                if inside:
                    starts.add(target)
                ends[index] = (use is _BRANCH and not a64.is_conditional_always(words[index]), target if inside else None)
                starts.add(index + 1)
        for index in code.register_branches():
            if index not in data:
                ends[index] = (a64.flow_of(words[index]) in _FALLS_THROUGH, None)
                starts.add(index + 1)
        starts.update(index + 1 for index in code.traps())
        for index in data:
            starts.update((index, index + 1))
        for targets in edges.values():
            starts.update(targets)
        starts.discard(count)
        self.starts = sorted(starts)

    def end(self, block: int) -> int:
        """One past the last word of ``block``."""
        return self.starts[block + 1] if block + 1 < len(self.starts) else len(self._code.words)

    def of(self, index: int) -> int:
        """The block that a word lies in."""
        return bisect_right(self.starts, index) - 1

    def connections(self) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """The block that begins at each word, data apart; and of each block the next one and a branch's target, -1 for neither."""
        starts, data = self.starts, self._data
        numbers = {start: number for number, start in enumerate(starts) if start not in data}
        following = []
        for start, end in zip(starts, [*starts[1:], len(self._code.words)], strict=True):
            falls, target = self._ends.get(end - 1, (True, None))
            next_block = numbers.get(end, -1) if falls and start not in data else -1
            following.append((next_block, -1 if target is None else numbers.get(target, -1)))
        return numbers, following

    def coming_to(self, ends: Iterable[int], edges: Mapping[int, tuple[int, ...]]) -> set[int]:
        """The blocks from which control comes to one of the words ``ends``, with those that these lie in; ``edges`` as at first."""
        sources: dict[int, list[int]] = {}
        for block, following in enumerate(self.connections()[1]):
            for successor in following:
                sources.setdefault(successor, []).append(block)
        for jump, targets in edges.items():
            for target in targets:
                sources.setdefault(self.of(target), []).append(self.of(jump))
        found: set[int] = set()
        pending = [self.of(index) for index in ends]
        while pending:
            block = pending.pop()
            if block not in found:
                found.add(block)
                pending += sources.get(block, ())
        return found
