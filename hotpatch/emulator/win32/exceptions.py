"""Structured exceptions: raising, the C run time's handler, unwinding, filters, and walking the stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator import delayed, faults, frames, unwinding
from hotpatch.emulator.context import context_layout
from hotpatch.emulator.exception_records import (
    DISPATCHER,
    EXCEPTION_RECORD,
    EXECUTE_HANDLER,
    PARAMETERS,
    SCOPE,
    Disposition,
    Flags,
    Record,
    Status,
    pointers_of,
)
from hotpatch.emulator.exceptions import go_on, signed
from hotpatch.emulator.exceptions import raise_exception as dispatch
from hotpatch.emulator.frames import Point, standing
from hotpatch.emulator.threads import Invoke
from hotpatch.emulator.win32.call import Call, Dword, ProgramFaultError, Table, Word
from hotpatch.errors import FaultKind
from hotpatch.unwind import row_of, unwinder

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome

TABLE = Table()


@TABLE.provide("RaiseException")
def raise_exception(call: Call, code: Dword, flags: Dword, count: Dword, arguments: Word) -> Outcome:
    """RaiseException; goes on behind the call where a handler says so."""
    parameters = tuple(call.get64(arguments + 8 * index) for index in range(min(count, PARAMETERS))) if arguments else ()
    return _raise(call, Record(code & ~(1 << 28), Flags(flags & Flags.NONCONTINUABLE), call.system.cpu.pc, parameters))


@TABLE.provide("RtlRaiseException")
def rtl_raise_exception(call: Call, record: Word) -> Outcome:
    """RtlRaiseException; the address is the caller's, whatever the record says."""
    given = Record.unpack(call.read(record, EXCEPTION_RECORD.size))
    caller = standing(call.system, call.thread).registers[call.system.cpu.model.pc]
    return _raise(call, replace(given, address=caller))


def _raise(call: Call, record: Record) -> Outcome:
    system, thread = call.system, call.thread
    pc = Va(system.cpu.pc)
    detail = f"RaiseException: the program raises exception 0x{record.code:08x}, and nothing handles it"
    fault = faults.describe(system, thread, FaultKind.EXCEPTION, pc, None, detail, pc)
    if (label := delayed.missing(call, record)) is not None:
        detail = f"the program's delay-load helper looks for {label}, which no module provides, and nothing handles that"
        fault = replace(fault, kind=FaultKind.UNKNOWN_IMPORT, function=label, detail=detail)
    return dispatch(system, thread, record, fault, standing(system, thread))


