"""x64: the encodings that compilers use, as one table, so that a regular expression can step over them without decoding.

Each form is a set of encodings, none of which is a jump or a call. The table is not complete and need not be: who meets something else asks
the decoder. What it says is what Capstone says too (``tests/arch/x64/test_forms.py`` tries all of it).
Source: Intel SDM volume 2, chapter 2 ("Instruction Format") and appendix A ("Opcode Map").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

REGISTERS = range(8)
"""What the middle bits of a ModRM byte can be."""
ESCAPE, ESCAPE_38, ESCAPE_3A = b"\x0f", b"\x0f\x38", b"\x0f\x3a"


Lead = tuple[tuple[bytes, ...], ...]
"""What may stand before the opcode map's escape: one of several sequences, each byte of which is one of a set."""

NO: Lead = ((),)
REX: Lead = ((), (bytes(range(0x40, 0x50)),))
NARROW: Lead = ((), (bytes(range(0x40, 0x48)),))
"""REX without the bit for 64-bit operands."""
WIDE: Lead = ((bytes(range(0x48, 0x50)),),)


class Operand(Enum):
    """What follows the opcode."""

    NOTHING = "nothing"
    REGISTER = "register"
    MEMORY = "memory"
    EITHER = "either"


def numbers(text: str) -> tuple[int, ...]:
    """The bytes in ``text``: hexadecimal, single or as ranges."""
    found: list[int] = []
    for word in text.split():
        first, _, last = word.partition("-")
        found += range(int(first, 16), int(last or first, 16) + 1)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Form:
    """A set of encodings.

    Attributes:
        opcodes: The last byte of the opcode, as :func:`numbers` reads it.
        operand: A ModRM byte with what belongs to it, or nothing.
        immediate: Bytes behind the operand.
        lead: Prefixes.
        escape: The opcode's bytes before the last.
        fields: What the middle bits of the ModRM byte may be.
    """

    opcodes: str
    operand: Operand = Operand.EITHER
    immediate: int = 0
    lead: Lead = REX
    escape: bytes = b""
    fields: tuple[int, ...] | range = REGISTERS


def _behind(prefixes: tuple[bytes, ...], lead: Lead = REX) -> Lead:
    """``lead`` behind one of ``prefixes``."""
    return tuple((*(bytes((value,)) for value in prefix), *rest) for prefix in prefixes for rest in lead)


def _vex(space: int, prefix: int, *, wide: tuple[int, ...] = (0, 1), long: tuple[int, ...] = (0, 1), source: bool = True) -> Lead:
    """VEX prefixes of an opcode map and an implied legacy prefix; ``source``: there is a second source register."""
    low = [register << 3 | length << 2 | prefix for register in (range(16) if source else (15,)) for length in long]
    short = (b"\xc5", bytes(high << 7 | value for high in (0, 1) for value in low))
    whole = (b"\xc4", bytes(extension << 5 | space for extension in range(8)), bytes(size << 7 | value for size in wide for value in low))
    return (short, whole) if space == 1 and 0 in wide else (whole,)


_16, _16_NARROW = _behind((b"\x66",)), _behind((b"\x66",), NARROW)
_F2, _F3, _GS, _LOCK = (_behind((prefix,)) for prefix in (b"\xf2", b"\xf3", b"\x65", b"\xf0"))
_ARITHMETIC = "00-03 08-0b 10-13 18-1b 20-23 28-2b 30-33 38-3b 63 84-8b d0-d3"
_PACKED = "10 11 14 15 28 29 2e 2f 51 54 55-5f 60-6d 74-76 d1-d5 d8-df e0-e5 e8-ef f1-f6 f8-fe"

