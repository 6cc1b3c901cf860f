"""Which arguments a function does nothing with: their registers hold what its caller happened to leave there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.model import Instruction

_WORD = re.compile(r"\b[a-z][a-z0-9]*")


class Spelling(NamedTuple):
    """What an instruction set's texts say of registers.

    Attributes:
        widest: The 64-bit register that one is a part of.
        fills: Whether an instruction leaves nothing of what was in the register before that it names first, which it may read by another
            operand.
        hidden: Whether an instruction may read a register that it does not name.
        returned: Registers that what a function returns may be in.
        second: The register of the second of two values that some languages return (Rust).
        given: Registers besides the convention's arguments in which a function may get an address.
        implicit: Whether an instruction may use any register that it does not name, or more memory than it names.
        scratch: Registers that a call may change; not those that only what the linker puts in between uses.
        pairs: Whether an instruction loads the two registers that it names first.
    """

    widest: Callable[[str], str | None]
    fills: Callable[[Instruction], bool]
    hidden: Callable[[Instruction, str], bool]
    returned: Collection[str]
    second: str
    given: Collection[str]
    implicit: Callable[[Instruction], bool]
    scratch: frozenset[str]
    pairs: Callable[[Instruction], bool]


def handed_on(
    instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], place: str, spelling: Spelling
) -> frozenset[int] | None:
    """Where control leaves a function to with the register ``place`` as it was given, which it never reads; ``None`` where it may.

    ``instructions``: the entry first. ``edges``: address of a jump through a table → where it leads.
    """
    index = {instruction.address: number for number, instruction in enumerate(instructions)}
    seen: set[int] = set()
    found: set[int] = set()
    pending = [0] if instructions else []
    while pending:
        number = pending.pop()
        if number in seen:
            continue
        seen.add(number)
        one = instructions[number]
        if spelling.hidden(one, place) or (place in spelling.returned and one.flow is Flow.RETURN):
            return None
        if place in registers(one.operands, spelling):
            if not _overwrites(one, place, spelling):
                return None
            continue
        for target in _leads_to(one, edges):
            if target is None:
                return None
            if target not in index or (one.flow is Flow.CALL and target == one.target):
                found.add(target)
            else:
                pending.append(index[target])
    return frozenset(found) if instructions else None


def _leads_to(one: Instruction, edges: Mapping[int, Collection[int]]) -> Iterator[int | None]:
    """Where control goes with the register; ``None`` for where that is not known.

    Behind a call it may hold the same: what grows the stack (``__chkstk``) keeps it, and so do functions of which compilers know what they
    change.
    """
    if one.flow in (Flow.CALL_INDIRECT, Flow.JUMP_INDIRECT):
        yield from edges.get(one.address, (None,))
    elif one.flow in (Flow.CALL, Flow.JUMP, Flow.BRANCH):
        yield one.target
    if one.flow in (Flow.NEXT, Flow.BRANCH, Flow.CALL):
        yield one.address + one.size


def _overwrites(one: Instruction, place: str, spelling: Spelling) -> bool:
    """Whether an instruction that names the register puts something else into it, whatever was there."""
    if one.flow is not Flow.NEXT or not spelling.fills(one):
        return False
    first, _, others = one.operands.partition(", ")
    if spelling.widest(first) != place:
        return False
    is_zero = one.mnemonic in ("xor", "sub", "eor") and set(others.split(", ")) == {first}
    return is_zero or place not in registers(others, spelling)


def registers(text: str, spelling: Spelling) -> tuple[str, ...]:
    """The registers that operands name, each by its widest name and as often as they do."""
    return tuple(found for word in _WORD.findall(text) if (found := spelling.widest(word)) is not None)
