"""Arm64: walking with packed and full unwind data, and carrying it. Source: MS Learn, "ARM64 exception handling"."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.errors import NotHotpatchable, Refusal, Rule
from hotpatch.unwind import handlers
from hotpatch.unwind.arm64_codes import Op
from hotpatch.unwind.arm64_record import Record, packed, unpacked
from hotpatch.unwind.arm64_undo import VA_BITS, Caller, undo
from hotpatch.unwind.model import CarriedUnwind, LanguageHandler, StackUnreadable, Unwinder, Unwound, row_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.address import Va
    from hotpatch.image import Image, UnwindEntry
    from hotpatch.unwind.model import Read

_ENTRY = struct.Struct("<II")
_WORD = struct.Struct("<I")
_RET = 0xD65F03C0
_ADD_SP, _SUB_SP, _IMMEDIATE_MASK = 0x910003FF, 0xD10003FF, 0xFFC003FF
"""``add sp, sp, #imm12`` and ``sub sp, sp, #imm12``, and the mask that leaves the immediate out."""
_SHOWN = 16
"""Bytes of an ``.xdata`` record that a refusal shows."""
_KIND = 3
_FORWARDED = 3
_PUSHED_COOKIE = 16
"""Bytes that Microsoft's ``__security_push_cookie``, which prologues call, takes of the stack below what their unwind codes tell."""


class Arm64Unwinder(Unwinder):
    """Arm64."""

    machine = Machine.ARM64

    def carry(self, image: Image, entry: UnwindEntry) -> CarriedUnwind:
        """See :meth:`Unwinder.carry`."""
        try:
            word = _word(image, entry)
            if word & _KIND:
                packed(word)
                return CarriedUnwind(entry, b"", (), word)
            record = unpacked(word, image.read)
        except StackUnreadable as error:
            raise _refused(image, entry, str(error)) from error
        if record.handler is None:
            return CarriedUnwind(entry, image.read(word, record.size), ())
        return handlers.carry(image, entry, word, record.size, record.stack + _PUSHED_COOKIE)

    def steps(self, image: Image, entry: UnwindEntry) -> Iterator[str]:
        """See :meth:`Unwinder.steps`."""
        word = _word(image, entry)
        record = packed(word) if word & _KIND else _unpacked(image, word)
        yield from (code.text for code in record.prologue)
        for epilogue in record.epilogues:
            yield f"epilogue +{epilogue.start}: {', '.join(code.text for code in epilogue.codes)}"

    def pdata(self, entries: Iterable[tuple[Rva, Rva, int]]) -> bytes:
        """See :meth:`Unwinder.pdata`."""
        return b"".join(_ENTRY.pack(begin, word) for begin, _, word in sorted(entries))

    def leave_leaf(self, registers: Mapping[str, int], read: Read) -> dict[str, int]:
        """See :meth:`Unwinder.leave_leaf`."""
        state = dict(registers)
        state["pc"] = state["x30"] & VA_BITS
        return state

    def unwind(self, registers: Mapping[str, int], rva: Rva, image: Image, read: Read, base: Va, *, called: bool) -> Unwound:
        """See :meth:`Unwinder.unwind`."""
        if called:  # the call itself is in no epilogue, and in this function, whatever follows it
            rva = Rva(rva - _WORD.size)
        entry = image.unwind_entry_at(rva)
        if entry is None:
            return Unwound(self.leave_leaf(registers, read), registers["sp"])
        state = dict(registers)
        word = _word(image, entry)
        record = packed(word) if word & _KIND else _unpacked(image, word)
        offset = rva - entry.range.start
        pending = record.pending(offset)
        if called and pending is not record.prologue:
            # A call in a prologue or epilogue (__security_pop_cookie) is one of its instructions, and is done once it has returned.
            pending = record.pending(offset + _WORD.size)
        handler = None
        if record.handler is not None and pending is record.prologue:
            data = Rva(word + record.size + _WORD.size)
            handler = LanguageHandler(Rva(record.handler), data, exception=True, termination=True, row=row_of(image, entry))
        caller = undo(state, pending, read)
        if caller is Caller.LINKED:
            if all(code.op is Op.END for code in (*record.prologue, *pending)):
                state["sp"] += _moves_before_return(image.read(rva, entry.range.end - rva))
            state = self.leave_leaf(state, read)
        return Unwound(state, state["sp"], handler, called=caller is not Caller.INTERRUPTED)


def _word(image: Image, entry: UnwindEntry) -> int:
    """The entry's second word, or that of the entry that it points at."""
    word = entry.words[1]
    if word & _KIND != _FORWARDED:
        return word
    word = image.u32((word & ~_KIND) + 4)
    if word & _KIND == _FORWARDED:
        raise StackUnreadable(f"the function-table entry at rva 0x{entry.range.start:x} points in a circle")
    return word


def _unpacked(image: Image, rva: int) -> Record:
    """The ``.xdata`` record at ``rva``, read once: walks come by the same frames again and again."""
    known = image.kept(_records)
    found = known.get(rva)
    if found is None:
        found = known[rva] = unpacked(rva, image.read)
    return found


def _records(_image: Image) -> dict[int, Record]:
    return {}


def _moves_before_return(code: bytes) -> int:
    """Bytes that a function without a frame still moves sp by: Microsoft's ``__security_pop_cookie`` frees 16 bytes of its caller's."""
    moved = 0
    for (word,) in _WORD.iter_unpack(code[: len(code) // _WORD.size * _WORD.size]):
        if word == _RET:
            return moved
        if word & _IMMEDIATE_MASK == _ADD_SP:
            moved += word >> 10 & 0xFFF
        elif word & _IMMEDIATE_MASK == _SUB_SP:
            moved -= word >> 10 & 0xFFF
    return 0


def _refused(image: Image, entry: UnwindEntry, problem: str) -> NotHotpatchable:
    function = image.function_at(entry.range.start)
    reason = f"its function-table entry cannot be carried ({problem}); leave this function out of the patch"
    evidence: dict[str, object] = {"bytes": _ENTRY.pack(*entry.words).hex()}
    if entry.words[1] & _KIND == 0:
        evidence |= {"info": entry.words[1], "info_bytes": image.read(entry.words[1], _SHOWN).hex()}
    return NotHotpatchable([Refusal(Rule.UNWIND, function.name if function else None, entry.range.start, reason, evidence)])


def create() -> Unwinder:
    """Unwind data of Arm64."""
    return Arm64Unwinder()
