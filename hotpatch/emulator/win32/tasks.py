"""Threads, time, thread-local storage and the process's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator import layout, objects
from hotpatch.emulator.layout import PROCESS_ID, STILL_ACTIVE, TEB, TICKS_PER_MILLISECOND, TLS_SLOTS
from hotpatch.emulator.loading import end_process
from hotpatch.emulator.objects import ThreadObject
from hotpatch.emulator.threads import Ended, ThreadState
from hotpatch.emulator.waits import INFINITE, Sleep
from hotpatch.emulator.win32.call import ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER, Call, Dword, ProgramFaultError, Table, Word
from hotpatch.emulator.win32.streams import object_number
from hotpatch.errors import FaultKind

if TYPE_CHECKING:
    from hotpatch.emulator.threads import GuestThread, Outcome

TABLE = Table()

_CREATE_SUSPENDED = 4
_STACK_SIZE_IS_RESERVE = 0x10000
_NO_SLOT = 0xFFFF_FFFF
_FOREVER = 1 << 62


@TABLE.provide("CreateThread")
def create_thread(call: Call, security: Word, stack: Word, start: Word, argument: Word, flags: Dword, result: Word) -> int:
    """CreateThread."""
    system = call.system
    reserve = stack if flags & _STACK_SIZE_IS_RESERVE else 0
    thread = system.new_thread(start, argument, stack=reserve, suspended=bool(flags & _CREATE_SUSPENDED))
    system.activate(call.thread)
    system.event("spawn", thread=call.thread.id, child=thread.id, start=start)
    call.put32_if(result, thread.id)
    return system.handles.open(thread.object)


@TABLE.provide("_beginthreadex")
def begin_thread(call: Call, security: Word, stack: Dword, start: Word, argument: Word, flags: Dword, result: Word) -> int:
    """_beginthreadex."""
    return create_thread(call, security, stack, start, argument, flags, result)


@TABLE.provide("ExitThread", "_endthreadex")
def exit_thread(call: Call, code: Dword) -> Outcome:
    """ExitThread."""
    call.thread.exit_code = code
    return Ended.THREAD


@TABLE.provide("ExitProcess", "_exit", "exit", "_Exit", "quick_exit")
def exit_process(call: Call, code: Dword) -> Outcome:
    """ExitProcess."""
    call.system.counters.exit_code = code
    return end_process(call.system, call.thread)


@TABLE.provide("TerminateProcess")
def terminate_process(call: Call, process: Word, code: Dword) -> Outcome:
    """TerminateProcess of this process."""
    if object_number(call, process) != call.system.process_object:
        return call.fail(ERROR_INVALID_HANDLE)
    call.system.counters.exit_code = code
    return Ended.PROCESS


@TABLE.provide("GetCurrentThread")
def get_current_thread(call: Call) -> int:
    """GetCurrentThread."""
    return objects.CURRENT_THREAD


@TABLE.provide("GetCurrentThreadId")
def get_current_thread_id(call: Call) -> int:
    """GetCurrentThreadId."""
    return call.thread.id


@TABLE.provide("GetThreadId")
def get_thread_id(call: Call, handle: Word) -> int:
    """GetThreadId."""
    thread = thread_of(call, handle)
    return thread.id if thread else call.fail(ERROR_INVALID_HANDLE)


@TABLE.provide("GetCurrentProcess")
def get_current_process(call: Call) -> int:
    """GetCurrentProcess."""
    return objects.CURRENT_PROCESS


@TABLE.provide("GetCurrentProcessId", "GetProcessId")
def get_current_process_id(call: Call) -> int:
    """GetCurrentProcessId."""
    return PROCESS_ID


@TABLE.provide("GetExitCodeThread")
def get_exit_code_thread(call: Call, handle: Word, code: Word) -> int:
    """GetExitCodeThread."""
    number = object_number(call, handle)
    thing = call.system.handles.objects.get(number) if number is not None else None
    if not isinstance(thing, ThreadObject):
        return call.fail(ERROR_INVALID_HANDLE)
    call.put32(code, STILL_ACTIVE if thing.exit_code is None else thing.exit_code)
    return 1


@TABLE.provide("SuspendThread")
def suspend_thread(call: Call, handle: Word) -> int:
    """SuspendThread of another thread; it stops where it is."""
    thread = thread_of(call, handle)
    if thread is None or thread.state not in (ThreadState.READY, ThreadState.SUSPENDED) or thread is call.thread:
        return call.fail(ERROR_INVALID_HANDLE, _NO_SLOT)
    thread.suspended += 1
    thread.state = ThreadState.SUSPENDED
    return thread.suspended - 1


@TABLE.provide("ResumeThread")
def resume_thread(call: Call, handle: Word) -> int:
    """ResumeThread."""
    thread = thread_of(call, handle)
    if thread is None:
        return call.fail(ERROR_INVALID_HANDLE, _NO_SLOT)
    before = thread.suspended
    thread.suspended = max(before - 1, 0)
    if before == 1 and thread.state is ThreadState.SUSPENDED:
        thread.state = ThreadState.READY
    return before


@TABLE.provide("Sleep")
def sleep(call: Call, milliseconds: Dword) -> Outcome:
    """Sleep; zero gives up the rest of the slice."""
    return Sleep(_FOREVER if milliseconds == INFINITE else call.system.now + milliseconds * TICKS_PER_MILLISECOND)


@TABLE.provide("SleepEx")
def sleep_ex(call: Call, milliseconds: Dword, alertable: Dword) -> Outcome:
    """SleepEx; nothing ever alerts."""
    return sleep(call, milliseconds)


@TABLE.provide("SwitchToThread")
def switch_to_thread(call: Call) -> int:
    """SwitchToThread."""
    call.system.end_slice()
    return 1


@TABLE.provide("SetThreadPriority", "SetThreadAffinityMask", "SetPriorityClass", "SetThreadDescription")
def set_thread_attribute(call: Call, handle: Word, value: Word) -> int:
    """SetThreadPriority and its like: accepted, without effect."""
    return 1


@TABLE.provide("GetThreadPriority")
def get_thread_priority(call: Call, handle: Word) -> int:
    """GetThreadPriority: normal."""
    return 0


@TABLE.provide("DisableThreadLibraryCalls")
def disable_thread_library_calls(call: Call, module: Word) -> int:
    """DisableThreadLibraryCalls: accepted; thread notifications go on, which the function's text allows a DLL to expect of nobody."""
    return 1


