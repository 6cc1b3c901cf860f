"""Arm64 unwind data of one function-table entry, packed or not, brought to one form.

Source: MS Learn, "ARM64 exception handling": ``.xdata`` records, "Packed unwind data".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from hotpatch.unwind.arm64_codes import END, Code, Op, decode, floating, integer
from hotpatch.unwind.model import StackUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable

_WORD = struct.Struct("<I")
_INSTRUCTION = 4
_CODE_LIMIT = 1024
_PACKED, _FRAGMENT = 1, 2
_LARGE_LOCALS = 4080
_SMALL_CHAIN = 512


@dataclass(frozen=True)
class Epilogue:
    """Start, in bytes from the fragment's start, and its codes up to ``end``."""

    start: int
    codes: tuple[Code, ...]

    @cached_property
    def instructions(self) -> int:
        """Its instructions, the return or tail call among them."""
        return _until_end(self.codes, with_return=True)


@dataclass(frozen=True)
class Record:
    """What a function-table entry says.

    Attributes:
        prologue: Codes that undo the prologue, in undoing order, up to ``end``.
        epilogues: In no order.
        size: Bytes of the ``.xdata`` record up to the handler's RVA; 0 where packed.
        handler: Its RVA, if there is one.
    """

    prologue: tuple[Code, ...]
    epilogues: tuple[Epilogue, ...]
    size: int = 0
    handler: int | None = None

    @property
    def stack(self) -> int:
        """Bytes of stack that the prologue takes."""
        return sum(code.amount for code in self.prologue if code.op in {Op.ALLOC, Op.SAVE_MOVING})

    def pending(self, offset: int) -> tuple[Code, ...]:
        """The codes that are to be undone ``offset`` bytes into the fragment."""
        done = offset // _INSTRUCTION
        if done < self._entered:
            return _skip(self.prologue, self._entered - done)
        for epilogue in self.epilogues:
            executed = (offset - epilogue.start) // _INSTRUCTION
            if offset >= epilogue.start and executed < epilogue.instructions:
                return _skip(epilogue.codes, executed)
        return self.prologue

    @cached_property
    def _entered(self) -> int:
        """Instructions of the prologue."""
        return _until_end(self.prologue, with_return=False)


def _until_end(codes: tuple[Code, ...], *, with_return: bool) -> int:
    """Instructions of a sequence: up to ``end`` or ``end_c``; an epilogue that ends in ``end`` has its return too."""
    count = 0
    for code in codes:
        if code.op is Op.END:
            return count + (1 if with_return else 0)
        if code.op is Op.END_C:
            return count
        count += code.instructions
    return count


def _skip(codes: tuple[Code, ...], count: int) -> tuple[Code, ...]:
    """``codes`` without the first ones that stand for ``count`` instructions."""
    at = 0
    while count > 0 and at < len(codes):
        count -= codes[at].instructions
        at += 1
    return codes[at:]


def unpacked(rva: int, read: Callable[[int, int], bytes]) -> Record:
    """The ``.xdata`` record at ``rva``.

    Raises:
        StackUnreadable: It is damaged or of a version that is not known.
    """
    header = _word(rva, read)
    at = rva + 4
    length, version = (header & 0x3FFFF) * _INSTRUCTION, header >> 18 & 3
    has_handler, single = header >> 20 & 1, header >> 21 & 1
    count, words = header >> 22 & 0x1F, header >> 27
    if version:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} has version {version}; 0 is known")
    if not count and not words:
        extension = _word(at, read)
        count, words, at = extension & 0xFFFF, extension >> 16 & 0xFF, at + 4
    scopes = [] if single else [_word(at + 4 * index, read) for index in range(count)]
    at += 4 * len(scopes)
    raw = read(at, 4 * words)
    at += 4 * words
    handler = _word(at, read) if has_handler else None
    if single:
        codes = _sequence(raw, count)
        last = Epilogue(0, codes)
        epilogues = [Epilogue(length - last.instructions * _INSTRUCTION, codes)]
    else:
        epilogues = [Epilogue((scope & 0x3FFFF) * _INSTRUCTION, _epilogue(raw, scope >> 22)) for scope in scopes]
    return Record(_sequence(raw, 0), tuple(epilogues), at - rva, handler)


def _word(rva: int, read: Callable[[int, int], bytes]) -> int:
    raw = read(rva, _WORD.size)
    if len(raw) < _WORD.size:
        raise StackUnreadable(f"unwind information at rva 0x{rva:x} is past the end of the image")
    value: int = _WORD.unpack(raw)[0]
    return value


