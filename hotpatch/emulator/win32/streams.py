"""Standard streams and handles to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator import objects
from hotpatch.emulator.objects import Stream, StreamObject
from hotpatch.emulator.waits import Input
from hotpatch.emulator.win32.call import ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER, Call, Dword, Table, Word

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import Outcome

TABLE = Table()

_STANDARD = {0xFFFF_FFF6: Stream.INPUT, 0xFFFF_FFF5: Stream.OUTPUT, 0xFFFF_FFF4: Stream.ERROR}
"""STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE (MS Learn, GetStdHandle)."""
_FILE_TYPE_DISK, _FILE_TYPE_CHAR = 1, 2
_OUTPUT_MODE = 3
"""ENABLE_PROCESSED_OUTPUT | ENABLE_WRAP_AT_EOL_OUTPUT."""


def write_stream(system: System, handle: int, data: bytes) -> bool:
    """Append to the process's output; whether the handle is one of an output stream."""
    stream = stream_of(system, handle)
    if stream in (None, Stream.INPUT):
        return False
    system.output += data
    return True


def stream_of(system: System, handle: int) -> Stream | None:
    """The stream behind a handle."""
    number = system.handles.number_of(handle)
    thing = system.handles.objects.get(number) if number is not None else None
    return thing.stream if isinstance(thing, StreamObject) else None


@TABLE.provide("GetStdHandle")
def get_std_handle(call: Call, which: Dword) -> int:
    """GetStdHandle."""
    stream = _STANDARD.get(which)
    return call.system.streams[stream] if stream else call.fail(ERROR_INVALID_HANDLE, objects.INVALID_HANDLE)


@TABLE.provide("WriteFile")
def write_file(call: Call, handle: Word, buffer: Word, size: Dword, written: Word, overlapped: Word) -> int:
    """WriteFile to a standard stream."""
    call.put32_if(written, 0)
    data = call.read(buffer, size) if size else b""
    if not write_stream(call.system, handle, data):
        return call.fail(ERROR_INVALID_HANDLE)
    call.put32_if(written, size)
    return 1


@TABLE.provide("WriteConsoleA")
def write_console_a(call: Call, handle: Word, buffer: Word, count: Dword, written: Word, reserved: Word) -> int:
    """WriteConsoleA."""
    return write_file(call, handle, buffer, count, written, 0)


@TABLE.provide("WriteConsoleW")
def write_console_w(call: Call, handle: Word, buffer: Word, count: Dword, written: Word, reserved: Word) -> int:
    """WriteConsoleW; the output gets UTF-8."""
    text = call.read(buffer, 2 * count).decode("utf-16-le", "replace") if count else ""
    if not write_stream(call.system, handle, text.encode()):
        return call.fail(ERROR_INVALID_HANDLE)
    call.put32_if(written, count)
    return 1


@TABLE.provide("ReadFile")
def read_file(call: Call, handle: Word, buffer: Word, size: Dword, read: Word, overlapped: Word) -> Outcome:
    """ReadFile of the standard input, which is a file: at its end, zero bytes and success; it waits there where more may come."""
    call.put32_if(read, 0)
    if stream_of(call.system, handle) is not Stream.INPUT:
        return call.fail(ERROR_INVALID_HANDLE)
    counters = call.system.counters
    if call.system.settings.more_input and counters.stdin >= len(call.system.settings.stdin):
        return Input(buffer, size, read)
    data = call.system.settings.stdin[counters.stdin : counters.stdin + size]
    call.write(buffer, data)
    counters.stdin += len(data)
    call.put32_if(read, len(data))
    return 1


@TABLE.provide("FlushFileBuffers")
def flush_file_buffers(call: Call, handle: Word) -> int:
    """FlushFileBuffers."""
    return 1 if stream_of(call.system, handle) else call.fail(ERROR_INVALID_HANDLE)


@TABLE.provide("GetFileType")
def get_file_type(call: Call, handle: Word) -> int:
    """GetFileType: output goes to a console, input comes from a file."""
    stream = stream_of(call.system, handle)
    if stream is None:
        return call.fail(ERROR_INVALID_HANDLE)
    return _FILE_TYPE_DISK if stream is Stream.INPUT else _FILE_TYPE_CHAR


@TABLE.provide("GetConsoleMode")
def get_console_mode(call: Call, handle: Word, mode: Word) -> int:
    """GetConsoleMode."""
    if stream_of(call.system, handle) in (None, Stream.INPUT):
        return call.fail(ERROR_INVALID_HANDLE)
    call.put32(mode, _OUTPUT_MODE)
    return 1


@TABLE.provide("SetConsoleMode", "SetConsoleCtrlHandler")
def set_console(call: Call, first: Word, second: Dword) -> int:
    """SetConsoleMode, SetConsoleCtrlHandler: accepted, without effect."""
    return 1


@TABLE.provide("SetConsoleOutputCP", "SetConsoleCP")
def set_console_page(call: Call, page: Dword) -> int:
    """SetConsoleOutputCP: accepted, without effect."""
    return 1


@TABLE.provide("GetConsoleOutputCP", "GetConsoleCP")
def get_console_page(call: Call) -> int:
    """GetConsoleOutputCP: UTF-8."""
    return 65001


@TABLE.provide("CloseHandle")
def close_handle(call: Call, handle: Word) -> int:
    """CloseHandle."""
    if handle in (objects.CURRENT_PROCESS, objects.CURRENT_THREAD):
        return 1
    return 1 if call.system.handles.close(handle) else call.fail(ERROR_INVALID_HANDLE)


@TABLE.provide("DuplicateHandle")
def duplicate_handle(
    call: Call, source: Word, handle: Word, target: Word, result: Word, access: Dword, inherit: Dword, options: Dword
) -> int:
    """DuplicateHandle within the process; option 1 closes the source."""
    handles = call.system.handles
    number = object_number(call, handle)
    if number is None:
        return call.fail(ERROR_INVALID_HANDLE)
    if not result:
        return call.fail(ERROR_INVALID_PARAMETER)
    call.put64(result, handles.open(number))
    if options & 1:
        handles.close(handle)
    return 1


def object_number(call: Call, handle: int) -> int | None:
    """The object behind a handle or pseudo handle."""
    if handle == objects.CURRENT_THREAD:
        return call.thread.object
    if handle == objects.CURRENT_PROCESS:
        return call.system.process_object
    return call.system.handles.number_of(handle)
