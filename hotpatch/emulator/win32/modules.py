"""Modules and their exports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.emulator import loading
from hotpatch.emulator.libraries import is_system, library_name, system_library, system_module
from hotpatch.emulator.loader import resolve
from hotpatch.emulator.win32.call import (
    ERROR_INSUFFICIENT_BUFFER,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_MOD_NOT_FOUND,
    ERROR_PROC_NOT_FOUND,
    Call,
    Dword,
    Table,
    Word,
)

if TYPE_CHECKING:
    from hotpatch.emulator.threads import Outcome
    from hotpatch.engine.target import Module

TABLE = Table()

_PIN, _UNCHANGED, _FROM_ADDRESS = 1, 2, 4
_PINNED = 1 << 32
"""References that nobody takes back."""
_NOT_FOR_CODE = 1 | 2 | 0x20 | 0x40
"""Flags of LoadLibraryEx that ask for a file's data, or for code whose imports are not bound: not served."""
_ORDINAL_LIMIT = 0x10000
_FOLDER = "C:\\"


def find(call: Call, name: str) -> int:
    """Handle of a loaded module or system library, or 0."""
    wanted = library_name(name)
    module = next((module for module in call.system.modules() if module.name == wanted), None)
    if module is not None:
        return module.va
    return system_module(wanted) or 0


def module_of(call: Call, handle: int) -> Module | None:
    """The module with that handle; 0 is the program."""
    modules = call.system.modules()
    return modules[0] if not handle else next((module for module in modules if module.va == handle), None)


@TABLE.provide("GetModuleHandleA")
def get_module_handle_a(call: Call, name: Word) -> int:
    """GetModuleHandleA."""
    if not name:
        return call.system.modules()[0].va
    return find(call, call.string(name).decode("utf-8", "replace")) or call.fail(ERROR_MOD_NOT_FOUND)


@TABLE.provide("GetModuleHandleW")
def get_module_handle_w(call: Call, name: Word) -> int:
    """GetModuleHandleW."""
    if not name:
        return call.system.modules()[0].va
    return find(call, call.wide(name)) or call.fail(ERROR_MOD_NOT_FOUND)


def _get_module_handle_ex(call: Call, flags: int, name: int, result: int, *, wide: bool) -> int:
    if flags & _FROM_ADDRESS:
        module = call.system.module_at(name)
        handle = module.va if module is not None else 0
    else:
        handle = get_module_handle_w(call, name) if wide else get_module_handle_a(call, name)
    if handle in call.system.loading.counted and not flags & _UNCHANGED:
        call.system.loading.count(handle, _PINNED if flags & _PIN else 1)
    call.put64(result, handle)
    return 1 if handle else call.fail(ERROR_MOD_NOT_FOUND)


@TABLE.provide("GetModuleHandleExW")
def get_module_handle_ex_w(call: Call, flags: Dword, name: Word, result: Word) -> int:
    """GetModuleHandleExW."""
    return _get_module_handle_ex(call, flags, name, result, wide=True)


@TABLE.provide("GetModuleHandleExA")
def get_module_handle_ex_a(call: Call, flags: Dword, name: Word, result: Word) -> int:
    """GetModuleHandleExA."""
    return _get_module_handle_ex(call, flags, name, result, wide=False)


@TABLE.provide("LoadLibraryA")
def load_library_a(call: Call, name: Word) -> Outcome:
    """LoadLibraryA."""
    return _load(call, call.string(name).decode("utf-8", "replace"))


@TABLE.provide("LoadLibraryW")
def load_library_w(call: Call, name: Word) -> Outcome:
    """LoadLibraryW."""
    return _load(call, call.wide(name))


@TABLE.provide("LoadLibraryExA")
def load_library_ex_a(call: Call, name: Word, file: Word, flags: Dword) -> Outcome:
    """LoadLibraryExA."""
    return _load(call, call.string(name).decode("utf-8", "replace"), flags)


@TABLE.provide("LoadLibraryExW")
def load_library_ex_w(call: Call, name: Word, file: Word, flags: Dword) -> Outcome:
    """LoadLibraryExW."""
    return _load(call, call.wide(name), flags)


def _load(call: Call, name: str, flags: int = 0) -> Outcome:
    """LoadLibrary of what is there, or of one of the files that the process was given; folders do not matter."""
    loaded, wanted = find(call, name), library_name(name)
    if loaded and loaded not in call.system.loading.counted:
        return loaded
    if not loaded and wanted not in call.system.available:
        return call.fail(ERROR_MOD_NOT_FOUND)
    if not loaded and flags & _NOT_FOR_CODE:
        return call.fail(ERROR_INVALID_PARAMETER)
    return loading.load(call.system, call.thread, wanted)


@TABLE.provide("FreeLibrary")
def free_library(call: Call, handle: Word) -> Outcome:
    """FreeLibrary: modules that the process began with stay."""
    return _free(call, handle, loading.Result(1))


@TABLE.provide("FreeLibraryAndExitThread")
def free_library_and_exit_thread(call: Call, handle: Word, code: Dword) -> Outcome:
    """FreeLibraryAndExitThread."""
    return _free(call, handle, loading.Result(1, exit_code=code))


def _free(call: Call, handle: int, result: loading.Result) -> Outcome:
    module = module_of(call, handle) if handle else None
    if module is not None and module.va in call.system.loading.counted:
        return loading.free(call.system, call.thread, module, result)
    known = module is not None or system_library(handle)
    return (result if known else replace(result, value=0, error=ERROR_INVALID_HANDLE)).give(call.system, call.thread)


@TABLE.provide("GetProcAddress")
def get_proc_address(call: Call, handle: Word, name: Word) -> int:
    """GetProcAddress by name or ordinal."""
    module = module_of(call, handle)
    library = module.name if module is not None else system_library(handle)
    if library is None:
        return call.fail(ERROR_INVALID_HANDLE)
    symbol = None if name < _ORDINAL_LIMIT else call.string(name).decode("utf-8", "replace")
    found = resolve(call.system, library, symbol, name if symbol is None else None)
    return found if found is not None and (module is not None or is_system(library)) else call.fail(ERROR_PROC_NOT_FOUND)


def _module_path(call: Call, handle: int) -> str | None:
    module = module_of(call, handle)
    name = module.name if module is not None else system_library(handle)
    return None if name is None else _FOLDER + name


@TABLE.provide("GetModuleFileNameA")
def get_module_file_name_a(call: Call, handle: Word, buffer: Word, size: Dword) -> int:
    """GetModuleFileNameA: every module lies in the root of C:."""
    path = _module_path(call, handle)
    if path is None:
        return call.fail(ERROR_INVALID_HANDLE)
    return _put_string(call, path.encode(), 1, buffer, size)


@TABLE.provide("GetModuleFileNameW")
def get_module_file_name_w(call: Call, handle: Word, buffer: Word, size: Dword) -> int:
    """GetModuleFileNameW."""
    path = _module_path(call, handle)
    if path is None:
        return call.fail(ERROR_INVALID_HANDLE)
    return _put_string(call, path.encode("utf-16-le"), 2, buffer, size)


def _put_string(call: Call, text: bytes, width: int, buffer: int, size: int) -> int:
    """Store a string with its NUL, cut to ``size`` characters; the number of characters."""
    count = len(text) // width
    if count < size:
        call.write(buffer, text + bytes(width))
        call.fail(0)
        return count
    if size:
        call.write(buffer, text[: (size - 1) * width] + bytes(width))
    return call.fail(ERROR_INSUFFICIENT_BUFFER, size)
