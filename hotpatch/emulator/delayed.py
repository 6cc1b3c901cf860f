"""What a program's own delay-load helper raises where it finds a library, or a function of one, nowhere (delayimp.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.emulator.libraries import library_name
from hotpatch.emulator.win32.call import ProgramFaultError

if TYPE_CHECKING:
    from hotpatch.emulator.exception_records import Record
    from hotpatch.emulator.win32.call import Call

_CODES = (0xC06D_007E, 0xC06D_007F)
"""``VcppException(ERROR_SEVERITY_ERROR, …)`` of ERROR_MOD_NOT_FOUND and ERROR_PROC_NOT_FOUND."""
_INFO = struct.Struct("<I4xQQQI4xQQQI4x")
"""``DelayLoadInfo``: cb, pidd, ppfn, szDll, dlp (fImportByName; szProcName or dwOrdinal), hmodCur, pfnCur, dwLastError."""
_DWORD = 0xFFFF_FFFF


def missing(call: Call, record: Record) -> str | None:
    """The delayed import that an exception is about, as ``library!name`` or ``library!#ordinal``; None if it is about none."""
    if record.code not in _CODES or not record.parameters:
        return None
    try:
        size, _, _, library, by_name, symbol, *_ = _INFO.unpack(call.read(record.parameters[0], _INFO.size))
        if size != _INFO.size:
            return None
        name = call.string(symbol).decode("utf-8", "replace") if by_name else f"#{symbol & _DWORD}"
        return f"{library_name(call.string(library).decode('utf-8', 'replace'))}!{name}"
    except ProgramFaultError:
        return None
