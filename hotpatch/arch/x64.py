"""The x64 instruction set, put together from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import (
    walks,
    x64_binding,
    x64_constants,
    x64_counted,
    x64_distances,
    x64_operands,
    x64_reach,
    x64_redirect,
    x64_references,
    x64_reread,
    x64_tables,
    x64_thread,
    x64_trampoline,
    x64_unread,
)
from hotpatch.arch.following import Following
from hotpatch.arch.model import CallingConvention, FixupKind, Flow, Machine
from hotpatch.arch.outline import pieces_between
from hotpatch.arch.thread_block import thread_blocks
from hotpatch.arch.x64_padding import PADDING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.base import Architecture
    from hotpatch.arch.certain import Counted
    from hotpatch.arch.constants import Constant
    from hotpatch.arch.model import CodeWrite, Columns, DistanceTable, EntrySite, Instruction, JumpTable, Redirect, Row, Step, Trampoline
    from hotpatch.arch.outline import Outline
    from hotpatch.arch.reach import Motion

CONVENTION = CallingConvention(
    integer_arguments=("rcx", "rdx", "r8", "r9"),
    float_arguments=("xmm0", "xmm1", "xmm2", "xmm3"),
    positional=True,
    result="rax",
    float_result="xmm0",
    float_preserved=range(6, 16),
    home_space=32,
    link=None,
    preserved=("rbx", "rbp", "rdi", "rsi", "r12", "r13", "r14", "r15", "rsp"),
    sp="rsp",
    pc="rip",
    thread=None,
)
"""Source: MS Learn, "x64 calling convention"."""

_VECTORS = {"xmmword ptr": 16, "ymmword ptr": 32, "zmmword ptr": 64}
_UNALIGNED = frozenset(("movups", "movupd", "movdqu", "lddqu", "pcmpestri", "pcmpestrm", "pcmpistri", "pcmpistrm"))
"""Of the instructions of before AVX, those that access vectors anywhere."""
_ALIGNED = frozenset(("vmovaps", "vmovapd", "vmovdqa", "vmovdqa32", "vmovdqa64", "vmovntps", "vmovntpd", "vmovntdq", "vmovntdqa"))
"""Of AVX's, those that do not."""
_JUMPS = ((b"\xe9", 4), (b"\xeb", 1))
"""Opcodes of the usual direct jumps and bytes of their distances."""


