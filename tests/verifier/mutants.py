"""Patches that are wrong in one place each, made from a right one: every reference led elsewhere, lost, or a function left unpatched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from hotpatch.arch import FixupKind
from hotpatch.image import Image
from hotpatch.patch import Fixup, Patch, Space

ADDEND = 16
"""Bytes by which a datum is missed."""
PAGE = 0x1000


def mutants(base: Image, patch: Patch) -> Iterator[tuple[str, Patch]]:
    """Each mutant with what is wrong with it."""
    entries = {function.entry for function in base.functions}
    bound = sorted({fixup.target for fixup in patch.fixups if fixup.space is Space.BASE})
    for target in bound:
        if target in entries:
            others = (entry for entry in sorted(entries) if entry != target and entry not in bound)
            yield from ((f"wrong callee for 0x{target:x}", _led(patch, target, other - target)) for other in islice(others, 1))
        else:
            yield f"swapped addend for 0x{target:x}", _led(patch, target, ADDEND)
        yield f"missing reference to 0x{target:x}", replace(patch, fixups=tuple(item for item in patch.fixups if not _is(item, target)))
    if len(patch.functions) > 1:
        for left in patch.functions:
            rest = tuple(function for function in patch.functions if function is not left)
            yield f"{left.name} left unpatched", replace(patch, functions=rest)


def _is(fixup: Fixup, target: int) -> bool:
    return fixup.space is Space.BASE and fixup.target == target


def _led(patch: Patch, target: int, distance: int) -> Patch:
    if distance == ADDEND and {item.kind for item in patch.fixups if _is(item, target)} == {FixupKind.PAGEBASE_REL21}:
        distance = PAGE  # all else is in the instruction that completes it, and needs no fixup
    fixups = tuple(replace(item, target=item.target + distance) if _is(item, target) else item for item in patch.fixups)
    return replace(patch, fixups=fixups)
