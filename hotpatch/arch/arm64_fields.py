"""Arm64: addresses in fields, read and written exactly.

Source of the immediates: Arm Architecture Reference Manual (DDI 0487), C6.2, the instructions' own pages. Source of the kinds: PE format,
"COFF Relocations", Arm64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_words as a64
from hotpatch.arch.model import FixupKind
from hotpatch.errors import OutOfReach, Refusal, Refused, Rule

if TYPE_CHECKING:
    from hotpatch.arch.model import Columns

PAGE = 0x1000
"""Bytes of a page as ADRP counts them."""


@dataclass(frozen=True, slots=True)
class _Immediate:
    """Where an instruction word keeps its immediate.

    Attributes:
        mask: Bits of the immediate.
        tops: Values that the word's bits 31 to 24 may have.
    """

    mask: int
    tops: frozenset[int]


def _tops(kind: FixupKind) -> frozenset[int]:
    return frozenset(top for form in a64.PC_RELATIVE if form.kind is kind for top in form.tops)


_IMM19 = 0x00FFFFE0
_IMM21 = 0x60FFFFE0
_IMM12 = 0x003FFC00
_ADD = frozenset({a64.ADD_IMMEDIATE_TOP})
_MEMORY = frozenset(a64.UNSIGNED_IMMEDIATE_TOPS)

_IMMEDIATES = {
    FixupKind.BRANCH26: _Immediate(0x03FFFFFF, _tops(FixupKind.BRANCH26)),
    FixupKind.BRANCH19: _Immediate(_IMM19, _tops(FixupKind.BRANCH19)),
    FixupKind.BRANCH14: _Immediate(0x0007FFE0, _tops(FixupKind.BRANCH14)),
    FixupKind.LITERAL19: _Immediate(_IMM19, _tops(FixupKind.LITERAL19)),
    FixupKind.REL21: _Immediate(_IMM21, _tops(FixupKind.REL21)),
    FixupKind.PAGEBASE_REL21: _Immediate(_IMM21, _tops(FixupKind.PAGEBASE_REL21)),
    FixupKind.PAGEOFFSET_12A: _Immediate(_IMM12, _ADD),
    FixupKind.PAGEOFFSET_12L: _Immediate(_IMM12, _MEMORY),
    FixupKind.IMAGEREL_HIGH12A: _Immediate(_IMM12, _ADD),
    FixupKind.IMAGEREL_LOW12A: _Immediate(_IMM12, _ADD),
    FixupKind.IMAGEREL_LOW12L: _Immediate(_IMM12, _MEMORY),
}

_KEPT_BITS = {kind: ~immediate.mask & 0xFFFFFFFF for kind, immediate in _IMMEDIATES.items()}
_WORD = struct.Struct("<I")

_WORD_DISTANCE = {  # bits of the signed distance in words, place of its lowest bit
    FixupKind.BRANCH26: (26, 0),
    FixupKind.BRANCH19: (19, 5),
    FixupKind.LITERAL19: (19, 5),
    FixupKind.BRANCH14: (14, 5),
}


def _distance_layout(form: a64.Form | None) -> tuple[int, int, int] | None:
    if form is None or form.kind not in _WORD_DISTANCE:
        return None
    bits, place = _WORD_DISTANCE[form.kind]
    return place, (1 << bits) - 1, 1 << bits - 1


WORD_DISTANCE_OF_TOP = tuple(map(_distance_layout, a64.FORM_OF_TOP))
"""By the top byte of a word whose field holds a distance in words: place of the field, and, moved to bit 0, its bits and its sign's."""

_PAGE, _NEAR, _HIGH_OF_ADD = FixupKind.PAGEBASE_REL21, FixupKind.REL21, FixupKind.IMAGEREL_HIGH12A
_LOW_OF_ADD = (FixupKind.PAGEOFFSET_12A, FixupKind.IMAGEREL_LOW12A)
_LOW_OF_MEMORY = (FixupKind.PAGEOFFSET_12L, FixupKind.IMAGEREL_LOW12L)

_DATA_FORMATS = {FixupKind.ADDR64: "<Q", FixupKind.ADDR32NB: "<I", FixupKind.REL32: "<i"}


def _origin(kind: FixupKind, site: int, image_base: int) -> int:
    """What the number in a data field is relative to."""
    return {FixupKind.ADDR32NB: image_base, FixupKind.REL32: site + field_size(kind)}.get(kind, 0)


