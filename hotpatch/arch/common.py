"""What both instruction sets share: a fast way through Capstone, and how a refusal is put together."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any

import capstone

from hotpatch.errors import CannotRelocate, OutOfReach, Refusal, Rule

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    from hotpatch.arch.model import JumpTable

Row = tuple[int, int, int, bytes, bytes, bytes]
"""Capstone's instruction number, address, size in bytes, encoding (padded to 24 bytes), mnemonic and operand text (ASCII; what
follows the first NUL is left over from other instructions: see :func:`text`)."""


def text(field: bytes) -> str:
    """A text of a :data:`Row`, up to its NUL."""
    return field[: field.index(0)].decode()


def holds(field: bytes, part: bytes) -> bool:
    """Whether ``part`` stands in a text of a :data:`Row`, before its NUL."""
    place = field.find(part)
    return place >= 0 and place < field.index(0)


_library: Any = capstone._cs
_instruction: Any = capstone._cs_insn


def _row_layout() -> struct.Struct:
    """The wanted fields of Capstone's ``cs_insn`` (capstone.h), at the offsets that its own ctypes declaration gives them."""
    layout, position = "<", 0
    for name, code in (("id", "I"), ("address", "Q"), ("size", "H"), ("bytes", "24s"), ("mnemonic", "32s"), ("op_str", "160s")):
        declared = getattr(_instruction, name)
        layout += f"{declared.offset - position}x{code}"
        position = declared.offset + declared.size
    return struct.Struct(f"{layout}{ctypes.sizeof(_instruction) - position}x")


_LAYOUT = _row_layout()
_BRIEF = struct.Struct(
    f"<{_instruction.id.offset}xI{_instruction.address.offset - _instruction.id.offset - 4}xQH"
    f"{_instruction.bytes.size}s{_LAYOUT.size - _instruction.bytes.offset - _instruction.bytes.size}x"
)
"""Number, address, size and encoding."""
_NUMBER = slice(_instruction.id.offset // 4, None, _LAYOUT.size // 4)
_ADDRESS = slice(_instruction.address.offset // 8, None, _LAYOUT.size // 8)
_PLACE = struct.Struct("<QH")
"""Address and size, which follow each other."""
_OPERANDS = range(_instruction.op_str.offset, _instruction.op_str.offset + _instruction.op_str.size)


class Rows:
    """Decoded instructions as the one block of bytes that Capstone fills; only what is asked for becomes objects."""

    __slots__ = ("_block",)

    def __init__(self, block: bytes) -> None:
        """Hold ``block``, whole ``cs_insn`` structures."""
        self._block = block

    def __len__(self) -> int:
        return len(self._block) // _LAYOUT.size

    def __iter__(self) -> Iterator[Row]:
        return _LAYOUT.iter_unpack(self._block)

    def __getitem__(self, position: int) -> Row:
        row: Row = _LAYOUT.unpack_from(self._block, position * _LAYOUT.size)
        return row

    def brief(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Number, address, size and encoding of each instruction."""
        return _BRIEF.iter_unpack(self._block)

    def numbers(self) -> list[int]:
        """Capstone's number of each instruction."""
        return memoryview(self._block).cast("I")[_NUMBER].tolist() if self._block else []

    def addresses(self) -> list[int]:
        """The address of each instruction."""
        return memoryview(self._block).cast("Q")[_ADDRESS].tolist() if self._block else []

    def place(self, position: int) -> tuple[int, int]:
        """Address and size of one instruction."""
        place: tuple[int, int] = _PLACE.unpack_from(self._block, position * _LAYOUT.size + _instruction.address.offset)
        return place

    def holding(self, part: re.Pattern[bytes]) -> list[int]:
        """Positions of the instructions whose operand text holds what ``part`` matches; of several in one, each counts."""
        found = []
        block = self._block
        for match in part.finditer(block):  # a pattern of plain bytes runs at memory speed, bytes.find at half of it
            position, offset = divmod(match.start(), _LAYOUT.size)
            if offset in _OPERANDS and block.find(0, match.start() - offset + _OPERANDS.start, match.start()) < 0:
                found.append(position)
        return found

    def hold(self, part: re.Pattern[bytes]) -> bool:
        """Whether any operand text may hold what ``part`` matches."""
        return part.search(self._block) is not None


class LiteDecoder:
    """Capstone without detail, read in one sweep.

    ``Cs.disasm_lite`` builds a ctypes object and two strings for each instruction, which is more than half of its time.
    """

    def __init__(self, architecture: int, mode: int) -> None:
        """Open a Capstone handle for ``architecture`` and ``mode`` (``CS_ARCH_*``, ``CS_MODE_*``)."""
        constructor: Any = capstone.Cs
        self.handle = constructor(architecture, mode)

    def rows(self, code: bytes, address: int) -> Rows:
        """Decode ``code`` until the first undecodable byte."""
        instructions = ctypes.POINTER(_instruction)()
        count = _library.cs_disasm(self.handle.csh, code, len(code), address, 0, ctypes.byref(instructions))
        if not count:
            return Rows(b"")
        try:
            return Rows(ctypes.string_at(instructions, count * _LAYOUT.size))
        finally:
            _library.cs_free(instructions, count)

    def text(self, code: bytes, address: int) -> str:
        """The first instruction of ``code`` as one line of assembly, or its bytes where it is none."""
        for _, _, mnemonic, operands in self.handle.disasm_lite(code, address, 1):
            return f"{mnemonic} {operands}".rstrip()
        return f".byte {code[:16].hex(' ')}"


def out_of_reach(site: int, target: int, reach: str, what: str) -> OutOfReach:
    """The exception for a field at ``site`` that cannot refer to ``target``; ``reach`` says what it can do, ``what`` what it belongs to."""
    return OutOfReach(
        [
            Refusal(
                Rule.OUT_OF_REACH,
                None,
                None,
                f"{what} at 0x{site:x} cannot refer to 0x{target & (2**64 - 1):x} ({reach}): place the two closer together",
                {"site": site, "target": target, "distance": target - site, "reach": reach},
            )
        ]
    )


def cannot_relocate(rule: Rule, reason: str, *, address: int, code: bytes, instruction: str, **more: object) -> CannotRelocate:
    """The exception for an instruction that cannot be moved; ``code`` holds its bytes, ``more`` joins the evidence."""
    evidence: dict[str, object] = {"address": address, "bytes": code.hex(), "instruction": instruction, **more}
    return CannotRelocate([Refusal(rule, None, None, reason, evidence)])


def code_spans(size: int, address: int, tables: Iterable[JumpTable]) -> tuple[tuple[int, int], ...]:
    """The parts of ``size`` bytes at ``address`` that no table covers, as pairs of start and end offsets.

    Compilers put jump tables, and the tables of indices in front of them, inside the range that unwind data gives to a function.
    """
    data = []
    for table in tables:
        data.append((table.address - address, table.size))
        if table.index is not None:
            data.append((table.index[0] - address, table.index[1]))
    spans, start = [], 0
    for begin, length in sorted(data):
        if begin < size and begin + length > 0:
            if begin > start:
                spans.append((start, begin))
            start = max(start, begin + length)
    if start < size:
        spans.append((start, size))
    return tuple(spans)
