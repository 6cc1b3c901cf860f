"""Arm64 instruction words: classes, fields and effects, by masks.

Every constant here is an encoding of the Arm Architecture Reference Manual (DDI 0487), chapter C4 "A64 Instruction Set Encoding"; the
names in the comments are those of its tables. Nothing here knows addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hotpatch.arch.model import FixupKind, Flow, Use

WORD = 4
"""Bytes of an instruction."""

ZERO_REGISTER = 31
"""Register number that means XZR or SP; neither is ever tracked."""

NOP = 0xD503201F
PACIBSP = 0xD503237F
UDF_0 = 0x00000000
BRK_UNREACHABLE = 0xD43E0000
"""``brk #0xf000``: what compilers for Windows put behind a call that does not return."""

BRK_TRAP = 0xD4200020
"""``brk #1``: what LLVM ends a way with that the program never goes on from."""

CONDITION_HS, CONDITION_LO, CONDITION_HI, CONDITION_LS, CONDITION_AL = 2, 3, 8, 9, 14
CONDITION_GE, CONDITION_LT, CONDITION_GT, CONDITION_LE = 10, 11, 12, 13


def sign_extend(value: int, bits: int) -> int:
    """``value`` of ``bits`` bits as a signed integer."""
    top = 1 << (bits - 1)
    return (value & (top - 1)) - (value & top)


@dataclass(frozen=True, slots=True)
class Form:
    """A PC-relative instruction form, told apart by the top byte of its word.

    Attributes:
        name: In the manual's spelling.
        tops: Values of bits 31 to 24.
        kind: How the address is encoded.
        use: What is done with the address.
    """

    name: str
    tops: tuple[int, ...]
    kind: FixupKind
    use: Use


PC_RELATIVE = (
    Form("b", (0x14, 0x15, 0x16, 0x17), FixupKind.BRANCH26, Use.JUMP),
    Form("bl", (0x94, 0x95, 0x96, 0x97), FixupKind.BRANCH26, Use.CALL),
    Form("b.cond", (0x54,), FixupKind.BRANCH19, Use.BRANCH),  # bit 4 set: BC.cond
    Form("cbz", (0x34, 0xB4), FixupKind.BRANCH19, Use.BRANCH),
    Form("cbnz", (0x35, 0xB5), FixupKind.BRANCH19, Use.BRANCH),
    Form("tbz", (0x36, 0xB6), FixupKind.BRANCH14, Use.BRANCH),
    Form("tbnz", (0x37, 0xB7), FixupKind.BRANCH14, Use.BRANCH),
    Form("ldr", (0x18, 0x58), FixupKind.LITERAL19, Use.DATA),
    Form("ldr-simd", (0x1C, 0x5C, 0x9C), FixupKind.LITERAL19, Use.DATA),
    Form("ldrsw", (0x98,), FixupKind.LITERAL19, Use.DATA),
    Form("prfm", (0xD8,), FixupKind.LITERAL19, Use.DATA),
    Form("adr", (0x10, 0x30, 0x50, 0x70), FixupKind.REL21, Use.DATA),
    Form("adrp", (0x90, 0xB0, 0xD0, 0xF0), FixupKind.PAGEBASE_REL21, Use.DATA),
)
"""Every PC-relative form of Armv8-A to Armv9.5-A; compare-and-branch (FEAT_CMPBR), unknown to Capstone 5, is refused as undecodable."""

FORM_OF_TOP: tuple[Form | None, ...] = tuple(next((form for form in PC_RELATIVE if top in form.tops), None) for top in range(256))

ADD_IMMEDIATE_TOP = 0x91
"""ADD (immediate), 64 bits; bit 22 shifts the immediate left by 12, bit 23 set is ADDG."""

UNSIGNED_IMMEDIATE_TOPS = (0x39, 0x79, 0xB9, 0xF9, 0x3D, 0x7D, 0xBD, 0xFD)
"""Load/store register (unsigned immediate): size 111 V 01."""

STR_64, LDR_64 = 0x3E4, 0x3E5
"""STR and LDR (unsigned immediate) of a 64-bit register: the top ten bits."""

STACK_POINTER = 31
"""As a base register, and as Rd and Rn of ADD and SUB (immediate or extended register)."""

SHIFT_12 = 1 << 22
"""ADD (immediate): the immediate is shifted left by 12."""


def rd(word: int) -> int:
    """Rd or Rt."""
    return word & 31


