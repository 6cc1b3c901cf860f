"""Whether the system is of a version at least, as programs ask (MS Learn, VerSetConditionMask and VerifyVersionInfoW)."""

from __future__ import annotations

from hotpatch.emulator.win32.call import ERROR_BAD_ARGUMENTS, ERROR_OLD_WIN_VERSION, Call, Dword, Table, Word

TABLE = Table()

MAJOR, MINOR, BUILD = 10, 0, 26100
_PLATFORM = 2
"""VER_PLATFORM_WIN32_NT."""
_WORKSTATION = 1
"""VER_NT_WORKSTATION."""
_CONDITION_BITS = 3
_CONDITION = (1 << _CONDITION_BITS) - 1
_EQUAL, _GREATER, _GREATER_EQUAL, _LESS, _LESS_EQUAL, _AND, _OR = range(1, 8)
"""VER_EQUAL to VER_OR (winnt.h)."""
_MINOR, _MAJOR, _BUILD_NUMBER, _PLATFORM_ID, _PACK_MINOR, _PACK_MAJOR, _SUITE, _PRODUCT = (1 << place for place in range(8))
"""VER_MINORVERSION to VER_PRODUCT_TYPE (winnt.h); each has three bits of the mask, in this order."""
_OWN = {
    _MINOR: MINOR,
    _MAJOR: MAJOR,
    _BUILD_NUMBER: BUILD,
    _PLATFORM_ID: _PLATFORM,
    _PACK_MINOR: 0,
    _PACK_MAJOR: 0,
    _SUITE: 0,
    _PRODUCT: _WORKSTATION,
}
_FIELDS = {"W": (276, 278, 280, 282), "A": (148, 150, 152, 154)}
"""Where OSVERSIONINFOEX has wServicePackMajor, wServicePackMinor, wSuiteMask and wProductType; dwMajorVersion is at 4 in both."""
_IN_TURN = (_MAJOR, _MINOR, _PACK_MAJOR, _PACK_MINOR)
"""What is compared as one number, the first the most significant, where its condition is one of order."""


@TABLE.provide("VerSetConditionMask")
def ver_set_condition_mask(call: Call, mask: Word, types: Dword, condition: Dword) -> int:
    """VerSetConditionMask: of several types the highest gets the condition."""
    types &= 0xFF
    condition &= _CONDITION
    return mask | condition << (types.bit_length() - 1) * _CONDITION_BITS if types and condition else mask


@TABLE.provide("VerifyVersionInfoW")
def verify_version_info_w(call: Call, wanted: Word, types: Dword, mask: Word) -> int:
    """VerifyVersionInfoW."""
    return _verify(call, wanted, types, mask, "W")


@TABLE.provide("VerifyVersionInfoA")
def verify_version_info_a(call: Call, wanted: Word, types: Dword, mask: Word) -> int:
    """VerifyVersionInfoA."""
    return _verify(call, wanted, types, mask, "A")


def _verify(call: Call, wanted: int, types: int, mask: int, form: str) -> int:
    types &= 0xFF
    if not types or not mask:
        return call.fail(ERROR_BAD_ARGUMENTS)
    asked = _read(call, wanted, form)
    conditions = {kind: mask >> place * _CONDITION_BITS & _CONDITION for place, kind in enumerate(_OWN) if types & kind}
    ordered = [kind for kind in _IN_TURN if kind in conditions]
    if ordered:
        condition = conditions[ordered[0]]
        if not _holds(condition, [_OWN[kind] for kind in ordered], [asked[kind] for kind in ordered]):
            return call.fail(ERROR_OLD_WIN_VERSION)
    for kind, condition in conditions.items():
        if kind == _SUITE:
            met = _OWN[kind] & asked[kind] == asked[kind] if condition == _AND else bool(_OWN[kind] & asked[kind]) or not asked[kind]
        else:
            met = kind in ordered or _holds(condition, [_OWN[kind]], [asked[kind]])
        if not met:
            return call.fail(ERROR_OLD_WIN_VERSION)
    return 1


def _holds(condition: int, own: list[int], asked: list[int]) -> bool:
    """Whether the system's own version is to the one asked for as ``condition`` says."""
    results = {
        _EQUAL: own == asked,
        _GREATER: own > asked,
        _GREATER_EQUAL: own >= asked,
        _LESS: own < asked,
        _LESS_EQUAL: own <= asked,
    }
    return results.get(condition, False)


def _read(call: Call, wanted: int, form: str) -> dict[int, int]:
    """OSVERSIONINFOEX by type."""
    places = _FIELDS[form]
    found = {_MAJOR: call.get32(wanted + 4), _MINOR: call.get32(wanted + 8)}
    found |= {_BUILD_NUMBER: call.get32(wanted + 12), _PLATFORM_ID: call.get32(wanted + 16)}
    widths = zip((_PACK_MAJOR, _PACK_MINOR, _SUITE, _PRODUCT), places, (2, 2, 2, 1), strict=True)
    return found | {kind: int.from_bytes(call.read(wanted + at, width), "little") for kind, at, width in widths}
