"""Instruction sets, and nothing else: decoding, references, moving instructions, jump forms, calling convention."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from hotpatch.arch.base import Architecture
from hotpatch.arch.certain import Counted, Held
from hotpatch.arch.deeds import Deed, Deeds
from hotpatch.arch.model import (
    HPAT_POINTER_DISTANCE,
    HPAT_SLOT_SIZE,
    LONGEST_INSTRUCTION,
    WHOLE_KINDS,
    CallingConvention,
    CodeWrite,
    Columns,
    DistanceTable,
    Encoding,
    EntrySite,
    FixupKind,
    Flow,
    Instruction,
    JumpTable,
    Machine,
    Redirect,
    Reference,
    Row,
    Step,
    Trampoline,
    Use,
    reference_of,
    step_of,
)
from hotpatch.arch.outline import Outline, Outlines, is_inward, pieces_between
from hotpatch.arch.reach import Reached

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "HPAT_POINTER_DISTANCE",
    "HPAT_SLOT_SIZE",
    "LONGEST_INSTRUCTION",
    "WHOLE_KINDS",
    "Architecture",
    "CallingConvention",
    "CodeWrite",
    "Columns",
    "Counted",
    "Deed",
    "Deeds",
    "DistanceTable",
    "Encoding",
    "EntrySite",
    "FixupKind",
    "Flow",
    "Held",
    "Instruction",
    "JumpTable",
    "Machine",
    "Outline",
    "Outlines",
    "Reached",
    "Redirect",
    "Reference",
    "Row",
    "Step",
    "Trampoline",
    "Use",
    "architecture",
    "is_inward",
    "pieces_between",
    "reference_of",
    "step_of",
]


@cache
def architecture(machine: Machine) -> Architecture:
    """The one look-up from a machine to its instruction set."""
    module = import_module(f"hotpatch.arch.{machine.value}")
    return cast("Callable[[], Architecture]", module.create)()