def rn(word: int) -> int:
    """Rn."""
    return word >> 5 & 31


def rm(word: int) -> int:
    """Rm or Rs."""
    return word >> 16 & 31


def immediate12(word: int) -> int:
    """imm12 of ADD (immediate) and of load/store (unsigned immediate), not scaled."""
    return word >> 10 & 0xFFF


def is_add_immediate(word: int) -> bool:
    """ADD (immediate), 64 bits, without shift."""
    return word & 0xFFC00000 == 0x91000000


def is_add_immediate_shifted(word: int) -> bool:
    """ADD (immediate), 64 bits, LSL #12."""
    return word & 0xFFC00000 == 0x91400000


def is_unsigned_immediate(word: int) -> bool:
    """Load/store register (unsigned immediate), PRFM included."""
    return word & 0x3B000000 == 0x39000000


def access_scale(word: int) -> int:
    """Load/store register (unsigned immediate): log2 of the bytes that the immediate counts in."""
    simd_wide = word & 0x04800000 == 0x04800000
    return word >> 30 | (4 if simd_wide else 0)


def is_store(word: int) -> bool:
    """Load/store register (unsigned immediate): a store, of whatever width."""
    return not word >> 22 & 3 or (word & 0x04C00000 == 0x04800000 and not word >> 30)


def is_pair_load(word: int) -> bool:
    """LDP of two 64-bit registers, in any form of address."""
    return word & 0xFE400000 == 0xA8400000


def pair_offset(word: int) -> int:
    """LDP and STP of 64-bit registers: the distance from the base register, in bytes."""
    offset = word >> 15 & 0x7F
    return (offset - (offset >> 6 << 7)) * 8


def moves_stack(word: int) -> bool:
    """Whether ``word`` may write SP, or the stack through it, other than by a store with an unsigned immediate."""
    if word & 0x7F000000 in (0x11000000, 0x51000000) or word & 0x7FE00000 in (0x0B200000, 0x4B200000):  # ADD, SUB
        return rd(word) == STACK_POINTER
    memory = word >> 25 & 5 == 4 and word & 0x3B000000 != 0x18000000
    plain_load = word & 0x3BC00000 == 0x29400000
    return memory and rn(word) == STACK_POINTER and not plain_load


def is_frame_push(word: int) -> bool:
    """SUB SP, SP, #n; STP and STR of 64-bit registers that move SP down before."""
    pushed = word & 0xFFE003E0 == 0xA9A003E0 or word & 0xFFF00FE0 == 0xF8100FE0
    return pushed or word & 0xFF8003FF == 0xD10003FF


def is_move_number(word: int) -> bool:
    """MOVZ, of either width."""
    return word & 0x7F800000 == 0x52800000


def is_move_register(word: int) -> bool:
    """MOV (register), 64 bits: ORR Xd, XZR, Xm."""
    return word & 0xFFE0FFE0 == 0xAA0003E0


def is_branch_register(word: int) -> bool:
    """BR Xn (without authentication)."""
    return word & 0xFFFFFC1F == 0xD61F0000


def is_exclusive_load(word: int) -> bool:
    """LDXR, LDAXR, LDXP, LDAXP and their byte and halfword forms."""
    return word & 0x3FC00000 == 0x08400000 and not _is_compare_and_swap_pair(word)


def is_exclusive_store(word: int) -> bool:
    """STXR, STLXR, STXP, STLXP and their byte and halfword forms."""
    return word & 0x3FE00000 == 0x08000000 or _is_exclusive_pair(word, load=False)


def is_clear_exclusive(word: int) -> bool:
    """CLREX."""
    return word & 0xFFFFF0FF == 0xD503305F


def _is_exclusive_pair(word: int, *, load: bool) -> bool:
    return word & 0xBFE00000 == (0x88600000 if load else 0x88200000)


def _is_compare_and_swap_pair(word: int) -> bool:
    return word & 0xBFA00000 == 0x08200000


def is_hint(word: int) -> bool:
    """The hint space: NOP, BTI, pointer authentication of fixed registers."""
    return word & 0xFFFFF01F == 0xD503201F


def condition_of(word: int) -> int:
    """Condition of B.cond and BC.cond."""
    return word & 15


def holds(condition: int, flags: int) -> bool:
    """Whether ``condition`` holds where the flags are ``flags`` (NZCV)."""
    negative, zero, carry, overflow = (bool(flags >> bit & 1) for bit in (3, 2, 1, 0))
    same = negative == overflow
    kinds = (zero, carry, negative, overflow, carry and not zero, same, same and not zero, True)
    return kinds[condition >> 1] != bool(condition & 1 and condition != 15)


