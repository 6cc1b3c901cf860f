"""Arm64: jumps that redirect a function's entry, written and recognised.

Fixed words come from the Arm Architecture Reference Manual (C6.2, LDR (literal), BR); the shape of slot and entry from microsoft/Detours,
PR 318.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.model import CodeWrite, EntrySite, FixupKind, Redirect
from hotpatch.errors import OutOfReach, Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

B = 0x14000000
BR_X16 = 0xD61F0200
LDR_X16_PLUS_8 = 0x58000050
"""``ldr x16, [pc+8]``."""
LDR_X16_PLUS_1000 = 0x58008010
"""``ldr x16, [pc+0x1000]``: :data:`hotpatch.arch.model.HPAT_POINTER_DISTANCE`."""

LDRB_W16_X18 = 0x39400250
"""``ldrb w16, [x18, #imm12]``: x18 holds the thread environment block (MS Learn, "Overview of ARM64 ABI conventions")."""
CBNZ_W16_PLUS_12 = 0x35000070
LDR_X16_PLUS_16 = 0x58000090
"""``ldr x16, [pc+16]``."""

HPAT_SLOT = struct.pack("<2I", LDR_X16_PLUS_1000, BR_X16)

_HOOK_WORDS = 8
"""Words that a hook's jump is looked for in: a landing pad, MOVZ and three MOVK, BR, rounded up."""

_LANDING_PADS = frozenset({a64.NOP, 0xD503241F, 0xD503245F, 0xD503249F, 0xD50324DF})
"""NOP, BTI, BTI c, BTI j, BTI jc: hooks keep them in front of their jump."""


_SITE = EntrySite(before=0, displaced=a64.WORD)


def entry_site(strategy: Redirect) -> EntrySite:
    """One branch over the entry, whatever the strategy."""
    del strategy
    return _SITE


def redirect_writes(strategy: Redirect, entry_va: int, destination_va: int) -> tuple[CodeWrite, ...]:
    """``B destination_va`` at ``entry_va``.

    Raises:
        OutOfReach: Farther than 128 MiB, misaligned, or (HPAT) not forward.
    """
    word = fields.encode(FixupKind.BRANCH26, B, entry_va, destination_va)
    if word is None:
        raise fields.out_of_reach(FixupKind.BRANCH26, struct.pack("<I", B), entry_va, destination_va)
    new = struct.pack("<I", word)
    if strategy is Redirect.HPAT and destination_va <= entry_va:
        raise OutOfReach(
            [
                Refusal(
                    Rule.OUT_OF_REACH,
                    None,
                    None,
                    f"the slot at 0x{destination_va:x} is not behind the entry at 0x{entry_va:x}; place the table past the image's end",
                    {"bytes": new.hex(), "site": entry_va, "target": destination_va, "distance": destination_va - entry_va},
                )
            ]
        )
    return (CodeWrite(entry_va, new),)


def redirect_destination(strategy: Redirect, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
    """Where the branch that :func:`redirect_writes` stores leads, or ``None`` where there is none."""
    words = _words(read(entry_va, a64.WORD))
    if not words or words[0] >> 26 != B >> 26:
        return None
    destination = fields.decode(FixupKind.BRANCH26, words[0], entry_va)
    return None if strategy is Redirect.HPAT and destination <= entry_va else destination


def foreign_jump(entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
    """Target of the jump at ``entry_va``, behind landing pads at most.

    Known forms: B; LDR (literal) and BR; ADRP, ADD and BR; ADRP, LDR and BR; MOVZ or MOVN with MOVKs and BR; each with any one register.
    """
    words = _words(read(entry_va, _HOOK_WORDS * a64.WORD))
    at = 0
    while at < len(words) and words[at] in _LANDING_PADS:
        at += 1
    if at == len(words):
        return None
    if words[at] >> 26 == B >> 26:
        return fields.decode(FixupKind.BRANCH26, words[at], entry_va + at * a64.WORD)
    register = a64.rd(words[at])
    value: int | None = None
    for index in range(at, len(words)):
        word, site = words[index], entry_va + index * a64.WORD
        if a64.is_branch_register(word) and index > at:
            return value if a64.rn(word) == register else None
        if a64.rd(word) != register:
            return None
        value = _next_value(word, site, register, value, read)
        if value is None:
            return None
    return None


def _next_value(word: int, site: int, register: int, value: int | None, read: Callable[[int, int], bytes]) -> int | None:
    """What ``register`` holds after ``word``, one step of building an address, or ``None``."""
    if value is None:
        if word >> 24 == 0x58:
            return _pointer(read(fields.decode(FixupKind.LITERAL19, word, site), 8))
        if word & 0x9F000000 == 0x90000000:
            return fields.decode(FixupKind.PAGEBASE_REL21, word, site)
        piece = (word >> 5 & 0xFFFF) << (word >> 21 & 3) * 16
        if word & 0xFF800000 == 0xD2800000:  # MOVZ
            return piece
        return ~piece & (1 << 64) - 1 if word & 0xFF800000 == 0x92800000 else None  # MOVN
    if word & 0xFF800000 == 0xF2800000:  # MOVK
        shift = (word >> 21 & 3) * 16
        return value & ~(0xFFFF << shift) | (word >> 5 & 0xFFFF) << shift
    if a64.rn(word) != register:
        return None
    if a64.is_add_immediate(word):
        return value + a64.immediate12(word)
    if word >> 22 == 0xF9400000 >> 22:  # LDR (unsigned immediate), 64 bits
        return _pointer(read(value + (a64.immediate12(word) << 3), 8))
    return None


def _pointer(raw: bytes) -> int | None:
    return int.from_bytes(raw, "little") if len(raw) == 8 else None


def absolute_jump(target: int) -> bytes:
    """``ldr x16, [pc+8]; br x16; .quad target``: x16 is the procedure call standard's first intra-procedure-call scratch register."""
    return struct.pack("<2IQ", LDR_X16_PLUS_8, BR_X16, target)


def dispatcher(flag: int, before_va: int, after_va: int) -> bytes:
    """Six instructions and their pointers.

    ::

     0  ldrb w16, [x18, #flag]
     4  cbnz w16, 16
     8  ldr x16, 24         ; after
    12  br x16
    16  ldr x16, 32         ; before
    20  br x16
    24  after
    32  before
    """
    words = (LDRB_W16_X18 | flag << 10, CBNZ_W16_PLUS_12, LDR_X16_PLUS_16, BR_X16, LDR_X16_PLUS_16, BR_X16)
    return struct.pack("<6I2Q", *words, after_va, before_va)


def _words(raw: bytes) -> tuple[int, ...]:
    count = len(raw) // a64.WORD
    return struct.unpack(f"<{count}I", raw[: count * a64.WORD])