# thread-local storage ---------------------------------------------------------------------------------------------------------------------


@TABLE.provide("TlsAlloc")
def tls_alloc(call: Call) -> int:
    """TlsAlloc: the lowest free slot; new slots hold 0 in every thread."""
    counters = call.system.counters
    slot = next((slot for slot in range(TLS_SLOTS) if not counters.tls_used >> slot & 1), None)
    if slot is None:
        return call.fail(ERROR_INVALID_PARAMETER, _NO_SLOT)
    counters.tls_used |= 1 << slot
    for thread in call.system.threads.values():
        if thread.alive:
            call.system.memory.write(thread.teb + TEB["TlsSlots"] + 8 * slot, bytes(8))
    return slot


@TABLE.provide("FlsAlloc")
def fls_alloc(call: Call, callback: Word) -> int:
    """FlsAlloc: fibre-local slots are thread-local ones; callbacks are not called when a thread ends."""
    return tls_alloc(call)


@TABLE.provide("TlsFree", "FlsFree")
def tls_free(call: Call, slot: Dword) -> int:
    """TlsFree, FlsFree."""
    if not _used(call, slot):
        return call.fail(ERROR_INVALID_PARAMETER)
    call.system.counters.tls_used &= ~(1 << slot)
    return 1


@TABLE.provide("TlsGetValue", "FlsGetValue", "FlsGetValue2", "TlsGetValue2")
def tls_get_value(call: Call, slot: Dword) -> int:
    """TlsGetValue, FlsGetValue: success clears the last error."""
    if slot >= TLS_SLOTS:
        return call.fail(ERROR_INVALID_PARAMETER)
    call.fail(0)
    return call.get64(call.thread.teb + TEB["TlsSlots"] + 8 * slot)