def is_select(word: int) -> bool:
    """CSEL of 64 bits: Rn where the condition holds, else Rm."""
    return word & 0xFFE00C00 == 0x9A800000


def selects_as(select: int, branch: int) -> bool | None:
    """Whether a CSEL takes Rn where the B.cond right behind it is taken, ``False`` where it takes Rm there; ``None`` if neither is told."""
    condition = select >> 12 & 15
    if branch & 0xFF000010 != 0x54000000 or condition & 14 == CONDITION_AL or condition & 14 != condition_of(branch) & 14:
        return None
    return condition == condition_of(branch)


def is_conditional_always(word: int) -> bool:
    """B.cond or BC.cond with AL or NV: both are taken always."""
    return word >> 24 == 0x54 and word & 14 == CONDITION_AL


def invert_condition(word: int) -> int:
    """The conditional branch that is taken when ``word`` is not (B.cond but AL and NV, CBZ/CBNZ, TBZ/TBNZ)."""
    return word ^ 1 if word >> 24 == 0x54 else word ^ 1 << 24


_REGISTER_BRANCH_FLOW = {
    0: Flow.JUMP_INDIRECT,  # BR
    1: Flow.CALL_INDIRECT,  # BLR
    2: Flow.RETURN,
    4: Flow.RETURN,  # ERET
    5: Flow.RETURN,  # DRPS
    8: Flow.JUMP_INDIRECT,  # BRAA, BRAB
    9: Flow.CALL_INDIRECT,  # BLRAA, BLRAB
}


_NEXT, _BRANCH, _JUMP, _TRAP = Flow.NEXT, Flow.BRANCH, Flow.JUMP, Flow.TRAP
"""Asking an enumeration for a member takes as long as all else that is done with a word."""
_FLOW_OF_USE = {Use.CALL: Flow.CALL, Use.JUMP: Flow.JUMP, Use.BRANCH: Flow.BRANCH, Use.DATA: Flow.NEXT}
_FLOW_OF_TOP = tuple(None if form is None else _FLOW_OF_USE[form.use] for form in FORM_OF_TOP)


def flow_of(word: int) -> Flow:
    """Where control goes after ``word``."""
    flow = _FLOW_OF_TOP[word >> 24]
    if flow is not None:
        return _JUMP if flow is _BRANCH and is_conditional_always(word) else flow
    if word & 0xFE000000 == 0xD6000000:
        return _REGISTER_BRANCH_FLOW.get(word >> 21 & 15, _NEXT)
    if word & 0xFFE0001F == 0xD4200000 or word & 0xFFE0001F == 0xD4400000 or word & 0xFFFF0000 == 0:  # BRK, HLT, UDF
        return _TRAP
    return _NEXT


# What a word writes ---------------------------------------------------------------------------------------------------------------------

CALL_CLOBBERED = (1 << 18) - 1 | 1 << 30
"""x0 to x17 and x30, by bit: what a call may change (Windows Arm64 ABI; x18 is the platform's)."""
CALL_RESULTS = 1 << 0 | 1 << 1 | 1 << 16 | 1 << 17 | 1 << 30
"""x0, x1, x16, x17 and x30, by bit: what is certainly lost over a direct call. MSVC knows what else a function of its own module leaves
alone, and keeps values there."""


_CALLS = frozenset((Flow.CALL, Flow.CALL_INDIRECT))
_FLAG_SETTERS = frozenset(
    (
        *(0x31, 0xB1, 0x71, 0xF1, 0x72, 0xF2),  # ADDS, SUBS, ANDS (immediate)
        *(0x2B, 0xAB, 0x6B, 0xEB, 0x6A, 0xEA),  # ADDS, SUBS, ANDS, BICS (register)
        *(0x3A, 0xBA, 0x7A, 0xFA),  # ADCS, SBCS, CCMP, CCMN, RMIF, SETF
    )
)


def writes_flags(word: int) -> bool:
    """Whether ``word`` sets NZCV (calls apart)."""
    floating_compare = word & 0xFF203C00 == 0x1E202000 or word & 0xFF200C00 == 0x1E200400
    return word >> 24 in _FLAG_SETTERS or floating_compare


