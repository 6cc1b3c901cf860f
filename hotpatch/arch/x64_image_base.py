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

LOWEST_SECTION_RVA = 0x1000
"""Headers take at least one page (PE format, "SectionAlignment")."""

_CALL_CHANGES = frozenset(x64_operands.VOLATILE)
_WHOLE_REGISTERS = frozenset(PARENTS.values())
_NOTHING: frozenset[str] = frozenset()


class _ImageBase(Analysis[set[str]]):
    """Which registers and stack slots hold the image base."""

    def __init__(self, blocks: Blocks, image_base: int) -> None:
        super().__init__(blocks)
        self._effects = [self._effect(position, image_base) for position in range(len(blocks.rows))]

    def _effect(self, position: int, image_base: int) -> tuple[frozenset[str], str | None, str | None]:
        """What the instruction overwrites; where it puts the image base, and from which place it takes it (``None``: it makes it)."""
        number, at, size, _, _, _ = self.blocks.rows[position]
        operands = self.blocks.operands[position]
        if number == encoding.CALL:
            return _CALL_CHANGES, None, None
        changed = frozenset(x64_operands.written(number, operands))
        if number == x86_const.X86_INS_LEA:
            accessed = x64_operands.memory(operands[1])
            makes = accessed is not None and accessed.base == "rip" and at + size + accessed.displacement == image_base
            return changed, operands[0] if makes and operands[0] in _WHOLE_REGISTERS else None, None
        if number == x86_const.X86_INS_MOV:
            destination, source = (self._place(operand) for operand in operands)
            if destination is not None:
                return changed | {destination}, destination if source is not None else None, source
        return changed, None, None

    @staticmethod
    def _place(operand: str) -> str | None:
        """A 64-bit register, or a fixed stack slot by its text."""
        if operand in _WHOLE_REGISTERS:
            return operand
        return operand if x64_operands.stack_slot(x64_operands.memory(operand)) is not None else None

    def initial(self) -> set[str]:
        return set()

    def step(self, position: int, state: set[str]) -> None:
        changed, destination, source = self._effects[position]
        if destination is not None and (source is None or source in state):
            state -= changed
            state.add(destination)
        elif state:
            state -= changed
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
        accessed = x64_operands.accessed(self.blocks.operands[position])
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


def image_relative(code: bytes, address: int, image_base: int) -> list[Reference]:
    """The displacements in ``code`` that are RVAs."""
    analysis = _ImageBase(Blocks(code, address), image_base)
    analysis.run()
    return list(analysis.references(address, image_base))
