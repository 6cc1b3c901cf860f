"""What a program may ask of the system and of its own start: versions, features, command line, environment."""

from __future__ import annotations

from hotpatch.emulator import layout
from hotpatch.emulator.win32 import versions
from hotpatch.emulator.win32.call import ERROR_ENVVAR_NOT_FOUND, ERROR_INSUFFICIENT_BUFFER, Call, Dword, Table, Word

TABLE = Table()

_SYSTEM_INFO_SIZE = 48
_STARTUP_INFO_SIZE = 104
_ARCHITECTURES = {"x64": 9, "arm64": 12}
_FEATURES = {"x64": frozenset({2, 3, 6, 8, 10, 12, 13, 14, 23, 36, 37, 38}), "arm64": frozenset({12, 18, 19, 23, 29, 30, 31, 34})}
"""PF_* features of the emulated processors (MS Learn, IsProcessorFeaturePresent): on x64 up to SSE4.2 without AVX, on Arm64 up to the 8.1
atomics."""
_ENTRY_ALIGNMENT = 16
"""Bytes; of the entries of a singly linked list, so that its header has four bits of the pointer for itself."""
_POINTER_KEY = 0x5EED_C0DE_5EED_C0DE


@TABLE.provide("GetSystemInfo", "GetNativeSystemInfo")
def get_system_info(call: Call, result: Word) -> int:
    """GetSystemInfo (SYSTEM_INFO of 64-bit Windows): one processor."""
    fields = (
        (_ARCHITECTURES[call.system.machine.value], 4),
        (0x1000, 4),
        (0x1_0000, 8),
        (0x7FFF_FFFE_FFFF, 8),
        (1, 8),
        (1, 4),
        (0, 4),
        (layout.ALLOCATION_GRANULE, 4),
        (0, 4),
    )
    call.write(result, b"".join(value.to_bytes(width, "little") for value, width in fields)[:_SYSTEM_INFO_SIZE])
    return 0


@TABLE.provide("IsProcessorFeaturePresent")
def is_processor_feature_present(call: Call, feature: Dword) -> int:
    """IsProcessorFeaturePresent."""
    return int(feature in _FEATURES[call.system.machine.value])


@TABLE.provide("IsDebuggerPresent")
def is_debugger_present(call: Call) -> int:
    """IsDebuggerPresent: no."""
    return 0


@TABLE.provide("GetStartupInfoW", "GetStartupInfoA")
def get_startup_info(call: Call, result: Word) -> int:
    """GetStartupInfo: nothing but its size and standard handles."""
    handles = b"".join(handle.to_bytes(8, "little") for handle in call.system.streams.values())
    start = _STARTUP_INFO_SIZE - len(handles)
    call.write(result, _STARTUP_INFO_SIZE.to_bytes(4, "little").ljust(start, b"\0") + handles)
    return 0


@TABLE.provide("GetCommandLineA")
def get_command_line_a(call: Call) -> int:
    """GetCommandLineA: always the same pointer."""
    return call.system.parameters["command_line_a"]


@TABLE.provide("GetCommandLineW")
def get_command_line_w(call: Call) -> int:
    """GetCommandLineW: always the same pointer."""
    return call.system.parameters["command_line_w"]


@TABLE.provide("GetEnvironmentStringsW")
def get_environment_strings(call: Call) -> int:
    """GetEnvironmentStringsW: always the same pointer."""
    return call.system.parameters["environment_w"]


@TABLE.provide("FreeEnvironmentStringsW")
def free_environment_strings(call: Call, block: Word) -> int:
    """FreeEnvironmentStringsW."""
    return 1


@TABLE.provide("GetEnvironmentVariableA")
def get_environment_variable_a(call: Call, name: Word, buffer: Word, size: Dword) -> int:
    """GetEnvironmentVariableA."""
    value = _variable(call, call.string(name).decode("utf-8", "replace"))
    return _give(call, None if value is None else value.encode(), 1, buffer, size)


@TABLE.provide("GetEnvironmentVariableW")
def get_environment_variable_w(call: Call, name: Word, buffer: Word, size: Dword) -> int:
    """GetEnvironmentVariableW."""
    value = _variable(call, call.wide(name))
    return _give(call, None if value is None else value.encode("utf-16-le"), 2, buffer, size)


def _variable(call: Call, name: str) -> str | None:
    environment = call.system.settings.environment
    return next((value for key, value in environment.items() if key.upper() == name.upper()), None)


def _give(call: Call, value: bytes | None, width: int, buffer: int, size: int) -> int:
    if value is None:
        return call.fail(ERROR_ENVVAR_NOT_FOUND)
    count = len(value) // width
    if count >= size:
        return call.fail(ERROR_INSUFFICIENT_BUFFER, count + 1)
    call.write(buffer, value + bytes(width))
    return count


@TABLE.provide("GetACP", "GetOEMCP")
def get_code_page(call: Call) -> int:
    """GetACP: UTF-8."""
    return 65001


@TABLE.provide("IsValidCodePage")
def is_valid_code_page(call: Call, page: Dword) -> int:
    """IsValidCodePage: UTF-8 and the two that mean it."""
    return int(page in (0, 1, 65001))


@TABLE.provide("GetVersion")
def get_version(call: Call) -> int:
    """GetVersion: 10.0, build 26100."""
    return versions.BUILD << 16 | versions.MINOR << 8 | versions.MAJOR


@TABLE.provide("EncodePointer", "DecodePointer", "RtlEncodePointer", "RtlDecodePointer")
def encode_pointer(call: Call, pointer: Word) -> int:
    """EncodePointer and its inverse."""
    return pointer ^ _POINTER_KEY


@TABLE.provide("InitializeSListHead", "RtlInitializeSListHead")
def initialize_slist_head(call: Call, head: Word) -> int:
    """InitializeSListHead: an empty list."""
    call.write(head, bytes(16))
    return 0


@TABLE.provide("InterlockedFlushSList", "RtlInterlockedFlushSList")
def interlocked_flush_slist(call: Call, head: Word) -> int:
    """InterlockedFlushSList (SLIST_HEADER of 64-bit Windows): the first entry, whose list is taken off."""
    first = call.get64(head + 8) & -_ENTRY_ALIGNMENT
    call.write(head, bytes(16))
    return first


@TABLE.provide("OutputDebugStringA")
def output_debug_string_a(call: Call, text: Word) -> int:
    """OutputDebugStringA: an event."""
    call.system.event("debug", thread=call.thread.id, text=call.string(text).decode("utf-8", "replace"))
    return 0


@TABLE.provide("OutputDebugStringW")
def output_debug_string_w(call: Call, text: Word) -> int:
    """OutputDebugStringW: an event."""
    call.system.event("debug", thread=call.thread.id, text=call.wide(text))
    return 0


@TABLE.provide("SystemFunction036", "RtlGenRandom", "ProcessPrng")
def random_bytes(call: Call, buffer: Word, size: Dword) -> int:
    """RtlGenRandom, from the process's seed."""
    call.write(buffer, call.system.random(size))
    return 1


@TABLE.provide("BCryptGenRandom")
def bcrypt_gen_random(call: Call, algorithm: Word, buffer: Word, size: Dword, flags: Dword) -> int:
    """BCryptGenRandom, from the process's seed."""
    call.write(buffer, call.system.random(size))
    return 0
