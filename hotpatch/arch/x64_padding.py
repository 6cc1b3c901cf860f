"""x64: what compilers and linkers fill gaps with.

Sources: Intel optimization manual, "Using NOPs" (1 to 9 bytes); LLVM ``X86AsmBackend::writeNopData`` and Microsoft's ``listing.inc``
(``npad``) for the longer ones, which put 66 and 2E prefixes before the 8- and 9-byte forms; lld and link.exe fill with int3.
"""

from __future__ import annotations

_OPERAND_SIZE = b"\x66"
_SEGMENT = b"\x2e"
_LONG_NOP = bytes.fromhex("0f1f840000000000")

_INTEL = tuple(
    map(
        bytes.fromhex,
        ("90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000", "660f1f840000000000"),
    )
)
_MICROSOFT = tuple(_OPERAND_SIZE * count + _LONG_NOP for count in range(2, 8))
_LLVM = tuple(_OPERAND_SIZE * count + _SEGMENT + _LONG_NOP for count in range(1, 7))
_INT3 = (b"\xcc",)

PADDING = tuple(sorted({*_INTEL, *_MICROSOFT, *_LLVM, *_INT3}, key=lambda filler: (-len(filler), filler)))
"""Every filler, longest first."""


def padding_reaches(code: bytes, start: int, end: int) -> bool:
    """Whether ``code`` holds whole fillers from ``start`` to ``end`` or beyond."""
    while start < end:
        filler = next((filler for filler in PADDING if code.startswith(filler, start)), None)
        if filler is None:
            return False
        start += len(filler)
    return True
