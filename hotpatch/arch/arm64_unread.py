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
    r"(?:mov[zn]?|adrp?|adds?|subs?|ands?|orr|eor|lsl|lsr|asr|[us]xt[bhw]|[us]bfx|[us]bfiz|mul|ldu?r(?:s?[bhw])?|cset|ldp)$"
)


def _fills(instruction: Instruction) -> bool:
    return _FILLING.match(instruction.mnemonic) is not None


def _is_silent(instruction: Instruction, place: str) -> bool:
    """Calls of the system get whatever is in any of them."""
    del place
    return instruction.flow is not Flow.TRAP and instruction.mnemonic in ("svc", "hvc", "smc")


SPELLING = Spelling(widest=whole_register, fills=_fills, hidden=_is_silent, returned=("x0", "x1"))