@TABLE.provide("TlsSetValue", "FlsSetValue")
def tls_set_value(call: Call, slot: Dword, value: Word) -> int:
    """TlsSetValue, FlsSetValue."""
    if not _used(call, slot):
        return call.fail(ERROR_INVALID_PARAMETER)
    call.put64(call.thread.teb + TEB["TlsSlots"] + 8 * slot, value)
    return 1


def _used(call: Call, slot: int) -> bool:
    return slot < TLS_SLOTS and bool(call.system.counters.tls_used >> slot & 1)


# time -------------------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("QueryPerformanceCounter", "RtlQueryPerformanceCounter")
def query_performance_counter(call: Call, result: Word) -> int:
    """QueryPerformanceCounter in virtual ticks."""
    call.put64(result, layout.BOOT_TICKS + call.system.now)
    return 1


@TABLE.provide("QueryPerformanceFrequency", "RtlQueryPerformanceFrequency")
def query_performance_frequency(call: Call, result: Word) -> int:
    """QueryPerformanceFrequency: 10 MHz."""
    call.put64(result, layout.TICKS_PER_SECOND)
    return 1


@TABLE.provide("GetTickCount64")
def get_tick_count64(call: Call) -> int:
    """GetTickCount64 in virtual milliseconds."""
    return (layout.BOOT_TICKS + call.system.now) // TICKS_PER_MILLISECOND


@TABLE.provide("GetTickCount", "timeGetTime")
def get_tick_count(call: Call) -> int:
    """GetTickCount."""
    return get_tick_count64(call) & 0xFFFF_FFFF


@TABLE.provide("GetSystemTimeAsFileTime", "GetSystemTimePreciseAsFileTime")
def get_system_time_as_file_time(call: Call, result: Word) -> int:
    """GetSystemTimeAsFileTime in virtual time."""
    call.put64(result, layout.EPOCH_FILETIME + call.system.now)
    return 0


@TABLE.provide("_time64", "time")
def time64(call: Call, result: Word) -> int:
    """time: seconds since 1970, virtual."""
    seconds = (layout.EPOCH_FILETIME + call.system.now - 116_444_736_000_000_000) // layout.TICKS_PER_SECOND
    if result:
        call.put64(result, seconds)
    return seconds


@TABLE.provide("clock")
def clock(call: Call) -> int:
    """Clock: virtual milliseconds since the start."""
    return call.system.now // TICKS_PER_MILLISECOND


# errors -----------------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("GetLastError")
def get_last_error(call: Call) -> int:
    """GetLastError."""
    return call.last_error


@TABLE.provide("SetLastError", "RtlSetLastWin32Error")
def set_last_error(call: Call, code: Dword) -> int:
    """SetLastError."""
    return call.fail(code)


@TABLE.provide("SetErrorMode", "GetErrorMode")
def set_error_mode(call: Call, value: Word) -> int:
    """SetErrorMode: accepted; a fault always ends the program and is reported whole."""
    return 0


@TABLE.provide(
    "RaiseFailFastException", "__fastfail", "abort", "_invoke_watson", "_purecall", "terminate", "__report_gsfailure", "RtlFailFast"
)
def fast_fail(call: Call, first: Word) -> int:
    """Abort and its like."""
    raise ProgramFaultError(FaultKind.FAST_FAIL, "the program gives up")


@TABLE.provide("_invalid_parameter_noinfo_noreturn", "_invalid_parameter_noinfo")
def invalid_parameter(call: Call) -> int:
    """An invalid parameter of a run-time function."""
    raise ProgramFaultError(FaultKind.FAST_FAIL, "a run-time function was given an invalid parameter")


def thread_of(call: Call, handle: int) -> GuestThread | None:
    """The thread behind a handle, while it lives."""
    number = object_number(call, handle)
    thing = call.system.handles.objects.get(number) if number is not None else None
    thread = call.system.threads.get(thing.thread) if isinstance(thing, ThreadObject) else None
    return thread if thread is not None and thread.alive else None
