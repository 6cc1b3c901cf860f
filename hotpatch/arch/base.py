"""What every instruction set answers, in one interface.

Nothing here knows files, processes or policy. Addresses are plain integers in whatever space the caller decodes in (RVAs for images,
VAs for processes): a reference's target comes out in the space of the address that was passed in.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.certain import Counted, Held
    from hotpatch.arch.constants import Constant
    from hotpatch.arch.outline import Outline
    from hotpatch.arch.reach import Reached


LONGEST_INSTRUCTION = 16
"""Bytes; no instruction of any set is longer (x64: 15)."""


class Machine(StrEnum):
    """The instruction sets of the images that the project takes."""

    X64 = "x64"
    ARM64 = "arm64"


class Flow(StrEnum):
    """Where control goes after an instruction."""

    NEXT = "next"
    CALL = "call"
    CALL_INDIRECT = "call-indirect"
    JUMP = "jump"
    JUMP_INDIRECT = "jump-indirect"
    BRANCH = "branch"
    RETURN = "return"
    TRAP = "trap"


class FixupKind(StrEnum):
    """How an address is encoded in bytes; names after the COFF relocation types (PE format, "COFF Relocations").

    ``REL8``, ``BRANCH19``, ``BRANCH14``, ``REL21`` and ``LITERAL19`` reach too little to leave a patch image and are only ever resolved
    within it.
    """

    ADDR64 = "addr64"
    """64-bit address."""
    ADDR32NB = "addr32nb"
    """32-bit distance from the image base."""
    REL8 = "rel8"
    """x64: 8-bit distance from the end of the field."""
    REL32 = "rel32"
    """32-bit distance from the end of the field (the addend accounts for bytes between the field and the instruction's end)."""
    BRANCH26 = "branch26"
    BRANCH19 = "branch19"
    BRANCH14 = "branch14"
    LITERAL19 = "literal19"
    """Arm64: LDR/LDRSW/PRFM (literal), 19-bit word distance."""
    REL21 = "rel21"
    """Arm64: ADR."""
    PAGEBASE_REL21 = "pagebase-rel21"
    """Arm64: ADRP."""
    PAGEOFFSET_12A = "pageoffset-12a"
    """Arm64: ADD (immediate), low twelve bits."""
    PAGEOFFSET_12L = "pageoffset-12l"
    """Arm64: load or store (unsigned immediate), low twelve bits scaled by the access size."""
    IMAGEREL_HIGH12A = "imagerel-high12a"
    """Arm64: ADD (immediate, LSL #12), bits 12 to 23 of the distance from the image base; resolves to the address without its low twelve
    bits."""
    IMAGEREL_LOW12A = "imagerel-low12a"
    """Arm64: ADD (immediate) behind IMAGEREL_HIGH12A, low twelve bits of the distance from the image base."""
    IMAGEREL_LOW12L = "imagerel-low12l"
    """Arm64: load or store (unsigned immediate) behind IMAGEREL_HIGH12A, low twelve bits scaled by the access size."""


WHOLE_KINDS = frozenset({FixupKind.REL32, FixupKind.REL21, FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L})
"""By these an instruction names a whole address of data, where a page before it counts as a part of it."""


class Use(StrEnum):
    """What an instruction does with the address that it refers to."""

    CALL = "call"
    JUMP = "jump"
    BRANCH = "branch"
    DATA = "data"
    """Reads, writes, or takes the address."""
    PARTIAL = "partial"
    """Computes a part of the address, and what completes it is out of sight."""
    UNUSED = "unused"
    """Computes (a part of) the address, which then nothing reads: optimisers leave such instructions behind."""


class Redirect(StrEnum):
    """How a call of the base function is made to reach the new one."""

    HPAT = "hpat"
    DIRECT = "direct"
    INLINE = "inline"


class Instruction(NamedTuple):
    """One decoded instruction.

    Attributes:
        address: Of its first byte, in the caller's space.
        size: In bytes.
        mnemonic: Capstone's.
        operands: Capstone's operand text.
        flow: Where control goes next.
        target: Of a direct call, jump or branch.
    """

    address: int
    size: int
    mnemonic: str
    operands: str
    flow: Flow
    target: int | None

    @property
    def immediates(self) -> tuple[int, ...]:
        """The numbers among its operands that are no part of an address in memory."""
        return tuple(int(found, 0) for found in _NUMBER.findall(_IN_MEMORY.sub("", self.operands)))

    @property
    def reckoned_with(self) -> tuple[int, ...]:
        """:attr:`immediates`, and what x64's ``lea`` adds, which accesses nothing."""
        if self.mnemonic != "lea" or "rip" in self.operands:
            return self.immediates
        return tuple(int(found, 0) for found in _NUMBER.findall(self.operands.replace("- ", "-")))


class Step(NamedTuple):
    """Where control goes after one instruction: :class:`Instruction` without its text, which costs more than the rest."""

    address: int
    size: int
    flow: Flow
    target: int | None


step_of: Callable[[tuple[int, int, Flow, int | None]], Step] = partial(tuple.__new__, Step)
"""``Step._make`` without a Python frame."""

_IN_MEMORY = re.compile(r"\[[^]]*\]")
_NUMBER = re.compile(r"(?<![\w.])#?(-?(?:0x[0-9a-f]+|\d+))(?![\w.])")


class Reference(NamedTuple):
    """An operand that names another address: a tuple, because an image has tens of thousands.

    ``value encoded = target + addend`` relative to what ``kind`` says. An Arm64 ADRP with the ADD or load that completes it gives two
    references with
    the same (full) target: one PAGEBASE_REL21, one PAGEOFFSET_12x.

    Attributes:
        offset: Of the instruction from the start of the code, in bytes.
        size: Of the instruction, in bytes.
        field: Offset of the encoded field from the start of the code (Arm64: equals ``offset``).
        kind: How it is encoded.
        use: What the instruction does with it.
        target: The address referred to, in the caller's space.
        addend: Added to the target before encoding (x64: minus the bytes between the field's end and the instruction's end).
    """

    offset: int
    size: int
    field: int
    kind: FixupKind
    use: Use
    target: int
    addend: int = 0


Row = tuple[int, int, int, FixupKind, Use, int, int]
"""What a :class:`Reference` holds, by place: of tens of thousands, few are ever asked for by name."""

reference_of: Callable[[Row], Reference] = partial(tuple.__new__, Reference)
"""``Reference._make`` without a Python frame."""


@dataclass(frozen=True, slots=True)
class JumpTable:
    """A table that an indirect jump goes through.

    Entry ``i`` encodes ``(targets[i] - anchor) >> shift`` in ``entry_size`` little-endian bytes, signed where ``signed``.

    Attributes:
        jump: Offset of the indirect jump from the start of the code.
        address: Of the table, in the caller's space.
        entry_size: 1, 2, 4 or 8 bytes.
        shift: Bits that entries are shifted left by before use.
        signed: Whether entries are sign-extended.
        anchor: What entries are relative to: the table, the image base, a label in the code, or 0.
        targets: Where each entry leads, in the caller's space.
        index: Address (in the caller's space) and size in bytes of the table of byte-sized entry numbers in front of it, where there is one
            (x64: MSVC's two-level switches).
        exact: Whether a comparison of the index says how many entries there are. Otherwise they were counted up to where the table can
            reach at most, which depends on what is known of the image.
    """

    jump: int
    address: int
    entry_size: int
    shift: int
    signed: bool
    anchor: int
    targets: tuple[int, ...]
    index: tuple[int, int] | None = None
    exact: bool = True

    @property
    def size(self) -> int:
        """Of the whole table, in bytes."""
        return self.entry_size * len(self.targets)

    def covers(self, address: int) -> bool:
        """Whether ``address`` lies in the table, or in that of entry numbers in front of it."""
        return 0 <= address - self.address < self.size or (self.index is not None and 0 <= address - self.index[0] < self.index[1])


@dataclass(frozen=True, slots=True)
class DistanceTable:
    """A table whose entries are added to its own address: neither code nor relocated, and wrong as soon as it moves alone.

    Attributes:
        address: Of the table, in the caller's space.
        entry_size: 1, 2, 4 or 8 bytes.
        shift: Bits that entries are shifted left by before use.
        signed: Whether entries are sign-extended.
        count: Of the entries, where a check of the index was seen.
    """

    address: int
    entry_size: int
    shift: int
    signed: bool
    count: int | None


@dataclass(frozen=True, slots=True)
class CodeWrite:
    """Bytes to store at an address so that a redirect takes effect; only the last of a redirect's writes makes it visible."""

    va: int
    new: bytes


@dataclass(frozen=True, slots=True)
class EntrySite:
    """What a redirect needs at a function's entry.

    Attributes:
        before: Bytes of padding that it writes before the entry.
        displaced: Bytes that it overwrites from the entry on.
    """

    before: int
    displaced: int


@dataclass(frozen=True, slots=True)
class Trampoline:
    """Displaced instructions, moved, with a jump back, so that the original stays callable.

    Attributes:
        code: The whole instructions that cover the displaced bytes, moved, then the jump to ``resume_va`` (none where the displaced code
            itself
            leaves on every path), then any literals that the moved code needs.
        resume_va: Address of the first original instruction that was not moved.
        offsets: Source offset of each moved instruction → its offset in ``code``.
    """

    code: bytes
    resume_va: int
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class CallingConvention:
    """The Windows calling convention, by register names as Unicorn and Capstone spell them, lower case.

    Attributes:
        integer_arguments: In order.
        float_arguments: In order; x64 uses the same position for either kind, Arm64 counts them apart.
        positional: Whether integer and floating-point arguments share positions (x64).
        result: Integer result register.
        float_result: Floating-point result register.
        float_preserved: Numbers of the floating-point registers that a callee keeps, of Arm64's the low 64 bits.
        home_space: Bytes that the caller leaves above the return address (x64: 32).
        link: Register with the return address, or ``None`` where it is on the stack.
        preserved: Integer registers that a callee keeps.
        sp: The stack pointer.
        pc: The program counter.
        thread: Register that holds the TEB (Arm64: x18), or ``None`` (x64: the gs base).
    """

    integer_arguments: tuple[str, ...]
    float_arguments: tuple[str, ...]
    positional: bool
    result: str
    float_result: str
    float_preserved: range
    home_space: int
    link: str | None
    preserved: tuple[str, ...]
    sp: str
    pc: str
    thread: str | None


class Architecture(ABC):
    """One instruction set. Stateless; get it with :func:`hotpatch.arch.architecture`."""

    machine: Machine
    instruction_alignment: int
    """Bytes."""
    convention: CallingConvention
    branch_reach: int
    """Largest distance in bytes of the direct jump and call (x64: 2**31 - 1, Arm64: 2**27 - 4)."""
    veneer_reach: int
    """Largest distance in bytes at which code can refer to data and, through veneers, branch (Arm64: what ADRP reaches both ways)."""
    padding_bytes: tuple[bytes, ...]
    """What compilers and linkers fill gaps between functions with, as whole instructions, longest first; the last one traps."""

    @property
    def trap(self) -> bytes:
        """What no run may get to: ``int3``, ``brk #0xf000``."""
        return self.padding_bytes[-1]

    @cached_property
    def fillers(self) -> re.Pattern[bytes]:
        """Matches whole :attr:`padding_bytes`, as many as follow each other, the longest first."""
        return re.compile(b"(?:%b)*+" % b"|".join(map(re.escape, self.padding_bytes)))

    # reading -----------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def disassemble(self, code: bytes, address: int) -> Iterator[Instruction]:
        """Decode until the first undecodable byte; the caller sees that by the sizes not adding up."""

    @abstractmethod
    def steps(self, code: bytes) -> tuple[Step, ...]:
        """The instructions of ``code`` at address 0, until the first undecodable byte; remembered for a while: meant for short pieces."""

    def operation(self, text: str) -> str:
        """What an instruction does by its text, operands apart; the same where compilers choose among several for one thing."""
        return text.partition(" ")[0]

    def first_jump(self, code: bytes, address: int) -> int | None:
        """Where the direct jump leads that ``code`` begins with; ``None`` where it begins with anything else."""
        first = next(iter(self.disassemble(code[:LONGEST_INSTRUCTION], address)), None)
        return first.target if first is not None and first.flow is Flow.JUMP else None

    def references(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> tuple[Reference, ...]:
        """Every operand of ``code`` that names an address, inside or outside of it, by offset.

        ``holes`` (start and end addresses, sorted) are no instructions: tables that stand in the code.
        ``image_base`` is the image's base in the caller's space (0 when ``address`` is an RVA): arithmetic on a register that holds it
        gives ADDR32NB references.
        """
        return tuple(map(reference_of, self.rows(code, address, image_base=image_base, holes=holes)))

    @abstractmethod
    def rows(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> Sequence[Row]:
        """What :meth:`references` gives, as plain tuples."""

    @abstractmethod
    def jump_tables(
        self,
        code: bytes,
        address: int,
        read: Callable[[int, int], bytes],
        *,
        image_base: int = 0,
        limit: Callable[[int, int], int] | None = None,
    ) -> tuple[JumpTable, ...]:
        """The tables that indirect jumps in ``code`` go through; ``read(address, size)`` gives the image's bytes (shorter at an end).

        ``limit(address, entry_size)`` tells where a table of such entries must end at the latest, for those whose number of entries no
        comparison of the index gives (:attr:`JumpTable.exact`).
        """

    @abstractmethod
    def distance_tables(self, code: bytes, address: int, *, image_base: int = 0) -> tuple[DistanceTable, ...]:
        """The tables in whose entries ``code`` finds distances from the table itself, by address; jump tables of that form among them."""

    @abstractmethod
    def mask(self, code: bytes, references: Sequence[Row]) -> bytes:
        """``code`` with the field of each of ``references`` zeroed (for Arm64: only the immediate's bits)."""

    @abstractmethod
    def is_exemplary(self, outline: Outline, *, image_base: int = 0) -> bool:
        """Whether all code with ``outline`` refers in the same ways as that which it was made of, only elsewhere.

        So it is where nothing but the bits outside of the outward fields decides how code is understood: no jump tables, no arithmetic on
        the image base.
        """

    @abstractmethod
    def reread(self, outline: Outline, code: bytes, address: int, *, image_base: int = 0) -> tuple[int, ...] | None:
        """Where the outward references of ``code``, which has the exemplary ``outline``, lead; ``None`` where only decoding can tell.

        They lead where the outward ones of :meth:`references` do.
        """

    @abstractmethod
    def constants(self, code: bytes, address: int, *, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
        """The numbers that ``code`` loads, with the calls that get each as an argument and whether nothing else does.

        Where those at the offsets ``followed`` go is looked for; of others, nothing of that is known (``None``: of none). It takes as
        long as the code behind each is.
        """

    @abstractmethod
    def never_reads(self, code: bytes, address: int, offset: int, register: str) -> bool:
        """Whether nothing for certain, and no call, reads what ``register`` (64 bits) holds before the instruction at ``offset``."""

    @abstractmethod
    def reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """What a function reaches at constant distances from the addresses that it names, by address of the instruction that does.

        Args:
            instructions: All of the function's, by address.
            naming: Addresses of those that name a whole address of data, by a field of :data:`WHOLE_KINDS`.
            edges: Address of a jump through a table → where it leads.
        """

    @abstractmethod
    def first_reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """The same as :meth:`reached` where no way goes back: what loops reach in their first round, on the ways that lead into them."""

    @abstractmethod
    def walked(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> frozenset[int]:
        """Which of the instructions ``naming`` take addresses that code adds an index to, or walks on from in a loop.

        What is given is that of :meth:`reached`; what is done with addresses that are handed on or stored is not told.
        """

    @abstractmethod
    def held(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> tuple[Held, ...]:
        """What registers that a function's instructions read hold for certain of the addresses that it names, by address.

        Args:
            instructions: All of the function's, by address, the entry first.
            naming: As in :meth:`reached`.
            edges: As in :meth:`reached`.
        """

    @abstractmethod
    def counted(self, code: bytes, address: int) -> Counted | None:
        """The number that the instruction ``code`` adds to a register, where it can be encoded anew."""

    @abstractmethod
    def accesses(self, kind: FixupKind, code: bytes, address: int) -> bool:
        """Whether the instruction ``code``, which refers to data by ``kind``, reads or writes there, and does not only take the address."""

    @abstractmethod
    def alignment(self, kind: FixupKind, code: bytes, address: int) -> int:
        """What the address must be a multiple of (bytes) that the instruction ``code`` refers to by ``kind``."""

    def repeats(self, instruction: Instruction) -> bool:
        """Whether the processor may stop between rounds of ``instruction``, each of which counts as one (x64: repeated string ones)."""
        return False

    @abstractmethod
    def goes_onward(self, code: bytes, address: int, offset: int) -> bool:
        """See :func:`hotpatch.arch.walks.goes_onward`; ``offset`` is that of the instruction that takes the address (last)."""

    # binding -----------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def bind(self, kind: FixupKind, field: bytes, site: int, target: int, *, image_base: int = 0) -> bytes:
        """``field`` (as long as ``kind`` needs: see :meth:`field_size`) changed to refer from ``site`` to ``target`` (addend included).

        Raises:
            OutOfReach: The distance, the alignment or the page cannot be encoded.
        """

    @abstractmethod
    def resolve(self, kind: FixupKind, field: bytes, site: int, *, image_base: int = 0) -> int:
        """The inverse of :meth:`bind`: what ``field`` at ``site`` refers to (addend included).

        For PAGEBASE_REL21 the page's address, for PAGEOFFSET_12x the offset in the page.
        """

    @abstractmethod
    def field_size(self, kind: FixupKind) -> int:
        """Bytes that a field of ``kind`` takes."""

    @abstractmethod
    def recount(self, code: bytes, address: int, number: int) -> bytes:
        """The instruction ``code``, for which :meth:`counted` tells a number, with another one, as long as it was.

        Raises:
            OutOfReach: It cannot be encoded.
        """

    # redirecting -------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def entry_site(self, strategy: Redirect) -> EntrySite:
        """What ``strategy`` needs at an entry."""

    @abstractmethod
    def redirect_writes(self, strategy: Redirect, entry_va: int, destination_va: int) -> tuple[CodeWrite, ...]:
        """What to store, padding first and the entry last, so that a call of ``entry_va`` goes to ``destination_va`` (for HPAT: a slot).

        Raises:
            OutOfReach: The jump cannot reach, or (Arm64 HPAT) does not go forward.
        """

    @abstractmethod
    def redirect_destination(self, strategy: Redirect, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """Where a redirect of ``strategy`` at ``entry_va`` leads, or ``None`` where the bytes there are none."""

    @abstractmethod
    def foreign_jump(self, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """Target of an unconditional jump that stands at ``entry_va`` in any form that hooks use, or ``None``."""

    @abstractmethod
    def hpat_slot(self) -> bytes:
        """The 8 bytes of a slot: a jump through the pointer :data:`HPAT_POINTER_DISTANCE` bytes after it."""

    @abstractmethod
    def dispatcher(self, flag: int, before_va: int, after_va: int) -> bytes:
        """A jump to ``before_va`` for threads whose byte at offset ``flag`` of the thread environment block is not 0, else ``after_va``.

        It runs at a function's entry and changes nothing there that a callee may expect: x64: arithmetic flags; Arm64: x16.
        """

    @abstractmethod
    def absolute_jump(self, target: int) -> bytes:
        """A jump to anywhere that changes no register that a callee may expect (a veneer)."""

    @abstractmethod
    def trampoline(self, code: bytes, *, source_va: int, trampoline_va: int, displaced: int) -> Trampoline:
        """Move the whole instructions that cover ``displaced`` bytes of ``code`` from ``source_va`` to ``trampoline_va``.

        Raises:
            CannotRelocate: With the rule, the instruction and its bytes.
        """


HPAT_SLOT_SIZE = 8
"""Bytes of a slot. Source: microsoft/Detours ``src/detours.cpp``; the slot distance is inferred (docs/mechanics.md)."""

HPAT_POINTER_DISTANCE = 0x1000
"""Bytes from a slot to the pointer that it jumps through. Source: microsoft/Detours ``src/detours.cpp``, PR 318."""
