"""Refusals of other rooms, told where in the patch they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.errors import Refusal, Refused
    from hotpatch.patch import PatchedFunction


def located(refused: Refused, function: PatchedFunction) -> tuple[Refusal, ...]:
    """The refusals of ``refused`` with the function's name and RVA where they have none."""
    return tuple(
        replace(refusal, function=refusal.function or function.name, rva=function.base_rva if refusal.rva is None else refusal.rva)
        for refusal in refused.refusals
    )
