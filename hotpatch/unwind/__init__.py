"""Unwind data, per machine: carried into a patch image, and walked."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from hotpatch.unwind.cxx import descriptor_range
from hotpatch.unwind.model import (
    FRAME_LIMIT,
    CarriedUnwind,
    Frame,
    LanguageHandler,
    Located,
    Meaning,
    Unwinder,
    UnwindReference,
    Unwound,
    row_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.arch import Machine

__all__ = [
    "FRAME_LIMIT",
    "CarriedUnwind",
    "Frame",
    "LanguageHandler",
    "Located",
    "Meaning",
    "UnwindReference",
    "Unwinder",
    "Unwound",
    "descriptor_range",
    "row_of",
    "unwinder",
]


@cache
def unwinder(machine: Machine) -> Unwinder:
    """The one look-up from a machine to its unwind data."""
    module = import_module(f"hotpatch.unwind.{machine.value}")
    return cast("Callable[[], Unwinder]", module.create)()