# the C run time's handler -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scopes:
    """``__C_specific_handler`` at work on one frame."""

    record: int
    establisher: int
    dispatcher: int

    def go_on(self, system: System, thread: GuestThread) -> Outcome:
        """Serve the scopes from the dispatcher context's index on."""
        record = Record.unpack(system.guest_read(self.record, EXCEPTION_RECORD.size))
        base, data, stand = self._word(system, "ImageBase"), self._word(system, "HandlerData"), self._stand(system)
        count = int.from_bytes(system.guest_read(data, 4), "little")
        for index in range(self._index(system), count):
            begin, end, handler, target = SCOPE.unpack(system.guest_read(data + 4 + SCOPE.size * index, SCOPE.size))
            if not begin <= stand < end:
                continue
            if not record.flags & (Flags.UNWINDING | Flags.EXIT_UNWIND):
                if target and handler == EXECUTE_HANDLER:
                    return self.accept(system, thread, index)
                if target:
                    return self._call(system, base + handler, pointers_of(self.dispatcher), Filter(self, index))
                continue
            goal = self._word(system, "TargetPc") - base
            if record.flags & Flags.TARGET_UNWIND and (target == goal if target else begin <= goal < end):
                break  # the frame is kept, and what is outside of this scope with it
            if not target:
                self._set_index(system, index + 1)
                return self._call(system, base + handler, 1, Finally(self))
        return Disposition.CONTINUE_SEARCH

    def accept(self, system: System, thread: GuestThread, index: int) -> Outcome:
        """Unwind to the frame and go on in the except block of a scope."""
        base, data = self._word(system, "ImageBase"), self._word(system, "HandlerData")
        target = SCOPE.unpack(system.guest_read(data + 4 + SCOPE.size * index, SCOPE.size))[3]
        record = Record.unpack(system.guest_read(self.record, EXCEPTION_RECORD.size))
        return unwinding.unwind(system, thread, self.establisher, base + target, record.code, record)

    def _call(self, system: System, va: int, first: int, then: Filter | Finally) -> Outcome:
        """Call a filter or a finally block with the base of its parent's variables."""
        layout = context_layout(system.machine)
        if layout.funclet_base is None:
            return Invoke(va, (first, self.establisher), then)
        place = self._word(system, "NonVolatileRegisters")
        values = {name: system.guest_word(place + 8 * index) for index, name in enumerate(layout.nonvolatile)}
        base = values.pop(layout.funclet_base)
        integers = tuple((name, value) for name, value in values.items() if name in system.convention.preserved)
        return Invoke(va, (first, base), then, registers=integers)

    def _word(self, system: System, name: str) -> int:
        return system.guest_word(self.dispatcher + DISPATCHER[name])

    def _index(self, system: System) -> int:
        return int.from_bytes(system.guest_read(self.dispatcher + DISPATCHER["ScopeIndex"], 4), "little")

    def _set_index(self, system: System, index: int) -> None:
        system.guest_write(self.dispatcher + DISPATCHER["ScopeIndex"], index.to_bytes(4, "little"))

    def _stand(self, system: System) -> int:
        """RVA by which scopes are chosen: of the instruction, or of the call that a return address follows."""
        layout = context_layout(system.machine)
        rva = self._word(system, "ControlPc") - self._word(system, "ImageBase")
        if layout.nonvolatile and system.guest_read(self.dispatcher + DISPATCHER["ControlPcIsUnwound"], 1)[0]:
            rva -= layout.call_size
        return rva


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter has answered for scope ``index``."""

    scopes: Scopes
    index: int

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Negative: go on where it happened; positive: handle it here; 0: the next scope."""
        answer = signed(value)
        if answer < 0:
            return Disposition.CONTINUE_EXECUTION
        if answer > 0:
            return self.scopes.accept(system, thread, self.index)
        self.scopes._set_index(system, self.index + 1)
        return self.scopes.go_on(system, thread)


@dataclass(frozen=True, slots=True)
class Finally:
    """A finally block has run."""

    scopes: Scopes

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """The next scope."""
        return self.scopes.go_on(system, thread)


@TABLE.provide("__C_specific_handler")
def c_specific_handler(call: Call, record: Word, establisher: Word, context: Word, dispatcher: Word) -> Outcome:
    """The handler of ``__try``: filters while a handler is looked for, finally blocks while the stack is unwound."""
    return Scopes(record, establisher, dispatcher).go_on(call.system, call.thread)


@TABLE.provide("__CxxFrameHandler3", "__CxxFrameHandler4", "__CxxFrameHandler2")
def cxx_frame_handler(call: Call, record: Word) -> int:
    """The handler of C++ functions: asked only when an exception is dispatched through one."""
    raise ProgramFaultError(FaultKind.EXCEPTION, "an exception reaches a C++ function, and the emulator handles no C++ exceptions")


# unwinding --------------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("RtlUnwindEx", "RtlUnwind")
def rtl_unwind(call: Call, target: Word, pc: Word, record: Word, value: Word) -> Outcome:
    """RtlUnwindEx, RtlUnwind: leave frames up to ``target`` and go on at ``pc``."""
    given = (
        Record.unpack(call.read(record, EXCEPTION_RECORD.size)) if record else Record(Status.UNWIND, Flags.UNWINDING, call.system.cpu.pc)
    )
    return unwinding.unwind(call.system, call.thread, target, pc, value, given)


@TABLE.provide("RtlCaptureContext")
def rtl_capture_context(call: Call, context: Word) -> int:
    """RtlCaptureContext: the caller's registers as the call will leave them."""
    call.write(context, context_layout(call.system.machine).pack(standing(call.system, call.thread).registers))
    return 0


