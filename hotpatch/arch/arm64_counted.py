"""Arm64: instructions that add a number to a register for an address, and the same with another number.

ADD and SUB (immediate, 64 bits), which the number's sign tells apart, and loads and stores with an unsigned immediate. Source: Arm
Architecture Reference Manual (DDI 0487), C6.2.
"""

from __future__ import annotations

from hotpatch.arch import arm64_words as a64
from hotpatch.arch.certain import Counted
from hotpatch.arch.common import out_of_reach
from hotpatch.arch.model import FixupKind

_SUM_MASK, _SUM = 0xBF800000, 0x91000000
"""ADD and SUB, whichever bit 30 says; bit 29 clear: they leave the flags alone."""
_SUBTRACTS, _SHIFTED = 1 << 30, 1 << 22
_NUMBER = 0x003FFC00
_SHIFT, _LIMIT = 12, 1 << 12
_SP, _PREFETCH = 31, 0x3E6
"""The register number of SP and ZR; bits 31 to 22 of PRFM, which goes nowhere."""


def counted(code: bytes) -> Counted | None:
    """See :meth:`hotpatch.arch.base.Architecture.counted`; numbers added to SP name no data."""
    word = int.from_bytes(code[: a64.WORD], "little")
    source = word >> 5 & _SP
    if source == _SP:
        return None
    number = a64.immediate12(word)
    if word & _SUM_MASK == _SUM:
        number <<= _SHIFT if word & _SHIFTED else 0
        number = -number if word & _SUBTRACTS else number
        return Counted(f"x{source}", number, FixupKind.PAGEOFFSET_12A) if word & 31 != _SP else None
    if word >> 24 in a64.UNSIGNED_IMMEDIATE_TOPS and word >> 22 != _PREFETCH:
        return Counted(f"x{source}", number << a64.access_scale(word), FixupKind.PAGEOFFSET_12L)
    return None


def recount(code: bytes, address: int, number: int) -> bytes:
    """The instruction with another number.

    Raises:
        OutOfReach: It has more than twelve bits, or counts in other steps than what is accessed.
    """
    word = int.from_bytes(code, "little")
    if word & _SUM_MASK == _SUM:
        size, shifted = abs(number), not abs(number) < _LIMIT
        if shifted and size % _LIMIT:
            raise out_of_reach(address, address + number, "twelve bits, or twelve in front of as many zeros", "the number that is added")
        size >>= _SHIFT if shifted else 0
        kept = word & ~(_NUMBER | _SUBTRACTS | _SHIFTED)
        new = kept | (_SUBTRACTS if number < 0 else 0) | (_SHIFTED if shifted else 0)
    else:
        scale = a64.access_scale(word)
        size, new = number >> scale, word & ~_NUMBER
        if number % (1 << scale):
            raise out_of_reach(address, address + number, f"multiples of {1 << scale}", "the offset of a load or store")
    if not 0 <= size < _LIMIT:
        raise out_of_reach(address, address + number, "twelve bits", "the number of an instruction")
    return (new | size << 10).to_bytes(a64.WORD, "little")
