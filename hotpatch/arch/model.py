"""What instruction sets and those who ask them speak of: instructions, references, tables, redirects, calling conventions."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LONGEST_INSTRUCTION = 16
"""Bytes; no instruction of any set is longer (x64: 15)."""

HPAT_SLOT_SIZE = 8
"""Bytes of a slot. Source: microsoft/Detours ``src/detours.cpp``; the slot distance is inferred (docs/mechanics.md)."""

HPAT_POINTER_DISTANCE = 0x1000
"""Bytes from a slot to the pointer that it jumps through. Source: microsoft/Detours ``src/detours.cpp``, PR 318."""


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
    references with the same (full) target: one PAGEBASE_REL21, one PAGEOFFSET_12x.

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


Encoding = tuple[int, int, FixupKind, Use, int]
"""How an instruction refers to an address, wherever both are: size of the instruction in bytes, offset of the field in it, kind, use and
addend."""

Columns = tuple["array[int]", tuple[Encoding, ...]]
"""References without their targets: offset and encoding of each."""

ENCODINGS: dict[Encoding, Encoding] = {}
"""Each once: there are a few hundred, and a hundred thousand references of an image."""


def columns_of(references: Iterable[Row]) -> Columns:
    """References without their targets."""
    offsets = array("I")
    encodings = []
    share = ENCODINGS.setdefault
    for offset, size, field, kind, use, _, addend in references:
        offsets.append(offset)
        encoding = size, field - offset, kind, use, addend
        encodings.append(share(encoding, encoding))
    return offsets, tuple(encodings)


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
        holes: The numbers of entries of zero, which lead nowhere: of values that never come to the jump, as the compiler knew.
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
    holes: frozenset[int] = frozenset()

    @property
    def ways(self) -> tuple[int, ...]:
        """Where the entries lead that lead anywhere."""
        return tuple([target for number, target in enumerate(self.targets) if number not in self.holes]) if self.holes else self.targets

    @property
    def size(self) -> int:
        """Of the whole table, in bytes."""
        return self.entry_size * len(self.targets)

    def covers(self, address: int) -> bool:
        """Whether ``address`` lies in the table, or in that of entry numbers in front of it."""
        return 0 <= address - self.address < self.size or (self.index is not None and 0 <= address - self.index[0] < self.index[1])


WIDTHS = frozenset({1 << 8, 1 << 16})
"""Numbers of values that an index of one and of two bytes has: fewer entries may be there."""


@dataclass(frozen=True, slots=True)
class DistanceTable:
    """A table whose entries are added to its own address: neither code nor relocated, and wrong as soon as it moves alone.

    Attributes:
        address: Of the table, in the caller's space.
        entry_size: 1, 2, 4 or 8 bytes.
        shift: Bits that entries are shifted left by before use.
        signed: Whether entries are sign-extended.
        count: Of the entries, where a check of the index was seen. That the index is a byte or two wide is none.
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
            itself leaves on every path), then any literals that the moved code needs.
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
