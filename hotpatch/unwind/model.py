"""What walking a stack and carrying unwind information give, the same for every machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import architecture
from hotpatch.errors import HotpatchError
from hotpatch.image import UnwindSteps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hotpatch.arch import FixupKind, Machine
    from hotpatch.image import Function, Image, UnwindEntry

    Read = Callable[[int, int], bytes]
    Locate = Callable[[Va], "Located | None"]

FRAME_LIMIT = 64
"""Frames that a walk gives up after."""


@dataclass(frozen=True, slots=True)
class Located:
    """What lies at an address of a process.

    Attributes:
        va: Of the module's first byte.
        image: Its image.
        original: Where in that module the code at the address was moved from, for a trampoline: the walk unwinds as if it stood there.
    """

    va: Va
    image: Image
    original: Va | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a walked stack; addresses are VAs.

    Attributes:
        pc: The next instruction: for a caller, the return address, or where it was interrupted.
        sp: The stack pointer as that instruction will find it.
        registers: What is known of the registers at that point.
        module: First byte of the module that ``pc`` lies in, ``None`` outside of every module.
        function: The function that ``pc`` lies in (for a caller: that the call lies in).
        called: Whether ``pc`` is a return address.
    """

    pc: Va
    sp: Va
    registers: Mapping[str, int]
    module: Va | None
    function: Function | None
    called: bool


class Meaning(StrEnum):
    """What a field of carried unwind information refers to."""

    CODE = "code"
    """``target`` is the start of one of the carried function's ranges; ``addend`` leads from there."""
    HANDLER = "handler"
    """``target`` is the entry of the language-specific handler, or of a block that it calls with the function's frame."""
    CALLEE = "callee"
    """``target`` is the entry of a function that the handler calls as such: a destructor."""
    DATA = "data"
    """``target`` is a type descriptor, of which the other image needs a copy."""
    INFO = "info"
    """``target`` is the unwind information of an entry that is carried too; ``addend`` leads to what stands behind its own."""


@dataclass(frozen=True, slots=True)
class UnwindReference:
    """A field of carried unwind information that must be bound anew: ``field = address of target + addend``.

    ``offset``: of the field in :attr:`CarriedUnwind.info`, in bytes. ``target``: RVA in the image that it was carried from.
    """

    offset: int
    target: Rva
    addend: int
    kind: FixupKind
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class CarriedUnwind:
    """Unwind information of one function-table entry, ready to be put into another image.

    Attributes:
        entry: The entry that it came from.
        info: The bytes of its unwind information, to be placed at a multiple of 4; empty where ``packed`` holds it all.
        references: Fields of ``info`` to bind.
        packed: The second word of an Arm64 entry that has no separate information.
    """

    entry: UnwindEntry
    info: bytes
    references: tuple[UnwindReference, ...]
    packed: int | None = None


@dataclass(frozen=True, slots=True)
class LanguageHandler:
    """What a frame's function-table entry names to be asked about exceptions.

    Attributes:
        entry: RVA of the handler.
        data: RVA of its data.
        exception: Whether it is asked while a handler is looked for.
        termination: Whether it is asked while the stack is unwound.
        row: RVA of the function-table entry.
    """

    entry: Rva
    data: Rva
    exception: bool
    termination: bool
    row: Rva


@dataclass(frozen=True, slots=True)
class Unwound:
    """One frame undone.

    Attributes:
        registers: The caller's.
        establisher: The frame's address, as handlers are told it: x64: the frame register's base or the stack pointer of the body;
            Arm64: the caller's stack pointer.
        handler: Where the frame's function has one and stands neither in its prologue nor in an epilogue.
        called: Whether the caller's program counter is a return address; where the frame is an interruption's, the instruction there has
            not run.
    """

    registers: dict[str, int]
    establisher: int
    handler: LanguageHandler | None = None
    called: bool = True


class StackUnreadable(HotpatchError):  # noqa: N818  it ends a walk, which is no error
    """Memory that a walk needs cannot be read, or unwind data makes no sense; the walk ends there."""


