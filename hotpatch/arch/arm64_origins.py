"""Arm64: where what a register holds comes from, on the ways that code really takes.

Behind a call that never returns stands what other code leads to, with something else in the registers. Whether a call returns its words do
not tell. But what a compiler put behind it in one block is there because it does; only where another block begins behind a call need
control not come that way. An instruction that completes a page has a relocation, and does so on every way that is taken: where one of them
brings a page, all do, and where one brings anything else, the instruction completes none.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_code as classes
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch.arm64_blocks import Blocks
    from hotpatch.arch.arm64_code import Code

_CALLS = frozenset((Flow.CALL, Flow.CALL_INDIRECT))
_ARGUMENTS = range(8)
"""x0 to x7."""
_RESULTS = range(2)
"""x0 and x1."""


class Origin(Enum):
    """What else than a page a register holds."""

    ELSE = auto()
    """Something that is certainly none, nor part of an address of the image."""
    UNKNOWN = auto()


class Origins:
    """Where registers get what they hold, in one piece of code."""

    def __init__(self, code: Code, blocks: Blocks, edges: Mapping[int, tuple[int, ...]]) -> None:
        """See :class:`hotpatch.arch.arm64_flow.Analysis`."""
        self._code, self._blocks = code, blocks
        self._before: dict[int, list[int]] = {}
        numbers, following = blocks.connections()
        self._led_to = {target for _, target in following} | {numbers.get(at, -1) for targets in edges.values() for at in targets}
        for block, (falls, target) in enumerate(following):
            last = blocks.end(block) - 1
            for successor in (falls if self._goes_on(last, falls) else -1, target, *(numbers.get(at, -1) for at in edges.get(last, ()))):
                self._before.setdefault(successor, []).append(block)

    def _goes_on(self, last: int, falls: int) -> bool:
        """Whether control comes past the word that ends a block for certain, to the block ``falls``, where it is not led elsewhere.

        A block ends with a call through a register even where no other begins behind it.
        """
        if a64.flow_of(self._code.words[last]) is Flow.CALL_INDIRECT and falls not in self._led_to:
            return True
        words = self._code.words
        while last > 0 and words[last] == a64.NOP:
            last -= 1
        return words[last] != a64.BRK_TRAP and a64.flow_of(words[last]) not in _CALLS

    def of(self, index: int, register: int) -> set[int | Origin]:
        """What ``register`` may hold before the word ``index``: the page of which ADRP (by word index), or what else."""
        found: set[int | Origin] = set()
        seen: set[tuple[int, int]] = set()
        work = [(self._blocks.of(index), index, register)]
        while work:
            block, end, wanted = work.pop()
            origin, wanted = self._within(self._blocks.starts[block], end, wanted)
            if origin is not None:
                found.add(origin)
                continue
            if block == 0:
                found.add(Origin.ELSE if wanted in _ARGUMENTS and self._begins_a_function() else Origin.UNKNOWN)
            before = [(one, self._blocks.end(one), wanted) for one in self._before.get(block, ()) if (one, wanted) not in seen]
            seen.update((one, wanted) for one, _, _ in before)
            work += before
        return found

    def _within(self, start: int, end: int, wanted: int) -> tuple[int | Origin | None, int]:
        """What the words from ``start`` to before ``end`` leave in a register; where that is what they find in one, which one."""
        for index in range(end - 1, start - 1, -1):
            word = self._code.words[index]
            flow = a64.flow_of(word)
            written = a64.CALL_RESULTS if flow is Flow.CALL else a64.written_registers(word)
            if not written >> wanted & 1:
                continue
            if flow in _CALLS:
                return Origin.ELSE if wanted in _RESULTS else Origin.UNKNOWN, wanted
            if self._code.classes[index] == classes.PAGE:
                return index, wanted
            if not a64.is_move_register(word):
                return Origin.ELSE if _makes_no_page(word, wanted) else Origin.UNKNOWN, wanted
            wanted = a64.rm(word)
            if wanted == a64.ZERO_REGISTER:
                return Origin.ELSE, wanted
        return None, wanted

    def _begins_a_function(self) -> bool:
        """Whether the first word makes a frame, so that registers hold arguments before it: parts that lie apart have one already."""
        return self._code.words[0] == a64.PACIBSP or a64.is_frame_push(self._code.words[0])


def _makes_no_page(word: int, register: int) -> bool:
    """Whether what ``word`` leaves in ``register`` is loaded from other memory than the stack, a small number, or a whole address."""
    if a64.is_unsigned_immediate(word):
        return a64.rn(word) != a64.STACK_POINTER
    if a64.is_pair_load(word):
        return a64.rn(word) not in (a64.STACK_POINTER, register)
    return a64.is_add_immediate(word) or a64.is_move_number(word)