def _sequence(raw: bytes, at: int, *, whole: bool = True) -> tuple[Code, ...]:
    """The codes from byte ``at`` up to and with ``end``; where it need not be ``whole``, the end of ``raw`` stands for that."""
    found: list[Code] = []
    while len(found) < _CODE_LIMIT:
        if found and at == len(raw) and not whole:
            return (*found, END)
        code = decode(raw, at)
        found.append(code)
        if code.op is Op.END:
            return tuple(found)
        at += code.size
    raise StackUnreadable("unwind codes end without an end code")


def _epilogue(raw: bytes, at: int) -> tuple[Code, ...]:
    """The codes of an epilogue that begin at byte ``at``.

    Microsoft's compiler leaves its ``end`` out where it would need a word more: what runs to the end of the record's words ends there.
    """
    return _sequence(raw, at, whole=False)


@lru_cache(maxsize=1024)
def packed(word: int) -> Record:
    """The canonical prologue and epilogue that a packed word stands for.

    Raises:
        StackUnreadable: The word contradicts itself.
    """
    kind, length = word & 3, (word >> 2 & 0x7FF) * _INSTRUCTION
    floats, integers = word >> 13 & 7, word >> 16 & 0xF
    homes, chain, frame = word >> 20 & 1, word >> 21 & 3, (word >> 23) * 16
    saves, saved = _register_saves(floats, integers, homes, chain)
    local = frame - saved
    if integers > 10 or local < 0:
        raise StackUnreadable(f"packed unwind word 0x{word:x} contradicts itself")
    order = [*([Code(Op.SIGN, 1)] if chain == 2 else []), *saves]
    homing = [Code(Op.NOP, 1)] * 4 if homes and saved else []
    frame_codes, sets_frame = _locals(local, chained=chain in {2, 3})
    prologue = (*reversed([*order, *homing, *frame_codes, *sets_frame]), END)
    if kind == _FRAGMENT:
        return Record((Code(Op.END_C, 1), *prologue), ())
    epilogue = (*reversed([*order, *frame_codes]), END)
    start = length - len(epilogue) * _INSTRUCTION
    return Record(prologue, (Epilogue(start, epilogue),))


def _register_saves(floats: int, integers: int, homes: int, chain: int) -> tuple[list[Code], int]:
    """Codes of the register saves in execution order, and the bytes of their area (step 0 and steps 2 to 4 of the table)."""
    with_link = chain == 1
    integer_size = integers * 8 + (8 if with_link else 0)
    float_size = (floats + 1) * 8 if floats else 0
    if not integer_size and not float_size:
        return [], 0  # homes lie in the one allocation then: nothing precedes it
    area = (integer_size + float_size + 64 * homes + 15) & ~15
    rows: list[tuple[str, ...]] = [integer(19 + index, min(2, integers - index)) for index in range(0, integers, 2)]
    if with_link:
        if integers % 2:
            rows[-1] = (*rows[-1], "x30")
        else:
            rows.append(("x30",))
    count = floats + 1 if floats else 0
    rows += [floating(8 + index, min(2, count - index)) for index in range(0, count, 2)]
    codes: list[Code] = []
    offset = 0
    for index, registers in enumerate(rows):
        if index or registers == ("x19", "x30"):
            if not index:  # this pair has no form that moves sp, so sp moves first
                codes.append(Code(Op.ALLOC, 1, area))
            codes.append(Code(Op.SAVE, 2, offset, registers))
        else:
            codes.append(Code(Op.SAVE_MOVING, 2, area, registers))
        offset += 8 * len(registers)
    return codes, area


def _locals(size: int, *, chained: bool) -> tuple[list[Code], list[Code]]:
    """Codes of step 6 in execution order: the allocation with the frame record, and what sets x29 (absent from the epilogue)."""
    if chained:
        if size <= _SMALL_CHAIN:
            return [Code(Op.SAVE_MOVING, 1, size, integer(29))], [Code(Op.SET_FP, 1)]
        return [*_allocations(size), Code(Op.SAVE, 1, 0, integer(29))], [Code(Op.SET_FP, 1)]
    return _allocations(size), []


def _allocations(size: int) -> list[Code]:
    if size <= _LARGE_LOCALS:
        return [Code(Op.ALLOC, 2, size)] if size else []
    return [Code(Op.ALLOC, 2, _LARGE_LOCALS), Code(Op.ALLOC, 2, size - _LARGE_LOCALS)]
