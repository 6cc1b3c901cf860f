"""Arm64 (A64 as Windows runs it): what :class:`hotpatch.arch.base.Architecture` asks, put together."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

import capstone

from hotpatch.arch import (
    arm64_code,
    arm64_constants,
    arm64_counted,
    arm64_distances,
    arm64_fields,
    arm64_reach,
    arm64_redirect,
    arm64_references,
    arm64_reread,
    arm64_tables,
    arm64_thread,
    arm64_trampoline,
    arm64_unread,
    walks,
)
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_references import LITERAL_BYTES
from hotpatch.arch.common import LiteDecoder
from hotpatch.arch.following import Following
from hotpatch.arch.model import CallingConvention, FixupKind, Flow, Instruction, Machine, Step, Use
from hotpatch.arch.thread_block import thread_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.base import Architecture
    from hotpatch.arch.certain import Counted
    from hotpatch.arch.constants import Constant
    from hotpatch.arch.model import CodeWrite, Columns, DistanceTable, EntrySite, JumpTable, Redirect, Row, Trampoline
    from hotpatch.arch.outline import Outline
    from hotpatch.arch.reach import Motion

_SCALED = frozenset({FixupKind.PAGEOFFSET_12L, FixupKind.IMAGEREL_LOW12L})
"""Kinds of fields that hold a multiple of what is accessed."""
_LOADS = frozenset((FixupKind.PAGEOFFSET_12L, FixupKind.IMAGEREL_LOW12L, FixupKind.LITERAL19))
_STORES = {
    **dict.fromkeys(("str", "stur", "strh", "sturh", "strb", "sturb", "stlr", "stlrh", "stlrb", "stlur", "stlurh", "stlurb"), 1),
    **dict.fromkeys(("stp", "stnp"), 2),
}
"""Of how many registers they store."""
_UNUSED = Use.UNUSED
_TARGETED = frozenset((Flow.CALL, Flow.JUMP, Flow.BRANCH))

CONVENTION = CallingConvention(
    integer_arguments=tuple(f"x{number}" for number in range(8)),
    float_arguments=tuple(f"q{number}" for number in range(8)),
    positional=False,
    result="x0",
    float_result="q0",
    float_preserved=range(8, 16),
    home_space=0,
    link="x30",
    preserved=(*(f"x{number}" for number in range(19, 29)), "x29"),
    sp="sp",
    pc="pc",
    thread="x18",
)
"""Source: MS Learn, "Overview of ARM64 ABI conventions".

