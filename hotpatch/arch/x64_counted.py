"""x64: instructions with a register and a displacement as their memory operand, and the same with another displacement.

Source: Intel SDM volume 2, 2.1.3 ("ModR/M and SIB Bytes").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch.certain import Counted
from hotpatch.arch.common import out_of_reach
from hotpatch.arch.model import FixupKind
from hotpatch.arch.x64_encoding import modrm_offset
from hotpatch.arch.x64_operands import memory

if TYPE_CHECKING:
    from hotpatch.arch.model import Instruction

_SIZES = {1: 1, 2: 4}
"""Bytes of the displacement, by the mode in the ModRM byte."""
_HAS_SIB = 4
_EVEX = 0x62
"""Its short displacements count in steps of what is accessed (SDM volume 2, 2.7.5)."""


def counted(instruction: Instruction | None, code: bytes) -> Counted | None:
    """See :meth:`hotpatch.arch.base.Architecture.counted`; numbers added to RSP name no data."""
    text = next((one for one in instruction.operands.split(", ") if one.endswith("]")), "") if instruction is not None else ""
    inside = memory(text) if text else None
    if instruction is None or inside is None or inside.base is None or inside.base in ("rip", "rsp") or inside.scaled is not None:
        return None
    return Counted(inside.base, inside.displacement, FixupKind.REL32) if _place(code[: instruction.size]) else None


def recount(code: bytes, address: int, number: int) -> bytes:
    """The instruction with another displacement.

    Raises:
        OutOfReach: It has more bits than the instruction has room for.
    """
    at, size = _place(code) or (0, 0)
    if not -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
        raise out_of_reach(address, address + number, f"{8 * size} bits", "the displacement of an instruction")
    return code[:at] + number.to_bytes(size, "little", signed=True) + code[at + size :]


def _place(code: bytes) -> tuple[int, int] | None:
    """Offset and size of the displacement."""
    at = modrm_offset(code)
    if _EVEX in code[:at] or at >= len(code) or code[at] >> 6 not in _SIZES:
        return None
    return at + (2 if code[at] & 7 == _HAS_SIB else 1), _SIZES[code[at] >> 6]
