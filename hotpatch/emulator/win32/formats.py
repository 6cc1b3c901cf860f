"""The printf conversions of the C run time (MS Learn, "Format specification syntax: printf and wprintf functions")."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SPECIFICATION = re.compile(rb"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(hh|h|ll|l|I64|I32|I|j|z|t|L|w)?(.)", re.DOTALL)
_BITS = {b"hh": 8, b"h": 16, b"ll": 64, b"I64": 64, b"I": 64, b"j": 64, b"z": 64, b"t": 64}
_LIMIT = 1 << 16
"""Characters of a field's width or precision."""


def format_text(form: bytes, word: Callable[[], int], string: Callable[[int, int], bytes]) -> bytes:
    """What printf makes of ``form``.

    Args:
        form: The format.
        word: The next argument, 64 bits as it lies in the argument list; floating-point ones lie there as doubles.
        string: The characters of a string up to its NUL, given its address and the width of its characters in bytes.
    """

    def number(text: bytes | None) -> int | None:
        if text is None:
            return None
        value = word() if text == b"*" else int(text)
        value = (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
        return max(min(value, _LIMIT), -_LIMIT)

    def convert(found: re.Match[bytes]) -> bytes:
        flags, width_text, precision_text, length, kind = found.groups()
        if kind == b"%":
            return b"%"
        width = number(width_text) or 0
        if width < 0:
            flags, width = flags + b"-", -width
        has_precision = b"." in found.group(0)[: -len(kind)]
        precision = (number(precision_text) or 0) if has_precision else None
        if precision is not None and precision < 0:
            precision = None
        body = _convert(kind.decode("latin-1"), flags, precision, length, word, string)
        if b"-" in flags:
            return body.ljust(width)
        if b"0" in flags and kind in b"diuxXofFeEgGaA" and not (kind in b"diuxXo" and precision is not None):
            start = re.match(rb"[+\- ]?(?:0[xX])?", body)
            cut = start.end() if start else 0
            return body[:cut] + body[cut:].rjust(width - cut, b"0")
        return body.rjust(width)

    return _SPECIFICATION.sub(convert, form)


def _convert(
    kind: str, flags: bytes, precision: int | None, length: bytes | None, word: Callable[[], int], string: Callable[[int, int], bytes]
) -> bytes:
    match kind:
        case "d" | "i":
            bits = _BITS.get(length or b"", 32)
            value = word() & (1 << bits) - 1
            value -= value >> bits - 1 << bits
            return _sign(value < 0, flags) + _digits(f"{abs(value)}", precision)
        case "u" | "x" | "X" | "o":
            value = word() & (1 << _BITS.get(length or b"", 32)) - 1
            text = {"u": f"{value}", "x": f"{value:x}", "X": f"{value:X}", "o": f"{value:o}"}[kind]
            prefix = {"x": b"0x", "X": b"0X"}.get(kind, b"") if b"#" in flags and value else b""
            return prefix + _digits(text, precision)
        case "p":
            return f"{word() & (1 << 64) - 1:016X}".encode()
        case "c":
            return bytes((word() & 0xFF,))
        case "s" | "S":
            wide = (length in (b"l", b"w")) != (kind == "S")
            va = word()
            text_bytes = b"(null)" if not va else string(va, 2 if wide else 1)
            if wide and va:
                text_bytes = text_bytes.decode("utf-16-le", "replace").encode()
            return text_bytes if precision is None else text_bytes[:precision]
        case "f" | "F" | "e" | "E" | "g" | "G":
            value_float = float(struct.unpack("<d", (word() & (1 << 64) - 1).to_bytes(8, "little"))[0])
            alternate = "#" if b"#" in flags else ""
            negative = value_float < 0 or str(value_float).startswith("-")
            return _sign(negative, flags) + f"{abs(value_float):{alternate}.{6 if precision is None else precision}{kind}}".encode()
        case _:
            return kind.encode("latin-1")


def _digits(text: str, precision: int | None) -> bytes:
    if precision == 0 and text == "0":
        return b""
    return text.rjust(precision or 0, "0").encode()


def _sign(negative: bool, flags: bytes) -> bytes:
    if negative:
        return b"-"
    return b"+" if b"+" in flags else b" " if b" " in flags else b""