A double is the low 64 bits of a q register. x18 holds the TEB and is kept too; callees keep the low halves of q8 to q15. Variadic
functions take floating-point arguments in the integer registers.
"""


class Arm64(Following):
    """The Arm64 instruction set."""

    machine = Machine.ARM64
    instruction_alignment = a64.WORD
    convention = CONVENTION
    spelling = arm64_unread.SPELLING
    lost = arm64_constants.VOLATILE
    branch_reach = (1 << 27) - 4
    veneer_reach = (1 << 32) - (1 << 12)
    padding_bytes = tuple(struct.pack("<I", word) for word in (a64.UDF_0, a64.NOP, a64.BRK_UNREACHABLE))

    def __init__(self) -> None:
        """Open the decoder."""
        self._decoder = LiteDecoder(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)

    def disassemble(self, code: bytes, address: int) -> Iterator[Instruction]:
        """Decode until the first undecodable word."""
        for _, at, size, encoding, mnemonic, operands in self._decoder.rows(code, address):
            yield Instruction(at, size, _text(mnemonic), _text(operands), *_flow(int.from_bytes(encoding[: a64.WORD], "little"), at))

    def steps(self, code: bytes) -> tuple[Step, ...]:
        """See :meth:`Architecture.steps`."""
        return _steps(self._decoder, code)

    def first_jump(self, code: bytes, address: int) -> int | None:
        """See :meth:`Architecture.first_jump`."""
        word = int.from_bytes(code[: a64.WORD], "little")
        form = a64.FORM_OF_TOP[word >> 24]
        if len(code) < a64.WORD or form is None or a64.flow_of(word) is not Flow.JUMP:
            return None
        return arm64_fields.decode(form.kind, word, address)

    def rows(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> Sequence[Row]:
        """See :func:`hotpatch.arch.arm64_references.rows`."""
        found = arm64_references.rows(code, address, image_base, holes)
        if _UNUSED in [row[4] for row in found]:
            return arm64_constants.confirm_unused(found, self.disassemble(code, address), CONVENTION)
        return found

    def jump_tables(
        self,
        code: bytes,
        address: int,
        read: Callable[[int, int], bytes],
        *,
        image_base: int = 0,
        limit: Callable[[int, int], int] | None = None,
    ) -> tuple[JumpTable, ...]:
        """See :mod:`hotpatch.arch.arm64_tables` for the forms."""
        return arm64_tables.jump_tables(code, address, read, image_base, limit)

    def distance_tables(self, code: bytes, address: int, *, image_base: int = 0) -> tuple[DistanceTable, ...]:
        """See :mod:`hotpatch.arch.arm64_distances` for the form."""
        return arm64_distances.distance_tables(code, address, image_base)

    def blank(self, code: bytes, references: Columns) -> bytes:
        """``code`` with the immediates of ``references`` zeroed."""
        return arm64_fields.blank(code, references)

    def takes_analysis(self, code: bytes) -> bool:
        """See :meth:`Architecture.takes_analysis`; pages are followed to what completes them."""
        return arm64_code.has_pages(code)

    def is_exemplary(self, outline: Outline, *, image_base: int = 0) -> bool:
        """See :func:`hotpatch.arch.arm64_reread.is_exemplary`."""
        return arm64_reread.is_exemplary(outline, image_base)

    def reread(self, outline: Outline, code: bytes, address: int, *, image_base: int = 0) -> tuple[int, ...] | None:
        """See :func:`hotpatch.arch.arm64_reread.reread`."""
        return arm64_reread.reread(outline, code, address, image_base)

    def constants(self, code: bytes, address: int, *, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
        """See :meth:`Architecture.constants`; a number above 65,535 may lie in a literal pool."""
        return arm64_constants.follower(self.disassemble(code, address), CONVENTION).constants(followed)

    def never_reads(self, code: bytes, address: int, offset: int, register: str) -> bool:
        """See :meth:`Architecture.never_reads`."""
        return arm64_constants.follower(self.disassemble(code, address), CONVENTION).never_reads(offset, register)

    def motion(self, instruction: Instruction, *, names: bool) -> Motion:
        """See :func:`hotpatch.arch.arm64_reach.motion`."""
        return arm64_reach.motion(instruction, names=names)

    def index_of(self, instruction: Instruction) -> str | None:
        """See :meth:`Following.index_of`."""
        return arm64_reach.index_of(instruction)

    def zeroed(self, instruction: Instruction) -> str | None:
        """See :meth:`Following.zeroed`."""
        return arm64_reach.zeroed(instruction)

    def thread_blocks(self, instructions: Sequence[Instruction]) -> Mapping[int, str]:
        """See :func:`hotpatch.arch.thread_block.thread_blocks`."""
        return thread_blocks(instructions, arm64_thread.FORM)

    def reads_fixed_memory(self, instruction: Instruction, motion: Motion) -> bool:
        """See :meth:`Following.reads_fixed_memory`."""
        return bool(motion.accesses) and all(access.place is None for access in motion.accesses)

    def counted(self, code: bytes, address: int) -> Counted | None:
        """See :mod:`hotpatch.arch.arm64_counted` for the forms."""
        return arm64_counted.counted(code)

    def accesses(self, kind: FixupKind, code: bytes, address: int) -> bool:
        """See :meth:`Architecture.accesses`; the kind of field tells."""
        return kind in _LOADS

    def alignment(self, kind: FixupKind, code: bytes, address: int) -> int:
        """See :meth:`Architecture.alignment`; fields of loads and stores count in steps of what is accessed."""
        return 1 << a64.access_scale(int.from_bytes(code[: a64.WORD], "little")) if kind in _SCALED else 1

    def literal_size(self, code: bytes) -> int:
        """See :meth:`Architecture.literal_size`."""
        return LITERAL_BYTES.get(code[3], 0)

    def stored_in_part(self, instruction: Instruction) -> tuple[str, ...]:
        """See :meth:`Architecture.stored_in_part`."""
        sources = instruction.operands.split(", ")[: _STORES.get(instruction.mnemonic, 0)]
        return tuple(f"x{source[1:]}" for source in sources if source.startswith("w") and source != "wzr")

    def goes_onward(self, code: bytes, address: int, offset: int) -> bool:
        """See :meth:`Architecture.goes_onward`."""
        return walks.goes_onward(self.disassemble(code, address), address + offset, CONVENTION, arm64_constants.whole_register)

    def bind(self, kind: FixupKind, field: bytes, site: int, target: int, *, image_base: int = 0) -> bytes:
        """See :func:`hotpatch.arch.arm64_fields.bind`."""
        return arm64_fields.bind(kind, field, site, target, image_base)

    def resolve(self, kind: FixupKind, field: bytes, site: int, *, image_base: int = 0) -> int:
        """See :func:`hotpatch.arch.arm64_fields.resolve`."""
        return arm64_fields.resolve(kind, field, site, image_base)

    def field_size(self, kind: FixupKind) -> int:
        """Bytes that a field of ``kind`` takes."""
        return arm64_fields.field_size(kind)

    def recount(self, code: bytes, address: int, number: int) -> bytes:
        """See :func:`hotpatch.arch.arm64_counted.recount`."""
        return arm64_counted.recount(code, address, number)

    def entry_site(self, strategy: Redirect) -> EntrySite:
        """One instruction, no padding."""
        return arm64_redirect.entry_site(strategy)

    def redirect_writes(self, strategy: Redirect, entry_va: int, destination_va: int) -> tuple[CodeWrite, ...]:
        """See :func:`hotpatch.arch.arm64_redirect.redirect_writes`."""
        return arm64_redirect.redirect_writes(strategy, entry_va, destination_va)

    def redirect_destination(self, strategy: Redirect, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """See :func:`hotpatch.arch.arm64_redirect.redirect_destination`."""
        return arm64_redirect.redirect_destination(strategy, entry_va, read)

    def foreign_jump(self, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """See :func:`hotpatch.arch.arm64_redirect.foreign_jump`."""
        return arm64_redirect.foreign_jump(entry_va, read)

    def hpat_slot(self) -> bytes:
        """``ldr x16, [pc+0x1000]; br x16``."""
        return arm64_redirect.HPAT_SLOT

    def dispatcher(self, flag: int, before_va: int, after_va: int) -> bytes:
        """See :meth:`Architecture.dispatcher`."""
        return arm64_redirect.dispatcher(flag, before_va, after_va)

    def absolute_jump(self, target: int) -> bytes:
        """``ldr x16, [pc+8]; br x16`` and the address."""
        return arm64_redirect.absolute_jump(target)

    def trampoline(self, code: bytes, *, source_va: int, trampoline_va: int, displaced: int) -> Trampoline:
        """See :func:`hotpatch.arch.arm64_trampoline.trampoline`."""
        return arm64_trampoline.trampoline(code, source_va, trampoline_va, displaced, self._decoder)


@lru_cache(maxsize=1 << 10)
def _steps(decoder: LiteDecoder, code: bytes) -> tuple[Step, ...]:
    """The instructions of ``code`` at address 0."""
    count = len(decoder.rows(code, 0))
    words = struct.unpack_from(f"<{count}I", code)
    return tuple([Step(index * a64.WORD, a64.WORD, *_flow(word, index * a64.WORD)) for index, word in enumerate(words)])


def _flow(word: int, address: int) -> tuple[Flow, int | None]:
    """Where control goes after ``word``, and the target where that is encoded in it."""
    flow = a64.flow_of(word)
    form = a64.FORM_OF_TOP[word >> 24] if flow in _TARGETED else None
    return flow, None if form is None else arm64_fields.decode(form.kind, word, address)


def _text(field: bytes) -> str:
    return field[: field.index(0)].decode("ascii")


def create() -> Architecture:
    """The Arm64 instruction set."""
    return Arm64()
