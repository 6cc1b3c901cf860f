"""Exceptions looked for a handler: the first of the two phases of structured exception handling.

The order is Windows': vectored handlers, then the handlers that unwind data names, innermost frame first, then the filter for what nobody
handles. Handlers are functions of the program and called as such; ``__C_specific_handler`` is the emulator's own
(:mod:`hotpatch.emulator.win32.exceptions`). Records and contexts lie on the thread's stack below what it uses. Source: MS Learn,
"Structured exception handling", "x64 exception handling", "ARM64 exception handling".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.emulator.context import context_layout
from hotpatch.emulator.exception_records import DISPATCHER, Area, Disposition, Flags, Record
from hotpatch.emulator.frames import Point, left, locate, seen, settled
from hotpatch.emulator.memory import AccessError
from hotpatch.emulator.threads import Ended, Faulted, Frame, GoOn, Interrupted, Invoke
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from hotpatch.emulator.binding import Context
    from hotpatch.emulator.frames import Seen
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome
    from hotpatch.errors import Fault

FRAMES = 1 << 16
"""Frames that a search or an unwinding gives up after."""
_CONTINUE_EXECUTION = -1
_CONTINUE_SEARCH = 0
"""What filters answer (excpt.h)."""


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that is under way.

    Attributes:
        record: What happened.
        fault: What it comes to where nobody handles it.
        point: Where it happened.
        saved: All registers of that moment.
        calls: The thread's calls of that moment.
        area: Its structures.
    """

    record: Record
    fault: Fault
    point: Point
    saved: Context
    calls: tuple[Frame, ...]
    area: Area

    @property
    def interrupted(self) -> Interrupted:
        """Where walks go on behind a handler that is asked about it."""
        return Interrupted(self.point.registers, self.point.calls, called=self.point.called)


def raise_exception(system: System, thread: GuestThread, record: Record, fault: Fault, point: Point) -> Outcome:
    """Dispatch ``record``, which happened at ``point``; ``fault`` is what it comes to where nobody handles it."""
    handlers = tuple(handler for _, handler in system.counters.vectored)
    if not handlers and not system.counters.top_filter and not _anybody(system, point):
        return Faulted(fault)
    layout = context_layout(system.machine)
    area = Area.below(point.registers[system.cpu.model.sp], layout)
    raised = Raised(record, fault, point, system.cpu.save(), thread.frames, area)
    try:
        system.guest_write(area.context, layout.pack(point.registers))
        system.guest_write(area.record, record.pack())
        system.guest_write(area.pointers, area.record.to_bytes(8, "little") + area.context.to_bytes(8, "little"))
    except AccessError:
        return Faulted(fault)
    system.cpu.set(system.cpu.model.sp, area.va)
    system.event("exception", code=int(record.code), address=record.address, pc=point.registers[system.cpu.model.pc])
    return _ask(system, thread, raised, handlers)


def _anybody(system: System, point: Point) -> bool:
    """Whether any frame has a handler to ask."""
    at: Point | None = point
    for _ in range(FRAMES):
        frame = next_frame(system, at)
        if frame is None:
            return False
        if frame.unwound.handler is not None and frame.unwound.handler.exception:
            return True
        at = frame.following
    return False


def next_frame(system: System, point: Point | None) -> Seen | None:
    """The frame at ``point``, or the first one behind it that lies in a module; ``None`` at the stack's end.

    A thread that was led to where no code is has come there by a call.
    """
    point = None if point is None else settled(system, point)
    try:
        if point is not None and not point.called and locate(system, point.registers[system.cpu.model.pc]) is None:
            point = settled(system, left(system, point))
        return None if point is None else seen(system, point)
    except HotpatchError:
        return None


