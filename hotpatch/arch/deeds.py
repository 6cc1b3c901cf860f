"""What code does with what it accesses: traits by which two data can be told apart that lie side by side and begin alike.

Looked at is the straight run of code around an instruction, by its texts. A trait proves nothing: it is there to be compared with those
of another build, where the same code does the same with the same datum.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import Flow
from hotpatch.arch.unread import registers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from hotpatch.arch.model import CallingConvention, Instruction
    from hotpatch.arch.unread import Spelling

_IN_MEMORY = re.compile(r"\[[^\]]*\]")
_WORD = re.compile(r"\b[a-z][a-z0-9]*")
_COPIES = frozenset(("mov", "movzx", "movsx", "movsxd", "uxtb", "uxth", "uxtw", "sxtb", "sxth", "sxtw"))
_IN_PAIRS = re.compile(r"(?:ld|st)n?p")
"""Arm64: read or write two registers."""
_MOST = 16
"""Instructions of which a value is told to be made."""
_KEEPING = re.compile(r"cmp|cmn|test|tst|str|stu?r|stp|push|bt$|ucomis|comis|fcmp|cbn?z|tbn?z")
"""Do not write their first operand."""


class Deed(NamedTuple):
    """One trait.

    Attributes:
        part: ``does``: the instruction itself. ``with``: the same without its registers, where it has numbers, and so each instruction that
            makes a part of the value. ``to``: what uses the value that it reads. ``from``: what makes the value that it writes.
            ``beside``: what else is done in the same straight run of code.
        what: The operation, or the instruction's text.
        callee: Where a call leads that gets the value or gives it.
    """

    part: str
    what: str
    callee: int | None = None


class Deeds:
    """Tells the traits of instructions of one function."""

    def __init__(
        self,
        instructions: Sequence[Instruction],
        edges: Mapping[int, Collection[int]],
        convention: CallingConvention,
        spelling: Spelling,
        operation: Callable[[str], str],
    ) -> None:
        """Look at ``instructions``, by address.

        Args:
            instructions: All of the function's.
            edges: Address of a jump through a table → where it leads.
            convention: Which registers arguments and results are in, and which a call keeps.
            spelling: What the texts say of registers.
            operation: What an instruction does, by its text.
        """
        self._instructions, self._convention, self._spelling, self._operation = instructions, convention, spelling, operation
        self._index = {one.address: number for number, one in enumerate(instructions)}
        self._led = {one.target for one in instructions if one.flow is not Flow.CALL}.union(*edges.values())

    def accessing(self, at: int) -> tuple[Counter[Deed], ...]:
        """Those of the instruction at ``at``, which reads or writes memory: for each of the equal parts that it does so in."""
        number = self._index.get(at)
        if number is None:
            return (Counter(),)
        one, written = self._instructions[number], self._written(self._instructions[number])
        stored = () if written else registers(_IN_MEMORY.sub("", one.operands), self._spelling)
        if _IN_PAIRS.match(one.mnemonic) is None:
            return (Counter(self._accesses(number, written, stored)),)
        return tuple(Counter(self._accesses(number, written[part : part + 1], stored[part : part + 1])) for part in range(2))

    def _accesses(self, number: int, written: Iterable[str], stored: Iterable[str]) -> Iterator[Deed]:
        one = self._instructions[number]
        yield Deed("does", self._what(one))
        if one.immediates:
            yield Deed("with", self._shape(one))
        for register in written:
            yield from self._forward(number, register)
        for register in dict.fromkeys(stored):
            yield from self._backward(number, register)
        yield from self._beside(number)

    def making(self, at: int) -> Counter[Deed]:
        """Those of the instruction at ``at``, which makes an address: the calls that get it."""
        number = self._index.get(at)
        if number is None:
            return Counter()
        every = (deed for register in self._written(self._instructions[number]) for deed in self._forward(number, register))
        calls = [deed for deed in every if deed.what == "call"]
        return Counter([*calls, *self._beside(number)] if calls else [])

    def _beside(self, number: int) -> Iterator[Deed]:
        others = (self._instructions[other] for other in self._run(number) if other != number)
        yield from (Deed("beside", self._what(other), other.target if other.flow is Flow.CALL else None) for other in others)

    def _what(self, one: Instruction) -> str:
        return self._operation(f"{one.mnemonic} {one.operands}")

    def _shape(self, one: Instruction) -> str:
        """An instruction's text without what compilers choose: the registers, and where memory is that it accesses."""
        operands = one.operands if one.mnemonic == "lea" else _IN_MEMORY.sub("[]", one.operands)
        return f"{one.mnemonic} {_WORD.sub(self._unnamed, operands)}"

    def _unnamed(self, word: re.Match[str]) -> str:
        return word[0] if self._spelling.widest(word[0]) is None else "r"

    def _run(self, number: int) -> range:
        """The straight run of code that an instruction stands in."""
        start = end = number
        while start > 0 and self._goes_on(start):
            start -= 1
        while end + 1 < len(self._instructions) and self._goes_on(end + 1):
            end += 1
        return range(start, end + 1)

    def _goes_on(self, number: int) -> bool:
        """Whether control comes to an instruction from the one before it alone, over a call at most."""
        before, here = self._instructions[number - 1], self._instructions[number]
        follows = before.address + before.size == here.address and before.flow in (Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT)
        return follows and here.address not in self._led

    def _forward(self, number: int, register: str) -> Iterator[Deed]:
        """What is done with the value that an instruction leaves in ``register``, and with copies of it."""
        held = {register}
        run = self._run(number)
        for other in range(number + 1, run.stop):
            one = self._instructions[other]
            if one.flow in (Flow.CALL, Flow.CALL_INDIRECT):
                if held.intersection(self._convention.integer_arguments):
                    yield Deed("to", "call", one.target)
                held -= self._spelling.scratch
                continue
            written = self._written(one)
            read = one.operands.split(", ")[len(written) if self._spelling.fills(one) else 0 :]
            is_read = bool(held.intersection(registers(", ".join(read), self._spelling)))
            held.difference_update(written)
            if is_read and self._is_copy(one):
                held.update(written)
            elif is_read:
                yield Deed("to", self._what(one))
        if self._instructions[run.stop - 1].flow is Flow.RETURN and self._convention.result in held:
            yield Deed("to", "return")

    def _backward(self, number: int, register: str) -> Iterator[Deed]:
        """What makes the value that an instruction gets in ``register``, and what that is made of; memory is followed no further."""
        pending, seen = [(number, register)], set[tuple[int, str]]()
        while pending and len(seen) < _MOST:
            below, place = pending.pop()
            other = self._maker(below, place)
            if other is None or (other, place) in seen:
                continue
            seen.add((other, place))
            one = self._instructions[other]
            if one.flow in (Flow.CALL, Flow.CALL_INDIRECT):
                yield Deed("from", "call", one.target)
                continue
            read = one.operands.split(", ")[int(self._spelling.fills(one)) :]
            pending += [(other, source) for source in registers(_IN_MEMORY.sub("", ", ".join(read)), self._spelling)]
            if not self._is_copy(one):
                yield Deed("from", self._what(one))
                yield Deed("with", self._shape(one))

    def _maker(self, number: int, register: str) -> int | None:
        """The last instruction before another, in the same straight run, that writes ``register``; a call writes its result."""
        for other in range(number - 1, self._run(number).start - 1, -1):
            one = self._instructions[other]
            if one.flow in (Flow.CALL, Flow.CALL_INDIRECT):
                if register in self._spelling.scratch:
                    return other if register == self._convention.result else None
            elif register in self._written(one):
                return other
        return None

    def _written(self, one: Instruction) -> tuple[str, ...]:
        """The registers that an instruction writes, as far as its text tells."""
        if _KEEPING.match(one.mnemonic) is not None or "[" in one.operands.partition(", ")[0]:
            return ()
        found = (self._spelling.widest(text) for text in one.operands.split(", ")[: 1 + self._spelling.pairs(one)])
        return tuple(register for register in found if register is not None)

    def _is_copy(self, one: Instruction) -> bool:
        return one.mnemonic in _COPIES and "[" not in one.operands and not one.immediates
