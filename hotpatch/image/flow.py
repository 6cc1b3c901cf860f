"""Where a function ends when nothing says so: control flow followed from its entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hotpatch.arch import LONGEST_INSTRUCTION, Flow, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from hotpatch.arch import Architecture, Instruction, Reference, Step

ALIGNED = 8
"""Bytes; where nothing but a jump leads to an address that is no multiple of them, or nothing at all, no function begins there: compilers
align functions at least so, unless they optimise for size."""
_FIRST_PIECE, _PIECE = 32, 256
"""Bytes decoded at once."""
LEAVING = frozenset({Flow.RETURN, Flow.JUMP, Flow.JUMP_INDIRECT, Flow.TRAP})
"""After these, control does not go on to the next instruction."""
_ELSEWHERE = frozenset({Flow.CALL})
_NEXT, _JUMP, _JUMP_INDIRECT = Flow.NEXT, Flow.JUMP, Flow.JUMP_INDIRECT
"""Asking an enumeration for a member takes as long as all else that is done with an instruction."""
ONWARD = frozenset({Flow.NEXT, Flow.BRANCH})
"""After these, it may."""
LONGEST_FILLER = 16
"""Bytes between functions that are looked at as filler at most."""


def end_of_function(
    architecture: Architecture,
    code: bytes,
    address: int,
    starts: Collection[int],
    read: Callable[[int, int], bytes],
    limit: Callable[[int, int], int] | None = None,
) -> int | None:
    """One past the last byte that control reaches from ``address`` within ``code``, or ``None`` where the bytes there are no code.

    ``code`` runs from ``address`` up to whatever certainly is no part of the function; ``starts`` are known entries of others and
    ``limit`` is that of :meth:`hotpatch.arch.Architecture.jump_tables`. A jump
    forward counts as a tail call where the code that it leads to never comes back to what lies before it, and a branch where it leads
    over filler that traps: compilers put that between functions only.
    """
    walk = _Walk(architecture, code, address, starts, read, limit)
    if not walk.explore(address):
        return None
    while walk.ahead:
        target = min(walk.ahead)
        branches = walk.ahead.pop(target)
        if (
            target < walk.end
            or (target == walk.end and is_last_step(architecture, code[target - address :], target))
            or (not walk.follows_trap(target) and (branches or walk.comes_back(target)))
        ):
            walk.explore(target)
    return walk.end


@dataclass
class _Walk:
    """Instructions reached so far, the end of the last one, and targets ahead that are still to be judged: whether a branch leads there."""

    architecture: Architecture
    code: bytes
    address: int
    starts: Collection[int]
    read: Callable[[int, int], bytes]
    limit: Callable[[int, int], int] | None = None
    seen: dict[int, Step] = field(default_factory=dict)
    ahead: dict[int, bool] = field(default_factory=dict)
    end: int = 0
    tables: dict[int, tuple[int, ...]] | None = None
    """Targets by indirect jump, of all functions that ``code`` may hold."""

    def explore(self, start: int) -> bool:
        """Follow control from ``start``; whether there is an instruction at all."""
        pending = [start]
        while pending:
            at = pending.pop()
            for instruction in decode(self.architecture, self.code, at - self.address, at):
                if instruction.address in self.seen or (instruction.address in self.starts and instruction.address != self.address):
                    break
                self.seen[instruction.address] = instruction
                self.end = max(self.end, instruction.address + instruction.size)
                if instruction.flow is not _NEXT:
                    pending += self._targets(instruction)
                    if instruction.flow in LEAVING:
                        break
        return start in self.seen

    def _targets(self, instruction: Step) -> list[int]:
        """Where ``instruction`` leads for certain; targets ahead are put by."""
        if instruction.flow is _JUMP_INDIRECT:
            if self.tables is None:
                found = self.architecture.jump_tables(self.code, self.address, self.read, limit=self.limit)
                self.tables = {self.address + table.jump: table.ways for table in found}
            return sorted({target for target in self.tables.get(instruction.address, ()) if self._is_inside(target)})
        target = instruction.target
        if target is None or instruction.flow in _ELSEWHERE or not self._is_inside(target):
            return []
        if target > instruction.address:
            self.ahead[target] = self.ahead.get(target, False) or instruction.flow is not _JUMP
            return []
        return [target]

    def _is_inside(self, target: int) -> bool:
        return self.address <= target < self.address + len(self.code) and (target == self.address or target not in self.starts)

    def follows_trap(self, target: int) -> bool:
        """Whether everything between what is reached so far and ``target`` is filler that traps."""
        if target <= self.end:
            return False
        gap = self.code[self.end - self.address : target - self.address]
        if padding_length(self.architecture, gap) < len(gap):
            return False
        return all(filler.flow is Flow.TRAP for filler in decode(self.architecture, gap, 0, self.end))

    def comes_back(self, start: int) -> bool:
        """Whether the code at ``start`` leads to anything of the function that lies before it."""
        ahead: set[int] = set()
        pending = [start]
        while pending:
            at = pending.pop()
            for instruction in decode(self.architecture, self.code, at - self.address, at):
                if instruction.address in ahead:
                    break
                ahead.add(instruction.address)
                target = instruction.target
                if target is not None and instruction.flow not in _ELSEWHERE and self._is_inside(target):
                    if self.address < target < start:
                        return True
                    pending.append(target)
                if instruction.flow in LEAVING or instruction.address + instruction.size in self.starts:
                    break
        return False


def is_last_step(architecture: Architecture, code: bytes, address: int) -> bool:
    """Whether ``code`` at ``address``, right behind a function's, is that one's last instruction: it only leaves and stands unaligned."""
    if not address % ALIGNED:
        return False
    first = next(decode(architecture, code, 0, address), None)
    return first is not None and first.flow in {Flow.RETURN, Flow.JUMP_INDIRECT}


def is_left_over(before: Step | Instruction | None, at: int, references: Iterable[Reference]) -> bool:
    """Whether control never comes to the instruction at ``at``: it leaves right before it, and none of ``references`` leads there.

    Such is the ``svc #3`` that Microsoft's compiler for Arm64 puts behind the returns of unwinding funclets.
    """
    return before is not None and before.flow in LEAVING and all(reference.target != at for reference in references)


def reach(architecture: Architecture, code: bytes, address: int) -> tuple[Step, ...]:
    """The instructions of ``code`` that control reaches from its beginning at ``address``, jump tables apart."""
    seen: dict[int, Step] = {}
    pending = [address]
    while pending:
        at = pending.pop()
        for instruction in decode(architecture, code, at - address, at):
            if instruction.address in seen:
                break
            seen[instruction.address] = instruction
            target = instruction.target
            if target is not None and instruction.flow not in _ELSEWHERE and address <= target < address + len(code):
                pending.append(target)
            if instruction.flow in LEAVING:
                break
    return tuple(seen[at] for at in sorted(seen))


def is_whole(architecture: Architecture, code: bytes, address: int) -> bool:
    """Whether control, followed from ``address`` through ``code``, meets nothing but instructions until it leaves or comes to the end."""
    reached = reach(architecture, code, address)
    known = {instruction.address for instruction in reached} | {address + len(code)}
    ongoing = (step for step in reached if step.flow in ONWARD)
    return bool(reached) and all(step.address + step.size in known for step in ongoing)


def decode(architecture: Architecture, code: bytes, offset: int, address: int) -> Iterator[Step]:
    """Decode ``code`` from ``offset``, which lies at ``address``, in pieces, since most walks end after a few instructions."""
    piece = _FIRST_PIECE
    while offset < len(code):
        done = 0
        for at, size, flow, target in architecture.steps(code[offset : offset + piece]):
            if done + size > piece - LONGEST_INSTRUCTION and offset + piece < len(code) and done:
                break
            done += size
            yield step_of((address + at, size, flow, None if target is None else address + target))
        if not done:
            return
        offset, address, piece = offset + done, address + done, _PIECE


def starts_with_padding(architecture: Architecture, code: bytes) -> bool:
    """Whether ``code`` begins with a filler instruction, or is empty."""
    return not code or code.startswith(architecture.padding_bytes)


def filler_length(architecture: Architecture, code: bytes) -> int:
    """Bytes of whole filler instructions that ``code`` begins with."""
    found = architecture.fillers.match(code)
    return found.end() if found else 0


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
