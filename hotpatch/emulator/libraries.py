"""Names of libraries, and which of them the emulator itself stands for."""

from __future__ import annotations

from hotpatch.address import Va
from hotpatch.emulator.layout import SYSTEM_MODULE_SIZE, SYSTEM_MODULE_VA

_SYSTEM_PREFIXES = ("api-ms-win-", "ext-ms-win-")
_SYSTEM_LIBRARIES = (
    "kernel32.dll",
    "kernelbase.dll",
    "ntdll.dll",
    "ucrtbase.dll",
    "msvcrt.dll",
    "vcruntime140.dll",
    "vcruntime140_1.dll",
    "hotpatch.dll",
)


def library_name(name: str) -> str:
    """A library's name as it is compared: lower case, with its extension."""
    lower = name.lower().replace("/", "\\").rsplit("\\", 1)[-1]
    return lower if "." in lower else f"{lower}.dll"


def is_system(library: str) -> bool:
    """Whether the emulator itself stands for ``library`` (a normalised name)."""
    return library in _SYSTEM_LIBRARIES or library.startswith(_SYSTEM_PREFIXES)


def host_library(name: str) -> str:
    """The library that has the functions of ``name``: itself, unless that is an API set. Source: MS Learn, "Windows API sets"."""
    library = library_name(name)
    if not library.startswith(_SYSTEM_PREFIXES):
        return library
    return "ucrtbase.dll" if library.startswith("api-ms-win-crt-") else "kernelbase.dll"


def system_module(library: str) -> Va | None:
    """The handle of a system library."""
    if library in _SYSTEM_LIBRARIES:
        return Va(SYSTEM_MODULE_VA + SYSTEM_MODULE_SIZE * _SYSTEM_LIBRARIES.index(library))
    return Va(SYSTEM_MODULE_VA) if library.startswith(_SYSTEM_PREFIXES) else None


def system_library(handle: int) -> str | None:
    """The system library with that handle."""
    index, rest = divmod(handle - SYSTEM_MODULE_VA, SYSTEM_MODULE_SIZE)
    return _SYSTEM_LIBRARIES[index] if rest == 0 and 0 <= index < len(_SYSTEM_LIBRARIES) else None
