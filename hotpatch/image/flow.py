"""Where a function ends when nothing says so: control flow followed from its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from hotpatch.arch import Architecture, Instruction

_PIECE = 256
_LONGEST_INSTRUCTION = 16
_ENDS = frozenset({Flow.RETURN, Flow.JUMP, Flow.JUMP_INDIRECT, Flow.TRAP})


def end_of_function(
    architecture: Architecture, code: bytes, address: int, starts: Collection[int], read: Callable[[int, int], bytes]
) -> int | None:
    """One past the last byte that control reaches from ``address`` within ``code``, or ``None`` where the bytes there are no code.

    ``code`` runs from ``address`` up to whatever certainly is no part of the function; ``starts`` are known entries of others. An
    unconditional jump forward over filler counts as a tail call, since compilers lay a function's own blocks out without gaps.
    """
    limit = address + len(code)
    pending = [address]
    seen: dict[int, Instruction] = {}
    end = address
    tables_read = False
    while pending:
        at = pending.pop()
        for instruction in _decode(architecture, code, at - address, at):
            if instruction.address in seen or (instruction.address in starts and instruction.address != address):
                break
            seen[instruction.address] = instruction
            end = max(end, instruction.address + instruction.size)
            target = instruction.target
            if target is not None and address < target < limit and instruction.flow is not Flow.CALL and target not in starts:
                leaves = instruction.flow is Flow.JUMP and target >= end and is_padding_at(architecture, code, end - address)
                if not leaves:
                    pending.append(target)
            if instruction.flow is Flow.JUMP_INDIRECT and not tables_read:
                tables_read = True
                for table in architecture.jump_tables(code, address, read):
                    pending += [target for target in sorted(set(table.targets)) if address < target < limit]
            if instruction.flow in _ENDS:
                break
        else:
            # the bytes ran out or cannot be decoded: what leads there is no whole function
            if end < limit and not seen:
                return None
    return end if end > address else None


def _decode(architecture: Architecture, code: bytes, offset: int, address: int) -> Iterator[Instruction]:
    """Decode from ``offset`` on, in pieces, since most walks end after a few instructions."""
    while offset < len(code):
        done = 0
        for instruction in architecture.disassemble(code[offset : offset + _PIECE], address):
            if done + instruction.size > _PIECE - _LONGEST_INSTRUCTION and offset + _PIECE < len(code) and done:
                break
            done += instruction.size
            yield instruction
        if not done:
            return
        offset, address = offset + done, address + done


def is_padding_at(architecture: Architecture, code: bytes, offset: int) -> bool:
    """Whether a filler instruction stands at ``offset``, or the code ends there."""
    return offset >= len(code) or any(code.startswith(filler, offset) for filler in architecture.padding_bytes)


def padding_length(architecture: Architecture, code: bytes) -> int:
    """Bytes of whole filler instructions that ``code`` ends with."""
    size = len(code)
    reached = {size}
    least = size
    for at in range(size, 0, -1):
        if at not in reached:
            continue
        for filler in architecture.padding_bytes:
            start = at - len(filler)
            if start >= 0 and code.startswith(filler, start):
                reached.add(start)
                least = min(least, start)
    return size - least
