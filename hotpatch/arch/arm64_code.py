"""Arm64: a function's words, classified by their top bytes at the speed of ``bytes.translate`` and regular expressions."""

from __future__ import annotations

import re
import struct

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64

_COPIES_AND_FLAGS = (0xAA, 0x8B, 0x3A, 0xBA, 0x7A, 0xFA)
"""Data processing (register) that may copy an address, or writes the flags alone."""

_PLAIN = tuple(
    top
    for top in range(256)
    if (top >> 2 & 7 == 0b100 and top & 0x1F != 0x10 and top != a64.ADD_IMMEDIATE_TOP)
    or (top >> 1 & 7 == 0b101 and top not in _COPIES_AND_FLAGS)
)
"""Data processing that writes Rd and makes nothing of an address but an escape."""

_TOPS_BY_CLASS = {
    "J": (0x14, 0x15, 0x16, 0x17),
    "C": (0x94, 0x95, 0x96, 0x97),
    "Q": (0x54, 0x34, 0x35, 0xB4, 0xB5, 0x36, 0x37, 0xB6, 0xB7),
    "R": (0xD6, 0xD7),
    "P": (0x90, 0xB0, 0xD0, 0xF0),
    "A": (0x10, 0x30, 0x50, 0x70),
    "+": (a64.ADD_IMMEDIATE_TOP,),
    "M": a64.UNSIGNED_IMMEDIATE_TOPS,
    "l": (0x18, 0x58, 0x98, 0xD8, 0x1C, 0x5C, 0x9C),
    "D": _PLAIN,
}
"""Classes by the words' top bytes; everything else is ``.``."""

JUMP, CALL, BRANCH, REGISTER, PAGE, ADDRESS, ADD, MEMORY, LITERAL, PLAIN, OTHER = b"JCQRPA+MlD."

_CLASS_OF_TOP = bytes(next((ord(name) for name, tops in _TOPS_BY_CLASS.items() if top in tops), ord(".")) for top in range(256))
_DIRECT = re.compile(rb"[JCQAl]")
PAGES = re.compile(rb"P")
_REGISTER_BRANCHES = re.compile(rb"R")
_END_OF_JUMP = b"\x1f\xd6"
"""The upper half of BR, in bytes."""


_NEAR = 32
"""Words before a jump through a table that may hold the last step of its address."""


def may_jump(code: bytes) -> bool:
    """Whether a BR may stand in ``code``: most functions have none, and then no table."""
    return _END_OF_JUMP in code  # which takes a tenth of the time that an expression for all of BR takes


def has_pages(code: bytes) -> bool:
    """Whether there is an ADRP in ``code``."""
    return b"P" in code[3 :: a64.WORD].translate(_CLASS_OF_TOP)


class Code:
    """A function's words, classified.

    Attributes:
        address: Of the first word.
        words: All whole words.
        classes: A byte for each word, see ``_TOPS_BY_CLASS``.
    """

    __slots__ = ("_direct", "address", "classes", "words")

    def __init__(self, code: bytes, address: int) -> None:
        """Split ``code``; bytes past the last whole word are left out."""
        count = len(code) // a64.WORD
        self.address = address
        self._direct: list[tuple[int, a64.Form, int]] | None = None
        self.words: tuple[int, ...] = struct.unpack_from(f"<{count}I", code)
        self.classes = code[3 : count * a64.WORD : a64.WORD].translate(_CLASS_OF_TOP)

    def site(self, index: int) -> int:
        """Address of a word."""
        return self.address + index * a64.WORD

    def index(self, address: int) -> int | None:
        """Index of the word at ``address``, or ``None`` where it lies outside or between words."""
        distance = address - self.address
        return distance >> 2 if 0 <= distance < len(self.words) * a64.WORD and not distance & 3 else None

    def direct(self) -> list[tuple[int, a64.Form, int]]:
        """Word index, form and target of every PC-relative instruction but ADRP."""
        found = self._direct
        if found is None:
            found = self._direct = []
            address, words, form_of_top, distances = self.address, self.words, a64.FORM_OF_TOP, fields.WORD_DISTANCE_OF_TOP
            for match in _DIRECT.finditer(self.classes):
                index = match.start()
                word = words[index]
                form = form_of_top[word >> 24]
                distance = distances[word >> 24]
                if form is None:
                    continue
                if distance is not None:  # what :func:`fields.decode` does, written out, because most references are of this kind
                    place, mask, sign = distance
                    found.append((index, form, address + ((index + ((word >> place & mask) ^ sign) - sign) << 2)))
                else:
                    found.append((index, form, fields.decode(form.kind, word, address + index * a64.WORD)))
        return found

    def has_pages(self) -> bool:
        """Whether there is an ADRP."""
        return b"P" in self.classes

    def has_literals(self) -> bool:
        """Whether there is a load (literal)."""
        return b"l" in self.classes

    def pages(self) -> list[int]:
        """Indices of the words that are ADRP."""
        return [match.start() for match in PAGES.finditer(self.classes)]

    def register_branches(self) -> list[int]:
        """Indices of the words that are jumps, calls and returns through registers."""
        return [match.start() for match in _REGISTER_BRANCHES.finditer(self.classes)]

    def register_jumps(self) -> list[int]:
        """Indices of the words that are BR."""
        return [index for index in self.register_branches() if a64.is_branch_register(self.words[index])]

    def traps(self) -> list[int]:
        """Indices of the words that are ``brk #1``."""
        words = self.words
        return [index for index, word in enumerate(words) if word == a64.BRK_TRAP] if a64.BRK_TRAP in words else []

    def may_read_table(self, jump: int) -> bool:
        """Whether the BR ``jump`` may go through a table, not a tail call's pointer.

        The last word before it that writes its register is then an addition, or a load with a register offset.
        """
        register = a64.rn(self.words[jump])
        for index in range(jump - 1, max(jump - _NEAR, 0) - 1, -1):
            word = self.words[index]
            if a64.written_registers(word) >> register & 1:
                return word & 0xFF000000 == 0x8B000000 or word & 0xFFE00C00 == 0xF8600800
        return False
