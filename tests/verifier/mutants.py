"""Patches made wrong in one place: a reference led elsewhere or lost, a function left unpatched, a bit of an instruction flipped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from hotpatch.arch import FixupKind
from hotpatch.image import Image
from hotpatch.patch import Fixup, Patch, Space
from tests.verifier.damage import with_code

ADDEND = 16
"""Bytes by which a datum is missed."""
PAGE = 0x1000
_DRAWS = 1000


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


def flipped(patch: Patch, seed: str) -> Iterator[tuple[str, Patch]]:
    """Mutants with one bit of one new function's instructions flipped, so that another instruction of the same size stands there."""
    chance, arch = random.Random(seed), patch.image.architecture
    bound = {fixup.site + at for fixup in patch.fixups for at in range(arch.field_size(fixup.kind))}
    for _ in range(_DRAWS):
        function = chance.choice(patch.functions)
        code = patch.image.read(function.patch_rva, function.size)
        item = chance.choice(list(arch.disassemble(code, function.patch_rva)))
        bit = chance.randrange(item.size * 8)
        if item.address + bit // 8 in bound:
            continue
        old = patch.image.read(item.address, item.size)
        new = (int.from_bytes(old, "little") ^ 1 << bit).to_bytes(item.size, "little")
        other = next(iter(arch.disassemble(new, item.address)), None)
        if other is None or other.size != item.size or other == item:
            continue
        what = f"{item.mnemonic} {item.operands} made {other.mnemonic} {other.operands}"
        yield what, with_code(patch, item.address - patch.functions[0].patch_rva, old.hex(), new.hex())


def _is(fixup: Fixup, target: int) -> bool:
    return fixup.space is Space.BASE and fixup.target == target


def _led(patch: Patch, target: int, distance: int) -> Patch:
    if distance == ADDEND and {item.kind for item in patch.fixups if _is(item, target)} == {FixupKind.PAGEBASE_REL21}:
        distance = PAGE  # all else is in the instruction that completes it, and needs no fixup
    fixups = tuple(replace(item, target=item.target + distance) if _is(item, target) else item for item in patch.fixups)
    return replace(patch, fixups=fixups)