FORMS = (
    Form(_ARITHMETIC),
    Form("8d", Operand.MEMORY),
    Form("50-5f 90-99 c3 c9 cc", Operand.NOTHING),
    Form("83 c0 c1 6b 80", immediate=1),
    Form("81 69", immediate=4),
    Form("c6", immediate=1, fields=(0,)),
    Form("c7", immediate=4, fields=(0,)),
    Form("f6 f7", fields=range(2, 8)),
    Form("f6", immediate=1, fields=(0,)),
    Form("f7", immediate=4, fields=(0,)),
    Form("fe ff", fields=(0, 1)),
    Form("ff", fields=(6,)),
    Form("04 0c 14 1c 24 2c 34 3c 6a a8 b0-b7", Operand.NOTHING, 1),
    Form("05 0d 15 1d 25 2d 35 3d 68 a9", Operand.NOTHING, 4),
    Form("b8-bf", Operand.NOTHING, 4, NARROW),
    Form("b8-bf", Operand.NOTHING, 8, WIDE),
    Form("a4 a5 aa ab f4 fc fd", Operand.NOTHING, lead=NO),
    Form("cd", Operand.NOTHING, 1, NO),
    Form("c2", Operand.NOTHING, 2, NO),
    Form("10 11 12 14-16 1f 28 29 2a 2c-2f 40-4f 51-5f 6e 7e 90-9f a3 a5 ab ad af b0 b1 b3 b6 b7 bb-bf c0 c1", escape=ESCAPE),
    Form("13 17 2b", Operand.MEMORY, escape=ESCAPE),
    Form("18", Operand.MEMORY, escape=ESCAPE, fields=(0, 1, 2, 3)),
    Form("ae", Operand.MEMORY, lead=NO, escape=ESCAPE, fields=(2, 3)),
    Form("e8 f0 f8", Operand.NOTHING, lead=NO, escape=b"\x0f\xae"),
    Form("d0", Operand.NOTHING, lead=NO, escape=b"\x0f\x01"),
    Form("0b 31 a2 c8-cf", Operand.NOTHING, escape=ESCAPE),
    Form("a4 ac c2 c6", immediate=1, escape=ESCAPE),
    Form("ba", immediate=1, escape=ESCAPE, fields=(4, 5, 6, 7)),
    # with an operand-size prefix
    Form(_ARITHMETIC, lead=_16),
    Form("50-5f 90-99", Operand.NOTHING, lead=_16),
    Form("83 c0 c1 6b", immediate=1, lead=_16),
    Form("81 69", immediate=2, lead=_16_NARROW),
    Form("c7", immediate=2, lead=_16_NARROW, fields=(0,)),
    Form("f7", fields=range(2, 8), lead=_16),
    Form("f7", immediate=2, lead=_16_NARROW, fields=(0,)),
    Form("ff", fields=(0, 1), lead=_16),
    Form("05 0d 15 1d 25 2d 35 3d a9 b8-bf", Operand.NOTHING, 2, _16_NARROW),
    Form(f"{_PACKED} 1f 2a 2c 2d 40-4f 6e 6f 7e 7f a3 ab af b3 b6 b7 bb-bf d6", lead=_16, escape=ESCAPE),
    Form("12 13 16 17 2b e7", Operand.MEMORY, lead=_16, escape=ESCAPE),
    Form("50 d7", Operand.REGISTER, lead=_16, escape=ESCAPE),
    Form("70 a4 ac c2 c4 c6", immediate=1, lead=_16, escape=ESCAPE),
    Form("c5", Operand.REGISTER, 1, lead=_16, escape=ESCAPE),
    Form("71 72", Operand.REGISTER, 1, lead=_16, escape=ESCAPE, fields=(2, 4, 6)),
    Form("73", Operand.REGISTER, 1, lead=_16, escape=ESCAPE, fields=(2, 6)),
    Form("ba", immediate=1, lead=_16, escape=ESCAPE, fields=(4, 5, 6, 7)),
    Form("73", Operand.REGISTER, 1, lead=_16, escape=ESCAPE, fields=(3, 7)),
    Form("00-0b 10 14 15 17 1c-1e 20-25 28 29 2b 30-35 37-41 db-df f6", lead=_16, escape=ESCAPE_38),
    Form("08-0f 14-17 20-22 40-42 44 60-63 df", immediate=1, lead=_16, escape=ESCAPE_3A),
    # with a repeat prefix
    Form("10-12 2a 2c 2d 51 58 59 5a 5c-5f", lead=(*_F2, *_F3), escape=ESCAPE),
    Form("7c 7d d0 e6", lead=_F2, escape=ESCAPE),
    Form("16 52 53 5b 6f 7e 7f b8 bc bd e6", lead=_F3, escape=ESCAPE),
    Form("70 c2", immediate=1, lead=(*_F2, *_F3), escape=ESCAPE),
    Form("f6", lead=_F3, escape=ESCAPE_38),
    Form("a4 a5 aa ab", Operand.NOTHING, lead=_behind((b"\xf3", b"\x66\xf3"))),
    Form("90 c3", Operand.NOTHING, lead=_behind((b"\xf3",), NO)),
    # with other prefixes
    Form("03 2b 33 3b 89 8b", lead=_GS),
    Form("01 09 21 29 31 87", Operand.MEMORY, lead=_LOCK),
    Form("83", Operand.MEMORY, 1, lead=_LOCK, fields=range(7)),
    Form("81", Operand.MEMORY, 4, lead=_LOCK, fields=range(7)),
    Form("ff", Operand.MEMORY, lead=_LOCK, fields=(0, 1)),
    Form("ab b1 b3 bb c1", Operand.MEMORY, lead=_LOCK, escape=ESCAPE),
    Form("ba", Operand.MEMORY, 1, lead=_LOCK, escape=ESCAPE, fields=(5, 6, 7)),
    Form("1f", Operand.MEMORY, escape=ESCAPE, lead=_behind(tuple(b"\x66" * count + b"\x2e" for count in range(1, 7)), NO)),
    Form("1f", Operand.MEMORY, escape=ESCAPE, lead=_behind(tuple(b"\x66" * count for count in range(2, 8)), NO)),
    # VEX
    Form("60-69 6a-6d 74-76 d4 d5 d9 db e4 e5 eb ef f4-f6 f9-fe", lead=_vex(1, 1)),
    Form("28 29 6f 7f", lead=_vex(1, 1, source=False)),
    Form("6e 7e d6", lead=_vex(1, 1, long=(0,), source=False)),
    Form("e7", Operand.MEMORY, lead=_vex(1, 1, source=False)),
    Form("70", immediate=1, lead=_vex(1, 1, source=False)),
    Form("71 72", Operand.REGISTER, 1, fields=(2, 4, 6), lead=_vex(1, 1)),
    Form("73", Operand.REGISTER, 1, fields=(2, 6), lead=_vex(1, 1)),
    Form("73", Operand.REGISTER, 1, fields=(3, 7), lead=_vex(1, 1)),
    Form("6f 7f", lead=_vex(1, 2, source=False)),
    Form("7e", lead=_vex(1, 2, long=(0,), source=False)),
    Form("28 29", lead=_vex(1, 0, source=False)),
    Form("77", Operand.NOTHING, lead=_behind((b"\xc5\xf8", b"\xc5\xfc"), NO)),
    Form("57", lead=_vex(1, 0)),
    Form("00", lead=_vex(2, 1)),
    Form("18 58 59", lead=_vex(2, 1, wide=(0,), source=False)),
    Form("5a", Operand.MEMORY, lead=_vex(2, 1, wide=(0,), long=(1,), source=False)),
    Form("36", lead=_vex(2, 1, wide=(0,), long=(1,))),
    Form("00", immediate=1, lead=_vex(3, 1, wide=(1,), long=(1,), source=False)),
    Form("02", immediate=1, lead=_vex(3, 1, wide=(0,))),
    Form("0f 44", immediate=1, lead=_vex(3, 1)),
    Form("22", immediate=1, lead=_vex(3, 1, long=(0,))),
    Form("18 38 46", immediate=1, lead=_vex(3, 1, wide=(0,), long=(1,))),
    Form("39", immediate=1, lead=_vex(3, 1, wide=(0,), long=(1,), source=False)),
)
"""The most frequent first: they are tried in this order."""