class X64(Following):
    """x64 (AMD64), 64-bit mode."""

    machine = Machine.X64
    instruction_alignment = 1
    convention = CONVENTION
    spelling = x64_unread.SPELLING
    lost = x64_operands.VOLATILE
    branch_reach = 2**31 - 1
    veneer_reach = branch_reach
    padding_bytes = PADDING

    def disassemble(self, code: bytes, address: int) -> Iterator[Instruction]:
        """See :meth:`Architecture.disassemble`."""
        return x64_references.disassemble(code, address)

    def steps(self, code: bytes) -> tuple[Step, ...]:
        """See :meth:`Architecture.steps`."""
        return x64_references.steps(code)

    def operation(self, text: str) -> str:
        """See :meth:`Architecture.operation`; zero is stored by ``and`` where that is shorter than ``mov``."""
        return "mov" if text.startswith("and ") and text.endswith("], 0") else super().operation(text)

    def first_jump(self, code: bytes, address: int) -> int | None:
        """See :meth:`Architecture.first_jump`."""
        for opcode, width in _JUMPS:
            if code.startswith(opcode) and len(code) > width:
                return address + 1 + width + int.from_bytes(code[1 : 1 + width], "little", signed=True)
        return super().first_jump(code, address)

    def rows(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> Sequence[Row]:
        """See :meth:`Architecture.references`."""
        if not holes:
            return x64_references.rows(code, address, image_base)
        found: list[Row] = []
        for start, piece in pieces_between(code, address, holes):
            shift = start - address
            found += [(row[0] + shift, row[1], row[2] + shift, *row[3:]) for row in x64_references.rows(piece, start, image_base)]
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
        """See :meth:`Architecture.jump_tables`."""
        return x64_tables.jump_tables(code, address, read, image_base, limit)

    def distance_tables(self, code: bytes, address: int, *, image_base: int = 0) -> tuple[DistanceTable, ...]:
        """See :meth:`Architecture.distance_tables`."""
        return x64_distances.distance_tables(code, address, image_base)

    def blank(self, code: bytes, references: Columns) -> bytes:
        """See :meth:`Architecture.mask`."""
        return x64_binding.blank(code, references)

    def takes_analysis(self, code: bytes) -> bool:
        """See :meth:`Architecture.takes_analysis`; operands hold whole addresses."""
        return False

    def is_exemplary(self, outline: Outline, *, image_base: int = 0) -> bool:
        """See :func:`hotpatch.arch.x64_reread.is_exemplary`."""
        return x64_reread.is_exemplary(outline, image_base)

    def reread(self, outline: Outline, code: bytes, address: int, *, image_base: int = 0) -> tuple[int, ...] | None:
        """See :func:`hotpatch.arch.x64_reread.reread`."""
        return x64_reread.reread(outline, code, address, image_base)

    def constants(self, code: bytes, address: int, *, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
        """See :meth:`Architecture.constants`."""
        return x64_constants.follower(self.disassemble(code, address), CONVENTION).constants(followed)

    def never_reads(self, code: bytes, address: int, offset: int, register: str) -> bool:
        """See :meth:`Architecture.never_reads`."""
        return x64_constants.follower(self.disassemble(code, address), CONVENTION).never_reads(offset, register)

    def motion(self, instruction: Instruction, *, names: bool) -> Motion:
        """See :func:`hotpatch.arch.x64_reach.motion`."""
        return x64_reach.motion(instruction, names=names)

    def index_of(self, instruction: Instruction) -> str | None:
        """See :meth:`Following.index_of`."""
        return x64_reach.index_of(instruction)

    def zeroed(self, instruction: Instruction) -> str | None:
        """See :meth:`Following.zeroed`."""
        return x64_reach.zeroed(instruction)

    def thread_blocks(self, instructions: Sequence[Instruction]) -> Mapping[int, str]:
        """See :func:`hotpatch.arch.thread_block.thread_blocks`."""
        return thread_blocks(instructions, x64_thread.FORM)

    def index_number(self, instructions: Sequence[Instruction], number: int) -> int | None:
        """See :func:`hotpatch.arch.x64_thread.index_number`."""
        return x64_thread.index_number(instructions, number)

    def reads_fixed_memory(self, instruction: Instruction, motion: Motion) -> bool:
        """See :meth:`Following.reads_fixed_memory`."""
        return "[rip" in instruction.operands and instruction.mnemonic != "lea"

    def counted(self, code: bytes, address: int) -> Counted | None:
        """See :mod:`hotpatch.arch.x64_counted` for the forms."""
        return x64_counted.counted(next(iter(self.disassemble(code, address)), None), code)

    def accesses(self, kind: FixupKind, code: bytes, address: int) -> bool:
        """See :meth:`Architecture.accesses`; all but LEA do."""
        first = next(iter(self.disassemble(code, address)), None) if kind is FixupKind.REL32 else None
        return first is not None and first.mnemonic != "lea"

    def alignment(self, kind: FixupKind, code: bytes, address: int) -> int:
        """See :meth:`Architecture.alignment`: vectors, where the instruction does not say that they may lie anywhere."""
        first = next(iter(self.disassemble(code, address)), None) if kind is FixupKind.REL32 else None
        size = next((size for name, size in _VECTORS.items() if first is not None and name in first.operands), 1)
        if first is None or first.mnemonic in _UNALIGNED or (first.mnemonic.startswith("v") and first.mnemonic not in _ALIGNED):
            return 1
        return size

    def repeats(self, instruction: Instruction) -> bool:
        """See :meth:`Architecture.repeats`."""
        return instruction.flow is Flow.NEXT and instruction.mnemonic.startswith("rep")

    def stored_in_part(self, instruction: Instruction) -> tuple[str, ...]:
        """See :meth:`Architecture.stored_in_part`."""
        return x64_operands.stored_in_part(instruction.mnemonic, instruction.operands)

    def goes_onward(self, code: bytes, address: int, offset: int) -> bool:
        """See :meth:`Architecture.goes_onward`."""
        return walks.goes_onward(self.disassemble(code, address), address + offset, CONVENTION, x64_operands.PARENTS.get)

    def bind(self, kind: FixupKind, field: bytes, site: int, target: int, *, image_base: int = 0) -> bytes:
        """See :meth:`Architecture.bind`; x64 fields are written whole, so what ``field`` holds does not matter."""
        return x64_binding.bind(kind, site, target, image_base)

    def resolve(self, kind: FixupKind, field: bytes, site: int, *, image_base: int = 0) -> int:
        """See :meth:`Architecture.resolve`."""
        return x64_binding.resolve(kind, field, site, image_base)

    def field_size(self, kind: FixupKind) -> int:
        """See :meth:`Architecture.field_size`."""
        return x64_binding.field_size(kind)

    def recount(self, code: bytes, address: int, number: int) -> bytes:
        """See :func:`hotpatch.arch.x64_counted.recount`."""
        return x64_counted.recount(code, address, number)

    def entry_site(self, strategy: Redirect) -> EntrySite:
        """See :meth:`Architecture.entry_site`; a hotpatchable image has six bytes of padding, of which five are written."""
        return x64_redirect.entry_site(strategy)

    def redirect_writes(self, strategy: Redirect, entry_va: int, destination_va: int) -> tuple[CodeWrite, ...]:
        """See :meth:`Architecture.redirect_writes`."""
        return x64_redirect.redirect_writes(strategy, entry_va, destination_va)

    def redirect_destination(self, strategy: Redirect, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """See :meth:`Architecture.redirect_destination`."""
        return x64_redirect.redirect_destination(strategy, entry_va, read)

    def foreign_jump(self, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """See :meth:`Architecture.foreign_jump`."""
        return x64_redirect.foreign_jump(entry_va, read)

    def hpat_slot(self) -> bytes:
        """See :meth:`Architecture.hpat_slot`."""
        return x64_redirect.hpat_slot()

    def dispatcher(self, flag: int, before_va: int, after_va: int) -> bytes:
        """See :meth:`Architecture.dispatcher`."""
        return x64_redirect.dispatcher(flag, before_va, after_va)

    def absolute_jump(self, target: int) -> bytes:
        """See :meth:`Architecture.absolute_jump`."""
        return x64_redirect.absolute_jump(target)

    def trampoline(self, code: bytes, *, source_va: int, trampoline_va: int, displaced: int) -> Trampoline:
        """See :meth:`Architecture.trampoline`."""
        return x64_trampoline.move(code, source_va, trampoline_va, displaced)


def create() -> Architecture:
    """The x64 instruction set."""
    return X64()