def encode(kind: FixupKind, word: int, site: int, target: int, image_base: int = 0) -> int | None:
    """``word`` changed to refer from ``site`` to ``target``, or ``None`` where range, alignment or page forbid it."""
    keep = word & ~_IMMEDIATES[kind].mask
    if kind in _WORD_DISTANCE:
        bits, place = _WORD_DISTANCE[kind]
        distance = target - site
        if distance & 3 or not -(1 << (bits + 1)) <= distance < 1 << (bits + 1):
            return None
        return keep | (distance >> 2 & (1 << bits) - 1) << place
    if kind in (FixupKind.REL21, FixupKind.PAGEBASE_REL21):
        distance = target - site if kind is FixupKind.REL21 else (target >> 12) - (site >> 12)
        if not -(1 << 20) <= distance < 1 << 20:
            return None
        return keep | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
    if kind is FixupKind.IMAGEREL_HIGH12A:
        high = target - image_base >> 12
        return keep | high << 10 if 0 <= high < 1 << 12 else None
    low = (target - image_base if kind in (FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L) else target) & PAGE - 1
    if kind in _LOW_OF_MEMORY:
        scale = a64.access_scale(word)
        if low & (1 << scale) - 1:
            return None
        low >>= scale
    return keep | low << 10


def decode(kind: FixupKind, word: int, site: int, image_base: int = 0) -> int:
    """What ``word`` at ``site`` refers to; a page for PAGEBASE_REL21, an offset in the page for the kinds with low bits."""
    if kind in _WORD_DISTANCE:
        bits, place = _WORD_DISTANCE[kind]
        return site + (a64.sign_extend(word >> place & (1 << bits) - 1, bits) << 2)
    if kind is _PAGE:
        return page(word, site)
    if kind is _NEAR:
        return site + a64.sign_extend((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
    if kind is _HIGH_OF_ADD:
        return image_base + (a64.immediate12(word) << 12)
    return a64.immediate12(word) << (a64.access_scale(word) if kind in _LOW_OF_MEMORY else 0)


def page(word: int, site: int) -> int:
    """The page that the ADRP ``word`` at ``site`` gives."""
    distance = word >> 3 & 0x1FFFFC | word >> 29 & 3
    return (site >> 12) + (distance ^ 1 << 20) - (1 << 20) << 12


def field_size(kind: FixupKind) -> int:
    """Bytes that a field of ``kind`` takes."""
    return struct.calcsize(_DATA_FORMATS[kind]) if kind in _DATA_FORMATS else a64.WORD


def bind(kind: FixupKind, field: bytes, site: int, target: int, image_base: int) -> bytes:
    """``field`` changed to refer from ``site`` to ``target``.

    Raises:
        OutOfReach: The distance, the alignment or the page cannot be encoded.
        Refused: ``field`` holds no instruction of ``kind``.
    """
    if kind in _DATA_FORMATS:
        try:
            return struct.pack(_DATA_FORMATS[kind], target - _origin(kind, site, image_base))
        except struct.error:
            raise out_of_reach(kind, field, site, target) from None
    word = encode(kind, _word_of(kind, field, site), site, target, image_base)
    if word is None:
        raise out_of_reach(kind, field, site, target)
    return struct.pack("<I", word)


def resolve(kind: FixupKind, field: bytes, site: int, image_base: int) -> int:
    """The inverse of :func:`bind`.

    Raises:
        Refused: ``field`` holds no instruction of ``kind``.
    """
    if kind in _DATA_FORMATS and len(field) == field_size(kind):
        (value,) = struct.unpack(_DATA_FORMATS[kind], field)
        return int(value) + _origin(kind, site, image_base)
    return decode(kind, _word_of(kind, field, site), site, image_base)


def blank(code: bytes, references: Columns) -> bytes:
    """``code`` with the immediates of ``references`` zeroed."""
    masked = bytearray(code)
    for at, (_, _, kind, _, _) in zip(*references, strict=True):
        kept = _KEPT_BITS.get(kind)
        if kept is None:
            masked[at : at + field_size(kind)] = bytes(field_size(kind))
        else:
            word = _WORD.unpack_from(masked, at)[0]
            _WORD.pack_into(masked, at, word & kept)
    return bytes(masked)


def out_of_reach(kind: FixupKind, field: bytes, site: int, target: int) -> OutOfReach:
    """The refusal of a target that ``field`` at ``site`` cannot express."""
    return OutOfReach(
        [
            Refusal(
                Rule.OUT_OF_REACH,
                None,
                None,
                f"a {kind} field at 0x{site:x} cannot express 0x{target:x}; "
                "place the patch nearer to its base, or the target at the alignment that it had",
                {"kind": str(kind), "bytes": field.hex(), "site": site, "target": target, "distance": target - site},
            )
        ]
    )


def _word_of(kind: FixupKind, field: bytes, site: int) -> int:
    immediate = _IMMEDIATES.get(kind)
    if immediate is None or len(field) != a64.WORD or field[3] not in immediate.tops or not _shift_fits(kind, field):
        raise Refused(
            [
                Refusal(
                    Rule.UNEXPECTED_BYTES,
                    None,
                    None,
                    f"the bytes at 0x{site:x} are no Arm64 field of kind {kind}; build the patch again from the images that it was made of",
                    {"kind": str(kind), "bytes": field.hex(), "site": site},
                )
            ]
        )
    return int.from_bytes(field, "little")


def _shift_fits(kind: FixupKind, field: bytes) -> bool:
    if kind is FixupKind.IMAGEREL_HIGH12A:
        return field[2] & 0xC0 == 0x40
    return kind not in _LOW_OF_ADD or not field[2] & 0xC0
