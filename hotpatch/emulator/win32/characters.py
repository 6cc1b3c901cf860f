"""Kinds and cases of characters, and code pages, as the C run time asks for them at its start."""

from __future__ import annotations

import unicodedata

from hotpatch.emulator.win32.call import (
    ERROR_INSUFFICIENT_BUFFER,
    ERROR_INVALID_FLAGS,
    ERROR_INVALID_PARAMETER,
    Call,
    Dword,
    Int,
    Table,
    Word,
)

TABLE = Table()

_UPPER, _LOWER, _DIGIT, _SPACE, _PUNCTUATION, _CONTROL, _BLANK, _HEX, _ALPHA, _DEFINED = (1 << place for place in range(10))
"""C1_UPPER to C1_DEFINED (winnls.h)."""
_KINDS = 1
"""CT_CTYPE1."""
_TO_LOWER, _TO_UPPER = 0x100, 0x200
"""LCMAP_LOWERCASE, LCMAP_UPPERCASE (winnls.h)."""
_HARMLESS = 0x0100_0000
"""LCMAP_LINGUISTIC_CASING: other rules for Turkic languages alone."""
_UTF8 = 65001
_LONGEST = {_UTF8: 4, 0: 4, 1: 4, 3: 4, 1252: 1, 437: 1, 20127: 1, 28591: 1}
"""Bytes of the longest character, by code page."""
_INFO_SIZE = 20


@TABLE.provide("GetCPInfo")
def get_cp_info(call: Call, page: Dword, result: Word) -> int:
    """GetCPInfo (CPINFO): no page that is known has lead bytes."""
    longest = _LONGEST.get(page)
    if longest is None or not result:
        return call.fail(ERROR_INVALID_PARAMETER)
    call.write(result, (longest.to_bytes(4, "little") + b"?").ljust(_INFO_SIZE, b"\0"))
    return 1


@TABLE.provide("GetStringTypeW")
def get_string_type(call: Call, which: Dword, source: Word, count: Int, result: Word) -> int:
    """GetStringTypeW, of CT_CTYPE1."""
    if which != _KINDS or not source or not result or not count:
        return call.fail(ERROR_INVALID_PARAMETER)
    kinds = [_kind(unit) for unit in _units(call, source, count)]
    call.write(result, b"".join(kind.to_bytes(2, "little") for kind in kinds))
    return 1


@TABLE.provide("LCMapStringW")
def lc_map_string(call: Call, locale: Dword, flags: Dword, source: Word, count: Int, target: Word, room: Int) -> int:
    """LCMapStringW: to lower or upper case."""
    return _mapped(call, flags, source, count, target, room)


@TABLE.provide("LCMapStringEx")
def lc_map_string_ex(
    call: Call, locale: Word, flags: Dword, source: Word, count: Int, target: Word, room: Int, version: Word, reserved: Word, handle: Word
) -> int:
    """LCMapStringEx: to lower or upper case."""
    return _mapped(call, flags, source, count, target, room)


def _mapped(call: Call, flags: int, source: int, count: int, target: int, room: int) -> int:
    if not source or not count or room < 0:
        return call.fail(ERROR_INVALID_PARAMETER)
    if flags & ~_HARMLESS not in (_TO_LOWER, _TO_UPPER):
        return call.fail(ERROR_INVALID_FLAGS)
    units = [_case(unit, upper=bool(flags & _TO_UPPER)) for unit in _units(call, source, count)]
    if not room:
        return len(units)
    if room < len(units):
        return call.fail(ERROR_INSUFFICIENT_BUFFER)
    call.write(target, b"".join(unit.to_bytes(2, "little") for unit in units))
    return len(units)


def _units(call: Call, source: int, count: int) -> list[int]:
    """UTF-16 units; with the zero at the end where no count is given."""
    raw = call.system.guest_string(source, 2) + bytes(2) if count < 0 else call.read(source, 2 * count)
    return [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]


def _case(unit: int, *, upper: bool) -> int:
    """The other case of a unit, where that is one unit too."""
    if 0xD800 <= unit < 0xE000:
        return unit
    text = chr(unit).upper() if upper else chr(unit).lower()
    return ord(text) if len(text) == 1 and ord(text) < 0x1_0000 else unit


def _kind(unit: int) -> int:
    text = chr(unit)
    category = unicodedata.category(text)
    kind = _DEFINED if category != "Cn" else 0
    kind |= {"Lu": _UPPER, "Ll": _LOWER, "Nd": _DIGIT, "Cc": _CONTROL}.get(category, 0)
    kind |= _ALPHA if category[0] == "L" else 0
    kind |= _PUNCTUATION if category[0] in "PS" else 0
    kind |= _SPACE if text in "\t\n\v\f\r\x85" or category[0] == "Z" else 0
    kind |= _BLANK if text == "\t" or category == "Zs" else 0
    return kind | (_HEX if text in "0123456789abcdefABCDEF" else 0)
