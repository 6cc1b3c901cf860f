"""x64: displacements that are RVAs because they are added to a register that holds the image base.

Where paths meet, a place holds the image base if it does on *any* of them. Missing a displacement that is an RVA would be silent damage
in a patch, and code that adds a displacement of a page and more to anything but the image base, in a register that may hold it, does not
come out of compilers. Displacements below the first page of sections are fields of the headers, not references.

A displacement may also wait for the image base: where an address has three parts, Microsoft's compiler takes two instructions,
``lea rbp, [rbx*2 + RVA]`` and ``add rbp, rdi``. So a sum is followed, too, that LEA makes in 64 bits of an index and a displacement; the
last one that was added is an RVA if the image base comes to it, and nothing but that. An index is never an RVA where it is scaled, nor
where the operand that adds the image base has a displacement of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from capstone import x86_const

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.model import FixupKind, Reference, Use
from hotpatch.arch.x64_flow import Analysis, Blocks
from hotpatch.arch.x64_operands import PARENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.arch.common import Rows

LOWEST_SECTION_RVA = 0x1000
"""Headers take at least one page (PE format, "SectionAlignment")."""

_MAY_BE_RVA = re.compile(rb"(?<!rip) \+ 0x[1-9a-f][0-9a-f]{3}")
"""In operands: a displacement of :data:`LOWEST_SECTION_RVA` or more. Most functions that take the image base have none."""
_CALL_CHANGES = frozenset(x64_operands.VOLATILE)
_WHOLE_REGISTERS = frozenset(PARENTS.values())
_IMAGE_BASE = -1
_ALONE = frozenset((_IMAGE_BASE,))
_NOTHING: frozenset[int] = frozenset()


class _Effect(NamedTuple):
    """What an instruction does to the sums that are followed.

    Attributes:
        changed: Places overwritten.
        destination: The place that holds the sum of ``sources`` afterwards.
        sources: Places, read before.
        begins: Whether a displacement that may be an RVA is part of the sum, the last one.
    """

    changed: frozenset[str]
    destination: str | None = None
    sources: tuple[str, ...] = ()
    begins: bool = False


class _Sums(dict[str, frozenset[int]]):
    """Place → what may be part of the sum in it: the image base, and positions of displacements that it has not come to."""

    def copy(self) -> _Sums:
        return _Sums(self)


class _ImageBase(Analysis[_Sums]):
    """Which registers and stack slots hold the image base, or a displacement that waits for it."""

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
            return _Effect(_CALL_CHANGES)
        operands = x64_operands.split(text)
        changed = frozenset(x64_operands.written(number, operands))
        if number == x86_const.X86_INS_MOV:
            destination, source = (self._place(operand) for operand in operands)
            if destination is not None:
                return _Effect(changed | {destination}, destination, () if source is None else (source,))
        elif number in (x86_const.X86_INS_LEA, x86_const.X86_INS_ADD) and operands[0] in _WHOLE_REGISTERS:
            return _Effect(changed, operands[0], *self._summands(operands))
        return _Effect(changed)

    @staticmethod
    def _summands(operands: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        """The registers whose sum LEA or ADD gives, those apart that are scaled, and whether LEA adds what may be an RVA."""
        if operands[1] in _WHOLE_REGISTERS:
            return operands, False
        accessed = x64_operands.memory(operands[1])
        if accessed is None or accessed.size or accessed.displacement < 0 or accessed.base in ("rip", "rsp"):
            return (), False
        registers = (accessed.base, accessed.scaled if accessed.scale == 1 else None)
        return tuple(register for register in registers if register is not None), accessed.displacement >= LOWEST_SECTION_RVA

    @staticmethod
    def _place(operand: str) -> str | None:
        """A 64-bit register, or a fixed stack slot by its text."""
        if operand in _WHOLE_REGISTERS:
            return operand
        return operand if x64_operands.stack_slot(x64_operands.memory(operand)) is not None else None

    def initial(self) -> _Sums:
        return _Sums()

    def step(self, position: int, state: _Sums) -> None:
        made = self._makers.get(position)
        if made is not None:
            if made in _WHOLE_REGISTERS:
                state[made] = _ALONE
            return
        effect = self._known_effect(position)
        if not state and not effect.begins:
            return
        summed = self._sum(position, effect, state)
        for place in effect.changed & state.keys():
            del state[place]
        if effect.destination is not None and summed:
            state[effect.destination] = summed
        if "rsp" in effect.changed:
            for place in [place for place in state if "[rsp" in place]:
                del state[place]

    def _known_effect(self, position: int) -> _Effect:
        effect = self._effects[position]
        if effect is None:
            effect = self._effects[position] = self._effect(position)
        return effect

    def _sum(self, position: int, effect: _Effect, state: _Sums) -> frozenset[int]:
        """What the destination holds after the instruction: nothing that is followed where the address is complete."""
        parts = [state.get(source, _NOTHING) for source in effect.sources]
        if effect.begins:
            return _NOTHING if any(_IMAGE_BASE in part for part in parts) else frozenset((position,))
        return _NOTHING if _met(parts) else frozenset().union(*parts)

    def merge(self, known: _Sums, other: _Sums, leader: int) -> bool:
        changed = False
        for place, held in other.items():
            mine = known.get(place, _NOTHING)
            if not held <= mine:
                known[place] = mine | held
                changed = True
        return changed

    def along(self, state: _Sums, position: int, *, taken: bool) -> _Sums:
        return state.copy()

    def references(self, address: int, image_base: int) -> Iterator[Reference]:
        """The references, after :meth:`run`."""
        found: set[int] = set()
        for leader, known in sorted(self.entries.items()):
            state = known.copy()
            for position in range(leader, self.blocks.end(leader)):
                if state:
                    found |= self._relative(position, state)
                self.step(position, state)
        for position in sorted(found):
            reference = self._reference(position, address, image_base)
            if reference is not None:
                yield reference

    def _relative(self, position: int, state: _Sums) -> frozenset[int] | set[int]:
        """The positions of the displacements that the instruction at ``position`` shows to be RVAs."""
        accessed = x64_operands.accessed(x64_operands.split(self.blocks.rows[position][5]))
        if accessed is None:
            effect = self._known_effect(position)
            return _met([state.get(source, _NOTHING) for source in effect.sources])
        registers = [accessed.base, accessed.scaled if accessed.scale == 1 else None]
        parts = [state.get(register, _NOTHING) for register in registers if register is not None]
        if accessed.displacement >= LOWEST_SECTION_RVA:
            return {position} if any(_IMAGE_BASE in part for part in parts) else _NOTHING
        return _met(parts)

    def _reference(self, position: int, address: int, image_base: int) -> Reference | None:
        _, at, size, encoded, _, text = self.blocks.rows[position]
        accessed, start = x64_operands.accessed(x64_operands.split(text)), encoding.disp32_offset(encoded)
        if accessed is None or start is None:
            return None
        offset = at - address
        return Reference(offset, size, offset + start, FixupKind.ADDR32NB, Use.DATA, image_base + accessed.displacement)


def _met(parts: Sequence[frozenset[int]]) -> frozenset[int]:
    """The displacements in some of two ``parts`` of a sum of which the other may be the image base."""
    found = _NOTHING
    for index, part in enumerate(parts):
        if any(_IMAGE_BASE in other for at, other in enumerate(parts) if at != index):
            found |= part - _ALONE
    return found


def image_relative(rows: Rows, address: int, image_base: int) -> list[Reference]:
    """The displacements that are RVAs in the function ``rows``, which begins at ``address``."""
    if not rows.hold(_MAY_BE_RVA):
        return []
    analysis = _ImageBase(Blocks(rows), image_base)
    analysis.run()
    return list(analysis.references(address, image_base))
