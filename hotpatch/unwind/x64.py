"""x64: walking with ``UNWIND_INFO``, and carrying it. Source: MS Learn, "x64 exception handling", "Unwind procedure"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine
from hotpatch.errors import NotHotpatchable, Refusal, Rule
from hotpatch.unwind import handlers, x64_epilogue
from hotpatch.unwind.model import (
    CarriedUnwind,
    LanguageHandler,
    Meaning,
    StackUnreadable,
    Unwinder,
    UnwindReference,
    Unwound,
    read_number,
    row_of,
)
from hotpatch.unwind.x64_info import REGISTERS, RUNTIME_FUNCTION, Flags, Op, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.address import Va
    from hotpatch.image import Image, UnwindEntry
    from hotpatch.unwind.model import Read
    from hotpatch.unwind.x64_info import UnwindInfo

_SLOT = 8
_LOW_HALF = (1 << 64) - 1
_CHAIN_LIMIT = 32
_MACHINE_FRAME_RSP = 24
"""Bytes from the pushed rip to the pushed rsp in a machine frame (rip, cs, rflags, rsp, ss)."""


class X64Unwinder(Unwinder):
    """x64."""

    machine = Machine.X64

    def carry(self, image: Image, entry: UnwindEntry) -> CarriedUnwind:
        """See :meth:`Unwinder.carry`."""
        if entry.info is None:
            raise _refused(image, entry, "has no unwind information", {})
        try:
            info = parse(entry.info, image.read)
        except StackUnreadable as error:
            raise _refused(image, entry, str(error), {}) from error
        if info.chained is not None:
            return _carry_chained(image, entry, info)
        if not info.has_handler:
            return CarriedUnwind(entry, image.read(entry.info, info.size), ())
        return handlers.carry(image, entry, entry.info, info.size, info.stack)

    def steps(self, image: Image, entry: UnwindEntry) -> Iterator[str]:
        """See :meth:`Unwinder.steps`."""
        if entry.info is None:
            return
        info = _parsed(image, entry.info)
        for code in info.codes:
            yield f"{code.text} {info.frame_register}-{info.frame_offset}" if code.op is Op.SET_FPREG else code.text
        if info.chained is not None:
            yield f"continues 0x{info.chained[0]:x}"

    def pdata(self, entries: Iterable[tuple[Rva, Rva, int]]) -> bytes:
        """See :meth:`Unwinder.pdata`."""
        return b"".join(RUNTIME_FUNCTION.pack(begin, end, info) for begin, end, info in sorted(entries))

    def leave_leaf(self, registers: Mapping[str, int], read: Read) -> dict[str, int]:
        """See :meth:`Unwinder.leave_leaf`."""
        return _return(dict(registers), read)

    def unwind(self, registers: Mapping[str, int], rva: Rva, image: Image, read: Read, base: Va, *, called: bool) -> Unwound:
        """See :meth:`Unwinder.unwind`."""
        entry = _entry_of(image, rva, called=called)
        if entry is None or entry.info is None:
            return Unwound(self.leave_leaf(registers, read), registers["rsp"])
        state = dict(registers)
        info = _parsed(image, entry.info)
        offset: int | None = rva - entry.range.start
        in_body = False
        if offset is not None and offset >= info.prologue:
            offset, in_body = None, True
            epilogue = None
            if (info.codes or info.chained) and rva in entry.range:
                epilogue = x64_epilogue.match(
                    base + rva, _frame_register(info, image), read, lambda va: _leaves_function(va - base, entry, image)
                )
            if epilogue is not None:
                return Unwound(_finish_epilogue(state, epilogue, read), registers["rsp"])
        establisher = _establisher(registers, info, offset, image)
        where = entry.info
        for _ in range(_CHAIN_LIMIT):
            gave_caller = _undo(state, info, offset, read)
            if gave_caller or info.chained is None:
                handler = _handler(image, entry, info, where) if in_body and info.handler is not None else None
                return Unwound(state if gave_caller else _return(state, read), establisher, handler, called=not gave_caller)
            where = Rva(info.chained[2])
            info, offset = _parsed(image, where), None
        raise StackUnreadable(f"unwind information at rva 0x{entry.info:x} is chained in a circle")


def _entry_of(image: Image, rva: Rva, *, called: bool) -> UnwindEntry | None:
    """The function-table entry of the code at ``rva``; a call that is its function's last instruction returns past the function's end."""
    entry = image.unwind_entry_at(Rva(rva - 1)) if called else None
    return entry or image.unwind_entry_at(rva)


def _parsed(image: Image, rva: int) -> UnwindInfo:
    """The unwind information at ``rva``, read once: walks come by the same frames again and again."""
    known = image.kept(_infos)
    found = known.get(rva)
    if found is None:
        found = known[rva] = parse(rva, image.read)
    return found


def _infos(_image: Image) -> dict[int, UnwindInfo]:
    return {}


def _establisher(registers: Mapping[str, int], info: UnwindInfo, offset: int | None, image: Image) -> int:
    """The address of the frame, before anything of it is undone."""
    for _ in range(_CHAIN_LIMIT):
        if info.frame_register is not None:
            set_yet = offset is None or any(code.op is Op.SET_FPREG and code.offset <= offset for code in info.codes)
            return registers[info.frame_register] - info.frame_offset if set_yet else registers["rsp"]
        if info.chained is None:
            break
        info, offset = _parsed(image, info.chained[2]), None
    return registers["rsp"]


def _handler(image: Image, entry: UnwindEntry, info: UnwindInfo, where: Rva) -> LanguageHandler | None:
    if info.handler is None:
        return None
    data = Rva(where + info.size + 4)
    asked = bool(info.flags & Flags.EHANDLER), bool(info.flags & Flags.UHANDLER)
    return LanguageHandler(Rva(info.handler), data, *asked, row_of(image, entry))


def _frame_register(info: UnwindInfo, image: Image) -> str | None:
    """The frame register of a function, which a fragment has from its primary."""
    for _ in range(_CHAIN_LIMIT):
        if info.frame_register is not None or info.chained is None:
            break
        info = _parsed(image, info.chained[2])
    return info.frame_register


def _leaves_function(rva: int, entry: UnwindEntry, image: Image) -> bool:
    """Whether a jump to ``rva`` leaves the function of ``entry``; one to its very start calls it anew."""
    target = image.unwind_entry_at(rva)
    return target is None or target.primary != entry.primary or rva == entry.primary


def _undo(state: dict[str, int], info: UnwindInfo, offset: int | None, read: Read) -> bool:
    """Undo what ``info`` describes, or the part of it before ``offset`` in the prologue; whether a machine frame gave the caller."""
    frame = state["rsp"]
    done = info.codes if offset is None else tuple([code for code in info.codes if code.offset <= offset])
    if info.frame_register is not None and (offset is None or any(code.op is Op.SET_FPREG for code in done)):
        frame = state[info.frame_register] - info.frame_offset
    for code in done:
        op = code.op  # compared one by one: sets ask members for their hash, and whole stacks are walked at each instruction
        if op is Op.PUSH_NONVOL:
            state[REGISTERS[code.info]] = read_number(read, state["rsp"], _SLOT)
            state["rsp"] += _SLOT
        elif op is Op.ALLOC_SMALL or op is Op.ALLOC_LARGE:
            state["rsp"] += code.value
        elif op is Op.SET_FPREG:
            state["rsp"] = frame
        elif op is Op.SAVE_NONVOL or op is Op.SAVE_NONVOL_FAR:
            state[REGISTERS[code.info]] = read_number(read, frame + code.value, _SLOT)
        elif op is Op.SAVE_XMM128 or op is Op.SAVE_XMM128_FAR:
            state[f"xmm{code.info}"] = read_number(read, frame + code.value, 2 * _SLOT)
        elif op is Op.SAVE_XMM:
            register = f"xmm{code.info}"
            state[register] = state.get(register, 0) & ~_LOW_HALF | read_number(read, frame + code.value, _SLOT)
        elif op is Op.SAVE_XMM_FAR:
            state.pop(f"xmm{code.info}", None)  # it is not certain where it lies
        elif op is Op.PUSH_MACHFRAME:
            at = state["rsp"] + (_SLOT if code.info else 0)
            state["rip"] = read_number(read, at, _SLOT)
            state["rsp"] = read_number(read, at + _MACHINE_FRAME_RSP, _SLOT)
            return True
    return False


def _finish_epilogue(state: dict[str, int], epilogue: x64_epilogue.Epilogue, read: Read) -> dict[str, int]:
    if epilogue.base is not None:
        state["rsp"] = state[epilogue.base] + epilogue.add
    for register in epilogue.pops:
        state[register] = read_number(read, state["rsp"], _SLOT)
        state["rsp"] += _SLOT
    return _return(state, read)


def _return(state: dict[str, int], read: Read) -> dict[str, int]:
    state["rip"] = read_number(read, state["rsp"], _SLOT)
    state["rsp"] += _SLOT
    return state


def _carry_chained(image: Image, entry: UnwindEntry, info: UnwindInfo) -> CarriedUnwind:
    if entry.info is None or info.chained is None:
        raise _refused(image, entry, "is not chained", {})
    begin, end, outer = info.chained
    primary = image.unwind_entry_at(begin)
    if primary is None or primary.range.start != begin:
        raise _refused(image, entry, f"continues an entry at 0x{begin:x} that does not exist", {"chained": begin})
    raw = image.read(entry.info, info.size + RUNTIME_FUNCTION.size)
    kind = FixupKind.ADDR32NB
    references = (
        UnwindReference(info.size, Rva(begin), 0, kind, Meaning.CODE),
        UnwindReference(info.size + 4, Rva(begin), end - begin, kind, Meaning.CODE),
        UnwindReference(info.size + 8, Rva(outer), 0, kind, Meaning.INFO),
    )
    return CarriedUnwind(entry, raw, references)


def _refused(image: Image, entry: UnwindEntry, problem: str, evidence: dict[str, object]) -> NotHotpatchable:
    function = image.function_at(entry.range.start)
    reason = f"its function-table entry {problem}; leave this function out of the patch"
    shown = {"bytes": RUNTIME_FUNCTION.pack(*entry.words).hex(), **evidence}
    return NotHotpatchable([Refusal(Rule.UNWIND, function.name if function else None, entry.range.start, reason, shown)])


def create() -> Unwinder:
    """Unwind data of x64."""
    return X64Unwinder()
