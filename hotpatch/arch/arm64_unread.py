"""Arm64: how instructions name and fill registers that hold arguments. Source: Arm ARM, "A64 instruction set"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.arm64_constants import whole_register
from hotpatch.arch.model import Flow
from hotpatch.arch.unread import Spelling

if TYPE_CHECKING:
    from hotpatch.arch.model import Instruction

_FILLING = re.compile(
    r"(?:mov[zn]?|adrp?|adds?|subs?|ands?|orr|eor|lsl|lsr|asr|[us]xt[bhw]|[us]bfx|[us]bfiz|mul|ldu?r(?:s?[bhw])?|csetm?|ldp"
    r"|csel|csin[cv]|csneg|cinc|mvn|neg|m(?:add|sub)|[us]div)$"
)


def _fills(instruction: Instruction) -> bool:
    return _FILLING.match(instruction.mnemonic) is not None


def _is_silent(instruction: Instruction, place: str) -> bool:
    """Calls of the system get whatever is in any of them."""
    del place
    return instruction.flow is not Flow.TRAP and instruction.mnemonic in ("svc", "hvc", "smc")


def _asks_the_system(instruction: Instruction) -> bool:
    return _is_silent(instruction, "")


def _loads_pair(instruction: Instruction) -> bool:
    return instruction.mnemonic in ("ldp", "ldpsw")


SPELLING = Spelling(
    widest=whole_register,
    fills=_fills,
    hidden=_is_silent,
    returned=("x0", "x1"),
    second="x1",
    given=("x8",),  # where the caller wants a large result
    implicit=_asks_the_system,
    scratch=frozenset(f"x{number}" for number in range(16)),  # x16 and x17 are for veneers
    pairs=_loads_pair,
)
