"""Texts that say when or from what a build was made: versions, dates, times and the hashes that go with them, folders of sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.differ.view import View

_TEXT_LIMIT = 8192
_PRINTABLE = b"\t\r\n" + bytes(range(0x20, 0x7F))
_SHORTEST = 3
_ALIGNMENT = 4
"""Bytes; what compilers align texts to at least that begin behind something else than a text."""
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = re.compile(rf"(?<![\w-])\d{{4}}-\d\d-\d\d(?![\d-])|\b(?:{_MONTHS}) [ \d]\d \d{{4}}\b")
_TIME = re.compile(r"(?<![\d:])\d\d:\d\d:\d\d(?![\d:])")
_HASH = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,64}(?![0-9A-Za-z])")
_VERSION = re.compile(r"(?<![\w.%])v?\d{1,5}\.\d{1,5}\.\d{1,5}(?:(?:a|b|rc|\.dev|\.post)\d{1,4})?(?![\w]|\.\w)")
_THREE = re.compile(r"(?<![\w.%])v?(\d{1,5})\.(\d{1,5})\.(\d{1,5})(?![\w]|\.\w)")
_NAMED_VERSION = re.compile(r"(?<=[Vv]ersion )\d+(?:\.\d+){1,3}(?![\w]|\.\w)")
_FOLDER = re.compile(
    r"(?:(?<=[\s\"'(\[])|^)(?:[A-Za-z]:)?[\\/](?:[^\\/:*?\"<>|%]+[\\/])+"
    r"(?=[^\\/:*?\"<>|%]*\.(?:asm|c|cc|cpp|cxx|f|f90|go|h|hh|hpp|hxx|inl|pxd|pxi|pyx|rs|s)(?!\w))"
)
"""The folders of a source file (``__FILE__``), from the root on: only the machine that built the image has these."""

_INTERNAL_NAME = re.compile(r"^(_[a-z]+)_\d{1,5}_\d{1,5}_\d{1,5}(?=\.[a-z_]|$)")
"""What generators of code share among their modules of one version: ``_cython_3_1_1.cython_function_or_method``."""


def whole_text(view: View, rva: int) -> tuple[str, int] | None:
    """The text that ``rva`` lies in, from behind the zero byte before it to the next, and how far in; ``None`` where there is none.

    At an aligned address it also begins behind a byte of no text, such as the last of a number.
    """
    section = view.section(rva)
    if section is None:
        return None
    low = max(section.range.start, rva - _TEXT_LIMIT)
    follows_zero = rva > low and not view.image.read(rva - 1, 1)[0]
    before = b"" if follows_zero else view.image.read(low, rva - low).rpartition(b"\0")[2]
    if rva % _ALIGNMENT == 0 and not is_printable(before[-1:]):
        before = b""
    raw, end, _ = view.image.read(rva, _TEXT_LIMIT).partition(b"\0")
    found = before + raw
    if not end or not raw or not is_printable(found):
        return None
    return found.decode("ascii"), len(before)


def is_printable(found: bytes) -> bool:
    """Whether all bytes are printable ASCII, blanks and line ends among them."""
    return not found.translate(None, _PRINTABLE)


def differ_in_provenance(old: str, new: str) -> bool:
    """Whether two texts are different, and the same but for versions, dates, times and folders of sources; for hashes too, beside a date.

    Numbers that may mean something to the program are none of these: two parts and a point may be a fraction, four parts an address, and
    hexadecimal digits alone a key.
    """
    return old != new and len(old) >= _SHORTEST and _without(old) == _without(new)


def versions(old: str, new: str) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """The first version of three parts in which two texts differ."""
    for one, other in zip(_THREE.finditer(old), _THREE.finditer(new), strict=False):
        if one[0] != other[0]:
            return (int(one[1]), int(one[2]), int(one[3])), (int(other[1]), int(other[2]), int(other[3]))
    return None


def version_numbers(version: tuple[int, int, int]) -> tuple[int, ...]:
    """The one number by which headers give a version of three parts: decimal in steps of a thousand or a hundred, or byte by byte."""
    major, minor, patch = version
    return major * 1_000_000 + minor * 1_000 + patch, major * 10_000 + minor * 100 + patch, major << 16 | minor << 8 | patch


def _without(text: str) -> str:
    dated = bool(_DATE.search(text))
    for pattern, mark in ((_FOLDER, "\5"), (_DATE, "\1"), (_TIME, "\2"), (_VERSION, "\3"), (_NAMED_VERSION, "\3")):
        text = pattern.sub(mark, text)
    text = _INTERNAL_NAME.sub("\\1_\3", text)
    return _HASH.sub("\4", text) if dated else text
