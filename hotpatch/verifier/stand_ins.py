"""Imports of a patch that the base's own process would supply and the emulator does not know.

The emulator has neither every function of Windows nor the libraries beside the base. Where the base imports from a library, a process of it
has that library; that the library exports the name, the fixed image says, which imports it from there. So such an import gets an address
that nobody serves, as the base's own unknown imports do: a call of it is a fault that names it. Imports from other libraries stay refused.
A library whose imports are bound at their first call counts too: a process may not have it yet, but then applying the patch is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.emulator.libraries import host_library, library_name
from hotpatch.patch import SUPPORT_LIBRARY

if TYPE_CHECKING:
    from hotpatch.patch import Patch
    from hotpatch.process import Process

_ALWAYS = frozenset({"ntdll.dll", "kernel32.dll", "kernelbase.dll"})
"""Libraries of every process."""


def stand_in(process: Process, patch: Patch) -> tuple[str, ...]:
    """Give a process of the base stand-ins for what ``patch`` imports, its own process would supply and this one lacks; their labels."""
    there = _ALWAYS | {host_library(entry.library) for entry in process.base.imports}
    stood_for = []
    for wanted in patch.imports:
        library = library_name(wanted.library)
        if library == SUPPORT_LIBRARY or host_library(library) not in there:
            continue
        if process.guest.resolve_import(wanted.library, wanted.name, wanted.ordinal) is None:
            stood_for.append(process.guest.stand_for(library, wanted.name, wanted.ordinal))
    return tuple(stood_for)
