"""x64: displacements that are RVAs because they are added to a register that holds the image base.

Where paths meet, a place holds the image base if it does on *any* of them. Missing a displacement that is an RVA would be silent damage
in a patch, and code that adds a displacement of a page and more to anything but the image base, in a register that may hold it, does not
come out of compilers. Displacements below the first page of sections are fields of the headers, not references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capstone import x86_const

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.base import FixupKind, Reference, Use
from hotpatch.arch.x64_flow import Analysis, Blocks
from hotpatch.arch.x64_operands import PARENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch.common import Rows

LOWEST_SECTION_RVA = 0x1000
"""Headers take at least one page (PE format, "SectionAlignment")."""

_CALL_CHANGES = frozenset(x64_operands.VOLATILE)
_WHOLE_REGISTERS = frozenset(PARENTS.values())
_Effect = tuple[frozenset[str], str | None, tuple[str, ...]]
"""Places overwritten, then the place that holds the image base afterwards, an index added or not, if one of the last did before."""


class _ImageBase(Analysis[set[str]]):
    """Which registers and stack slots hold the image base."""

    def __init__(self, blocks: Blocks, image_base: int) -> None:
        super().__init__(blocks)
        self._makers = {position: operands[0] for position, operands in self._loads(image_base)}
        self._effects: list[_Effect | None] = [None] * len(blocks.addresses)

    def _loads(self, image_base: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The instructions that put the image base into a register."""
        for position in self.blocks.rows.holding(encoding.RIP_RELATIVE):
            number, at, size, _, _, text = self.blocks.rows[position]
            if number == x86_const.X86_INS_LEA:
                operands = x64_operands.split(text)
                accessed = x64_operands.memory(operands[1])
                if accessed is not None and accessed.base == "rip" and at + size + accessed.displacement == image_base:
                    yield position, operands

    def _effect(self, position: int) -> _Effect:
        """What an instruction overwrites, and between which places it moves 64 bits, an index added or not.

        A displacement that completes an address ends that: what is added then is a member's.
        """
        number, _, _, _, _, text = self.blocks.rows[position]
        if number == encoding.CALL:
            return _CALL_CHANGES, None, ()
        operands = x64_operands.split(text)
        changed = frozenset(x64_operands.written(number, operands))
        if number == x86_const.X86_INS_MOV:
            destination, source = (self._place(operand) for operand in operands)
            if destination is not None:
                return changed | {destination}, destination if source is not None else None, (source,) if source is not None else ()
        elif number in (x86_const.X86_INS_LEA, x86_const.X86_INS_ADD) and operands[0] in _WHOLE_REGISTERS:
            return changed, operands[0], self._summands(operands)
        return changed, None, ()

    @staticmethod
    def _summands(operands: tuple[str, ...]) -> tuple[str, ...]:
        """The registers whose sum LEA or ADD gives, those apart that are scaled."""
        if operands[1] in _WHOLE_REGISTERS:
            return operands
        accessed = x64_operands.memory(operands[1])
        if accessed is None or accessed.size or not 0 <= accessed.displacement < LOWEST_SECTION_RVA:
            return ()
        registers = (accessed.base, accessed.scaled if accessed.scale == 1 else None)
        return tuple(register for register in registers if register is not None)

    @staticmethod
    def _place(operand: str) -> str | None:
        """A 64-bit register, or a fixed stack slot by its text."""
        if operand in _WHOLE_REGISTERS:
            return operand
        return operand if x64_operands.stack_slot(x64_operands.memory(operand)) is not None else None

    def initial(self) -> set[str]:
        return set()

    def step(self, position: int, state: set[str]) -> None:
        made = self._makers.get(position)
        if made is not None:
            if made in _WHOLE_REGISTERS:
                state.add(made)
            return
        if not state:
            return
        effect = self._effects[position]
        if effect is None:
            effect = self._effects[position] = self._effect(position)
        changed, destination, sources = effect
        moved = any(source in state for source in sources)
        state -= changed
        if moved and destination is not None:
            state.add(destination)
        if "rsp" in changed:
            state -= {place for place in state if "[rsp" in place}

    def merge(self, known: set[str], other: set[str], leader: int) -> bool:
        if other <= known:
            return False
        known |= other
        return True

    def along(self, state: set[str], position: int, *, taken: bool) -> set[str]:
        return set(state)

    def references(self, address: int, image_base: int) -> Iterator[Reference]:
        """The references, after :meth:`run`."""
        for leader in self.blocks.leaders:
            state = set(self.entries[leader])
            for position in range(leader, self.blocks.end(leader)):
                if state:
                    found = self._reference(position, state, address, image_base)
                    if found is not None:
                        yield found
                self.step(position, state)

    def _reference(self, position: int, state: set[str], address: int, image_base: int) -> Reference | None:
        accessed = x64_operands.accessed(x64_operands.split(self.blocks.rows[position][5]))
        if accessed is None or accessed.displacement < LOWEST_SECTION_RVA:
            return None
        if accessed.base not in state and (accessed.scale != 1 or accessed.scaled not in state):
            return None
        _, at, size, encoded, _, _ = self.blocks.rows[position]
        start = encoding.disp32_offset(encoded)
        if start is None:
            return None
        offset = at - address
        return Reference(offset, size, offset + start, FixupKind.ADDR32NB, Use.DATA, image_base + accessed.displacement)


def image_relative(rows: Rows, address: int, image_base: int) -> list[Reference]:
    """The displacements that are RVAs in the function ``rows``, which begins at ``address``."""
    analysis = _ImageBase(Blocks(rows), image_base)
    analysis.run()
    return list(analysis.references(address, image_base))