class Unwinder(ABC):
    """Unwind data of one machine: carried over, and walked. Stateless; get it with :func:`hotpatch.unwind.unwinder`."""

    machine: Machine

    @abstractmethod
    def carry(self, image: Image, entry: UnwindEntry) -> CarriedUnwind:
        """The unwind information of ``entry``, so that a copy of its code in another image can be unwound.

        Raises:
            NotHotpatchable: It holds something that cannot be carried (rule unwind-data).
        """

    def describe(self, image: Image, entry: UnwindEntry) -> UnwindSteps:
        """What ``entry`` says, for people."""
        try:
            return UnwindSteps(entry, tuple(self.steps(image, entry)))
        except StackUnreadable as error:
            return UnwindSteps(entry, (), str(error))

    @abstractmethod
    def steps(self, image: Image, entry: UnwindEntry) -> Iterator[str]:
        """See :class:`~hotpatch.image.UnwindSteps`.

        Raises:
            StackUnreadable: It is damaged, or of a form that is not known.
        """

    @abstractmethod
    def pdata(self, entries: Iterable[tuple[Rva, Rva, int]]) -> bytes:
        """A function table. Each row: begin, end, and the unwind information's RVA (Arm64: or the packed word)."""

    @abstractmethod
    def unwind(self, registers: Mapping[str, int], rva: Rva, image: Image, read: Read, base: Va, *, called: bool) -> Unwound:
        """Undo the frame that stands at ``rva`` of ``image`` mapped at ``base``; ``called``: a call has returned or will return there.

        Raises:
            StackUnreadable: The stack or the unwind data gives no caller.
        """

    @abstractmethod
    def leave_leaf(self, registers: Mapping[str, int], read: Read) -> dict[str, int]:
        """The caller's registers, for a function that has touched neither stack nor link register."""

    def walk(self, registers: Mapping[str, int], read: Read, locate: Locate, limit: int = FRAME_LIMIT) -> tuple[Frame, ...]:
        """Frames of a stopped thread, innermost first; nothing is guessed, so the walk ends where unwind data does.

        ``registers`` by lower-case name (pc and sp as the calling convention names them; on Arm64 ``vg``, the length of a scalable vector
        register in units of 8 bytes, where there are such and frames may hold them). ``read(va, size)`` gives memory;
        ``locate(va)`` the module there. The innermost frame may stand outside of every module (a system function just entered: its
        return address is still where the call left it); a caller outside of every module is the last frame. A return address of 0
        ends the walk.
        """
        convention = architecture(self.machine).convention
        current, called = dict(registers), False
        frames: list[Frame] = []
        for depth in range(limit):
            pc, sp = Va(current[convention.pc]), Va(current[convention.sp])
            if pc == 0 and depth:
                break
            where = locate(pc)
            frames.append(_frame(pc, sp, current, where, called=called))
            if where is None and depth:
                break
            try:
                if where is None:
                    unwound = Unwound(self.leave_leaf(current, read), sp)
                else:
                    stand = pc if where.original is None else where.original
                    unwound = self.unwind(current, Rva(stand - where.va), where.image, read, where.va, called=called)
            except HotpatchError:
                break
            following = unwound.registers[convention.sp]
            if (unwound.called and following < sp) or (following, unwound.registers[convention.pc], unwound.called) == (sp, pc, called):
                break  # the way leads up the stack, but that what was interrupted may have had another one
            current, called = unwound.registers, unwound.called
        return tuple(frames)


def _frame(pc: Va, sp: Va, registers: Mapping[str, int], where: Located | None, *, called: bool) -> Frame:
    if where is None:
        return Frame(pc, sp, dict(registers), None, None, called)
    rva = (pc if where.original is None else where.original) - where.va
    function = where.image.function_at(rva - 1 if called else rva)
    return Frame(pc, sp, dict(registers), where.va, function, called)


def row_of(image: Image, entry: UnwindEntry) -> Rva:
    """RVA of a function-table entry itself.

    Raises:
        StackUnreadable: The table does not hold it.
    """
    table, size = image.parsed.function_table, 4 * len(entry.words)
    raw, begin = image.read(table.start, table.size), entry.range.start.to_bytes(4, "little")
    at = next((at for at in range(0, len(raw), size) if raw[at : at + 4] == begin), None)
    if at is None:
        raise StackUnreadable(f"the function table has no entry for rva 0x{entry.range.start:x}")
    return Rva(table.start + at)


def read_number(read: Read, va: int, size: int) -> int:
    """The little-endian number of ``size`` bytes at ``va``.

    Raises:
        StackUnreadable: Not all of it can be read.
    """
    raw = read(va, size)
    if len(raw) < size:
        raise StackUnreadable(f"{size} bytes at 0x{va:x} cannot be read")
    return int.from_bytes(raw[:size], "little")
