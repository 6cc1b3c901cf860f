"""x64: epilogues, known by their instructions. Source: MS Learn, "x64 prolog and epilog", "Unwind procedure".

The form is fixed so that an unwinder can do this: ``add rsp, constant`` or ``lea rsp, constant[frame register]``, then pops of 8-byte
registers, then a return or a jump that leaves the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.unwind.x64_info import REGISTERS

if TYPE_CHECKING:
    from collections.abc import Callable

_RSP = 4
_REX = 0x40
_POP = 0x58
_LONGEST = 8 + 16 * 2 + 8
"""Bytes: an ``lea`` with SIB and 32-bit displacement, sixteen pops, a jump."""


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is left of an epilogue: ``base`` + ``add`` becomes rsp where ``base`` is given, then ``pops`` in order, then the return."""

    base: str | None
    add: int
    pops: tuple[str, ...]


def match(pc: int, frame_register: str | None, code: Callable[[int, int], bytes], leaves: Callable[[int], bool]) -> Epilogue | None:
    """The epilogue that ``pc`` stands in, or ``None``. ``leaves(va)``: whether a jump to ``va`` leaves the function."""
    raw = code(pc, _LONGEST)
    at = 0
    base: str | None = None
    add = 0
    adjusted = _stack_adjustment(raw, frame_register)
    if adjusted is not None:
        base, add, at = adjusted
    pops = []
    while at < len(raw):
        prefix = raw[at] if raw[at] & 0xF0 == _REX else 0
        opcode = at + (1 if prefix else 0)
        if opcode >= len(raw) or raw[opcode] & 0xF8 != _POP:
            break
        number = raw[opcode] & 7 | (prefix & 1) << 3
        pops.append(REGISTERS[number])
        at = opcode + 1
    return Epilogue(base, add, tuple(pops)) if _leaves(raw[at:], pc + at, leaves) else None


def _stack_adjustment(raw: bytes, frame_register: str | None) -> tuple[str, int, int] | None:
    """Base register, constant and length of ``add rsp, …`` or ``lea rsp, …[frame register]``."""
    if raw[:3] == b"\x48\x83\xc4":
        return "rsp", int.from_bytes(raw[3:4], "little", signed=True), 4
    if raw[:3] == b"\x48\x81\xc4":
        return "rsp", int.from_bytes(raw[3:7], "little", signed=True), 7
    if len(raw) < 3 or raw[0] & 0xFE != 0x48 or raw[1] != 0x8D or frame_register is None:
        return None
    mode, target, low = raw[2] >> 6, raw[2] >> 3 & 7, raw[2] & 7
    if target != _RSP or mode == 3:
        return None
    at = 3
    if low == _RSP:  # r12 as a base needs a SIB byte
        if raw[3:4] != b"\x24":
            return None
        at = 4
    if REGISTERS[low | (raw[0] & 1) << 3] != frame_register:
        return None
    width = {0: 0, 1: 1, 2: 4}[mode]
    return frame_register, int.from_bytes(raw[at : at + width], "little", signed=True), at + width


def _leaves(raw: bytes, va: int, leaves: Callable[[int], bool]) -> bool:
    """Whether a return, or a jump out of the function, begins ``raw``."""
    if raw[:1] in {b"\xc3", b"\xc2"} or raw[:2] in {b"\xf3\xc3", b"\xf2\xc3"}:
        return True
    if raw[:1] == b"\xf2":  # bnd prefix
        raw, va = raw[1:], va + 1
    if raw[:1] == b"\xeb" and len(raw) >= 2:
        return leaves(va + 2 + int.from_bytes(raw[1:2], "little", signed=True))
    if raw[:1] == b"\xe9" and len(raw) >= 5:
        return leaves(va + 5 + int.from_bytes(raw[1:5], "little", signed=True))
    if raw[:2] == b"\xff\x25":
        return True
    # an indirect jump through a register or memory counts with REX.W only: without it, it is a switch
    return len(raw) >= 3 and raw[0] & 0xF8 == 0x48 and raw[1] == 0xFF and raw[2] >> 3 & 7 == 4