@lru_cache(maxsize=1 << 13)
def written_registers(word: int) -> int:
    """General registers that ``word`` writes, by bit; bit 31 has no meaning. Calls clobber :data:`CALL_CLOBBERED`."""
    group = word >> 25 & 15
    if group in (0b1000, 0b1001):  # data processing, immediate
        return 1 << (word & 31)
    if group in (0b0101, 0b1101):  # data processing, register
        return 0 if _writes_flags_only(word) else 1 << (word & 31)
    if group in (0b0100, 0b0110, 0b1100, 0b1110):
        return _written_by_memory(word)
    if group in (0b1010, 0b1011):
        return _written_by_system(word)
    if group in (0b0111, 0b1111):
        return 1 << (word & 31) if _simd_to_general(word) else 0
    return 1 << (word & 31) if group == 0b0010 else 0  # SVE: some of it writes Rd


def _writes_flags_only(word: int) -> bool:
    conditional_compare = word & 0x1FE00000 == 0x1A400000
    rotate_or_evaluate_flags = word & 0x1FE00000 == 0x1A000000 and word & 0x7C00 in (0x0400, 0x4400, 0x0800, 0x4800)
    return conditional_compare or rotate_or_evaluate_flags


def _simd_to_general(word: int) -> bool:
    if word & 0x5F20FC00 == 0x1E200000:  # floating point <-> integer: FCVT*, FMOV to general, FJCVTZS
        return word >> 16 & 7 in (0, 1, 4, 5, 6)
    if word & 0x5F200000 == 0x1E000000:  # floating point <-> fixed point: FCVTZS, FCVTZU
        return word >> 16 & 7 in (0, 1)
    return word & 0xBFE0FC00 in (0x0E002C00, 0x0E003C00)  # SMOV, UMOV


def _written_by_system(word: int) -> int:
    flow = flow_of(word)
    if flow in _CALLS:
        return CALL_CLOBBERED
    if word & 0xFFE00000 == 0xD5200000:  # MRS, SYSL
        return 1 << (word & 31)
    if is_hint(word):  # pointer authentication alone writes
        hint = word >> 5 & 0x7F
        if hint == 7 or 24 <= hint < 32:
            return 1 << 30
        return 1 << 17 if hint in (8, 10, 12, 14) else 0
    return 0


def _written_by_memory(word: int) -> int:
    target, base = 1 << (word & 31), 1 << (word >> 5 & 31)
    simd = word & 1 << 26
    load = word & 1 << 22
    shape = word >> 28 & 3
    if shape == 0b10:  # pairs; bits 24:23: no-allocate, post-index, offset, pre-index
        written = target | 1 << (word >> 10 & 31) if load and not simd else 0
        return written | (base if word & 1 << 23 else 0)
    if shape == 0b11:
        return _written_by_single(word, target, base)
    if shape == 0b01:
        if word & 0x3B000000 == 0x18000000:  # literal
            return 0 if simd or word >> 30 == 3 else target
        if simd:
            return 0
        if word & 0x3F200C00 == 0x19000000:  # LDAPUR, STLUR
            return target if word >> 22 & 3 else 0
        return target | base | 1 << (word >> 16 & 31)  # memory tags, memory copy and set: any of them
    if simd:  # structures; bit 23: post-index
        return base if word & 1 << 23 else 0
    return _written_by_exclusive(word, target)


def _written_by_exclusive(word: int, target: int) -> int:
    status = 1 << (word >> 16 & 31)
    if _is_compare_and_swap_pair(word):
        return status | status << 1
    if word & 0x00A00000 == 0x00A00000:  # CAS
        return status
    if word & 1 << 22:
        return target | (1 << (word >> 10 & 31) if word & 1 << 21 else 0)
    return 0 if word & 1 << 23 else status  # STLR, STLLR; STXR, STXP


def _written_by_single(word: int, target: int, base: int) -> int:
    simd = word & 1 << 26
    operation = word >> 22 & 3
    prefetch = word >> 30 == 3 and operation == 2 and not simd
    written = target if operation and not simd and not prefetch else 0
    if word & 1 << 24:  # unsigned immediate
        return written
    index = word >> 10 & 3
    if not word & 1 << 21:
        if index == 1 or index == 3:  # post-index, pre-index
            return (target if operation and not simd else 0) | base
        return written
    if index == 0:  # atomic operations, LDAPR
        return target
    if index == 2:  # register offset
        return written
    return target | (base if word & 1 << 11 else 0)  # LDRAA, LDRAB