@TABLE.provide("RtlRestoreContext")
def rtl_restore_context(call: Call, context: Word, record: Word) -> Outcome:
    """RtlRestoreContext, without a record that asks for more."""
    layout = context_layout(call.system.machine)
    return go_on(call.system, call.thread, Point(layout.unpack(call.read(context, layout.size)), call.thread.frames))


@TABLE.provide("RtlLookupFunctionEntry")
def rtl_lookup_function_entry(call: Call, pc: Word, base: Word, history: Word) -> int:
    """RtlLookupFunctionEntry: of the base code where ``pc`` lies in a trampoline."""
    where = frames.locate(call.system, pc)
    if where is None:
        return 0
    call.put64(base, where.va)
    entry = where.image.unwind_entry_at((pc if where.original is None else where.original) - where.va)
    return 0 if entry is None else where.va + row_of(where.image, entry)


@TABLE.provide("RtlVirtualUnwind")
def rtl_virtual_unwind(
    call: Call, kind: Dword, base: Word, pc: Word, entry: Word, context: Word, data: Word, establisher: Word, pointers: Word
) -> int:
    """RtlVirtualUnwind of a frame; gives its handler where it has one of ``kind`` (1: exceptions, 2: unwinding)."""
    system, layout = call.system, context_layout(call.system.machine)
    where = frames.locate(system, pc)
    if where is None:
        return 0
    stand = Rva((pc if where.original is None else where.original) - where.va)
    registers = layout.unpack(call.read(context, layout.size))
    walker = unwinder(system.machine)
    found = walker.unwind(registers, stand, where.image, lambda va, size: frames.read(system, va, size), where.va, called=False)
    call.write(context, layout.pack(found.registers))
    call.put64(establisher, found.establisher)
    handler = found.handler
    if handler is None or not ((kind & 1 and handler.exception) or (kind & 2 and handler.termination)):
        return 0
    call.put64(data, where.va + handler.data)
    return where.va + handler.entry


@TABLE.provide("RtlPcToFileHeader")
def rtl_pc_to_file_header(call: Call, pc: Word, base: Word) -> int:
    """RtlPcToFileHeader."""
    module = call.system.module_at(pc)
    call.put64(base, 0 if module is None else module.va)
    return 0 if module is None else module.va


# filters ----------------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("SetUnhandledExceptionFilter")
def set_unhandled_exception_filter(call: Call, function: Word) -> int:
    """SetUnhandledExceptionFilter; gives the one before."""
    counters = call.system.counters
    before, counters.top_filter = counters.top_filter, function
    return before


@TABLE.provide("UnhandledExceptionFilter")
def unhandled_exception_filter(call: Call, pointers: Word) -> Outcome:
    """UnhandledExceptionFilter: asks the process's own filter, else says that the process is to end."""
    top = call.system.counters.top_filter
    return Invoke(top, (pointers,), Passed()) if top else 1


@dataclass(frozen=True, slots=True)
class Passed:
    """What the called function gave is the result."""

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Pass it on."""
        return value


@TABLE.provide("AddVectoredExceptionHandler")
def add_vectored_exception_handler(call: Call, first: Dword, handler: Word) -> int:
    """AddVectoredExceptionHandler; the handle is a number."""
    counters = call.system.counters
    handle = 0x100 + 0x10 * len(counters.vectored)
    while any(handle == known for known, _ in counters.vectored):
        handle += 0x10
    counters.vectored = ((handle, handler), *counters.vectored) if first else (*counters.vectored, (handle, handler))
    return handle


@TABLE.provide("RemoveVectoredExceptionHandler")
def remove_vectored_exception_handler(call: Call, handle: Word) -> int:
    """RemoveVectoredExceptionHandler."""
    counters = call.system.counters
    kept = tuple(row for row in counters.vectored if row[0] != handle)
    found, counters.vectored = len(kept) != len(counters.vectored), kept
    return int(found)
