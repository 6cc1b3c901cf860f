"""Standard input and output of the C run time, in text mode: line feeds go out as CR LF, and CR LF comes in as a line feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator.objects import Stream
from hotpatch.emulator.win32.call import Call, Dword, Int, Table, Word
from hotpatch.emulator.win32.formats import format_text

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Table()

_FILE_SIZE = 64
"""Bytes of a FILE here; programs only hold its address."""
_STREAMS = (Stream.INPUT, Stream.OUTPUT, Stream.ERROR)
_END_OF_FILE = (1 << 64) - 1
_SECURE_COUNT_LIMIT = 1 << 31


@TABLE.provide("__acrt_iob_func")
def iob(call: Call, index: Dword) -> int:
    """__acrt_iob_func: stdin, stdout, stderr."""
    return call.system.parameters["files"] + _FILE_SIZE * index if index < len(_STREAMS) else 0


def _stream(call: Call, file: int) -> Stream | None:
    index, rest = divmod(file - call.system.parameters["files"], _FILE_SIZE)
    return _STREAMS[index] if rest == 0 and 0 <= index < len(_STREAMS) else None


def _put(call: Call, file: int, data: bytes) -> bool:
    if _stream(call, file) in (None, Stream.INPUT):
        return False
    call.system.output += data.replace(b"\n", b"\r\n")
    return True


def arguments(call: Call, va_list: int) -> Callable[[], int]:
    """What a va_list of 64-bit Windows gives, an 8-byte slot each."""
    at = va_list

    def word() -> int:
        nonlocal at
        value = call.get64(at)
        at += 8
        return value

    return word


def _format(call: Call, form: int, va_list: int) -> bytes:
    return format_text(call.string(form), arguments(call, va_list), call.system.guest_string)


@TABLE.provide("__stdio_common_vfprintf", "__stdio_common_vfprintf_s")
def vfprintf(call: Call, options: Word, file: Word, form: Word, locale: Word, va_list: Word) -> int:
    """Vfprintf."""
    text = _format(call, form, va_list)
    return len(text) if _put(call, file, text) else _END_OF_FILE


@TABLE.provide("__stdio_common_vsprintf", "__stdio_common_vsnprintf_s")
def vsprintf(call: Call, options: Word, buffer: Word, size: Word, form: Word, locale: Word, va_list: Word) -> int:
    """Vsprintf, vsnprintf: the whole length; ``size`` bytes with the NUL are stored (option 2: as the standard has it)."""
    text = _format(call, form, va_list)
    if buffer and size:
        room = min(size, _SECURE_COUNT_LIMIT)
        kept = text[: room - 1] if len(text) >= room else text
        call.write(buffer, kept + b"\0")
    return len(text) if len(text) < size or options & 2 or not buffer else _END_OF_FILE


@TABLE.provide("fwrite")
def fwrite(call: Call, data: Word, size: Word, count: Word, file: Word) -> int:
    """Fwrite."""
    if not size * count:
        return 0
    return count if _put(call, file, call.read(data, size * count)) else 0


@TABLE.provide("fputs")
def fputs(call: Call, text: Word, file: Word) -> int:
    """Fputs."""
    return 0 if _put(call, file, call.string(text)) else _END_OF_FILE


@TABLE.provide("fputc", "putc")
def fputc(call: Call, character: Dword, file: Word) -> int:
    """Fputc."""
    return character & 0xFF if _put(call, file, bytes((character & 0xFF,))) else _END_OF_FILE


@TABLE.provide("puts")
def puts(call: Call, text: Word) -> int:
    """Puts."""
    return fputs(call, text, iob(call, 1)) or fputc(call, ord("\n"), iob(call, 1))


@TABLE.provide("putchar")
def putchar(call: Call, character: Dword) -> int:
    """Putchar."""
    return fputc(call, character, iob(call, 1))


@TABLE.provide("fgets")
def fgets(call: Call, buffer: Word, size: Int, file: Word) -> int:
    """Fgets."""
    if size <= 0 or _stream(call, file) is not Stream.INPUT:
        return 0
    counters, source = call.system.counters, call.system.settings.stdin
    found = bytearray()
    while len(found) < size - 1 and counters.stdin < len(source) and not found.endswith(b"\n"):
        if source[counters.stdin : counters.stdin + 2] != b"\r\n":
            found.append(source[counters.stdin])
        counters.stdin += 1
    if not found and size > 1:
        return 0
    call.write(buffer, bytes(found) + b"\0")
    return buffer


@TABLE.provide("fgetc", "getc")
def fgetc(call: Call, file: Word) -> int:
    """Fgetc."""
    counters, source = call.system.counters, call.system.settings.stdin
    if _stream(call, file) is not Stream.INPUT or counters.stdin >= len(source):
        return _END_OF_FILE
    if source[counters.stdin : counters.stdin + 2] == b"\r\n":
        counters.stdin += 1
    counters.stdin += 1
    return source[counters.stdin - 1]


@TABLE.provide("getchar")
def getchar(call: Call) -> int:
    """Getchar."""
    return fgetc(call, iob(call, 0))


@TABLE.provide("fflush", "setbuf", "setvbuf", "fclose", "ferror", "clearerr")
def nothing_to_do(call: Call, file: Word) -> int:
    """Fflush and its like: nothing is held back."""
    return 0


@TABLE.provide("feof")
def feof(call: Call, file: Word) -> int:
    """Feof."""
    return int(call.system.counters.stdin >= len(call.system.settings.stdin))


@TABLE.provide("_fileno")
def fileno(call: Call, file: Word) -> int:
    """_fileno."""
    stream = _stream(call, file)
    return _END_OF_FILE if stream is None else _STREAMS.index(stream)


# what the start-up of a program asks for --------------------------------------------------------------------------------------------------


@TABLE.provide("__p___argc")
def argc(call: Call) -> int:
    """__p___argc: the address of argc."""
    return call.system.parameters["argc"]


@TABLE.provide("__p___argv")
def argv(call: Call) -> int:
    """__p___argv: the address of argv."""
    return call.system.parameters["argv"]


@TABLE.provide("__p__environ")
def environ(call: Call) -> int:
    """__p__environ: the address of a pointer to an empty list; GetEnvironmentVariable has the variables."""
    return call.system.parameters["environ"]


@TABLE.provide("_get_initial_narrow_environment")
def initial_environment(call: Call) -> int:
    """_get_initial_narrow_environment: an empty list."""
    return call.get64(call.system.parameters["environ"])


@TABLE.provide("__p__fmode", "__p__commode")
def mode(call: Call) -> int:
    """__p__fmode, __p__commode."""
    return call.system.parameters["modes"]


@TABLE.provide("_get_narrow_winmain_command_line")
def winmain_command_line(call: Call) -> int:
    """_get_narrow_winmain_command_line: the whole of it."""
    return call.system.parameters["command_line_a"]


@TABLE.provide("_set_invalid_parameter_handler", "_seh_filter_exe", "_fpreset", "__set_app_type", "_setmode", "setlocale", "signal")
def start_up(call: Call, first: Word) -> int:
    """Start-up: accepted, without effect."""
    return 0