@dataclass(frozen=True, slots=True)
class Vectored:
    """A vectored handler has answered; ``rest`` are asked next."""

    raised: Raised
    rest: tuple[int, ...]

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Go on as it says."""
        if signed(value) == _CONTINUE_EXECUTION:
            return continued(system, thread, self.raised)
        return _ask(system, thread, self.raised, self.rest)


def _ask(system: System, thread: GuestThread, raised: Raised, handlers: tuple[int, ...]) -> Outcome:
    if handlers:
        return Invoke(handlers[0], (raised.area.pointers,), Vectored(raised, handlers[1:]), interrupted=raised.interrupted)
    return Search(raised, raised.point, FRAMES).go_on(system, thread)


@dataclass(frozen=True, slots=True)
class Search:
    """A frame's handler has been asked; ``point`` is the next frame."""

    raised: Raised
    point: Point
    left: int

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Go on as it says; an answer that makes no sense is taken for a no."""
        if value & 0xFFFF_FFFF == Disposition.CONTINUE_EXECUTION:
            return continued(system, thread, self.raised)
        return self.go_on(system, thread)

    def go_on(self, system: System, thread: GuestThread) -> Outcome:
        """Ask the next frame that has a handler."""
        at: Point | None = self.point
        for count in range(self.left, 0, -1):
            frame = next_frame(system, at)
            if frame is None:
                break
            handler = frame.unwound.handler
            if handler is not None and handler.exception:
                describe(system, frame, self.raised.area, self.raised.area.context, 0)
                area = self.raised.area
                arguments = (area.record, frame.unwound.establisher, area.context, area.dispatcher)
                then = Search(self.raised, frame.following, count - 1)
                return Invoke(frame.where.va + handler.entry, arguments, then, interrupted=self.raised.interrupted)
            at = frame.following
        return self._unhandled(system, thread)

    def _unhandled(self, system: System, thread: GuestThread) -> Outcome:
        top = system.counters.top_filter
        if top:
            return Invoke(top, (self.raised.area.pointers,), TopFilter(self.raised), interrupted=self.raised.interrupted)
        return unhandled(system, thread, self.raised)


@dataclass(frozen=True, slots=True)
class TopFilter:
    """The filter of SetUnhandledExceptionFilter has answered."""

    raised: Raised

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """-1 goes on, 0 is a fault as without a filter, 1 ends the process with the exception's code."""
        answer = signed(value)
        if answer == _CONTINUE_EXECUTION:
            return continued(system, thread, self.raised)
        if answer == _CONTINUE_SEARCH:
            return unhandled(system, thread, self.raised)
        system.counters.exit_code = self.raised.record.code
        return Ended.PROCESS


def unhandled(system: System, thread: GuestThread, raised: Raised) -> Outcome:
    """Back to where it happened: that is what the fault shows."""
    system.cpu.restore(raised.saved)
    thread.frames = raised.calls
    return Faulted(raised.fault)


def continued(system: System, thread: GuestThread, raised: Raised) -> Outcome:
    """Go on where the context record says, as handlers may have changed it."""
    if raised.record.flags & Flags.NONCONTINUABLE:
        problem = "a handler wants to go on after an exception that does not allow it"
        return unhandled(system, thread, replace(raised, fault=replace(raised.fault, detail=problem)))
    layout = context_layout(system.machine)
    registers = layout.unpack(system.memory.read(raised.area.context, layout.size))
    return go_on(system, thread, Point(registers, raised.calls))


def go_on(system: System, thread: GuestThread, point: Point) -> Outcome:
    """Let the thread go on at ``point``."""
    for name, value in point.registers.items():
        system.cpu.set(name, value)
    thread.frames = point.calls
    return GoOn()


def describe(system: System, frame: Seen, area: Area, context: int, target: int) -> None:
    """Write the dispatcher context for a frame whose handler is about to be asked."""
    handler = frame.unwound.handler
    if handler is None:
        return
    layout, base = area.layout, frame.where.va
    raw = bytearray(layout.dispatcher_size)
    words = {
        "ControlPc": frame.stand,
        "ImageBase": base,
        "FunctionEntry": base + handler.row,
        "EstablisherFrame": frame.unwound.establisher,
        "TargetPc": target,
        "ContextRecord": context,
        "LanguageHandler": base + handler.entry,
        "HandlerData": base + handler.data,
    }
    if layout.nonvolatile:
        words["NonVolatileRegisters"] = area.nonvolatile
        raw[DISPATCHER["ControlPcIsUnwound"]] = frame.point.called
        registers = (frame.point.registers.get(name, 0) & (1 << 64) - 1 for name in layout.nonvolatile)
        system.guest_write(area.nonvolatile, b"".join(value.to_bytes(8, "little") for value in registers))
    for name, value in words.items():
        raw[DISPATCHER[name] : DISPATCHER[name] + 8] = value.to_bytes(8, "little")
    raw[DISPATCHER["ScopeIndex"] : DISPATCHER["ScopeIndex"] + 4] = frame.point.scope.to_bytes(4, "little")
    system.guest_write(area.dispatcher, bytes(raw))


def signed(value: int) -> int:
    """A function's 32-bit result as a signed number."""
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
