"""The code of a process as micro-execution steps over it: basic blocks, decoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import LONGEST_INSTRUCTION, Flow, architecture
from hotpatch.engine import Rights
from hotpatch.verifier.micro_paths import Block

if TYPE_CHECKING:
    from hotpatch.process import Process

_BLOCK = 64
_WINDOW = 16 * _BLOCK
_SHORT_WINDOW = _BLOCK


class Code:
    """What lies where in a process whose code does not change."""

    def __init__(self, process: Process) -> None:
        """Begin with nothing decoded."""
        self._memory, self._arch = process.guest.system.memory, architecture(process.machine)
        self._blocks: dict[int, Block | None] = {}
        self._sources: dict[int, tuple[str, ...]] = {}

    def block(self, va: int) -> Block | None:
        """The block that begins at ``va``; ``None`` where no instruction does."""
        if va not in self._blocks:
            self._blocks[va] = self._decode(va)
        return self._blocks[va]

    def past_nops(self, va: int) -> int:
        """Where the first instruction is at or behind ``va`` that does something, or the last one of the block."""
        block = self.block(va)
        if block is None:
            return va
        code = self._memory.read(va, max(block.addresses[-1] - va, 0))
        return next((item.address for item in self._arch.disassemble(code, va) if item.mnemonic != "nop"), block.addresses[-1])

    def sources(self, va: int) -> tuple[str, ...]:
        """The registers (64 bits) of which the instruction at ``va`` stores the lower bytes, if it does that."""
        if va not in self._sources:
            item = next(iter(self._arch.disassemble(self._code(va, LONGEST_INSTRUCTION), va)), None)
            self._sources[va] = () if item is None else self._arch.stored_in_part(item)
        return self._sources[va]

    def _decode(self, va: int) -> Block | None:
        code = self._code(va, _WINDOW)
        if not code:
            return None
        found = self._ending(code[:_SHORT_WINDOW], va)  # most blocks end there, and whatever is decoded is decoded whole
        return found if found is not None and found.flow is not Flow.NEXT else self._ending(code, va)

    def _code(self, va: int, size: int) -> bytes:
        """The code at ``va``, no more than ``size`` bytes."""
        region = self._memory.find(va)
        if region is None or Rights.EXECUTE not in region.rights:
            return b""
        return self._memory.read(va, min(size, region.end - va))

    def _ending(self, code: bytes, va: int) -> Block | None:
        """The block that begins with ``code`` at ``va``; what is cut off at the end of ``code`` is left out."""
        addresses: list[int] = []
        for item in self._arch.disassemble(code, va):
            # Each iteration of a repeated string instruction counts: it is stepped by itself.
            repeated = self._arch.repeats(item)
            if repeated and addresses:
                break
            addresses.append(item.address)
            if item.flow is not Flow.NEXT:
                return Block(tuple(addresses), item.flow, item.target, item.address + item.size)
            if repeated or len(addresses) == _BLOCK:
                break
        return Block(tuple(addresses), Flow.NEXT, None, 0) if addresses else None
